"""Matching, thresholds and the bootstrap against COCO's evaluator and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import precision_recall_curve

from musicon.detect.coco_scoring import coco_scores
from musicon.detect.matching import (
    FALSE_ALARM,
    IGNORED,
    Counts,
    PooledBoxes,
    average_precision,
    best_threshold,
    bootstrap_interval,
    match_boxes,
)


def pooled(scores: list[float], hits: list[int], image: list[int], to_find: list[int],
           ) -> PooledBoxes:
    order = np.argsort(-np.asarray(scores), kind="stable")
    return PooledBoxes(np.asarray(scores, float)[order], np.asarray(hits, bool)[order],
                       np.asarray(image)[order], np.asarray(to_find))


def random_pool(seed: int, images: int = 30) -> PooledBoxes:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(0, 6, images))
    hits = rng.random(len(image)) < 0.5
    to_find = np.bincount(image[hits], minlength=images) + rng.integers(0, 2, images)
    return pooled(list(rng.random(len(image)).round(2) + 0.3 * hits), list(hits), list(image),
                  list(to_find))


def test_each_true_box_is_matched_once_by_the_best_score() -> None:
    truth = np.array([[0, 0, 10, 10.0]])
    found = np.array([[0, 0, 10, 6.0], [0, 0, 10, 10.0], [50, 50, 60, 60.0]])
    assert match_boxes(found, truth, np.zeros(1, bool)).tolist() == [0, FALSE_ALARM, FALSE_ALARM]


def test_of_two_true_boxes_the_nearer_is_taken_and_the_other_left_for_the_next() -> None:
    truth = np.array([[0, 0, 10, 10.0], [2, 0, 12, 10.0]])
    found = np.array([[2, 0, 12, 10.0], [2, 0, 12, 10.0]])
    assert match_boxes(found, truth, np.zeros(2, bool)).tolist() == [1, 0]


def test_crowd_takes_any_number_but_only_what_no_true_box_wants() -> None:
    truth = np.array([[0, 0, 100, 100.0], [10, 10, 30, 30.0]])
    found = np.array([[10, 10, 30, 30.0], [10, 10, 30, 30.0], [60, 60, 80, 80.0]])
    assert match_boxes(found, truth, np.array([True, False])).tolist() == [1, IGNORED, IGNORED]


def test_nothing_to_match() -> None:
    assert match_boxes(np.zeros((0, 4)), np.ones((1, 4)), np.zeros(1, bool)).shape == (0,)
    assert match_boxes(np.ones((2, 4)), np.zeros((0, 4)), np.zeros(0, bool)).tolist() == [-1, -1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_average_precision_of_the_pool_is_that_of_coco(seed: int) -> None:
    # Boxes laid out so that a hit overlaps exactly one true box and an alarm none.
    pool = random_pool(seed, images=8)
    truths, found, used = [], [], np.zeros(8, int)
    for i, n in enumerate(pool.to_find):
        truths += [{"image_id": i + 1, "category_id": 1, "bbox": [20.0 * k, 0, 10, 10]}
                   for k in range(n)]
    # COCO breaks ties by image, so the pool has to be in that order too.
    order = np.lexsort((pool.image, -pool.scores))
    pool = PooledBoxes(pool.scores[order], pool.hits[order], pool.image[order], pool.to_find)
    for score, hit, i in zip(pool.scores, pool.hits, pool.image, strict=True):
        box = [20.0 * used[i], 0, 10, 10] if hit else [0, 500, 10, 10]
        used[i] += hit
        found.append({"image_id": int(i) + 1, "category_id": 1, "bbox": box, "score": float(score)})
    images = [{"id": i + 1, "width": 600, "height": 600} for i in range(8)]
    coco = coco_scores(images, truths, found, [1], engine="reference")
    expected = coco.average_precision(iou=0.5)
    ours = average_precision(pool)
    assert (ours is None) == (expected is None)
    if expected is not None:
        assert ours == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_weights_count_an_image_as_often_as_a_copy_would(seed: int) -> None:
    pool = random_pool(seed, images=10)
    weights = np.random.default_rng(seed).integers(0, 4, 10)
    copies = np.repeat(np.arange(10), weights)
    rows = [(score, hit, new) for new, old in enumerate(copies)
            for score, hit, i in zip(pool.scores, pool.hits, pool.image, strict=True) if i == old]
    copied = pooled([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows],
                    [int(pool.to_find[i]) for i in copies])
    # Ties are broken by image; distinct scores keep the two comparable.
    if len(set(pool.scores)) == len(pool.scores):
        assert average_precision(pool, weights) == pytest.approx(average_precision(copied))


@pytest.mark.parametrize("seed", range(5))
def test_threshold_has_the_best_f1_of_scikit_learns_curve(seed: int) -> None:
    pool = random_pool(seed)
    missed = int(pool.to_find.sum() - pool.hits.sum())
    # True boxes that nothing matches enter scikit-learn's curve as finds with score -1.
    precision, recall, _ = precision_recall_curve(
        np.append(pool.hits, np.ones(missed)), np.append(pool.scores, -np.ones(missed)))
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    threshold = best_threshold(pool)
    assert threshold is not None
    shown = pool.scores >= threshold
    counts = Counts(int(pool.hits[shown].sum()), int((~pool.hits[shown]).sum()),
                    int(pool.to_find.sum() - pool.hits[shown].sum()))
    assert counts.f1 == pytest.approx(float(np.nanmax(f1[1:])))


def test_threshold_without_anything_right_is_none() -> None:
    assert best_threshold(pooled([0.9, 0.5], [0, 0], [0, 0], [3])) is None
    assert best_threshold(pooled([], [], [], [0, 0])) is None


def test_interval_agrees_with_scipy() -> None:
    pool = random_pool(1, images=60)

    def statistic(images: np.ndarray) -> float:
        return average_precision(pool, np.bincount(images, minlength=60)) or 0.0

    theirs = scipy_bootstrap((np.arange(60),), statistic, vectorized=False, n_resamples=2000,
                             method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert bootstrap_interval(pool, 2000, seed=1) == pytest.approx(tuple(theirs), abs=0.02)


def test_interval_of_nothing_is_none_and_the_same_seed_gives_the_same() -> None:
    assert bootstrap_interval(pooled([0.5], [0], [0], [0, 0])) is None
    assert bootstrap_interval(pooled([], [], [], [])) is None
    pool = random_pool(2)
    assert bootstrap_interval(pool, 50, seed=4) == bootstrap_interval(pool, 50, seed=4)

