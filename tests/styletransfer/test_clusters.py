from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.cluster import DBSCAN

from musicon.styletransfer import clusters, sketch
from musicon.styletransfer.clusters import dbscan, k_distances, knee, medoid, spread
from musicon.styletransfer.sketch import Points, Sketch

Vectors = NDArray[np.float32]


def drawn(seed: int, count: int, dimensions: int, groups: int, scatter: float) -> Vectors:
    """Groups on a bent surface of few dimensions, as styles are, and noise in all of them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dimensions))
    surface = rng.normal(size=(5, dimensions))
    where = rng.normal(size=(count, 5)) * rng.gamma(1.0, scatter, (count, 1))
    noise = rng.normal(size=(count, dimensions)) * 0.2
    return (centres[rng.integers(groups, size=count)] + where @ surface + noise).astype(np.float32)


def stand_ins(vectors: Vectors, seed: int = 0, rank: int = 128, sample: int = 384) -> Points:
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(vectors), min(sample, len(vectors)), replace=False)
    return Points(*Sketch.fit(vectors[rows], seed, rank).project(vectors))


def plain(vectors: Vectors, eps: float, min_samples: int) -> tuple[NDArray[np.int64],
                                                                  NDArray[np.bool_]]:
    """scikit-learn's labels and core points, from the whole exact matrix."""
    distances = squareform(pdist(vectors.astype(np.float64)))
    found = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances)
    core = np.zeros(len(vectors), bool)
    core[found.core_sample_indices_] = True
    return found.labels_, core


@given(seed=st.integers(0, 10**6), count=st.integers(2, 120), rank=st.integers(1, 40),
       groups=st.integers(1, 6), scatter=st.floats(0, 0.5), place=st.floats(0.5, 60),
       min_samples=st.integers(1, 8))
def test_labels_are_those_of_the_plain_algorithm(seed: int, count: int, rank: int, groups: int,
                                                 scatter: float, place: float,
                                                 min_samples: int) -> None:
    vectors = drawn(seed, count, 300, groups, scatter)
    eps = 1.00001 * float(np.percentile(pdist(vectors.astype(np.float64)), place))  # no tie
    found = dbscan(stand_ins(vectors, seed, rank, 50), lambda rows: vectors[rows], eps,
                   min_samples)
    labels, core = plain(vectors, eps, min_samples)
    assert found.labels.tolist() == labels.tolist()
    assert found.core.tolist() == core.tolist()


@pytest.mark.parametrize("place", [0.3, 2, 10])
def test_two_thousand_vectors(place: float) -> None:
    vectors = drawn(7, 2000, 1500, 12, 0.15)
    eps = float(np.percentile(pdist(vectors[:300].astype(np.float64)), place))
    fetched: list[int] = []

    def fetch(rows: NDArray[np.int64]) -> Vectors:
        fetched.append(len(rows))
        return vectors[rows]

    found = dbscan(stand_ins(vectors), fetch, eps, 5)
    labels, core = plain(vectors, eps, 5)
    assert found.labels.tolist() == labels.tolist()
    assert found.core.tolist() == core.tolist()
    assert max(fetched, default=0) <= 2 * clusters.BATCH
    assert found.checked < 0.02 * 2000 * 1999 / 2


def test_a_border_point_goes_to_the_cluster_found_first() -> None:
    # Two rows of four points a step apart, and one point within reach of one end of each.
    line = np.array([[0], [1], [2], [3], [4.4], [5.8], [6.8], [7.8], [8.8]], np.float32)
    for order in (np.arange(9), np.arange(9)[::-1], np.array([4, 8, 7, 6, 5, 0, 1, 2, 3])):
        vectors = np.ascontiguousarray(line[order])
        found = dbscan(stand_ins(vectors), lambda rows, v=vectors: v[rows], 1.5, 4)
        assert found.labels.tolist() == plain(vectors, 1.5, 4)[0].tolist()


def test_few_blocks_or_many_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = drawn(3, 400, 200, 4, 0.3)
    eps = float(np.percentile(pdist(vectors.astype(np.float64)), 4))
    points = stand_ins(vectors)
    whole = dbscan(points, lambda rows: vectors[rows], eps, 4)
    monkeypatch.setattr(sketch, "BLOCK", 3000)
    monkeypatch.setattr(sketch, "DENSE", 2.0)
    monkeypatch.setattr(clusters, "MAX_KEPT_PAIRS", 10)
    parts = dbscan(points, lambda rows: vectors[rows], eps, 4)
    assert parts.labels.tolist() == whole.labels.tolist()


@given(seed=st.integers(0, 10**6), rank=st.integers(1, 60), scale=st.floats(0.01, 100))
def test_bounds_hold_and_no_pair_is_missed(seed: int, rank: int, scale: float) -> None:
    vectors = drawn(seed, 80, 400, 3, 0.4) * np.float32(scale)
    exact = squareform(pdist(vectors.astype(np.float64)))
    radius = float(np.percentile(exact, 40))
    seen = set()
    for part in stand_ins(vectors, seed, rank, 40).pairs(radius):
        true = exact[part.first, part.second] ** 2
        assert (part.first < part.second).all()
        assert (part.low <= true).all() and (true <= part.high).all()
        seen |= set(zip(part.first.tolist(), part.second.tolist(), strict=True))
    rows, columns = np.nonzero(np.triu(exact <= radius, 1))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) <= seen


def test_nothing_and_one() -> None:
    one = np.ones((1, 10), np.float32)
    found = dbscan(stand_ins(one), lambda rows: one[rows], 1.0, 2)
    assert found.labels.tolist() == [-1] and found.count == 0
    assert dbscan(stand_ins(one), lambda rows: one[rows], 1.0, 1).labels.tolist() == [0]


def test_equal_vectors_are_one_cluster() -> None:
    same = np.full((9, 50), 3.7, np.float32)
    found = dbscan(stand_ins(same), lambda rows: same[rows], 1e-3, 5)
    assert found.count == 1 and found.core.all()
    assert k_distances(stand_ins(same), 5).max() < 1e-2


def test_k_distances_against_scipy() -> None:
    vectors = drawn(5, 300, 800, 4, 0.2)
    expected = np.sort(np.sort(squareform(pdist(vectors.astype(np.float64))), 1)[:, 4])
    assert np.allclose(k_distances(stand_ins(vectors), 5), expected, rtol=0.05)


def test_the_knee_of_a_bent_line() -> None:
    curve = np.r_[np.linspace(1, 1.5, 80), np.linspace(1.5, 9, 20)].astype(np.float32)
    assert knee(curve) == pytest.approx(1.5, abs=0.1)
    assert knee(np.full(10, 2.0, np.float32)) == 2.0


def test_medoid_and_spread_against_scipy() -> None:
    vectors = drawn(2, 200, 600, 3, 0.3)
    members = np.arange(20, 150)
    sums = cdist(vectors[members].astype(np.float64), vectors[members]).sum(1)
    chosen = medoid(stand_ins(vectors), members)
    assert sums[chosen - 20] <= 1.01 * sums.min()
    several = spread(stand_ins(vectors), members, 4)
    assert several[0] == chosen and len(set(several)) == 4 and set(several) <= set(members)
    gaps = pdist(vectors[several].astype(np.float64))
    assert gaps.min() > np.median(pdist(vectors[members].astype(np.float64)))
    assert sorted(spread(stand_ins(vectors), members[:3], 9)) == members[:3].tolist()
