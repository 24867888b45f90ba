"""Calibration against values by hand, scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score

from musicon.detect.calibration import (
    calibration,
    crop_metrics,
    fit_scaling,
    fit_temperature,
)


def test_error_worked_by_hand() -> None:
    # Two bins of 1/2: {.2, .4}: mean .3, none right; {.6, .9, .9}: mean .8, two of three right.
    result = calibration([0.2, 0.4, 0.6, 0.9, 0.9], [0, 0, 0, 1, 1], bins=2)
    assert result.error == pytest.approx((2 * 0.3 + 3 * abs(2 / 3 - 0.8)) / 5)
    assert result.counts.tolist() == [2, 3]


def test_reliability_curve_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(500)
    right = rng.random(500) < scores**2
    result = calibration(scores, right)
    accuracy, confidence = calibration_curve(right, scores, n_bins=15)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.confidence == pytest.approx(confidence)
    assert len(result.counts) == 15 and result.counts.sum() == 500


def test_ends_of_the_scale_and_nothing_at_all() -> None:
    assert calibration([0.0, 1.0], [0, 1]).error == 0.0
    assert calibration([0.0, 1.0], [0, 1]).perfect == 0.0
    empty = calibration([], [])
    assert empty.error is None and empty.to_json()["accuracy"] == [None] * 15


def test_crop_accuracies_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 6, 300)
    p = softmax(rng.normal(size=(300, 6)) + 1.5 * np.eye(6)[labels], axis=1)
    result = crop_metrics(p, labels)
    for k, value in ((1, result.top1), (3, result.top3)):
        assert value == pytest.approx(top_k_accuracy_score(labels, p, k=k, labels=range(6)))
    instruments = labels > 0
    assert result.named == pytest.approx(top_k_accuracy_score(
        labels[instruments], p[instruments, 1:], k=1, labels=range(1, 6)))
    assert result.rejected == pytest.approx((p[instruments].argmax(1) == 0).mean())


def test_crops_of_background_alone_and_no_crops() -> None:
    result = crop_metrics([[0.8, 0.2], [0.4, 0.6]], [0, 0])
    assert result.top1 == 0.5 and result.named is None and result.rejected is None
    assert crop_metrics(np.zeros((0, 4)), []).top1 is None


def test_fewer_than_three_classes_still_have_a_top3() -> None:
    assert crop_metrics([[0.9, 0.1]], [1]).top3 == 1.0


@pytest.mark.parametrize(("p", "labels"), [([[0.5, 0.5]], [2]), ([[0.5, 0.5]], [0, 1]),
                                           ([[0.5, 0.5]], [-1])])
def test_shapes_and_labels_that_disagree(p: list[list[float]], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="expected|labels run"):
        crop_metrics(p, labels)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.3, 8.0))
def test_temperature_is_the_one_scipy_finds(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 200)
    logits = scale * (rng.normal(size=(200, 5)) + np.eye(5)[labels])

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[np.arange(200), labels].mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded",
                           options={"xatol": 1e-9})
    ours = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert ours == pytest.approx(float(np.exp(best.x)), rel=1e-4)


def test_perfect_confidences_have_an_error_too() -> None:
    """Alone in its bin, p is wrong by 1 - p with probability p, and by p otherwise."""
    alone = calibration([0.7, 0.3, 0.9], [1, 0, 0]).perfect
    assert alone == pytest.approx(2 * (0.7 * 0.3 + 0.3 * 0.7 + 0.9 * 0.1) / 3, abs=0.03)
    scores = np.random.default_rng(0).random(20_000)
    assert calibration(scores, scores > 0.5).perfect < 0.02  # type: ignore[operator]


def test_temperature_lowers_the_calibration_error_of_loud_logits() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2000, 4)) * 1.5
    labels = np.array([rng.choice(4, p=p) for p in softmax(truth, axis=1)])
    loud = torch.from_numpy(truth * 6)
    temperature = fit_temperature(loud, torch.from_numpy(labels))
    assert temperature == pytest.approx(6, rel=0.15)

    def error(logits: torch.Tensor) -> float:
        p, best = logits.softmax(1).max(1)
        return calibration(p.numpy(), best.numpy() == labels).error or 0.0

    assert error(loud / temperature) < 0.25 * error(loud)


def test_temperature_stays_in_bounds_for_logits_that_are_always_right_or_wrong() -> None:
    labels = torch.tensor([0, 1, 2])
    assert 0.05 <= fit_temperature(torch.eye(3), labels) < 0.2
    assert 5 < fit_temperature(torch.eye(3), labels.roll(1)) <= 20
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 1.0


def test_temperature_can_be_fitted_in_inference_mode() -> None:
    with torch.inference_mode():
        value = fit_temperature(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)),
                                torch.arange(50) % 3)
    assert 0.05 <= value <= 20


def test_scaling_is_the_logistic_regression_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.beta(2, 3, 400)
    hits = rng.random(400) < expit(2 * logit(scores) - 1.5)
    target = np.where(hits, (hits.sum() + 1) / (hits.sum() + 2), 1 / ((~hits).sum() + 2))
    both = LogisticRegression(C=1e12, tol=1e-10).fit(
        np.tile(logit(scores), 2)[:, None], np.repeat([1, 0], 400),
        sample_weight=np.concatenate([target, 1 - target]))
    assert fit_scaling(scores, hits) == pytest.approx(
        (both.coef_.item(), both.intercept_.item()), abs=1e-3)


@pytest.mark.parametrize(("scores", "hits"), [
    ([], []), ([0.2, 0.9], [0, 0]), ([0.2, 0.9], [1, 1]),
    ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0])])
def test_scores_that_say_nothing_stay(scores: list[float], hits: list[int]) -> None:
    assert fit_scaling(scores, hits) == (1.0, 0.0)
