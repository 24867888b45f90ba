"""Average precision as Pascal VOC 2012 has it, and the table that MINERVA's article prints of it.

VOC takes the whole area under the interpolated precision-recall curve, where COCO takes 101 points
of it, and gives a found box the true box that it overlaps most, taken or not. MINERVA scores at
IoU .10 and .50 with boxes of at least .05 (Sabatelli et al., Advances in Digital Music
Iconography, DHQ 15.1, 2021; their boxes count pixels from 1, which moves an overlap by less
than a pixel's width).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.command import SummaryTable
from musicon.detect.matching import MatchedImage, overlaps

MINERVA_SCORE = 0.05
MINERVA_IOUS = (0.10, 0.50)
MINERVA_PUBLISHED = {
    "minerva single": "YOLOv3, as published: AP50 0.22",
    "minerva top-5": "YOLOv3, as published: mean AP50 0.16; crops named: 0.7366",
}
"""What the article says of its own detector, by the benchmark that the data set names."""


@dataclass(frozen=True)
class VocRow:
    """One class's figures; None where it has no true box."""

    name: str
    boxes: int
    ap10: float | None
    ap50: float | None


def average_precision(images: Sequence[MatchedImage], label: int, *, iou: float = 0.5,
                      lowest: float = 0.0) -> float | None:
    """Area under one class's interpolated precision-recall curve.

    Args:
        images: True and found boxes; crowds are neither to be found nor held against a find.
        label: The class, by the images' common ids.
        iou: Least overlap of a hit.
        lowest: Found boxes below this score do not count.

    Returns:
        0 to 1, or None where no box of the class is to be found.
    """
    scores: list[float] = []
    hits: list[bool] = []
    to_find = 0
    for image in images:
        truth = image.gt_labels == label
        to_find += int((truth & ~image.gt_crowd).sum())
        keep = (image.labels == label) & (image.scores >= lowest)
        for score, hit in zip(image.scores[keep], _hits(image, keep, truth, iou), strict=True):
            if hit is not None:
                scores.append(float(score))
                hits.append(hit)
    if not to_find:
        return None
    order = np.argsort(-np.array(scores), kind="stable")
    right = np.cumsum(np.array(hits, dtype=np.float64)[order])
    precision = right / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(right / to_find, prepend=0.0)
    return float((steps * highest).sum())


def _hits(image: MatchedImage, keep: NDArray[np.bool_], truth: NDArray[np.bool_],
          iou: float) -> list[bool | None]:
    """For each kept box, best first: a hit, a false alarm, or None for one in a crowd."""
    gt_crowd = image.gt_crowd[truth]
    overlap = overlaps(image.boxes[keep], image.gt_boxes[truth], gt_crowd) if truth.any() else \
        np.zeros((int(keep.sum()), 0))
    taken: set[int] = set()
    found: list[bool | None] = []
    for row in overlap:
        single = np.where(gt_crowd, -1.0, row)
        best = int(single.argmax()) if len(single) else -1
        if best >= 0 and single[best] >= iou:
            found.append(best not in taken)
            taken.add(best)
        else:
            found.append(None if (row[gt_crowd] >= iou).any() else False)
    return found


def minerva_rows(images: Sequence[MatchedImage], names: Mapping[int, str]) -> list[VocRow]:
    """MINERVA's figures for each class, by name.

    Args:
        images: Matched images of one split.
        names: Common id -> name of the data's classes, those that the model lacks included.
            A single class takes every box found: it is "an instrument", whatever the model says.
    """
    if len(names) == 1:
        label = next(iter(names))
        images = [replace(i, labels=np.full_like(i.labels, label)) for i in images]
    rows = []
    for label, name in sorted(names.items(), key=lambda item: item[1]):
        boxes = sum(int(((i.gt_labels == label) & ~i.gt_crowd).sum()) for i in images)
        loose, strict = (average_precision(images, label, iou=iou, lowest=MINERVA_SCORE)
                         for iou in MINERVA_IOUS)
        rows.append(VocRow(name, boxes, loose, strict))
    return rows


def minerva_json(rows: Sequence[VocRow]) -> dict[str, Any]:
    """Plain values for ``metrics.json``."""
    return {"lowest_score": MINERVA_SCORE, "map10": _mean([row.ap10 for row in rows]),
            "map50": _mean([row.ap50 for row in rows]),
            "per_class": [asdict(row) for row in rows]}


def minerva_table(rows: Sequence[VocRow], benchmark: str | None = None) -> str:
    """The article's table, a line a class, and what it says of its own detector."""
    table = SummaryTable("class", "boxes", "AP10", "AP50")
    for row in rows:
        table.add(row.name, row.boxes, row.ap10, row.ap50)
    table.add("mean", sum(row.boxes for row in rows), _mean([row.ap10 for row in rows]),
              _mean([row.ap50 for row in rows]))
    published = MINERVA_PUBLISHED.get(benchmark or "")
    return str(table) if published is None else f"{table}\n{published}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
