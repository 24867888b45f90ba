"""Short stand-ins for long vectors, with bounds on every distance between them.

A Gram vector has up to 300,000 numbers. Its stand-in has two parts. The first are its coordinates
along the main directions of a sample of vectors: exact, and for styles nearly all of the distance.
The second is a sparse random projection of what is left (Kane & Nelson, Sparser Johnson-
Lindenstrauss Transforms, 2014): it estimates the rest with a relative error of about √(2/k).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

RANK = 128
"""Main directions that are kept exactly."""
RANDOM = 512
"""Random coordinates of the rest."""
ENTRIES = 8
"""Random coordinates that each number of the rest enters, with either sign."""
DEVIATIONS = 7.0
"""So many standard deviations around its estimate the rest may lie: all but 1 pair in 10⁹."""
ROUNDING = 4e-6
"""Error of a squared distance in float32, as a share of the two squared lengths."""
BLOCK = 1 << 25
"""Distances held at once."""
DENSE = 0.02
"""From this share of candidates on, one matrix product is cheaper than pair after pair."""


@dataclass(frozen=True)
class Sketch:
    """The map from vectors to stand-ins.

    Attributes:
        centre: (D,), the sample's mean.
        directions: (D, r), orthonormal.
        projection: Sparse (k, D).
    """

    centre: Floats
    directions: Floats
    projection: sparse.csr_matrix

    @classmethod
    def fit(cls, sample: Floats, seed: int = 0, rank: int = RANK, random: int = RANDOM) -> Sketch:
        """Take the main directions of a sample (m, D); other vectors may lie elsewhere."""
        centre = sample.mean(0, dtype=np.float64).astype(np.float32)
        centred = sample - centre
        values, mixes = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        rank = min(rank, len(sample) - 1, sample.shape[1])
        order = np.argsort(values)[::-1][:rank]
        order = order[values[order] > values.max(initial=0) * 1e-7]
        # QR: as orthonormal as float32 allows, however small the last directions are.
        directions = np.linalg.qr(centred.T @ mixes[:, order].astype(np.float32))[0]
        return cls(centre, np.ascontiguousarray(directions, np.float32),
                   projection(sample.shape[1], random, seed))

    def project(self, vectors: Floats) -> tuple[Floats, Floats]:
        """Main (n, r) and random (n, k) coordinates of vectors (n, D)."""
        centred: Floats = vectors - self.centre
        main: Floats = centred @ self.directions
        rest = centred - main @ self.directions.T
        return main, np.ascontiguousarray((self.projection @ rest.T).T, np.float32)


def projection(dimensions: int, rows: int = RANDOM, seed: int = 0) -> sparse.csr_matrix:
    """A sparse random matrix (rows, D) that keeps lengths on average."""
    rng = np.random.default_rng(seed)
    entries = min(ENTRIES, rows)
    place = rng.integers(rows, size=(dimensions, entries))
    sign = rng.choice(np.array([-1, 1], np.float32), size=place.shape) / np.float32(entries) ** 0.5
    column = np.repeat(np.arange(dimensions), entries)
    return sparse.csr_matrix((sign.ravel(), (place.ravel(), column)), shape=(rows, dimensions))


@dataclass(frozen=True)
class Pairs:
    """Pairs that may lie within the radius.

    Attributes:
        first, second: Positions, int64 (n,).
        low, high: Bounds of the squared distance, float32 (n,).
    """

    first: Indices
    second: Indices
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.first)

    def where(self, chosen: NDArray[np.bool_] | Indices) -> Pairs:
        """Those for which a mask is true, or those at some positions."""
        return Pairs(self.first[chosen], self.second[chosen], self.low[chosen], self.high[chosen])

    @classmethod
    def joined(cls, parts: list[Pairs]) -> Pairs:
        """All parts in one."""
        if not parts:
            none = np.zeros(0, np.int64)
            return cls(none, none, none.astype(np.float32), none.astype(np.float32))
        return cls(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ("first", "second", "low", "high")))


@dataclass(frozen=True)
class Points:
    """The stand-ins of N vectors.

    Attributes:
        main: (N, r), coordinates whose distances are exact.
        rest: (N, k), random coordinates of what is left.
    """

    main: Floats
    rest: Floats

    def __len__(self) -> int:
        return len(self.main)

    @property
    def tolerance(self) -> float:
        """Largest relative error of the rest's squared distance."""
        return min(0.9, DEVIATIONS * (2 / max(1, self.rest.shape[1])) ** 0.5)

    def take(self, indices: Indices) -> Points:
        """Some of the points."""
        return replace(self, main=self.main[indices], rest=self.rest[indices])

    def distances(self, rows: Points) -> NDArray[np.float32]:
        """Estimated distances (n, N) from other points to these: mind the size."""
        squares = _squared(rows.main, self.main) + _squared(rows.rest, self.rest)
        return np.sqrt(np.maximum(squares, 0, out=squares), out=squares)

    def pairs(self, radius: float) -> Iterator[Pairs]:
        """Every pair (i < j) that may lie within the radius, in blocks.

        The main coordinates alone bound the distance from below; only pairs that they leave are
        looked at further.
        """
        limit = radius * radius
        lengths = np.einsum("ij,ij->i", self.main, self.main) + np.einsum(
            "ij,ij->i", self.rest, self.rest)
        start = 0
        while start < len(self):
            stop = min(len(self), start + max(1, BLOCK // (len(self) - start)))
            block = _squared(self.main[start:stop], self.main[start:])
            slack = ROUNDING * (lengths[start:stop, None] + lengths[None, start:])
            near = block - slack <= limit
            near &= np.arange(start, len(self))[None] > np.arange(start, stop)[:, None]
            rows, columns = np.nonzero(near)
            if len(rows):
                found = self._bounded(start, stop, rows, columns, block[rows, columns],
                                      slack[rows, columns])
                yield found.where(found.low <= limit)
            start = stop

    def _bounded(self, start: int, stop: int, rows: Indices, columns: Indices, main: Floats,
                 slack: Floats) -> Pairs:
        if len(rows) > DENSE * (stop - start) * (len(self) - start):
            rest = _squared(self.rest[start:stop], self.rest[start:])[rows, columns]
        else:
            rest = np.empty(len(rows), np.float32)
            for at in range(0, len(rows), 1 << 14):
                part = slice(at, at + (1 << 14))
                gap = self.rest[rows[part] + start] - self.rest[columns[part] + start]
                rest[part] = np.einsum("ij,ij->i", gap, gap)
        rest = np.maximum(rest, 0)
        low = main + np.maximum(rest - slack, 0) / np.float32(1 + self.tolerance) - slack
        high = main + (rest + slack) / np.float32(1 - self.tolerance) + slack
        return Pairs(rows + start, columns + start, low, high)


def _squared(first: Floats, second: Floats) -> Floats:
    """Squared distances (n, m) between rows (n, d) and (m, d)."""
    if not first.shape[1]:
        return np.zeros((len(first), len(second)), np.float32)
    block = first @ second.T
    block *= -2
    block += np.einsum("ij,ij->i", first, first)[:, None]
    block += np.einsum("ij,ij->i", second, second)[None]
    return block
