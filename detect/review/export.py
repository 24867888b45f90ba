"""Corrections of a review written as a data set that ``train_net.py`` reads.

Nothing here knows FiftyOne; ``fiftyone_app.read_states`` hands in what the person left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from musicon.datasets.command import progress
from musicon.datasets.prepare import REJECTS_NAME, free_name, link_or_copy
from musicon.datasets.records import (
    MANIFEST_NAME,
    Category,
    Manifest,
    ManifestError,
    Rejects,
)
from musicon.datasets.splits import assign_splits
from musicon.detect.review.corrections import (
    OUTCOMES,
    Corrected,
    CorrectionsError,
    ImageState,
    collect,
)

MADE_BY = "musicon review"


@dataclass(frozen=True)
class Exported:
    """What was written: the manifest's file, what it holds, and what was left out."""

    file: Path
    manifest: Manifest
    corrected: Corrected
    rejects: Rejects


def export_corrections(states: Sequence[ImageState], categories: Sequence[Category], out: Path, *,
                       name: str = "review", copy: bool = False,
                       quiet: bool = True) -> Exported:
    """Write the images that a person has gone through, with what stands after the corrections.

    ``out`` gets ``manifest.json``, ``images/`` (hard links where the disk allows, else copies)
    and ``rejects.jsonl`` (every image left out and why). Images without a split get one as
    ``prepare_data.py`` gives it; an earlier export in ``out`` is replaced, and its splits stay.

    Args:
        states: Every image of the review.
        categories: The review's instruments.
        out: The folder to make.
        name: Of the review, for the manifest's description.
        copy: Never link.
        quiet: No progress bar.

    Raises:
        CorrectionsError: ``out`` holds something else, or nothing has been reviewed yet.
    """
    splits = _earlier_splits(out)
    rejects = Rejects()
    states = _named_by_place(states)
    corrected = collect(states, categories, rejects)
    if not corrected.records:
        why = f"; {corrected.faulty} images have faults: {rejects.rows[0][1]}" \
            if corrected.faulty else ""
        raise CorrectionsError(
            f"nothing to export: none of {len(states)} images is reviewed yet{why}. In the App, "
            "open an image, choose Annotate, correct its boxes and tick 'reviewed'")
    taken: set[str] = set()
    named = [(path, replace(record, file_name=f"images/{free_name(record.file_name, taken)}"))
             for path, record in corrected.records]
    records = assign_splits([
        replace(record, id=number, split=record.split or splits.get(record.file_name))
        for number, (_, record) in enumerate(named, start=1)])
    info = {"description": f"corrections of {name}", "made_by": MADE_BY,
            "corrections": {outcome: corrected.counts[outcome] for outcome in OUTCOMES},
            "unreviewed": corrected.unreviewed}
    manifest = Manifest(out, corrected.categories, tuple(records), info)
    _write(manifest, [path for path, _ in named], rejects, copy, quiet)
    return Exported(out / MANIFEST_NAME, manifest, corrected, rejects)


def _named_by_place(states: Sequence[ImageState]) -> list[ImageState]:
    """File names from the folder that all images share: no part of the path above it is told."""
    if not states:
        return []
    shared = os.path.commonpath([state.path.parent for state in states])
    return [replace(state, record=replace(
        state.record, file_name=Path(os.path.relpath(state.path, shared)).as_posix()))
        for state in states]


def _earlier_splits(out: Path) -> dict[str, str]:
    """File name -> split of the earlier export in ``out``.

    Raises:
        CorrectionsError: ``out`` holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    advice = "it is not an earlier export of corrections; give another --export FOLDER"
    if out.is_file():
        raise CorrectionsError(f"{out}: {advice}")
    try:
        earlier = Manifest.read(out)
    except ManifestError:
        raise CorrectionsError(f"{out}: {advice}") from None
    if earlier.info.get("made_by") != MADE_BY:
        raise CorrectionsError(f"{out}: {advice}")
    return {record.file_name: record.split for record in earlier.images if record.split}


def _write(manifest: Manifest, paths: Sequence[Path], rejects: Rejects, copy: bool,
           quiet: bool) -> None:
    """Make everything in a hidden folder beside the target, then move it into place.

    An earlier export goes once the new one is there.
    """
    out = manifest.root
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    old = work.with_name(f"{work.name}.old")
    try:
        pairs = list(zip(paths, manifest.images, strict=True))
        for path, record in progress(pairs, len(pairs), "placing pictures", quiet):
            target = work / record.file_name
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target, copy)
        rejects.write(work / REJECTS_NAME)
        replace(manifest, root=work).write(work)
        work.chmod(0o755)
        if out.exists():
            out.rename(old)
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
