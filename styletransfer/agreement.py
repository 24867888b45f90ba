"""How well style clusters agree with what is known of the paintings, such as their movement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.command import SummaryTable
from musicon.datasets.leakage import Item
from musicon.styletransfer.clusters import NOISE
from musicon.styletransfer.styles import Found
from musicon.styletransfer.weights import StyleError


def table(found: Found, items: Sequence[Item], attribute: str, seed: int = 0) -> SummaryTable:
    """Adjusted Rand index with an attribute: 0 is chance, 1 is the same division.

    DBSCAN's clusters (noise counted as one more, and left aside), k-means on the same points with
    as many clusters and with as many as the attribute has values, and labels at random.

    Raises:
        StyleError: No painting has the attribute.
    """
    known = [(at, record.attributes[attribute]) for at, (_, record) in enumerate(items)
             if attribute in record.attributes]
    if not known:
        there = sorted({name for _, record in items for name in record.attributes})
        raise StyleError(f"--compare {attribute}: no painting has it; there are: "
                         f"{', '.join(there) or 'none'}")
    rows = np.array([at for at, _ in known])
    truth = np.unique([value for _, value in known], return_inverse=True)[1]
    labels = found.clustering.labels[rows]
    inside = labels != NOISE
    rng = np.random.default_rng(seed)
    result = SummaryTable("division", "clusters", "paintings", f"agreement with {attribute}")
    count = found.clustering.count

    def add(name: str, clusters: int, wanted: NDArray[np.int64], got: NDArray[np.int64]) -> None:
        result.add(name, clusters, len(got), _rand(wanted, got))

    add("DBSCAN, noise as one more", count, truth, labels)
    if inside.any():
        add("DBSCAN, noise left aside", count, truth[inside], labels[inside])
    main = found.points.main[rows]
    for number in sorted({max(2, count), int(truth.max()) + 1}):
        if number <= len(rows):
            add(f"k-means, {number}", number, truth, _k_means(main, number, seed))
    add("at random", count, truth, rng.permutation(labels))
    return result


def _rand(truth: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(truth, labels))


def _k_means(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(count, n_init=5, random_state=seed).fit_predict(points), np.int64)
