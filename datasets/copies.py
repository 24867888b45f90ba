"""Copies of one picture told from different pictures, however cropped, framed or recoloured.

Two pictures are one where eight or more local features (SIFT; Lowe, 2004) of the one lie in the
other as one shift, turn and scale maps them, and so mapped the pictures look alike; or where their
thumbnails agree (``duplicates``) and hardly differ, or have too few features to ask. Photos of two
violins on white share a dozen features, too: but few of those that both show, or at another angle.
Which pairs are looked at is told by the nearest features and thumbnails, so that thousands of
pictures take minutes. docs/benchmarks.md, "Near-duplicates", says how well that works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.duplicates import (
    CORRELATION,
    Fingerprint,
    each_file,
    fingerprint,
    likeness,
)
from musicon.datasets.images import ImageError
from musicon.datasets.pixels import fitted

INLIERS = 8
"""Features in agreement from which two paintings are one; different ones reach about 4."""
MANY = 35
"""So many need nothing else: a picture on a wall, or before planks; instruments reach 27."""
SHARE = 0.12
"""Where fewer agree: of the features that both pictures show, so many at least must do so."""
TURN = 10.0
"""Degrees by which a copy may be turned, beside quarter turns."""
ALIGNED = 0.8
"""Correlation of the two pictures where one is mapped onto the other; copies reach 0.85."""
CERTAIN = 0.98
"""Correlation of thumbnails that needs no features."""
FEW = 40
"""Features below which thumbnails alone decide."""
FEATURES = 400
RETRIEVED = 100
"""Strongest features of a picture by which its candidates are looked up."""
RATIO = 0.8
"""A feature's best match must be so much nearer than its second best (Lowe's ratio test)."""
CANDIDATES = 8
"""Pairs looked at for each picture, of each kind."""
LIKELY = 0.5
"""Correlation of thumbnails from which a pair is worth looking at."""
_DECODED = 400
_SHRINK = 4
_REPROJECTION = 4.0


@dataclass(frozen=True)
class Print:
    """What a picture is known by.

    Attributes:
        thumbnails: As ``duplicates.fingerprint`` gives them.
        points: float32 (N, 2), x and y of the features in the reduced picture, strongest first.
        features: float32 (N, 128), each of length 1.
        mirrored_points: The same of the mirrored picture.
        mirrored_features: The same of the mirrored picture.
        grey: uint8 (h, w), the reduced picture again ``_SHRINK`` times smaller.
    """

    thumbnails: Fingerprint
    points: NDArray[np.float32]
    features: NDArray[np.float32]
    mirrored_points: NDArray[np.float32]
    mirrored_features: NDArray[np.float32]
    grey: NDArray[np.uint8]


def picture_print(image: NDArray[np.uint8]) -> Print:
    """What the RGB picture (H, W, 3) is known by."""
    height, width = image.shape[:2]
    size = fitted((width, height), _DECODED)
    if size != (width, height):
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    small = cv2.resize(grey, (-(-width // _SHRINK), -(-height // _SHRINK)),
                       interpolation=cv2.INTER_AREA)
    return Print(fingerprint(image), *_features(grey), *_features(cv2.flip(grey, 1)),
                 cv2.GaussianBlur(small, (3, 3), 0))


def file_prints(files: Sequence[Path], workers: int = 2) -> Iterator[Print | ImageError]:
    """The same of files, in their order; what cannot be decoded gives its error."""
    return each_file(picture_print, files, _DECODED, workers)


def _features(grey: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    detector = cv2.SIFT.create(FEATURES)
    points, features = detector.detectAndCompute(grey, None)
    if features is None or not len(points):
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    order = np.argsort([-point.response for point in points], kind="stable")
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (np.array([points[i].pt for i in order], np.float32),
            (features / np.maximum(length, 1e-6))[order])


def pairs(prints: Sequence[Print],
          bar: Callable[..., Iterator[tuple[int, int]]] | None = None) -> list[tuple[int, int]]:
    """Positions (i < j) of pictures that are one.

    Args:
        prints: Of all pictures.
        bar: Draws the progress: called with (pairs, their number, what is done).
    """
    if len(prints) < 2:
        return []
    thumbnails = np.stack([p.thumbnails for p in prints])
    certain, sure, likely = _alike(thumbnails)
    poor = {i for i, one in enumerate(prints) if len(one.points) < FEW}
    sure = certain | {pair for pair in sure if poor.intersection(pair)}
    looked_at = sorted((likely | _neighbours(prints)) - sure)
    shown = iter(looked_at) if bar is None else bar(looked_at, len(looked_at), "comparing")
    return sorted(sure | {pair for pair in shown if same(prints[pair[0]], prints[pair[1]])})


def same(first: Print, second: Print) -> bool:
    """True where one picture's features lie in the other as one map takes them there."""
    return (_maps_onto(first.points, first.features, first.grey, second)
            or _maps_onto(first.mirrored_points, first.mirrored_features,
                          np.asarray(cv2.flip(first.grey, 1), np.uint8), second))


def _maps_onto(points: NDArray[np.float32], features: NDArray[np.float32],
               grey: NDArray[np.uint8], other: Print) -> bool:
    count, there = agreement(points, features, other.points, other.features)
    if count < INLIERS or there is None:
        return False
    if count >= MANY:
        return True
    turned = np.degrees(np.arctan2(there[1, 0], there[0, 0]))
    if abs((turned + 45) % 90 - 45) > TURN:
        return False
    back = cv2.invertAffineTransform(there)
    shown = min(_inside(points, there, other.grey), _inside(other.points, back, grey))
    return count >= SHARE * shown and _correlation(grey, other.grey, there) >= ALIGNED


def _inside(points: NDArray[np.float32], there: NDArray[np.float64],
            grey: NDArray[np.uint8]) -> int:
    """How many points are mapped into the other picture."""
    mapped = (points @ there[:, :2].T + there[:, 2]) / _SHRINK
    return int(((mapped >= 0) & (mapped < grey.shape[::-1])).all(1).sum())


def _correlation(grey: NDArray[np.uint8], other: NDArray[np.uint8],
                 there: NDArray[np.float64]) -> float:
    """Of the pixels of one picture, mapped, with those of the other that they fall on."""
    there = there.copy()
    there[:, 2] /= _SHRINK
    size = other.shape[::-1]
    seen = cv2.warpAffine(np.full_like(grey, 255), there, size) == 255
    one, two = cv2.warpAffine(grey, there, size)[seen], other[seen]
    if len(one) < 2 or not one.std() or not two.std():
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])


def agreement(points: NDArray[np.float32], features: NDArray[np.float32],
              others: NDArray[np.float32], other_features: NDArray[np.float32]
              ) -> tuple[int, NDArray[np.float64] | None]:
    """How many features the best shift, turn and scale takes to their like, and it (2, 3)."""
    if min(len(points), len(others)) < INLIERS:
        return 0, None
    alike = features @ other_features.T
    rows, back = np.arange(len(alike)), alike.argmax(0)
    best = alike.argmax(1)
    nearest = alike[rows, best]
    alike[rows, best] = -1.0
    second = alike.max(1)
    # Squared distances of unit vectors are 2 - 2 times their product.
    clear = ((1 - nearest) < RATIO ** 2 * (1 - second)) & (back[best] == rows)
    if clear.sum() < INLIERS:
        return 0, None
    there, inliers = cv2.estimateAffinePartial2D(
        points[clear], others[best[clear]], ransacReprojThreshold=_REPROJECTION, maxIters=500)
    if inliers is None:
        return 0, None
    # Repeated features map many places to one; only different places count.
    hit = others[best[clear]][inliers.ravel() == 1]
    return len(np.unique(hit.round().astype(np.int64), axis=0)), there


_Pairs = set[tuple[int, int]]


def _alike(thumbnails: NDArray[np.float32]) -> tuple[_Pairs, _Pairs, _Pairs]:
    """Pairs whose thumbnails say for certain, say, or leave open that they are one."""
    certain: _Pairs = set()
    sure: _Pairs = set()
    likely: _Pairs = set()
    for start, best in likeness(thumbnails, thumbnails):
        for row, scores in enumerate(best, start=start):
            scores[row] = -1.0
            count = min(CANDIDATES, len(scores) - 1)
            for other in np.argpartition(scores, -count)[-count:]:
                if scores[other] >= LIKELY:
                    likely.add(_ordered(row, int(other)))
            for other in np.flatnonzero(scores >= CORRELATION):
                (certain if scores[other] >= CERTAIN else sure).add(_ordered(row, int(other)))
    return certain, sure, likely | sure


def _neighbours(prints: Sequence[Print]) -> set[tuple[int, int]]:
    """Pairs that share most nearest features: what a crop or a frame leaves of a picture."""
    owners = np.concatenate([np.full(min(RETRIEVED, len(p.features)), i)
                             for i, p in enumerate(prints)])
    if len(owners) < 3:
        return set()
    features = np.concatenate([p.features[:RETRIEVED] for p in prints])
    matcher = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 48})
    matcher.add([features])
    matcher.train()
    found: set[tuple[int, int]] = set()
    for mirrored in (False, True):
        for i, own in enumerate(prints):
            asked = (own.mirrored_features if mirrored else own.features)[:RETRIEVED]
            if not len(asked):
                continue
            votes = Counter(int(owners[hit.trainIdx]) for row in matcher.knnMatch(asked, k=3)
                            for hit in row if owners[hit.trainIdx] != i)
            found |= {_ordered(i, j) for j, count in votes.most_common(CANDIDATES) if count >= 3}
    return found


def _ordered(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)


def groups(count: int, found: Iterable[tuple[int, int]]) -> list[int]:
    """For each of ``count`` pictures the first one of those that are one with it, or itself."""
    first = list(range(count))

    def top(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for i, j in found:
        low, high = sorted((top(i), top(j)))
        first[high] = low
    return [top(i) for i in range(count)]
