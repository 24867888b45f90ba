"""The files of a bank: what is there, whether it is as it was made, what goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from musicon.datasets import command
from musicon.datasets.files import sha256
from musicon.datasets.records import Manifest
from musicon.styletransfer.weights import StyleError

MADE_BY = "musicon build_bank make"
SCENES = "scenes"
"""Folder of composed scenes below a bank."""


def check_bank(out: Path, quiet: bool = True) -> list[tuple[str, str]]:
    """Compare every picture of a bank with its check sum: (file, what is wrong), in order.

    Raises:
        StyleError: Not a bank.
    """
    manifest = earlier_bank(out)
    if manifest is None:
        raise StyleError(f"{out}: there is no bank; make one with: python tools/build_bank.py make "
                         "--content MANIFEST --styles FOLDER --out " + str(out))
    records = manifest.images
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda record: check_sum(manifest.path(record)), records)
        pairs = zip(records, command.progress(found, len(records), "checking", quiet), strict=True)
        return [(record.file_name, "missing" if got is None else "changed")
                for record, got in pairs if got != record.sha256]


def earlier_bank(out: Path) -> Manifest | None:
    """The bank that is there, if there is one; a foreign folder is refused."""
    if out.is_file():
        raise StyleError(f"{out}: a file of that name is in the way; give another --out")
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / "manifest.json").exists():
        if {entry.name for entry in out.iterdir()} <= {"images", SCENES}:
            return None
        raise StyleError(f"{out}: not empty, and not made by this command; give another --out")
    manifest = Manifest.read(out)
    if manifest.info.get("made_by") != MADE_BY:
        raise StyleError(f"{out}: its manifest was not made by this command; give another --out")
    return manifest


def intact(out: Path, names: Sequence[str], known: Mapping[str, str],
           quiet: bool) -> dict[str, str]:
    """Check sums of the pictures that are there and as an earlier run left them."""
    with ThreadPoolExecutor(4) as pool:
        found = command.progress(pool.map(lambda name: check_sum(out / name), names),
                                 len(names), "looking for what is there", quiet)
        return {name: got for name, got in zip(names, found, strict=True)
                if got is not None and known.get(name, got) == got}


def check_sum(file: Path) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        return sha256(file)
    except OSError:
        return None


def sweep(out: Path) -> None:
    """Half-written files that a killed run left."""
    for file in (out / "images").glob("*/.*.part"):
        file.unlink(missing_ok=True)


def remove_stale(out: Path, known: Iterable[str], wanted: Iterable[str]) -> None:
    """Pictures that an earlier run listed and this one does not."""
    for name in set(known) - set(wanted):
        file = out / name
        if file.is_relative_to(out / "images") and ".." not in Path(name).parts:
            file.unlink(missing_ok=True)
            if file.parent.is_dir() and not any(file.parent.iterdir()):
                file.parent.rmdir()
