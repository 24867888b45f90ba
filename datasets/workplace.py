"""Where a data set is made: a hidden folder beside the target, moved into place at the end."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from musicon.datasets.files import lock
from musicon.datasets.records import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    UserError,
    write_atomic,
)
from musicon.datasets.sources.base import NOTES

MADE_BY = "musicon prepare_data"
REJECTS_NAME = "rejects.jsonl"
JOURNAL = "journal.jsonl"
_OPTIONS, _LOCK = "options.json", "lock"


class PrepareError(UserError):
    """The data set cannot be made; the message says what to do."""


def earlier_manifest(out: Path, options: argparse.Namespace) -> Manifest | None:
    """The manifest that an earlier run left in ``out``; a foreign folder is refused."""
    if out.is_file():
        raise PrepareError(f"{options.out}: a file of that name is in the way; give another --out")
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / MANIFEST_NAME).exists():
        if options.in_place:
            return None
        raise PrepareError(f"{options.out}: not empty, and not made by this command; give another "
                           "--out, or empty it yourself")
    try:
        earlier = Manifest.read(out)
    except ManifestError as error:
        raise PrepareError(f"{options.out}: its manifest cannot be read ({error}); give another "
                           "--out, or remove it yourself") from None
    if earlier.info.get("made_by") != MADE_BY:
        raise PrepareError(f"{options.out}: its {MANIFEST_NAME} was not made by this command; give "
                           "another --out")
    if bool(earlier.info.get("in_place")) != options.in_place:
        raise PrepareError(f"{options.out}: made {'with' if not options.in_place else 'without'} "
                           "--in-place before; do so again, or give another --out")
    return earlier


@contextmanager
def workplace(out: Path, source: str, options: argparse.Namespace) -> Iterator[Path]:
    """The hidden folder beside ``out``, ours alone; gone at the end unless the run was cut off.

    What an interrupted run left is used again if its options were the same.
    """
    work = out.parent / f".{out.name}.part"
    work.mkdir(parents=True, exist_ok=True)
    given = json.dumps({**vars(options), "source": source, "quiet": None, "workers": None},
                       default=str, sort_keys=True)
    with (work / _LOCK).open("w") as running:
        if not lock(running):
            raise PrepareError(f"{out}: another run is making it just now; wait for it")
        file = work / _OPTIONS
        if not file.exists() or file.read_text(encoding="utf-8", errors="replace") != given:
            shutil.rmtree(work / "images", ignore_errors=True)
            write_atomic(file, given.encode("utf-8", "surrogateescape"))
        (work / "images").mkdir(exist_ok=True)
        try:
            yield work
        except Exception:
            shutil.rmtree(work, ignore_errors=True)
            raise


def publish(work: Path, out: Path, manifest: Manifest, earlier: Manifest | None) -> None:
    """Move what was made into place; the manifest comes last."""
    for name in (JOURNAL, _OPTIONS, _LOCK):
        (work / name).unlink(missing_ok=True)
    shutil.rmtree(work / "images" / NOTES, ignore_errors=True)
    if not out.exists() or not any(out.iterdir()):
        if manifest.info["in_place"]:
            shutil.rmtree(work / "images", ignore_errors=True)
        os.rename(work, out)
        return
    for folder, _, files in os.walk(work / "images"):
        target = out / Path(folder).relative_to(work)
        if files:
            target.mkdir(parents=True, exist_ok=True)
        for name in files:
            os.replace(Path(folder, name), target / name)
    for name in (REJECTS_NAME, MANIFEST_NAME):
        os.replace(work / name, out / name)
    shutil.rmtree(work, ignore_errors=True)
    if earlier is not None and not manifest.info["in_place"]:
        _remove_stale(out, earlier, manifest)


def _remove_stale(out: Path, earlier: Manifest, manifest: Manifest) -> None:
    """Pictures that the earlier run put below ``images/`` and this one does not list."""
    listed = {record.file_name for record in manifest.images}
    for record in earlier.images:
        parts = PurePosixPath(record.file_name).parts
        if record.file_name not in listed and parts[0] == "images" and ".." not in parts:
            (out / record.file_name).unlink(missing_ok=True)
            for folder in (out / record.file_name).parents:
                if folder == out or folder.is_dir() and any(folder.iterdir()):
                    break
                if folder.is_dir():  # else somebody tidied up
                    folder.rmdir()
