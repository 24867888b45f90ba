"""What every tool shares: one way to fail, one way to show progress, one way to print a table.

A tool is ``argparse``, one call, a summary and an exit code; ``run`` gives it the exit codes
(0 done, 1 done with rejects or a bar missed, 2 unusable) and turns what a person can mend into
one sentence on standard error instead of a traceback.
"""

from __future__ import annotations

import argparse
import errno
import io
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from musicon.datasets.records import UserError

DONE, DONE_WITH_REJECTS, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
T = TypeVar("T")

_DISK_ADVICE = {
    errno.ENOSPC: "no space left on the disk; free some, or give another folder to write to",
    errno.EDQUOT: "your disk quota is used up; free some space, or give another folder to write "
                  "to",
    errno.EFBIG: "the file grew past the size allowed here; raise the limit (ulimit -f) or give "
                 "another folder to write to",
    errno.EACCES: "permission denied; change the permissions, or give a folder you may write to",
    errno.EPERM: "operation not permitted; change the permissions, or give a folder you may "
                 "write to",
    errno.EROFS: "this disk is read-only; give a folder you may write to",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "part of this path is a file, not a folder; check the path",
    errno.EISDIR: "this is a folder, but a file was expected; check the path",
    errno.EEXIST: "a file of that name is in the way; move it, or give another path",
    errno.ENAMETOOLONG: "this name is too long for the disk; give a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or use fewer workers",
}
_TARGET_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def run(main: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser,
        argv: Sequence[str] | None = None) -> int:
    """Parse, call ``main``, and turn what a person can mend into one sentence.

    Args:
        main: Does the work; returns 0 (done) or 1 (done with rejects, or a bar missed).
        parser: The tool's arguments. A wrong argument exits with 2, as argparse does.
        argv: Arguments; None means the command line's.

    Returns:
        The exit code: what ``main`` returned, 2 for an error the user can mend, 130 after
        Ctrl-C. Anything else is a bug of ours and keeps its traceback.
    """
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is said
    try:
        return main(options)
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not our error, and nothing to say.
        sys.stderr.close()
        return UNUSABLE
    except ImportError as error:
        advice = getattr(error, "advice", None) or str(error)
        if "pip install" not in advice:
            raise
        return _fail(*advice.splitlines())
    except OSError as error:
        if error.errno not in _DISK_ADVICE:
            raise
        return _fail(explain_os_error(error))


def explain_os_error(error: OSError) -> str:
    """One sentence for a failed file operation: which file, what is wrong, what to do."""
    what = _DISK_ADVICE.get(error.errno or 0, error.strerror or str(error))
    # Of a copy, filename is the file that is read and filename2 the one that is written.
    names = ((error.filename2, error.filename) if error.errno in _TARGET_FULL else
             (error.filename, error.filename2))
    name = next((name for name in names if name is not None), None)
    return what if name is None else f"{name}: {what}"


def _fail(*lines: str) -> int:
    print("error: " + "\n".join(" ".join(line.split()) for line in lines), file=sys.stderr)
    return UNUSABLE


def progress(iterable: Iterable[T], total: int | None = None, desc: str = "",
             quiet: bool = False) -> Iterator[T]:
    """Iterate with a bar on standard error; silent under ``quiet`` or where it isn't a terminal.

    Args:
        iterable: What to go through.
        total: Number of items; None takes ``len(iterable)`` where it has one.
        desc: What is being done, such as "decoding".
        quiet: No bar at all.
    """
    if quiet or not sys.stderr.isatty():
        yield from iterable
        return
    from tqdm import tqdm

    yield from tqdm(iterable, total=total, desc=desc, unit="", dynamic_ncols=True, leave=False)


class Once(logging.Filter):
    """Says each line that only informs once; parts that read the same data tell the same."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def forget(self) -> None:
        """Let every line be said once more."""
        self._said.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is a warning, or new."""
        if record.levelno >= logging.WARNING:
            return True
        text = record.getMessage()
        new = text not in self._said
        self._said.add(text)
        return new


_ONCE = Once()


def show_log(quiet: bool = False) -> None:
    """Print what musicon's modules log, and the warnings of all others; once for a program.

    Args:
        quiet: Only warnings.
    """
    shown = logging.StreamHandler(sys.stdout)
    shown.addFilter(_ONCE)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[shown])
    logging.getLogger("musicon").setLevel(logging.WARNING if quiet else logging.INFO)


def print_heading(text: str) -> None:
    """Print what the next lines are about; what was logged before may be said again."""
    print(f"\n{text}")
    _ONCE.forget()


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """``1 box``, ``2 boxes``, ``1,500 images``; the plural adds an s unless given."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def count(text: str) -> int:
    """An argument that is a whole number from 1.

    Raises:
        ArgumentTypeError: It is not; argparse prints the sentence.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return value


def share(text: str) -> float:
    """An argument that is a number from 0 to 1.

    Raises:
        ArgumentTypeError: It is not; argparse prints the sentence.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


class SettingsFile(argparse.Action):
    """An argument that names a YAML file of further arguments: ``split: 70/10/20``.

    What the command line says wins. A name that is no argument is an error that lists those.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        """Set what is still at its default."""
        import yaml

        try:
            document = yaml.safe_load(Path(values).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            parser.error(f"{values}: not a readable YAML file ({' '.join(str(error).split())})")
        if not isinstance(document, Mapping):
            parser.error(f"{values}: expected lines 'argument: value'")
        known = {action.dest: action for action in parser._actions if action.option_strings}
        for name, value in document.items():
            action = known.get(str(name).replace("-", "_"))
            if action is None:
                names = ", ".join(sorted(dest.replace("_", "-") for dest in known))
                parser.error(f"{values}: no argument {name!r}; there are: {names}")
            if value is not None and getattr(namespace, action.dest, None) == action.default:
                setattr(namespace, action.dest, _argument(parser, action, value))
        setattr(namespace, self.dest, str(values))


def _argument(parser: argparse.ArgumentParser, action: argparse.Action, value: Any) -> Any:
    """A YAML value as the command line would have given it.

    Raises:
        ArgumentError: A value that the argument doesn't take; argparse prints the sentence.
    """
    several = action.nargs in ("+", "*")
    if isinstance(action.const, bool):
        if not isinstance(value, bool):
            raise argparse.ArgumentError(action, f"write true or false, not {value!r}")
        return value
    if isinstance(value, list) and not several:
        raise argparse.ArgumentError(action, f"takes one value, not the list {value!r}")
    entries = [parser._get_value(action, str(entry))
               for entry in (value if isinstance(value, list) else [value])]
    for entry in entries:
        parser._check_value(action, entry)
    return entries if several else entries[0]


class SummaryTable:
    """Plain text in aligned columns: text to the left, numbers to the right.

    Example:
        >>> table = SummaryTable("split", "images", "boxes")
        >>> table.add("train", 81, 33)
        >>> print(table)
        split  images  boxes
        train      81     33
    """

    def __init__(self, *header: str) -> None:
        self.header = header
        self.rows: list[tuple[object, ...]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, *cells: object) -> None:
        """Add one row; None prints as nothing.

        Raises:
            ValueError: Another number of cells than the header has.
        """
        if len(cells) != len(self.header):
            raise ValueError(f"a row of {len(cells)} cells in a table of {len(self.header)}")
        self.rows.append(cells)

    def __str__(self) -> str:
        text = [self.header, *(tuple(_cell(cell) for cell in row) for row in self.rows)]
        widths = [max(len(row[column]) for row in text) for column in range(len(self.header))]
        right = [bool(self.rows) and all(isinstance(row[column], (int, float, type(None)))
                                         for row in self.rows)
                 for column in range(len(self.header))]
        return "\n".join(
            "  ".join(cell.rjust(width) if to_right else cell.ljust(width)
                      for cell, width, to_right in zip(row, widths, right, strict=True)).rstrip()
            for row in text
        )

    def print(self, file: TextIO | None = None) -> None:
        """Print the table, standard output by default."""
        print(self, file=file or sys.stdout)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") or "0"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
