"""What a person corrected in a review, turned into a manifest.

Nothing here knows FiftyOne: ``fiftyone_app`` reads the image states out of its database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from musicon.datasets.boxes import clip, iou
from musicon.datasets.records import Box, Category, ImageRecord, Rejects, UserError
from musicon.datasets.taxonomy import Taxonomy
from musicon.detect.outputs import OPINIONS

REVIEWED = "reviewed"
ACCEPT_TAGS = frozenset({"accepted", "accept", "correct"})
REJECT_TAGS = frozenset({"rejected", "reject", "wrong", "delete"})
MOVED = 0.5
"""Pixels that a side must move to count as a change; less is rounding on the way and back."""
SAME_PLACE = 0.5
"""IoU from which an accepted prediction is the same instrument as a box that is there."""
NOT_REVIEWED = "not reviewed: tick 'reviewed' or correct a box in the App"
OUTCOMES = ("accepted", "changed", "removed", "added", "untouched")


class CorrectionsError(UserError):
    """Corrections that cannot be exported; the message says what to do in the App."""


@dataclass(frozen=True)
class ReviewBox:
    """A box as it stands in the review.

    Attributes:
        name: The instrument; None where the person has not chosen one yet.
        xyxy: Pixels of the upright original, half-open; may stick out of the image.
        tags: What the person tagged it with.
    """

    id: str
    name: str | None
    xyxy: tuple[float, float, float, float]
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StartBox:
    """A box as the review began with it, and which label of the review it was copied from."""

    box: Box
    name: str
    source_id: str | None = None


@dataclass(frozen=True)
class ImageState:
    """One image of a review, as the person left it.

    Attributes:
        record: What was known of the image; its ``boxes`` do not count.
        start: Id of a box to be corrected -> what it was at the beginning.
        boxes: The boxes to be corrected, as they are now.
        shown: Ground truth and predictions, which the person can tag but not edit.
        reviewed: The person has gone through the whole image.
    """

    path: Path
    record: ImageRecord
    start: Mapping[str, StartBox]
    boxes: tuple[ReviewBox, ...]
    shown: tuple[ReviewBox, ...] = ()
    reviewed: bool = False


@dataclass(frozen=True)
class Settled:
    """What came of one image.

    Attributes:
        boxes: The boxes that stand, with the name of each.
        counts: How many boxes were accepted, changed, removed, added, left untouched.
        touched: The person reviewed the image or did something to one of its boxes.
    """

    boxes: tuple[tuple[str | None, Box], ...]
    counts: Counter[str]
    touched: bool


def settle(state: ImageState) -> Settled:
    """Compare the boxes with those that the review began with.

    Boxes that the person drew, moved, renamed or accepted are a human's from now on; on an
    image marked as reviewed every box that is left counts as accepted. Other boxes keep their
    origin and score. An edited box beats a tag on the label that it was copied from.
    """
    tags = {shown.id: shown.tags for shown in state.shown}
    counts: Counter[str] = Counter()
    boxes: list[tuple[str | None, Box]] = []
    for now in state.boxes:
        outcome, box = _outcome(now, state.start.get(now.id), tags, state.reviewed)
        counts[outcome] += 1
        if outcome != "removed":
            boxes.append((now.name, box))
    counts["removed"] += len(set(state.start) - {now.id for now in state.boxes})
    _add_accepted(state, boxes, counts)
    touched = (state.reviewed or any(counts[o] for o in OUTCOMES if o != "untouched")
               or any(shown.tags & (ACCEPT_TAGS | REJECT_TAGS) for shown in state.shown))
    return Settled(tuple(boxes), counts, touched)


def _outcome(now: ReviewBox, start: StartBox | None, tags: Mapping[str, frozenset[str]],
             reviewed: bool) -> tuple[str, Box]:
    drawn = Box(now.xyxy, label=0)
    if now.tags & REJECT_TAGS:
        return "removed", drawn
    if start is None:
        return "added", drawn
    moved = max(abs(a - b) for a, b in zip(now.xyxy, start.box.xyxy, strict=True)) > MOVED
    if moved or now.name != start.name:
        return "changed", replace(drawn, xyxy=now.xyxy if moved else start.box.xyxy,
                                  iscrowd=start.box.iscrowd, extra=_without_opinions(start.box))
    given = now.tags | tags.get(start.source_id or "", frozenset())
    if given & REJECT_TAGS:
        return "removed", drawn
    if reviewed or given & ACCEPT_TAGS:
        return "accepted", replace(start.box, origin="human", score=None,
                                   extra=_without_opinions(start.box))
    return "untouched", start.box


def _add_accepted(state: ImageState, boxes: list[tuple[str | None, Box]],
                  counts: Counter[str]) -> None:
    """Take in predictions that were tagged as accepted but are not what the boxes began as."""
    sources = {start.source_id for start in state.start.values()}
    for shown in state.shown:
        if shown.id in sources or not shown.tags & ACCEPT_TAGS:
            continue
        overlaps = iou([shown.xyxy], [box.xyxy for _, box in boxes])[0]
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best < 0 or overlaps[best] < SAME_PLACE:
            boxes.append((shown.name, Box(shown.xyxy, label=0)))
            counts["added"] += 1
        elif boxes[best][0] != shown.name:
            boxes[best] = shown.name, Box(boxes[best][1].xyxy, label=0)
            counts["changed"] += 1


def _without_opinions(box: Box) -> dict[str, object]:
    return {key: value for key, value in box.extra.items() if key not in OPINIONS}


@dataclass
class Names:
    """Instrument name -> category id; a name that is new but known gets a category."""

    categories: list[Category]
    _ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = {category.name: category.id for category in self.categories}

    def id_of(self, name: str | None) -> int:
        """The category's id.

        Raises:
            CorrectionsError: No name, or one that the taxonomy does not know for certain.
        """
        if not name:
            raise CorrectionsError("has a box without an instrument: choose its label in the App")
        if name not in self._ids:
            match = Taxonomy.load().find(name)
            if match.instrument is None or not match.certain:
                hint = f" (did you mean {match.suggestion!r}?)" if match.suggestion else ""
                raise CorrectionsError(
                    f"has a box named {name!r}, which no instrument is{hint}: mend it in the App")
            known = match.instrument.name
            if known not in self._ids:
                new = Taxonomy.load().to_category(match.instrument,
                                                  max(self._ids.values(), default=0) + 1)
                self.categories.append(new)
                self._ids[known] = new.id
            self._ids[name] = self._ids[known]
        return self._ids[name]


@dataclass(frozen=True)
class Corrected:
    """The corrected images, ready to be written.

    Attributes:
        records: (absolute path of the image, its record) of each image that the person touched.
        categories: The review's, and those that the person brought in.
        counts: Boxes accepted, changed, removed, added and left untouched on those images.
        unreviewed: Images that the person has not touched.
        faulty: Touched images that cannot be used as they are.
    """

    records: list[tuple[Path, ImageRecord]]
    categories: tuple[Category, ...]
    counts: Counter[str]
    unreviewed: int
    faulty: int


def collect(states: Iterable[ImageState], categories: Sequence[Category],
            rejects: Rejects) -> Corrected:
    """Settle every image; what is left out goes to ``rejects`` with its reason."""
    names = Names(list(categories))
    records: list[tuple[Path, ImageRecord]] = []
    counts: Counter[str] = Counter()
    unreviewed = faulty = 0
    for state in states:
        settled = settle(state)
        if not settled.touched:
            unreviewed += 1
            rejects.add(state.record.file_name, NOT_REVIEWED)
            continue
        try:
            boxes = tuple(_finish(name, box, state.record, names) for name, box in settled.boxes)
        except CorrectionsError as error:
            faulty += 1
            rejects.add(state.record.file_name, str(error))
            continue
        counts += settled.counts
        labels = tuple(sorted({box.label for box in boxes}))
        records.append((state.path, replace(state.record, boxes=boxes, labels=labels)))
    return Corrected(records, tuple(names.categories), counts, unreviewed, faulty)


def _finish(name: str | None, box: Box, record: ImageRecord, names: Names) -> Box:
    """The box inside its image, with its category.

    Raises:
        CorrectionsError: Nothing of the box is left inside the image, or its name is no good.
    """
    x0, y0, x1, y1 = (float(v) for v in clip([box.xyxy], record.width, record.height)[0])
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise CorrectionsError(f"has a box ({name}) of less than a pixel: mend it in the App")
    inside = (x0, y0, x1, y1)
    same = max(abs(a - b) for a, b in zip(inside, box.xyxy, strict=True)) < 1e-3
    return replace(box, xyxy=box.xyxy if same else inside, label=names.id_of(name))
