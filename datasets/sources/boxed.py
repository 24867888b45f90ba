"""What the sources with boxes (coco, voc, yolo) share: names to categories, box by box."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicon.datasets.command import counted
from musicon.datasets.records import Box, ImageRecord, Rejects
from musicon.datasets.sources import class_names
from musicon.datasets.sources.base import SourceData, believable_splits

UNANNOTATED_POLICIES = ("unlabelled", "negative", "reject")


@dataclass(frozen=True)
class RawBox:
    """A box under the source's own class name; ``xyxy`` in pixels, half-open, unchecked."""

    name: str
    xyxy: tuple[float, float, float, float]
    origin: str = "human"
    score: float | None = None
    iscrowd: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawImage:
    """An image whose classes are still the source's names.

    Attributes:
        path: The file.
        record: What else is known; its ``boxes`` and ``labels`` are ignored.
        boxes: Boxes as the source has them.
        label_names: Image-level classes; None for an image that nobody has looked at.
    """

    path: Path
    record: ImageRecord
    boxes: tuple[RawBox, ...] = ()
    label_names: tuple[str, ...] | None = ()


def add_arguments(parser: argparse.ArgumentParser, *, unannotated: bool,
                  files: bool = False) -> None:
    """Options of every source with boxes.

    Args:
        parser: Gets the options.
        unannotated: The layout can hold pictures without an annotation file.
        files: Each picture has an annotation file of its own, which may be empty.
    """
    class_names.add_arguments(parser)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help="read the boxes of these classes alone; a picture without any is a negative")
    if unannotated:
        parser.add_argument(
            "--unannotated", choices=UNANNOTATED_POLICIES, default="unlabelled",
            help="pictures without an annotation file: unlabelled (default), negative (they show "
                 "no instrument), or reject")
    if files:
        parser.add_argument(
            "--empty", choices=UNANNOTATED_POLICIES, default="negative",
            help="pictures whose annotation file names nothing: negative (default), unlabelled "
                 "(whoever drew the boxes may have skipped them), or reject")


def unannotated(path: Path, record: ImageRecord, expected: str, policy: str,
                rejects: Rejects) -> RawImage | None:
    """What becomes of a picture without an annotation file; None where it is left out."""
    return _without_boxes(path, record, policy, rejects,
                          f"no annotation file (expected {expected})")


def _without_boxes(path: Path, record: ImageRecord, policy: str, rejects: Rejects,
                   reason: str) -> RawImage | None:
    if policy == "reject":
        rejects.add(path, reason)
        return None
    return RawImage(path, record, (), None if policy == "unlabelled" else ())


def silent_note(count: int, policy: str, what: str = "without an annotation file",
                option: str = "--unannotated") -> list[str]:
    """What was made of the pictures without an annotation file, or with an empty one."""
    if not count or policy == "reject":
        return []
    return [f"{counted(count, 'picture')} {what}: taken as {policy} ({option})"]


def annotated(told: Iterable[RawImage | None], untold: Sequence[RawImage | None],
              options: argparse.Namespace, rejects: Rejects) -> tuple[list[RawImage], list[str]]:
    """All pictures that are kept, and notes on those of which no file tells anything.

    Args:
        told: Those with an annotation file; ``--empty`` decides where it names nothing.
        untold: Those without, as ``unannotated`` decided; None where left out.
        options: The source's.
        rejects: Gets what ``--empty reject`` leaves out.
    """
    kept: list[RawImage] = []
    empty = 0
    for image in told:
        if image is not None and not image.boxes and image.label_names == ():
            empty += 1
            image = _without_boxes(image.path, image.record, options.empty, rejects,
                                   "its annotation file is empty (--empty reject)")
        kept += [] if image is None else [image]
    notes = [*silent_note(len(untold), options.unannotated),
             *silent_note(empty, options.empty, "with an empty annotation file", "--empty")]
    return [*kept, *(image for image in untold if image is not None)], notes


def build(images: Sequence[RawImage], used: Iterable[str], options: argparse.Namespace,
          rejects: Rejects, *, info: Mapping[str, Any], notes: Iterable[str] = ()) -> SourceData:
    """Map the source's names and make the records.

    Boxes of classes that are no instrument are left out and counted in a note; boxes of rejected
    classes go to ``rejects``, and with them a picture that has no other.
    """
    names = class_names.resolve(used, options)
    left_out: Counter[str] = Counter()
    records: list[tuple[Path, ImageRecord]] = []
    for image in images:
        record = _record(image, names, rejects, left_out)
        if record is not None:
            records.append((image.path, record))
    records, split_notes = believable_splits(records)
    dropped = [f"{counted(count, 'box', 'boxes')} of {name!r} left out: no instrument"
               for name, count in sorted(left_out.items())]
    if len(dropped) > 8:
        dropped = [f"{counted(left_out.total(), 'box', 'boxes')} of {len(left_out)} classes left "
                   "out: no instrument"]
    return SourceData(names.categories, records, dict(info),
                      (*notes, *names.notes, *dropped, *split_notes), names.rows)


def _record(image: RawImage, names: class_names.ClassNames, rejects: Rejects,
            left_out: Counter[str]) -> ImageRecord | None:
    boxes, refused = [], 0
    for raw in image.boxes:
        if raw.name in names.ids:
            boxes.append(Box(raw.xyxy, names.ids[raw.name], raw.origin, raw.score, raw.iscrowd,
                             raw.extra))
        elif raw.name in names.negatives:
            left_out[raw.name] += 1
        else:
            refused += 1
            rejects.add(image.path, f"box left out: {names.rejected[raw.name]}")
    labels: tuple[int, ...] | None = None
    if image.label_names is not None:
        labels = tuple(sorted({names.ids[n] for n in image.label_names if n in names.ids}))
        refused += sum(name in names.rejected for name in image.label_names)
    if refused and not boxes and not labels:
        # Without its boxes it would pass for a picture without instruments, which it is not.
        rejects.add(image.path, "every class in it is rejected")
        return None
    return replace(image.record, boxes=tuple(boxes), labels=labels)
