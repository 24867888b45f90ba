"""The pictures of a report: where the model does well and where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import as_boxes
from musicon.datasets.images import ImageError, decode_reduced
from musicon.datasets.records import ImageRecord, Manifest, Rejects
from musicon.detect.colours import Colour
from musicon.detect.draw import draw_boxes, enlarge
from musicon.detect.evaluation import DetectionMetrics
from musicon.detect.matching import MatchedImage

RIGHT, MISNAMED, FALSE_ALARM, MISSED = "right", "misnamed", "alarm", "missed"
COLOURS: Mapping[str, Colour] = {
    RIGHT: (0, 158, 115), MISNAMED: (230, 159, 0), FALSE_ALARM: (213, 74, 0), MISSED: (0, 114, 178),
}
"""Okabe and Ito's palette, for all kinds of colour vision."""
PICTURE_SIDE = 760
MIN_SIDE = 480
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Finding:
    """One box of a picture, or one that is missing.

    Attributes:
        kind: RIGHT, MISNAMED, FALSE_ALARM or MISSED.
        text: What is said of it, such as "lute 83%".
        label: What is written on the picture.
        box: (4,) xyxy in pixels of the original.
        score: Of the found box; 0 for a missed one.
    """

    kind: str
    text: str
    label: str
    box: NDArray[np.float64]
    score: float


@dataclass(frozen=True)
class Example:
    """One picture of a report.

    Attributes:
        record: The image.
        findings: What is right and wrong in it, the worst first.
        jpeg: The picture with the boxes drawn.
    """

    record: ImageRecord
    findings: tuple[Finding, ...]
    jpeg: bytes


@dataclass(frozen=True)
class Gallery:
    """Pictures that have something in common.

    Attributes:
        title: What.
        note: How they were chosen, and how many more there are.
        examples: The pictures.
    """

    title: str
    note: str
    examples: tuple[Example, ...]


def findings(image: MatchedImage, names: Mapping[int, str], threshold: float) -> list[Finding]:
    """What is right and wrong in one image at a threshold."""
    out = []
    for row in np.flatnonzero(image.shown(threshold)):
        name, score = names[int(image.labels[row])], float(image.scores[row])
        label, truth = f"{name} {score:.0%}", int(image.gt_index[row])
        if truth < 0:
            kind, text = FALSE_ALARM, f"false alarm: {label}"
        elif image.gt_labels[truth] == image.labels[row]:
            kind, text = RIGHT, label
        else:
            kind, text = MISNAMED, f"{names[int(image.gt_labels[truth])]} taken for {label}"
        out.append(Finding(kind, text, label, image.boxes[row], score))
    for row in image.missed(threshold):
        name = names[int(image.gt_labels[row])]
        out.append(Finding(MISSED, f"missed: {name}", f"missed {name}", image.gt_boxes[row], 0.0))
    order = (FALSE_ALARM, MISSED, MISNAMED, RIGHT)
    return sorted(out, key=lambda finding: (order.index(finding.kind), -finding.score))


def galleries(data: Manifest, metrics: DetectionMetrics, *, limit: int = 9,
              rejects: Rejects | None = None) -> list[Gallery]:
    """The best and the worst pictures at the metrics' threshold, drawn.

    Args:
        data: Where the images are.
        metrics: Their evaluation.
        limit: Pictures in each gallery.
        rejects: Takes the images that could not be read.
    """
    names = {i: name.replace("_", " ") for i, name in metrics.alignment.names.items()}
    found = {image.image_id: findings(image, names, metrics.threshold)
             for image in metrics.matched}
    sizes = {record.id: record.width * record.height for record in data.images}

    def count(image_id: int, kind: str) -> int:
        return sum(finding.kind == kind for finding in found[image_id])

    def best(image_id: int, kind: str) -> float:
        return max((f.score for f in found[image_id] if f.kind == kind), default=0.0)

    def missed_area(image_id: int) -> float:
        return sum(float(np.prod(f.box[2:] - f.box[:2])) for f in found[image_id]
                   if f.kind == MISSED) / sizes[image_id]

    every = list(found)
    good = [i for i in every if {f.kind for f in found[i]} == {RIGHT}]
    plans = (
        ("Found and named rightly", "every instrument found, named rightly, no false alarm",
         sorted(good, key=lambda i: (-count(i, RIGHT), -best(i, RIGHT)))),
        ("False alarms", "most certain first",
         sorted((i for i in every if count(i, FALSE_ALARM)), key=lambda i: -best(i, FALSE_ALARM))),
        ("Missed", "the largest instruments first",
         sorted((i for i in every if count(i, MISSED)), key=lambda i: -missed_area(i))),
        ("Found, but taken for another", "most certain first",
         sorted((i for i in every if count(i, MISNAMED)), key=lambda i: -best(i, MISNAMED))),
    )
    records = {record.id: record for record in data.images}
    out = []
    for title, note, chosen in plans:
        examples = [example for i in chosen[:limit]
                    if (example := _example(data, records[i], found[i], rejects))]
        more = f"; {len(chosen):,} in all" if len(chosen) > len(examples) else ""
        if chosen:
            out.append(Gallery(title, note + more, tuple(examples)))
    return out


def _example(data: Manifest, record: ImageRecord, found: Sequence[Finding],
             rejects: Rejects | None) -> Example | None:
    try:
        image, _ = decode_reduced(data.path(record), PICTURE_SIDE)
    except ImageError as error:
        if rejects is not None:
            rejects.add(data.path(record), f"not shown: {error.reason}")
        return None
    image = enlarge(image, MIN_SIDE)
    scale = np.tile([image.shape[1] / record.width, image.shape[0] / record.height], 2)
    canvas = draw_dashes(image, as_boxes([box.xyxy for box in record.boxes]) * scale)
    drawn = draw_boxes(canvas, as_boxes([finding.box * scale for finding in found]),
                       [finding.label for finding in found],
                       colours=[COLOURS[finding.kind] for finding in found])
    return Example(record, tuple(found), _jpeg(drawn))


def draw_dashes(image: NDArray[np.uint8], boxes: object) -> NDArray[np.uint8]:
    """Outline boxes (N, 4) in black-and-white dashes, which show on any ground."""
    canvas = np.array(image, copy=True)
    height, width = canvas.shape[:2]
    line = max(1, round((height * width) ** 0.5 / 300))
    for x0, y0, x1, y1 in as_boxes(boxes).round().astype(int):
        mask = np.zeros((height, width), bool)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        mask[top:bottom, left:right] = True
        mask[top + line:bottom - line, left + line:right - line] = False
        rows, columns = np.nonzero(mask)
        dash = ((rows + columns) // (4 * line)) % 2
        canvas[rows, columns] = np.where(dash[:, None] == 0, 255, 20)
    return canvas


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"a picture of shape {image.shape} could not be encoded as JPEG")
    return data.tobytes()
