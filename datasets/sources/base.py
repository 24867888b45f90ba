"""What a source is: one file that knows one layout and hands back records.

``musicon.datasets.sources.NAME`` offers

* ``add_arguments(parser)``: its own options, a positional ``path`` among them where it reads one;
* ``read(options, rejects) -> SourceData``: look at what is there, change nothing, note every
  file or box left out in ``rejects``; or instead of ``read``
* ``generate(options, folder, progress) -> SourceData``: write new images below ``folder`` (an
  empty folder that ``prepare`` made) and return their records. ``progress(iterable, total, desc)``
  draws the bar. It may keep notes for going on in ``folder / NOTES``, which is removed at the end.

Record ids, splits left at None, sizes and check sums are set by ``prepare``; a source gives what
it knows.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Protocol, TypeVar

from musicon.datasets.records import Category, ImageRecord, Rejects, UserError

PACKAGE = "musicon.datasets.sources"
NOTES = ".notes"
_NOT_SOURCES = frozenset({"base", "boxed", "class_names", "remote"})
_SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test"}
T = TypeVar("T")


class SourceError(UserError):
    """A source that cannot be read; the message says what was expected and found."""


class Progress(Protocol):
    """Draws a bar around an iterable; ``musicon.datasets.command.progress`` is one."""

    def __call__(self, iterable: Iterable[T], total: int | None = None,
                 desc: str = "") -> Iterator[T]:
        """Yield the items, drawing the bar meanwhile."""
        ...


@dataclass(frozen=True)
class SourceData:
    """What a source found.

    Attributes:
        categories: Classes, ids from 1 without gaps.
        records: (absolute path of the image, its record). ``file_name`` is the path relative to
            the source's folder, with forward slashes; it becomes the place below ``images/``.
            ``width`` and ``height`` may be 0: ``prepare`` reads the file. Boxes are in pixels
            of the upright original and may still stick out: ``prepare`` clips or rejects them.
        info: What the manifest's ``info`` shall say (description, licence, seed, ...).
        notes: Sentences for the user's summary, such as merged classes.
        naming: Rows (name in source, instrument, how) for the table that is printed.
    """

    categories: tuple[Category, ...]
    records: list[tuple[Path, ImageRecord]]
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    naming: tuple[tuple[str, str, str], ...] = ()


def available() -> list[str]:
    """Names of the sources that exist, sorted; nothing is imported."""
    package = importlib.import_module(PACKAGE)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__)
                  if not module.name.startswith("_") and module.name not in _NOT_SOURCES)


def load(name: str) -> ModuleType:
    """The module of one source.

    Raises:
        SourceError: No such source; the message lists those that exist.
    """
    if name not in available():
        raise SourceError(f"no source {name!r}; there are: {', '.join(available())}")
    return importlib.import_module(f"{PACKAGE}.{name}")


def add_path(parser: argparse.ArgumentParser, what: str) -> None:
    """The positional ``path`` that sources share."""
    parser.add_argument("path", type=Path, help=what)


def existing_folder(path: Path) -> Path:
    """The absolute folder.

    Raises:
        SourceError: It does not exist or is a file.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise SourceError(f"{path}: a file, but a folder was expected")
    return path.resolve()


def split_of(file_name: str) -> str | None:
    """The split that a folder on the way says (train, valid, testing, ...), or None."""
    for part in PurePosixPath(file_name).parts[:-1]:
        if part.lower() in _SPLIT_FOLDERS:
            return _SPLIT_FOLDERS[part.lower()]
    return None


def believable_splits(records: Sequence[tuple[Path, ImageRecord]]
                      ) -> tuple[list[tuple[Path, ImageRecord]], tuple[str, ...]]:
    """The records as they are, or without splits where all have the same one, and a note.

    A lone ``train`` folder is what is left of a data set, not a decision about a split.
    """
    found = {record.split for _, record in records}
    if len(found) != 1 or found == {None}:
        return list(records), ()
    note = (f"every picture is marked {found.pop()}; taken as not split yet "
            "(--as-split keeps a mark for all)")
    return [(path, replace(record, split=None)) for path, record in records], (note,)


Read = Callable[[argparse.Namespace, Rejects], SourceData]
Generate = Callable[[argparse.Namespace, Path, Progress], SourceData]
