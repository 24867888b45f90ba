"""The files that an inference leaves, written row by row from its progress log."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from musicon.datasets.boxes import Xyxy
from musicon.datasets.files import to_json
from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect.detections import Detections
from musicon.detect.progress import ProgressLog, Row
from musicon.detect.tasks import Said

DETECTIONS_NAME = "detections.json"
TABLE_NAME = "detections.csv"
REJECTS_NAME = "rejects.jsonl"
EXPLANATIONS_NAME = "explanations.json"
"""Of ``tools/explain.py``: pictures, their parts and heat maps."""
ANNOTATED = "annotated"
OPINIONS = ("detector_score", "classifier_score", "sure_name", "level")
"""Extra keys of a found box."""
COLUMNS = ("file", "instrument", "score", "x0", "y0", "x1", "y1", "image_width", "image_height",
           *OPINIONS)
ATTRIBUTE_SCORES = "attribute_scores"
"""Extra key of an image: each attribute that a model gave it, with the likeliest answers."""
CHUNK = 256
"""Images turned into JSON at once."""


@dataclass
class Counts:
    """What the files hold.

    Attributes:
        images: Images searched.
        found: Images with a box at least.
        rejected: Files that could not be read.
        boxes: Boxes of each instrument, by name.
        reasons: Rejected files by reason.
        attributes: Images of each answer, by attribute.
    """

    images: int = 0
    found: int = 0
    rejected: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    attributes: dict[str, Counter[str]] = field(default_factory=dict)


def detection_row(found: Detections, attributes: Mapping[str, Said] | None = None) -> Row:
    """What the progress log keeps of one image: sizes in pixels, numbers rounded."""
    said = {name: [answer.name, dict(answer.probabilities)]
            for name, answer in (attributes or {}).items()}
    return {"wh": list(found.image_wh),
            "boxes": [[round(v, 3) for v in box] for box in found.boxes.tolist()],
            "scores": _rounded(found.scores), "labels": found.labels.tolist(),
            "detector_scores": _rounded(found.detector_scores),
            "classifier_scores": _rounded(found.classifier_scores),
            "sure": [list(name) for name in found.sure or ()],
            **({"attributes": said} if said else {})}


def reject_row(reason: str) -> Row:
    """What the progress log keeps of a file that could not be read."""
    return {"reject": reason}


def write_outputs(log: ProgressLog, categories: Sequence[Category], info: dict[str, Any],
                  attributes: Sequence[str] = ()) -> Counts:
    """Write detections.json, detections.csv and rejects.jsonl, each whole or not at all.

    ``attributes`` are those that a model gave each image; the table has two columns for each.
    Memory does not grow with the number of images: the log is read once a file.
    """
    names = {category.id: category.name for category in categories}
    counts = _count(log, names)
    with _whole(log.out / REJECTS_NAME) as stream:
        for index, row in log.rows():
            if "reject" in row:
                line = {"file": _printable(log.files[index]), "reason": row["reject"]}
                stream.write(to_json(line) + "\n")
    if counts.images:
        with _whole(log.out / DETECTIONS_NAME) as stream:
            _write_coco(stream, log, categories, info)
        with _whole(log.out / TABLE_NAME) as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow([*COLUMNS, *(column for name in attributes
                                        for column in (name, f"{name}_probability"))])
            for record in _records(log):
                told = [cell for name in attributes for cell in _attribute_cells(record, name)]
                table.writerows([*row, *told] for row in _table_rows(record, names))
    return counts


def _count(log: ProgressLog, names: dict[int, str]) -> Counts:
    counts = Counts()
    for _, row in log.rows():
        if "reject" in row:
            counts.rejected += 1
            counts.reasons[row["reject"]] += 1
            continue
        counts.images += 1
        counts.found += bool(row["labels"])
        counts.boxes.update(names[label] for label in row["labels"])
        for name, (answer, _) in row.get("attributes", {}).items():
            counts.attributes.setdefault(name, Counter())[answer] += 1
    return counts


def _records(log: ProgressLog) -> Iterator[ImageRecord]:
    """The images that could be read, numbered from 1, named from the results' folder."""
    here = os.path.realpath(log.out)
    number = 0
    for index, row in log.rows():
        if "reject" in row:
            continue
        number += 1
        name = os.path.relpath(log.files[index], here).replace(os.sep, "/")
        width, height = row["wh"]
        said = row.get("attributes", {})
        scores = {ATTRIBUTE_SCORES: {key: value for key, (_, value) in said.items()}}
        yield ImageRecord(id=number, file_name=name, width=width, height=height, labels=None,
                          boxes=tuple(_boxes(row)), extra=scores if said else {},
                          attributes={key: answer for key, (answer, _) in said.items()})


def _boxes(row: Row) -> Iterator[Box]:
    sure = row["sure"] or [None] * len(row["labels"])
    values = zip(row["boxes"], row["labels"], row["scores"], row["detector_scores"],
                 row["classifier_scores"], sure, strict=True)
    for (x0, y0, x1, y1), label, score, detector, classifier, name in values:
        xyxy: Xyxy = (x0, y0, x1, y1)
        yield Box(xyxy, label, origin="pseudo", score=score,
                  extra={"detector_score": detector, "classifier_score": classifier,
                         **sure_fields(name)})


def sure_fields(name: Sequence[str] | None) -> dict[str, str]:
    """A box's extra keys for what is sure of its name: ``sure_name``, and its ``level``."""
    return {} if name is None else {"sure_name": name[0], "level": name[1]}


def _write_coco(stream: TextIO, log: ProgressLog, categories: Sequence[Category],
                info: dict[str, Any]) -> None:
    """A manifest, as ``Manifest.write`` writes it, without ever holding it whole."""
    frame = Manifest(log.out, tuple(categories), (), info).to_coco()
    stream.write('{"info": ' + to_json(frame["info"]) + ',\n"images": [')
    _write_list(stream, (row for part in _coco_parts(log, categories) for row in part["images"]))
    stream.write('],\n"annotations": [')
    _write_list(stream, _annotations(log, categories))
    stream.write('],\n"categories": [')
    _write_list(stream, frame["categories"])
    stream.write("]}\n")


def _annotations(log: ProgressLog, categories: Sequence[Category]) -> Iterator[dict[str, Any]]:
    before = 0
    for part in _coco_parts(log, categories):
        for row in part["annotations"]:
            yield row | {"id": row["id"] + before}
        before += len(part["annotations"])


def _coco_parts(log: ProgressLog, categories: Sequence[Category]) -> Iterator[dict[str, Any]]:
    records = _records(log)
    while chunk := tuple(islice(records, CHUNK)):
        yield Manifest(log.out, tuple(categories), chunk).to_coco()


def _write_list(stream: TextIO, rows: Iterable[dict[str, Any]]) -> None:
    for number, row in enumerate(rows):
        stream.write((",\n " if number else "\n ") + to_json(row))


def _table_rows(record: ImageRecord, names: dict[int, str]) -> Iterator[tuple[Any, ...]]:
    """One row a box; an image in which nothing was found has one row without a box."""
    file, size = _printable(record.file_name), (record.width, record.height)
    if not record.boxes:
        yield (file, *[""] * 6, *size, *[""] * len(OPINIONS))
    for box in record.boxes:
        yield (file, names[box.label], box.score, *box.xyxy, *size,
               *(box.extra.get(key, "") for key in OPINIONS))


def _attribute_cells(record: ImageRecord, name: str) -> tuple[str, float]:
    """An attribute and the probability of its likeliest answer, in doubt or not."""
    scores = record.extra[ATTRIBUTE_SCORES][name]
    return record.attributes[name], next(iter(scores.values()))


def _printable(name: str) -> str:
    """A file name for people: a byte that is not UTF-8 as its hexadecimal escape."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 6) for v in values]


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file to write row by row that replaces the old one at the end, or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
