"""Which found box is which true box: the bookkeeping under F1, confusion and false alarms.

Boxes are matched whatever their class, best score first, each to the true box it overlaps most,
as COCO's evaluator does with all classes as one. A match never depends on lower-scored boxes, so
one matching serves every threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musicon.detect.hierarchy import LEVELS, SureName, circles_of, family_of

FALSE_ALARM = -1
IGNORED = -2
MOST_FALSE_ALARMS, SURE = 0.1, 0.95
"""Boxes shown an instrument-free image, and how sure ``quiet_threshold`` is of no more."""
MATCH_IOU = 0.5


@dataclass(frozen=True)
class MatchedImage:
    """One image's true and found boxes, and which is which.

    Attributes:
        image_id: Id in the manifest.
        gt_boxes: float64 (G, 4), xyxy pixels.
        gt_labels: int64 (G,), common class ids.
        gt_crowd: bool (G,); crowd boxes are neither to be found nor held against a find.
        boxes: float64 (D, 4), best score first.
        scores: float64 (D,), falling.
        labels: int64 (D,), common class ids.
        gt_index: int64 (D,), row of the matched true box, FALSE_ALARM or IGNORED (in a crowd).
        is_negative: The image is known to hold no instrument.
        sure: What may be said of each found box; None where that is not known.
    """

    image_id: int
    gt_boxes: NDArray[np.float64]
    gt_labels: NDArray[np.int64]
    gt_crowd: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    gt_index: NDArray[np.int64]
    is_negative: bool
    sure: tuple[SureName, ...] | None = None

    @property
    def to_find(self) -> int:
        """True boxes that count."""
        return int((~self.gt_crowd).sum())

    def shown(self, threshold: float) -> NDArray[np.bool_]:
        """Mask (D,) of the boxes that score at least ``threshold`` and count."""
        return np.asarray((self.scores >= threshold) & (self.gt_index != IGNORED))

    def missed(self, threshold: float) -> NDArray[np.int64]:
        """Rows of the true boxes that no shown box matches."""
        hit = self.gt_index[self.shown(threshold)]
        return np.setdiff1d(np.flatnonzero(~self.gt_crowd), hit)


def match_boxes(boxes: NDArray[np.float64], gt_boxes: NDArray[np.float64],
                gt_crowd: NDArray[np.bool_], iou: float = MATCH_IOU) -> NDArray[np.int64]:
    """Match found boxes, given best score first, to true ones.

    Args:
        boxes: (D, 4) xyxy.
        gt_boxes: (G, 4) xyxy.
        gt_crowd: (G,); overlap with a crowd is the share of the found box inside it.
        iou: Least overlap of a match.

    Returns:
        (D,): row of the matched true box, FALSE_ALARM, or IGNORED where it lies in a crowd.
    """
    out = np.full(len(boxes), FALSE_ALARM, dtype=np.int64)
    if not len(boxes) or not len(gt_boxes):
        return out
    overlap = overlaps(boxes, gt_boxes, gt_crowd)
    free = ~gt_crowd
    for row in range(len(boxes)):
        candidates = np.where(free, overlap[row], -1.0)
        # The last of equals, as pycocotools takes it.
        best = len(candidates) - 1 - int(np.argmax(candidates[::-1]))
        if candidates[best] >= iou:
            out[row] = best
            free[best] = False
        elif gt_crowd.any() and overlap[row, gt_crowd].max() >= iou:
            out[row] = IGNORED
    return out


def overlaps(boxes: NDArray[np.float64], gt_boxes: NDArray[np.float64],
             gt_crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Overlap (D, G) as pycocotools has it, to the last digit: IoU, or share inside a crowd."""
    from pycocotools import mask

    return np.asarray(mask.iou(_xywh(boxes), _xywh(gt_boxes), gt_crowd.astype(np.uint8)))


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


@dataclass(frozen=True)
class Counts:
    """Hits and misses at one threshold.

    Attributes:
        hits: Found boxes that match a true one.
        false_alarms: Found boxes that match none.
        misses: True boxes that nothing matches.
    """

    hits: int
    false_alarms: int
    misses: int

    @property
    def precision(self) -> float | None:
        """Share of the found boxes that are right; None where nothing was found."""
        found = self.hits + self.false_alarms
        return self.hits / found if found else None

    @property
    def recall(self) -> float | None:
        """Share of the true boxes that were found; None where there were none."""
        true = self.hits + self.misses
        return self.hits / true if true else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where there is nothing on either side."""
        total = 2 * self.hits + self.false_alarms + self.misses
        return 2 * self.hits / total if total else None


def count(matched: Sequence[MatchedImage], threshold: float, named: bool = False) -> Counts:
    """Hits, false alarms and misses at a threshold.

    Args:
        matched: The images.
        threshold: Least score of a box that is shown.
        named: Only the right name makes a hit; a box with the wrong one is a false alarm and
            its true box a miss.
    """
    hits = shown = to_find = 0
    for image in matched:
        keep = image.shown(threshold) & (image.gt_index >= 0)
        if named:
            right = image.labels[keep] == image.gt_labels[image.gt_index[keep]]
            hits += int(right.sum())
        else:
            hits += int(keep.sum())
        shown += int(image.shown(threshold).sum())
        to_find += image.to_find
    return Counts(hits, shown - hits, to_find - hits)


@dataclass(frozen=True)
class LevelScores:
    """Names judged less strictly than by the very instrument.

    Attributes:
        family: Hits and misses where a name of the right family is a hit.
        family_accuracy: Share of the found instruments that get a name of the right family.
        sure: Level -> boxes on instruments whose name backs off to it, and how many of these
            names are right; empty where no name backs off.
    """

    family: Counts
    family_accuracy: float | None
    sure: Mapping[str, tuple[int, int]]

    @property
    def sure_accuracy(self) -> float | None:
        """Share of the found instruments of which nothing wrong is said once names back off."""
        shown = sum(n for n, _ in self.sure.values())
        return sum(right for _, right in self.sure.values()) / shown if shown else None


def level_scores(matched: Sequence[MatchedImage], names: Mapping[int, str],
                 threshold: float) -> LevelScores:
    """Score names by family, and as far as they are sure, at a threshold.

    Args:
        matched: The images.
        names: Common class id -> instrument.
        threshold: Least score of a box that is shown.
    """
    right, sure = [], {level: [0, 0] for level in LEVELS}
    for image in matched:
        for row in np.flatnonzero(image.shown(threshold) & (image.gt_index >= 0)):
            given = names[int(image.labels[row])]
            true = names[int(image.gt_labels[image.gt_index[row]])]
            right.append(family_of(given) == family_of(true))
            if image.sure is not None:
                name, level = image.sure[row]
                sure[level][0] += 1
                sure[level][1] += {"leaf": given == true, "family": name in circles_of(true),
                                   "instrument": True}[level]
    found, hits = count(matched, threshold), sum(right)
    shown, to_find = found.hits + found.false_alarms, found.hits + found.misses
    return LevelScores(Counts(hits, shown - hits, to_find - hits),
                       hits / len(right) if right else None,
                       {level: (n, ok) for level, (n, ok) in sure.items() if n})


def confusion_matrix(matched: Sequence[MatchedImage], class_ids: Sequence[int],
                     threshold: float) -> NDArray[np.int64]:
    """Count boxes by true class (row) and given name (column) at a threshold.

    Returns:
        (K + 1, K + 1); the last row is background (false alarms), the last column background
        (misses).
    """
    position = {class_id: i for i, class_id in enumerate(class_ids)}
    background = len(position)
    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    for image in matched:
        for row in np.flatnonzero(image.shown(threshold)):
            truth = image.gt_index[row]
            true_class = background if truth < 0 else position[int(image.gt_labels[truth])]
            matrix[true_class, position[int(image.labels[row])]] += 1
        for row in image.missed(threshold):
            matrix[position[int(image.gt_labels[row])], background] += 1
    return matrix


@dataclass(frozen=True)
class PooledBoxes:
    """Every found box that counts, best first, over all images.

    Attributes:
        scores: float64 (N,), falling.
        hits: bool (N,), whether it matches a true box.
        image: int64 (N,), position of its image.
        to_find: int64 (images,), true boxes of each image.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    image: NDArray[np.int64]
    to_find: NDArray[np.int64]


def pool(matched: Sequence[MatchedImage], most: int | None = None) -> PooledBoxes:
    """Put the found boxes of all images in one falling order (ties by image, as COCO).

    With ``most``, only so many of each image are taken, the best first.
    """
    scores, hits, where = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for position, image in enumerate(matched):
        counts = image.gt_index[:most] != IGNORED
        scores.append(image.scores[:most][counts])
        hits.append(image.gt_index[:most][counts])
        where.append(np.full(int(counts.sum()), position, dtype=np.int64))
    flat = np.concatenate(scores)
    order = np.argsort(-flat, kind="stable")
    return PooledBoxes(flat[order], np.concatenate(hits)[order] >= 0, np.concatenate(where)[order],
                       np.array([image.to_find for image in matched], dtype=np.int64))


def average_precision(pooled: PooledBoxes, weights: NDArray[np.int64] | None = None,
                      ) -> float | None:
    """COCO's 101-point average precision at the matching's IoU.

    Args:
        pooled: The boxes.
        weights: (images,), how often each image counts; once unless given.

    Returns:
        The value in [0, 1]; None where there is nothing to find.
    """
    weights = np.ones(len(pooled.to_find), np.int64) if weights is None else weights
    to_find = int((weights * pooled.to_find).sum())
    if not to_find:
        return None
    each = weights[pooled.image]
    hits = np.cumsum(each * pooled.hits)
    alarms = np.cumsum(each * ~pooled.hits)
    precision = hits / (hits + alarms + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    levels = np.linspace(0.0, 1.0, 101)
    reached = np.searchsorted(hits / to_find, levels, side="left")
    return float(np.mean(np.append(precision, 0.0)[np.minimum(reached, len(precision))]))


def bootstrap_interval(pooled: PooledBoxes, rounds: int = 1000, level: float = 0.95,
                       seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap interval of average precision; images are drawn with their boxes.

    Returns:
        (low, high), or None where there is nothing to find.
    """
    values = [value for weights in resamples(len(pooled.to_find), rounds, seed)
              if (value := average_precision(pooled, weights)) is not None]
    return percentiles(values, level)


def resamples(images: int, rounds: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each image (images,) counts, in each round of a bootstrap."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds if images else 0):
        yield rng.multinomial(images, np.full(images, 1 / images))


def percentiles(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """(low, high) around the middle share ``level`` of the values; None of none."""
    if not values:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def best_threshold(pooled: PooledBoxes) -> float | None:
    """The score threshold with the best F1 of "found an instrument".

    Half-way between the last box worth showing and the next one down, so that rounding of
    scores does not move a box across it.

    Returns:
        The threshold, or None where there is nothing to find or nothing was rightly found.
    """
    to_find = int(pooled.to_find.sum())
    if not to_find or not pooled.hits.any():
        return None
    hits = np.cumsum(pooled.hits)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + to_find)
    last_of_equals = np.append(pooled.scores[:-1] > pooled.scores[1:], True)
    best = int(np.argmax(np.where(last_of_equals, f1, -1.0)))
    score = float(pooled.scores[best])
    return score if best + 1 == len(hits) else (score + float(pooled.scores[best + 1])) / 2


def quiet_threshold(matched: Sequence[MatchedImage]) -> float:
    """The least threshold that surely keeps instrument-free images nearly free of boxes.

    Surely: 95 times of 100, if other such images are like these, no more than one box is shown in
    ten of them (upper limit of a Poisson rate; Garwood 1936).

    Returns:
        A threshold, or 0 where too few images are instrument-free to be sure of anything.
    """
    from scipy.stats import chi2

    empty = [image for image in matched if image.is_negative]
    counts = np.arange(len(empty) + 1)
    allowed = counts[chi2.ppf(SURE, 2 * (counts + 1)) / 2 <= MOST_FALSE_ALARMS * len(empty)]
    if not len(allowed):
        return 0.0
    scores = np.sort(np.concatenate([image.scores[image.shown(0.0)] for image in empty]))[::-1]
    beyond = int(allowed[-1])
    if len(scores) <= beyond:
        return 0.0
    return float(np.nextafter(np.float32(scores[beyond]), np.float32(1)))
