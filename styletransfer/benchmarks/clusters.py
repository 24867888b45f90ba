"""Time and memory of clustering 1,000, 10,000 and 100,000 styles, without encoding pictures.

The vectors are synthetic: groups on a surface of few dimensions with noise in all of them, which is
what Gram vectors look like. They are made anew from their number whenever they are asked for, so
none is held. Each size runs in a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from musicon.datasets import memory
from musicon.datasets.command import DONE, DONE_WITH_REJECTS, SummaryTable, count, progress
from musicon.datasets.records import UserError
from musicon.styletransfer import clusters
from musicon.styletransfer.sketch import Floats, Indices, Points, Sketch
from musicon.styletransfer.style_features import SAMPLE

PLAIN = 2000
"""Up to so many vectors, the plain algorithm is run on the whole matrix and must agree."""
GROUPS, SURFACE = 40, 12
MEMORY_BAR = 16_000_000_000


@dataclass(frozen=True)
class Measured:
    """One size's figures; times are seconds of the processor, on one thread."""

    vectors: int
    dimension: int
    sketching: float
    clustering: float
    wall: float
    peak: int
    found: int
    noise: int
    checked: int
    agrees: bool | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py clusters``."""
    add = parser.add_argument
    add("--vectors", type=count, nargs="+", default=[1000, 10_000, 100_000],
        help="numbers of paintings (default: 1000 10000 100000)")
    add("--dimension", type=count, default=304_416,
        help="numbers in a vector (default: relu1_1 to relu5_1 of VGG19; relu3_1: 43232)")
    add("--min-samples", type=count, default=5, help="default: 5")
    add("--quiet", action="store_true", help="no progress bars")


def run(options: argparse.Namespace) -> int:
    """Measure, print a table; 1 when labels differ or memory passes 16 GB."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for number in options.vectors:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_measure_and_tell, args=(
            sender, number, options.dimension, options.min_samples, options.quiet))
        threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS",
                                                           "OPENBLAS_NUM_THREADS")}
        os.environ.update(dict.fromkeys(threads, "1"))
        child.start()
        for name, value in threads.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        child.join()
        if not receiver.poll():
            raise UserError(f"the run over {number} vectors failed; its message is above")
        rows.append(receiver.recv())
        table(rows).print()
    good = all(row.agrees is not False and row.peak < MEMORY_BAR for row in rows)
    return DONE if good else DONE_WITH_REJECTS


def table(rows: list[Measured]) -> SummaryTable:
    """The figures, one size a row."""
    made = SummaryTable("paintings", "numbers each", "sketching s", "clustering s", "wall s",
                        "peak MB", "clusters", "in none", "pairs checked", "as scikit-learn")
    for row in rows:
        made.add(row.vectors, row.dimension, round(row.sketching, 1), round(row.clustering, 1),
                 round(row.wall), round(row.peak / 1e6), row.found, row.noise, row.checked,
                 {None: "(not run)", True: "equal", False: "DIFFERENT"}[row.agrees])
    return made


class Synthetic:
    """Vectors (N, D) that are a function of their number alone."""

    def __init__(self, number: int, dimension: int) -> None:
        rng = np.random.default_rng(0)
        self.number, self.dimension = number, dimension
        scale = np.float32(dimension ** -0.5)
        self.centres = rng.standard_normal((GROUPS, SURFACE + GROUPS), np.float32)
        self.surface = rng.standard_normal((SURFACE + GROUPS, dimension), np.float32) * scale
        self.noise = np.float32(0.05) * scale

    def __call__(self, rows: Indices) -> Floats:
        """The vectors (n, D) of some numbers."""
        places, noise = [], np.empty((len(rows), self.dimension), np.float32)
        for at, row in enumerate(rows.tolist()):
            rng = np.random.default_rng([1, row])
            place = self.centres[rng.integers(GROUPS)].copy()
            place[:SURFACE] += rng.standard_normal(SURFACE) * 0.1 * rng.gamma(1.0)
            places.append(place)
            rng.standard_normal(out=noise[at], dtype=np.float32)
        noise *= self.noise
        found: Floats = noise + np.stack(places) @ self.surface
        return found

    def chunks(self, size: int = 64) -> Iterator[Indices]:
        """All numbers, so many at a time."""
        for first in range(0, self.number, size):
            yield np.arange(first, min(first + size, self.number))


def measure(number: int, dimension: int, min_samples: int, quiet: bool = True) -> Measured:
    """Sketch and cluster so many synthetic vectors."""
    begun, cpu = time.perf_counter(), time.process_time()
    vectors = Synthetic(number, dimension)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(number, min(SAMPLE, number), replace=False))
    sketch = Sketch.fit(vectors(sample))
    parts = [sketch.project(vectors(rows)) for rows in progress(
        vectors.chunks(), -(-number // 64), f"sketching {number:,}", quiet)]
    points = Points(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
    sketched = time.process_time()
    eps = clusters.knee(clusters.k_distances(points, min_samples))
    found = clusters.dbscan(points, vectors, eps, min_samples)
    clustered = time.process_time()
    wall = time.perf_counter() - begun
    peak = memory.peak()
    agrees = _agrees(vectors, found, eps, min_samples) if number <= PLAIN else None
    return Measured(number, dimension, sketched - cpu, clustered - sketched, wall,
                    peak, found.count,
                    int((found.labels == clusters.NOISE).sum()), found.checked, agrees)


def _agrees(vectors: Synthetic, found: clusters.Clustering, eps: float, min_samples: int) -> bool:
    """Whether scikit-learn, on the whole matrix of exact distances, gives the same labels."""
    from scipy.spatial.distance import cdist
    from sklearn.cluster import DBSCAN

    held = np.concatenate([vectors(rows) for rows in vectors.chunks()])
    distances = np.concatenate([cdist(held[i:i + 50], held) for i in range(0, len(held), 50)])
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances).labels_
    return bool((labels == found.labels).all())


def _measure_and_tell(sender: Connection, *settings: int) -> None:
    number, dimension, min_samples, quiet = settings
    sender.send(measure(number, dimension, min_samples, bool(quiet)))
