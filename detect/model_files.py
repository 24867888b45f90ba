"""A model folder on disk: the names of its files, and how a new one takes the old one's place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

WEIGHTS, CONFIG, CATEGORIES = "weights.safetensors", "config.yaml", "categories.json"
METRICS, LINEAGE = "metrics.json", "lineage.json"
MODEL_FILES = (WEIGHTS, CONFIG, CATEGORIES, METRICS, LINEAGE)
RESCORER = "rescorer.safetensors"
"""Beside them where the model has one. No later stage starts from it, so it is not part of the
weights that tell whether a later stage is up to date."""


def swap(new: Path, folder: Path) -> None:
    """Put a finished folder in place; the one that was there goes once the new one is in.

    No system call exchanges two folders everywhere, so there is a moment without either; a run
    killed just then leaves the old one for ``restored``.
    """
    _sync(new)
    aside = aside_of(restored(folder))
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        os.rename(folder, aside)
    try:
        os.rename(new, folder)
    except OSError:
        if not folder.exists():
            restored(folder)
            raise
        # A reader came in that moment and put the old one back: away with it again.
        os.rename(folder, aside)
        os.rename(new, folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def restored(folder: Path) -> Path:
    """Where a model folder is: in place, or put aside where a kill cut its replacement short.

    What was put aside comes back into place; where that is not allowed, it is read as it lies.
    """
    aside = aside_of(folder)
    if not folder.exists() and (aside / WEIGHTS).is_file():
        try:
            os.rename(aside, folder)
        except OSError:  # a read-only disk, or its own training has just put the new one in
            return folder if folder.exists() else aside
    return folder


def aside_of(folder: Path) -> Path:
    """Where a folder lies while its successor takes its place."""
    return folder.parent / f".{folder.name}.old"


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written, and put back what it was about to replace."""
    for aside in folder.glob(".*.old"):
        if restored(folder / aside.name[1:-len(".old")]) != aside:
            shutil.rmtree(aside, ignore_errors=True)
    for left in folder.glob(".*.part"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
