"""What a review shows: images of a data set and of predictions, paired by their files.

Nothing here knows FiftyOne; ``fiftyone_app`` turns entries into its samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from musicon.datasets.records import Box, Category, ImageRecord, Manifest, Rejects
from musicon.detect.outputs import ATTRIBUTE_SCORES


@dataclass(frozen=True)
class Entry:
    """One image of a review.

    Attributes:
        path: Absolute path of the image's file.
        record: What is known of the image; its ``boxes`` are empty, its ``labels`` are ids of
            the review's categories.
        truth: The data set's boxes; ``()`` means known to hold no instrument, None that nobody
            boxed this image.
        predicted: What the model found; None where it did not look.
        guessed: Attribute -> what a model says of the whole work, and its likeliest answers.
    """

    path: Path
    record: ImageRecord
    truth: tuple[Box, ...] | None = None
    predicted: tuple[Box, ...] | None = None
    guessed: Mapping[str, tuple[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def start(self) -> tuple[Box, ...]:
        """The boxes that a person begins to correct: the data set's, or else the model's."""
        return self.truth if self.truth is not None else self.predicted or ()


def pair(ground_truth: Manifest | None, predictions: Manifest | None,
         rejects: Rejects) -> tuple[list[Entry], tuple[Category, ...]]:
    """Bring the images of a data set and of predictions together.

    Two images are the same when they are the same file, links followed, or have the same
    SHA-256. An image of only one of the two is kept.

    Args:
        ground_truth: The data set; None for predictions alone.
        predictions: What ``infer.py`` wrote; None for the data set alone.
        rejects: Gets every image whose file is not there.

    Returns:
        The entries, the data set's first, and the categories of both, merged by name.
    """
    categories, renumber = _merge(ground_truth, predictions)
    entries: dict[str, Entry] = {}
    by_sha256: dict[str, str] = {}
    for file, path, record in _existing(ground_truth, rejects):
        entries[file] = Entry(path, replace(record, boxes=()), truth=_boxed(record))
        if record.sha256:
            by_sha256.setdefault(record.sha256, file)
    for file, path, record in _existing(predictions, rejects):
        boxes = tuple(replace(box, label=renumber[box.label]) for box in record.boxes)
        if file not in entries:
            file = by_sha256.get(record.sha256 or "", file)
        if file in entries:
            entries[file] = replace(entries[file], predicted=boxes, guessed=_guessed(record))
        else:
            entries[file] = Entry(path, replace(record, boxes=(), labels=None), predicted=boxes,
                                  guessed=_guessed(record))
    return list(entries.values()), categories


def _merge(ground_truth: Manifest | None,
           predictions: Manifest | None) -> tuple[tuple[Category, ...], dict[int, int]]:
    """Categories of both, and prediction id -> merged id."""
    merged = list(ground_truth.categories) if ground_truth else []
    ids = {category.name: category.id for category in merged}
    renumber = {}
    for category in predictions.categories if predictions else ():
        if category.name not in ids:
            free = category.id not in ids.values()
            ids[category.name] = category.id if free else max(ids.values()) + 1
            merged.append(replace(category, id=ids[category.name]))
        renumber[category.id] = ids[category.name]
    return tuple(merged), renumber


def _existing(manifest: Manifest | None,
              rejects: Rejects) -> Iterator[tuple[str, Path, ImageRecord]]:
    if manifest is None:
        return
    root = Path(os.path.abspath(manifest.root))
    for record in manifest.images:
        path = Path(os.path.normpath(root / record.file_name))
        if path.is_file():
            yield os.path.realpath(path), path, record
        else:
            rejects.add(record.file_name, f"no such file below {manifest.root}")


def _guessed(record: ImageRecord) -> dict[str, tuple[str, Mapping[str, float]]]:
    return {name: (record.attributes[name], scores) for name, scores in
            record.extra.get(ATTRIBUTE_SCORES, {}).items() if name in record.attributes}


def _boxed(record: ImageRecord) -> tuple[Box, ...] | None:
    """The boxes, unless nobody drew any: labels without boxes tell what, not where."""
    return record.boxes if record.boxes or record.labels == () else None
