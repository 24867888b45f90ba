"""One way to fail, one way to show progress, one table."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets import command
from musicon.datasets.records import ManifestError


def failing(error: BaseException) -> int:
    def main(options: argparse.Namespace) -> int:
        raise error

    return command.run(main, argparse.ArgumentParser(), [])


def test_exit_code_is_passed_on() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("code", type=int)
    assert command.run(lambda options: options.code, parser, ["1"]) == 1
    assert command.run(lambda options: options.code, parser, ["0"]) == 0


def test_what_is_said_reaches_a_log_file_at_once() -> None:
    code = ("import argparse, sys; from musicon.datasets import command\n"
            "def main(options):\n"
            "    print('stage mimo')\n"
            "    return len(sys.stdin.read())\n"
            "sys.exit(command.run(main, argparse.ArgumentParser(), []))")
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        said, _, _ = select.select([process.stdout], [], [], 60)
        assert said, "nothing is said while the tool works"
        process.communicate(b"")
    assert process.returncode == 0


@pytest.mark.parametrize(("error", "words"), [
    (ManifestError("a.json: wrong\n  place"), "error: a.json: wrong place"),
    (OSError(errno.ENOSPC, "No space left", "out/x"), "error: out/x: no space left on the disk"),
    (OSError(errno.EACCES, "Permission denied", "out"), "error: out: permission denied; change"),
    (OSError(errno.EROFS, "Read-only", "out"), "error: out: this disk is read-only"),
    (FileNotFoundError(errno.ENOENT, "No such file", "x.jpg"), "error: x.jpg: no such file"),
    (OSError(errno.ENOSPC, "No space left", "in.jpg", None, "out.jpg"), "error: out.jpg: no space"),
    (OSError(errno.ENOENT, "No such file", "in.jpg", None, "out.jpg"), "error: in.jpg: no such"),
    (OSError(errno.ENOSPC, "No space left"), "error: no space left on the disk"),
])
def test_what_a_person_can_mend_is_one_sentence(
        error: Exception, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error) == command.UNUSABLE
    captured = capsys.readouterr().err
    assert captured.startswith(words)
    assert captured.count("\n") == 1 and "Traceback" not in captured


def test_our_own_bugs_keep_their_traceback() -> None:
    for error in (KeyError("x"), ValueError("x"), OSError(errno.EIO, "I/O error"),
                  ImportError("no module")):
        with pytest.raises(type(error)):
            failing(error)


def test_missing_extra_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(ImportError("needs fiftyone: pip install 'musicon[review]'")) == 2
    assert "pip install" in capsys.readouterr().err


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_full_disk_for_real(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    code = ("import argparse, sys\nfrom musicon.datasets import command\n"
            "def main(options):\n    with open('/dev/full', 'wb', 0) as f:\n        f.write(b'x')\n"
            "sys.exit(command.run(main, argparse.ArgumentParser()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("kind", "text", "words"), [
    (command.share, "7", "'7' is not a number from 0 to 1"),
    (command.share, "nan", "'nan' is not a number from 0 to 1"),
    (command.share, "high", "'high' is not a number from 0 to 1"),
    (command.count, "0", "'0' is not a whole number from 1"),
    (command.count, "1.5", "'1.5' is not a whole number from 1"),
])
def test_a_wrong_number_says_which_are_right(kind: Callable[[str], float], text: str, words: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--value", type=kind)
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["--value", text])
    assert left.value.code == 2 and words in capsys.readouterr().err


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(command.progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_progress_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(command.progress("ab", None, "letters")) == ["a", "b"]
    assert "letters" in terminal.getvalue()
    drawn = len(terminal.getvalue())
    assert list(command.progress("ab", None, "letters", quiet=True)) == ["a", "b"]
    assert len(terminal.getvalue()) == drawn


def test_a_line_that_only_informs_is_said_once() -> None:
    said, shown = io.StringIO(), logging.StreamHandler()
    shown.setStream(said)
    shown.addFilter(command.Once())
    log = logging.Logger("once")
    log.addHandler(shown)
    for count in (1, 1, 2):
        log.info("%d photos", count)
        log.warning("slow")
    assert said.getvalue().split("\n") == ["1 photos", "slow", "slow", "2 photos", "slow", ""]


@pytest.mark.parametrize(("quiet", "said"), [
    (False, ["", "seed 0", "stage mimo", "slow", "", "seed 1", "stage mimo"]),
    (True, ["", "seed 0", "slow", "", "seed 1"]),
])
def test_the_log_is_shown_and_said_again_below_a_heading(quiet: bool, said: list[str]) -> None:
    code = ("import logging, sys; from musicon.datasets import command\n"
            f"command.show_log({quiet})\n"
            "log = logging.getLogger('musicon.detect')\n"
            "command.print_heading('seed 0')\n"
            "for _ in range(2): log.info('stage mimo')\n"
            "logging.getLogger('another').info('unasked')\n"
            "logging.getLogger('another').warning('slow')\n"
            "command.print_heading('seed 1')\n"
            "log.info('stage mimo')\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == said


def test_table_is_aligned() -> None:
    table = command.SummaryTable("split", "images", "share")
    table.add("train", 1081, 0.5)
    table.add("val", 52, None)
    assert str(table) == ("split  images  share\n"
                          "train   1,081    0.5\n"
                          "val        52")
    with pytest.raises(ValueError, match="2 cells in a table of 3"):
        table.add("test", 1)


def test_counted() -> None:
    assert command.counted(1, "box", "boxes") == "1 box"
    assert command.counted(2500, "image") == "2,500 images"


def settings_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--policy", choices=("keep", "reject"), default="keep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copies", action="store_true")
    parser.add_argument("--settings", action=command.SettingsFile)
    return parser


@pytest.mark.parametrize("text, given", [
    ("only: lute", {"only": ["lute"]}), ("only: [lute, harp]", {"only": ["lute", "harp"]}),
    ("only: 3564", {"only": ["3564"]}), ("policy: reject", {"policy": "reject"}),
    ("seed: 3", {"seed": 3}), ("copies: true", {"copies": True}), ("copies: no", {}),
    ("seed:", {}), ("policy:\nseed: 1", {"seed": 1})])
def test_a_settings_file_is_as_the_command_line(tmp_path: Path, text: str,
                                                given: dict[str, object]) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    found = settings_parser().parse_args(["--settings", str(file)])
    assert vars(found) == {"only": [], "policy": "keep", "seed": 0, "copies": False,
                           "settings": str(file), **given}


@pytest.mark.parametrize("text, words", [
    ("policy: drop", "invalid choice: 'drop'"), ("seed: x", "invalid int value: 'x'"),
    ("seed: [1, 2]", "takes one value"), ("copies: 'no'", "write true or false"),
    ("sed: 1", "no argument 'sed'")])
def test_a_settings_file_is_checked_as_the_command_line(
        tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        settings_parser().parse_args(["--settings", str(tmp_path / "s.yaml")])
    assert words in capsys.readouterr().err
