"""Found boxes sent to a Cytomine project: outlines with terms and scores, to be reviewed there.

They belong to the account whose keys are used: its layer in the project. An account of its own
(say "musicon") keeps them apart from what people drew. Each outline carries the score as a
property. What was sent is noted beside the predictions, so that a run that was cut off goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import iou, xyxy_to_wkt
from musicon.datasets.command import progress
from musicon.datasets.records import Category, ImageRecord, Manifest, Rejects, UserError
from musicon.datasets.sources import cytomine as source
from musicon.detect.alignment import align
from musicon.detect.detections import Detections
from musicon.detect.prediction import Predictions

SCORE = "musicon score"
SAME = 0.5
"""IoU from which boxes of one term, found in overlapping windows, are one instrument."""


class UploadError(UserError):
    """Boxes that cannot be sent; the message says what to do."""


@dataclass(frozen=True)
class Uploaded:
    """What was sent: outlines now and in earlier runs, terms made, and whose layer it is."""

    sent: int
    earlier: int
    terms: tuple[str, ...]
    user: str
    rejects: Rejects


@dataclass(frozen=True)
class Outline:
    """One box in pixels of the server's full picture."""

    image: int
    height: float
    xyxy: tuple[float, float, float, float]
    label: int
    score: float

    @property
    def key(self) -> str:
        """The same for the same box in every run."""
        return f"{self.image} {self.label} {' '.join(f'{v:.1f}' for v in self.xyxy)}"


def upload(data: Manifest, predictions: Predictions, host: str, project: str, notes: Path, *,
           threshold: float = 0.0, create_terms: bool = False, quiet: bool = True) -> Uploaded:
    """Send the boxes found on pictures that ``prepare_data.py cytomine`` fetched.

    Args:
        data: The data set of that project.
        predictions: What was found on it.
        host: The server's address.
        project: Number or name.
        notes: File that remembers what was sent; made here, read by later runs.
        threshold: Least score of a box that is sent.
        create_terms: Add the instruments that the project's ontology lacks.
        quiet: No progress bar.

    Raises:
        UploadError: The data set is not of Cytomine.
        SourceError: The server, the project or its ontology refuses.
    """
    boxes = list(outlines(data, predictions.found, threshold))
    if not boxes and not any("cytomine" in record.extra for record in data.images):
        raise UploadError(f"{data.root}: its pictures do not come from Cytomine; give the data "
                          "set that prepare_data.py cytomine made")
    rejects = Rejects()
    with source.connect(host) as client:
        target = source.find_project(project)
        categories = predictions.categories or data.categories
        terms, made = _terms(categories, {box.label for box in boxes}, target, create_terms,
                             rejects)
        known = _sent(notes)
        sent = 0
        with notes.open("a", encoding="utf-8") as stream:
            for box in progress(boxes, len(boxes), "sending boxes", quiet):
                if box.label in terms and box.key not in known:
                    _send(box, terms[box.label], target, stream, rejects)
                    sent += 1
        earlier = sum(box.key in known for box in boxes)
        return Uploaded(sent, earlier, tuple(made), str(client.current_user.username), rejects)


def outlines(data: Manifest, found: dict[int, Detections] | Any,
             threshold: float) -> Iterator[Outline]:
    """The boxes in the server's pixels, each instrument once though windows overlap."""
    together: dict[int, list[Outline]] = {}
    for record in data.images:
        if "cytomine" in record.extra and record.id in found:
            shown = found[record.id].above(threshold)
            place = record.extra["cytomine"]
            for xyxy, label, score in zip(_full(shown.boxes, record), shown.labels, shown.scores,
                                          strict=True):
                box = (float(xyxy[0]), float(xyxy[1]), float(xyxy[2]), float(xyxy[3]))
                together.setdefault(int(place["image"]), []).append(Outline(
                    int(place["image"]), float(place["height"]), box, int(label), float(score)))
    for boxes in together.values():
        yield from _once(sorted(boxes, key=lambda box: (-box.score, box.key)))


def _full(boxes: NDArray[np.float32], record: ImageRecord) -> NDArray[np.float64]:
    """Boxes (N, 4) of the picture as fetched -> of the server's full picture."""
    x0, y0, x1, y1 = record.extra["cytomine"]["part"]
    scale = np.array([(x1 - x0) / record.width, (y1 - y0) / record.height] * 2)
    return boxes.astype(np.float64) * scale + np.array([x0, y0, x0, y0])


def _once(boxes: Sequence[Outline]) -> Iterator[Outline]:
    kept: list[Outline] = []
    for box in boxes:
        rivals = [other.xyxy for other in kept if other.label == box.label]
        if not rivals or iou([box.xyxy], rivals).max() < SAME:
            kept.append(box)
            yield box


def _terms(categories: Sequence[Category], used: set[int], project: Any, create: bool,
           rejects: Rejects) -> tuple[dict[int, int], list[str]]:
    """Category id -> the project's term of that name (or of that instrument), and those made."""
    from cytomine.models import Term, TermCollection

    there = [Category(int(term.id), str(term.name))
             for term in source.fetch(TermCollection, project)]
    paired = align([c for c in categories if c.id in used], there)
    found = {c.id: paired.to_common[c.id] for c in categories
             if c.id in used and paired.to_common[c.id] in {term.id for term in there}}
    made = []
    for category in categories:
        if category.id in used and category.id not in found:
            if create:
                term = source.attempt(Term(category.name, project.ontology, "#e67e22").save,
                                      tries=1)
                found[category.id] = int(term.id)
                made.append(category.name)
            else:
                rejects.add(category.name, "the project has no such term: add it there, or give "
                                           "--create-terms")
    return found, made


def _send(box: Outline, term: int, project: Any, notes: IO[str], rejects: Rejects) -> None:
    from cytomine.models import Annotation, Property

    drawn = source.attempt(Annotation(
        location=xyxy_to_wkt(box.xyxy, box.height), id_image=box.image, id_terms=[term],
        id_project=project.id).save, tries=1)
    notes.write(json.dumps({"box": box.key, "annotation": drawn.id}) + "\n")
    notes.flush()
    try:
        source.attempt(Property(drawn, SCORE, f"{box.score:.3f}").save)
    except source.SourceError as error:
        rejects.add(f"annotation {drawn.id}", f"sent without its score: {error}")


def _sent(notes: Path) -> set[str]:
    """Keys of the boxes that earlier runs sent; a torn last line is passed over."""
    keys = set()
    if notes.exists():
        for line in notes.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                keys.add(str(json.loads(line)["box"]))
            except (ValueError, KeyError, TypeError):
                continue
    notes.parent.mkdir(parents=True, exist_ok=True)
    return keys
