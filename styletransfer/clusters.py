"""DBSCAN of vectors that are too long and too many to be held, with the plain algorithm's labels.

Every pair's distance is bounded by the vectors' stand-ins (``sketch``). Where the bounds leave
open whether a pair is within eps, and only where the answer matters, the two long vectors are
fetched and their distance is computed. (Ester, Kriegel, Sander & Xu, 1996.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from musicon.styletransfer.sketch import Floats, Indices, Pairs, Points

NOISE = -1
MAX_KEPT_PAIRS = 20_000_000
"""Pairs kept in memory (24 bytes each); more are bounded anew each time they are needed."""
CURVE_POINTS = 2000
"""Points whose k-th nearest neighbour makes the k-distance curve."""
BATCH = 128
"""Pairs whose long vectors are fetched at once."""

Fetch = Callable[[Indices], Floats]
"""Positions (n,) -> long vectors (n, D)."""


@dataclass(frozen=True)
class Clustering:
    """What DBSCAN found.

    Attributes:
        labels: int64 (N,), clusters numbered from 0 in the order of their first core point, as
            scikit-learn does; ``NOISE`` elsewhere.
        core: bool (N,).
        checked: Pairs whose distance had to be computed from the long vectors.
    """

    labels: Indices
    core: NDArray[np.bool_]
    checked: int

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=NOISE)) + 1

    def members(self, label: int) -> Indices:
        """Positions of a cluster's points, or of the noise."""
        return np.flatnonzero(self.labels == label)


def dbscan(points: Points, fetch: Fetch, eps: float, min_samples: int = 5) -> Clustering:
    """Cluster, with the labels of the plain algorithm on exact distances.

    Args:
        points: Stand-ins of the vectors.
        fetch: Gives the long vectors.
        eps: Euclidean distance (for styles: the square root of the style loss) up to which two
            points are neighbours.
        min_samples: Neighbours, itself included, that make a core point.
    """
    search = _Search(points, fetch, eps)
    core = search.core_points(min_samples)
    labels = search.label_cores(core)
    labels = search.label_borders(core, labels)
    return Clustering(labels, core, search.checked)


def k_distances(points: Points, k: int, seed: int = 0) -> Floats:
    """Estimated distance to the k-th point in order of distance, itself the first, ascending.

    Of all points, or of ``CURVE_POINTS`` drawn at random. Where the curve bends upwards, points
    begin to be far from their neighbours.
    """
    rows = np.arange(len(points))
    if len(rows) > CURVE_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, CURVE_POINTS, replace=False))
    found = []
    for part in np.array_split(rows, max(1, -(-len(rows) * len(points) // (1 << 24)))):
        distances = points.distances(points.take(part))
        distances[np.arange(len(part)), part] = 0
        found.append(np.partition(distances, min(k, len(points)) - 1, axis=1)[:, k - 1]
                     if k <= len(points) else distances.max(1))
    return np.sort(np.concatenate(found))


def knee(curve: Floats) -> float:
    """Where an ascending curve bends most, to three digits.

    The point that is furthest below the straight line between the ends (Satopaa et al. 2011),
    the highest twentieth left aside: single outliers would draw the line up with them.
    """
    kept = np.asarray(curve[:max(2, round(len(curve) * 0.95))], np.float64)
    rise = kept[-1] - kept[0]
    if rise <= 0:
        return float(f"{kept[-1]:.3g}")
    line = kept[0] + rise * np.linspace(0, 1, len(kept))
    return float(f"{kept[int(np.argmax(line - kept))]:.3g}")


def medoid(points: Points, members: Indices) -> int:
    """The member whose estimated distances to all members have the smallest sum."""
    own = points.take(members)
    sums = np.concatenate([
        own.distances(own.take(part)).sum(1, dtype=np.float64)
        for part in np.array_split(np.arange(len(own)), max(1, len(own) ** 2 // (1 << 24)))])
    return int(members[int(np.argmin(sums))])


def spread(points: Points, members: Indices, count: int) -> list[int]:
    """The medoid, then each time the member furthest from all that were taken."""
    chosen = [medoid(points, members)]
    own = points.take(members)
    nearest = np.full(len(members), np.inf, np.float32)
    while len(chosen) < min(count, len(members)):
        last = points.take(np.array(chosen[-1:]))
        nearest = np.minimum(nearest, own.distances(last)[0])
        nearest[np.isin(members, chosen)] = -1
        chosen.append(int(members[int(np.argmax(nearest))]))
    return chosen


@dataclass
class _Search:
    """Pairs within eps, as far as they are known."""

    points: Points
    fetch: Fetch
    eps: float
    checked: int = 0
    _known: dict[tuple[int, int], bool] = field(default_factory=dict)
    _kept: list[Pairs] | None = None

    def pairs(self) -> Iterator[Pairs]:
        """All pairs (i < j) that may be neighbours; remembered where there are not too many."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Pairs] | None = []
        total = 0
        for part in self.points.pairs(self.eps):
            total += len(part)
            if kept is not None and total <= MAX_KEPT_PAIRS:
                kept.append(part)
            else:
                kept = None
            yield part
        self._kept = kept

    def certain(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Which pairs are within eps whatever their exact distance."""
        return pairs.high <= self.eps ** 2

    def within(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Which pairs are within eps, from the long vectors."""
        keys = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
        unknown = sorted({key for key in keys if key not in self._known})
        for at in range(0, len(unknown), BATCH):
            batch = np.array(unknown[at:at + BATCH])
            rows, places = np.unique(batch, return_inverse=True)
            vectors = self.fetch(rows)
            for key, (i, j) in zip(unknown[at:at + BATCH], places.reshape(-1, 2), strict=True):
                gap = vectors[i].astype(np.float64) - vectors[j]
                self._known[key] = bool(np.sqrt(gap @ gap) <= self.eps)
        self.checked += len(unknown)
        return np.array([self._known[key] for key in keys], bool)

    def core_points(self, min_samples: int) -> NDArray[np.bool_]:
        """Points with at least ``min_samples`` neighbours, themselves included."""
        count = len(self.points)
        sure, possible = np.ones(count, np.int64), np.ones(count, np.int64)
        for part in self.pairs():
            possible += _counts(part, count)
            sure += _counts(part.where(self.certain(part)), count)
        open_ = (sure < min_samples) & (possible >= min_samples)
        if open_.any():
            doubtful = Pairs.joined([
                part.where(~self.certain(part) & (open_[part.first] | open_[part.second]))
                for part in self.pairs()])
            both = np.concatenate([np.stack([doubtful.first, np.arange(len(doubtful))], 1),
                                   np.stack([doubtful.second, np.arange(len(doubtful))], 1)])
            both = both[open_[both[:, 0]]]
            self._count_exactly(doubtful, both, sure, min_samples)
        return sure >= min_samples

    def _count_exactly(self, doubtful: Pairs, both: Indices, sure: Indices,
                       min_samples: int) -> None:
        """Check each open point's doubtful pairs, the nearest first, until it is decided.

        Args:
            doubtful: Pairs.
            both: (n, 2), open point and position of one of its pairs.
            sure: Neighbours known so far; counted up.
            min_samples: Enough of them.
        """
        both = both[np.lexsort((doubtful.low[both[:, 1]], both[:, 0]))]
        while len(both):
            rank = _rank_in_group(both[:, 0])
            missing = min_samples - sure[both[:, 0]]
            left = np.bincount(both[:, 0], minlength=len(sure))[both[:, 0]]
            hopeful = (missing > 0) & (left >= missing)
            now = hopeful & (rank < missing)
            if not now.any():
                return
            chosen = both[now]
            hits = self.within(doubtful.where(_mask(len(doubtful), chosen[:, 1])))
            hit = np.zeros(len(doubtful), bool)
            hit[np.unique(chosen[:, 1])] = hits
            np.add.at(sure, chosen[hit[chosen[:, 1]], 0], 1)
            both = both[hopeful & ~now]

    def label_cores(self, core: NDArray[np.bool_]) -> Indices:
        """Connected core points get one label, numbered by the first of them."""
        groups = np.arange(len(self.points))
        doubtful = False
        for part in self.pairs():
            mine = part.where(core[part.first] & core[part.second])
            sure = self.certain(mine)
            groups = _merge(groups, mine.where(sure))
            doubtful |= not sure.all()
        for part in self.pairs() if doubtful else ():
            mine = part.where(core[part.first] & core[part.second] & ~self.certain(part))
            mine = mine.where(np.argsort(mine.low, kind="stable"))
            while len(mine := mine.where(groups[mine.first] != groups[mine.second])):
                head = np.arange(len(mine)) < BATCH
                tried = mine.where(head)
                groups = _merge(groups, tried.where(self.within(tried)))
                mine = mine.where(~head)
        labels = np.full(len(self.points), NOISE, np.int64)
        _, first, inverse = np.unique(groups[core], return_index=True, return_inverse=True)
        labels[core] = np.argsort(np.argsort(first))[inverse]
        return labels

    def label_borders(self, core: NDArray[np.bool_], labels: Indices) -> Indices:
        """A point near core points of several clusters goes to the first of these."""
        none = np.iinfo(np.int64).max
        best = np.full(len(labels), none)
        parts = []
        for part in self.pairs():
            one = part.where(core[part.first] != core[part.second])
            flip = core[one.first]
            border = np.where(flip, one.second, one.first)
            label = labels[np.where(flip, one.first, one.second)]
            sure = self.certain(one)
            np.minimum.at(best, border[sure], label[sure])
            parts.append((one.where(~sure), border[~sure], label[~sure]))
        doubtful = Pairs.joined([part for part, _, _ in parts])
        border = np.concatenate([np.zeros(0, np.int64), *(b for _, b, _ in parts)])
        label = np.concatenate([np.zeros(0, np.int64), *(found for _, _, found in parts)])
        order = np.lexsort((doubtful.low, label, border))
        order = order[label[order] < best[border[order]]]
        while len(order):
            head = _rank_in_group(border[order]) == 0
            tried = order[head]
            hits = self.within(doubtful.where(tried))
            best[border[tried[hits]]] = label[tried[hits]]
            order = order[~head]
            order = order[label[order] < best[border[order]]]
        return np.where(core, labels, np.where(best == none, NOISE, best))


def _counts(pairs: Pairs, count: int) -> Indices:
    return (np.bincount(pairs.first, minlength=count)
            + np.bincount(pairs.second, minlength=count))


def _mask(count: int, chosen: Indices) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[chosen] = True
    return mask


def _rank_in_group(groups: Indices) -> Indices:
    """0, 1, 2, ... within each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))


def _merge(groups: Indices, pairs: Pairs) -> Indices:
    """Groups (N,) after the groups of each pair have become one."""
    first, second = groups[pairs.first], groups[pairs.second]
    differ = first != second
    if not differ.any():
        return groups
    count = len(groups)
    edges = np.unique(first[differ] * count + second[differ])
    graph = sparse.coo_matrix((np.ones(len(edges), np.int8), (edges // count, edges % count)),
                              shape=(count, count))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)[groups]
