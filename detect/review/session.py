"""What ``tools/review.py`` does, between its arguments and the review: find, load, sum up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from musicon.datasets.records import MANIFEST_NAME, Manifest, Rejects
from musicon.detect.outputs import DETECTIONS_NAME
from musicon.detect.review import fiftyone_app as app
from musicon.detect.review.corrections import OUTCOMES
from musicon.detect.review.export import Exported, export_corrections
from musicon.detect.review.heatmaps import attach, read_heatmaps

RESULTS = Path("results")


@dataclass(frozen=True)
class Loaded:
    """A review that is ready to be opened.

    Attributes:
        dataset: The ``fiftyone.Dataset``.
        rejects: Images left out, each with the reason.
        fresh: False when it was opened as it was.
        heat: Pictures with heat maps and pictures explained, where these were asked for.
    """

    dataset: Any
    rejects: Rejects
    fresh: bool
    heat: tuple[int, int] | None = None


def load(data: Path | None, predictions: Path | None, name: str | None, split: str | None = None,
         overwrite: bool = False, quiet: bool = True,
         heatmaps: Path | None = None) -> Loaded | None:
    """Make, update or reopen a review.

    Args:
        data: Manifest of the labelled data set, or its folder.
        predictions: ``detections.json``, or its folder.
        name: Of the review; alone, it reopens that review as it is.
        split: Only this part of the data set, and of the predictions what is in it.
        overwrite: Forget an earlier review of that name.
        quiet: No progress bars.
        heatmaps: Folder that ``explain.py`` wrote.

    Returns:
        None when nothing was asked for and there are no results.

    Raises:
        ManifestError: A file that is not a manifest.
        ReviewError: Nothing to show, or no review of that name.
        HeatmapError: Not a folder of heat maps, or those of other pictures.
        ReviewUnavailable: FiftyOne or its database cannot start.
    """
    heats = None if heatmaps is None else read_heatmaps(heatmaps)
    loaded = _load(data, predictions, name, split, overwrite, quiet)
    if loaded is None or heats is None:
        return loaded
    return replace(loaded, heat=(attach(app.connect(), loaded.dataset, heats), len(heats)))


def _load(data: Path | None, predictions: Path | None, name: str | None, split: str | None,
          overwrite: bool, quiet: bool) -> Loaded | None:
    if data is None and predictions is None:
        if name is not None:
            return Loaded(app.open_dataset(name), Rejects(), fresh=False)
        predictions = newest_results(RESULTS)
        if predictions is None:
            return None
    truth = Manifest.read(data) if data else None
    found = Manifest.read(_detections(predictions)) if predictions else None
    if truth is not None and split is not None:
        whole, truth = truth, truth.select(split=split)
        if not truth.images:
            raise app.ReviewError(f"{data}: no image is in the split {split!r}; leave out --split")
        found = found and _without(found, whole.select(where=lambda r: r.split != split))
    rejects = Rejects()
    dataset = app.load_dataset(name or app.dataset_name(predictions, data), truth, found,
                               overwrite=overwrite, rejects=rejects, quiet=quiet)
    return Loaded(dataset, rejects, fresh=True)


@contextmanager
def database_watched() -> Iterator[None]:
    """Say what to do when the database fails in the middle of something.

    Raises:
        ReviewUnavailable: In place of PyMongo's own error, which would be a traceback.
    """
    try:
        yield
    except _database_errors() as error:
        why = str(error).split(", full error")[0]
        raise app.ReviewUnavailable(
            f"FiftyOne's database failed ({why}); see that it runs and its disk has room, then "
            "type the same again") from None


def _database_errors() -> tuple[type[Exception], ...]:
    """PyMongo's errors, where it has been imported by now: else there are none to catch."""
    errors = sys.modules.get("pymongo.errors")
    return () if errors is None else (errors.PyMongoError,)


def newest_results(folder: Path) -> Path | None:
    """The ``detections.json`` that was written last below a folder of results."""
    files = [file for file in folder.glob(f"**/{DETECTIONS_NAME}") if file.is_file()]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def _without(manifest: Manifest, other: Manifest) -> Manifest:
    """The images whose files are not among another manifest's."""
    files = {os.path.realpath(other.path(record)) for record in other.images}
    return manifest.select(
        where=lambda record: os.path.realpath(manifest.path(record)) not in files)


def _detections(path: Path) -> Path:
    """``infer.py`` leaves ``detections.json``; another folder may hold ``manifest.json``."""
    for file in (path / DETECTIONS_NAME, path / MANIFEST_NAME, path):
        if file.is_file():
            return file
    raise app.ReviewError(f"{path}: no {DETECTIONS_NAME} there; make it with python tools/infer.py "
                          f"--images FOLDER --out {path.parent if path.suffix else path}")


def export(out: Path, name: str | None, copy: bool = False, quiet: bool = True) -> Exported:
    """Write the corrections of a review, by default of the one changed last.

    Raises:
        ReviewError: There is no such review.
        CorrectionsError: Nothing was corrected, or ``out`` holds something else.
    """
    if name is None:
        reviews = app.list_reviews()
        if not reviews:
            raise app.ReviewError("there is no review yet; make one with: python tools/review.py "
                                  "--predictions results/NAME")
        name = reviews[0][0]
    dataset = app.open_dataset(name)
    states = [state for _, state in app.read_states(dataset)]
    return export_corrections(states, app.categories_of(dataset), out, name=name, copy=copy,
                              quiet=quiet)


def load_lines(loaded: Loaded) -> list[str]:
    """The summary of a review that was loaded."""
    dataset = loaded.dataset
    told = dataset.info["musicon"]
    counts = told.get("counts", {})
    lines = [f"review:   {dataset.name}, {len(dataset):,} images"]
    if loaded.fresh:
        lines[0] += (f" ({counts['added']:,} new, {counts['updated']:,} up to date, "
                     f"{counts['removed']:,} removed, {counts['kept']:,} corrected by you kept)")
    if told.get("evaluated"):
        outcome = {key: int(dataset.sum(f"eval_{key}") or 0) for key in ("tp", "fp", "fn")}
        lines.append(f"found:    {outcome['tp']:,} right, {outcome['fp']:,} wrong, "
                     f"{outcome['fn']:,} missed (IoU 0.5)")
    elif loaded.fresh:
        lines.append("found:    nothing is counted as right or wrong: that needs --data with boxes "
                     "and --predictions for the same images")
    if loaded.heat is not None:
        shown, explained = loaded.heat
        lines.append(f"heat:     maps over {shown:,} of the {explained:,} pictures explained")
    lines.append(f"views:    {', '.join(told.get('views', ()))}")
    if loaded.rejects:
        first = loaded.rejects.rows[0]
        lines.append(f"left out: {len(loaded.rejects):,} images, the first {first[0]}: {first[1]}")
    return lines


def list_lines() -> list[str]:
    """The reviews there are, and how to get one."""
    reviews = app.list_reviews()
    hint = "make one with: python tools/review.py --predictions results/NAME [--data data/NAME]"
    if not reviews:
        return [f"there is no {DETECTIONS_NAME} below {RESULTS}/ and no review yet; {hint}"]
    return [f"there is no {DETECTIONS_NAME} below {RESULTS}/; reviews made before:",
            *(f"  python tools/review.py --name {name}   ({size:,} images)"
              for name, size, _ in reviews), hint]


def export_lines(exported: Exported) -> list[str]:
    """The summary of an export."""
    corrected = exported.corrected
    boxes = ", ".join(f"{corrected.counts[outcome]:,} {outcome}" for outcome in OUTCOMES)
    splits = ", ".join(f"{len(exported.manifest.select(split=split)):,} {split}"
                       for split in ("train", "val", "test"))
    lines = [f"written:  {exported.file}, {len(exported.manifest):,} images ({splits})",
             f"boxes:    {boxes}",
             f"left out: {corrected.unreviewed:,} images not reviewed, {corrected.faulty:,} with "
             f"faults (see {exported.file.parent / 'rejects.jsonl'})"]
    lines += [f"  {file}: {why}" for file, why in exported.rejects.rows if why.startswith("has a")]
    folder = exported.file.parent
    if not all(exported.manifest.select(split=split).images for split in ("train", "val")):
        # Such as pictures that were kept for testing: the person decides that they are no longer.
        dealt = folder.with_name(f"{folder.name}-split")
        lines.append(f"deal them:  python tools/prepare_data.py coco {quote(str(folder))} "
                     f"--resplit --out {quote(str(dealt))} (training needs pictures in both train "
                     "and val)")
        folder = dealt
    lines.append(f"train on them with: python tools/train_net.py --stage cytomine "
                 f"--set {quote(f'stages.cytomine.manifest={folder}')}")
    return lines
