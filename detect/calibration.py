"""Can a score be read as a probability, and how to make it so.

Expected calibration error and temperature scaling after Guo, Pleiss, Sun and Weinberger, "On
Calibration of Modern Neural Networks" (ICML 2017); two-parameter scaling after Platt,
"Probabilistic Outputs for Support Vector Machines" (1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BINS = 15
ROUNDS = 400
"""Draws that the error of perfect confidences is the mean of."""
LEAST = 1e-6
"""Scores are taken for this far from 0 and 1 at least where their log-odds are needed."""


@dataclass(frozen=True)
class Calibration:
    """Confidence against the share that is right, in equal bins of confidence.

    Attributes:
        error: Expected calibration error in [0, 1]; None without any prediction.
        edges: (B + 1,) bounds of the bins, 0 to 1.
        counts: (B,) predictions in each bin.
        confidence: (B,) mean confidence; NaN in an empty bin.
        accuracy: (B,) share that is right; NaN in an empty bin.
        scores: (N,) the confidences themselves.
    """

    error: float | None
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    scores: NDArray[np.float64]

    @property
    def total(self) -> int:
        """Predictions in all bins."""
        return len(self.scores)

    @cached_property
    def perfect(self) -> float | None:
        """The mean error of as many predictions, each right with just its confidence.

        Above 0, and the more so the fewer there are; None without any prediction. It takes
        ``ROUNDS`` draws, so it is found only when it is asked for.
        """
        if not len(self.scores):
            return None
        rng = np.random.default_rng(0)
        index = _bins(self.scores, self.edges)
        return float(np.mean([_error(index, self.scores, rng.random(self.total) < self.scores)
                              for _ in range(ROUNDS)]))

    def to_json(self) -> dict[str, Any]:
        """Plain values; an empty bin has null."""
        return {"error": self.error, "perfect": self.perfect, "edges": self.edges.round(6).tolist(),
                "counts": self.counts.tolist(), "confidence": _finite(self.confidence),
                "accuracy": _finite(self.accuracy)}


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def calibration(confidence: object, right: object, bins: int = BINS) -> Calibration:
    """Reliability of confidences.

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) whether each prediction is right.
        bins: Equal bins, each closed above; 0 falls into the first.
    """
    scores = np.asarray(confidence, dtype=np.float64)
    hits = np.asarray(right, dtype=bool)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = _bins(scores, edges)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=scores, minlength=bins) / counts
        accuracy = np.bincount(index, weights=hits, minlength=bins) / counts
    error = _error(index, scores, hits) if len(scores) else None
    return Calibration(error, edges, counts, mean, accuracy, scores)


def _bins(scores: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, len(edges) - 2)


def _error(index: NDArray[np.int64], scores: NDArray[np.float64],
           right: NDArray[np.bool_]) -> float:
    """Bins' gaps between how many are right and how many their scores promise, per prediction."""
    return float(np.abs(np.bincount(index, right - scores)).sum() / len(scores))


@dataclass(frozen=True)
class CropMetrics:
    """How well the crop classifier names what a person boxed.

    Attributes:
        count: Crops.
        top1: Share whose most probable class is right.
        top3: Share whose class is among the three most probable.
        named: Like ``top1`` over crops of instruments, when the negative class is not allowed.
        rejected: Share of crops of instruments that are taken for no instrument.
        calibration: Of the most probable class.
    """

    count: int
    top1: float | None
    top3: float | None
    named: float | None
    rejected: float | None
    calibration: Calibration

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"count": self.count, "top1": self.top1, "top3": self.top3, "named": self.named,
                "rejected": self.rejected, "calibration": self.calibration.to_json()}


def crop_metrics(probabilities: object, labels: object) -> CropMetrics:
    """Score the classifier on crops.

    Args:
        probabilities: (N, L + 1), rows sum to 1; column 0 is the negative class.
        labels: (N,), 0 (no instrument) to L.

    Raises:
        ValueError: The shapes disagree or a label has no column.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    if p.ndim != 2 or truth.shape != (len(p),):
        raise ValueError(f"expected (N, L + 1) and (N,), found {p.shape} and {truth.shape}")
    if not len(p):
        return CropMetrics(0, None, None, None, None, calibration([], []))
    if truth.min() < 0 or truth.max() >= p.shape[1]:
        raise ValueError(f"labels run from {truth.min()} to {truth.max()}, but there are columns "
                         f"for 0 to {p.shape[1] - 1}")
    ranking = np.argsort(-p, axis=1, kind="stable")
    best = ranking[:, 0]
    instrument = truth > 0
    named = rejected = None
    if instrument.any():
        named = float((1 + p[instrument, 1:].argmax(axis=1) == truth[instrument]).mean())
        rejected = float((best[instrument] == 0).mean())
    return CropMetrics(
        count=len(p), top1=float((best == truth).mean()),
        top3=float((ranking[:, :3] == truth[:, None]).any(axis=1).mean()), named=named,
        rejected=rejected, calibration=calibration(p.max(axis=1), best == truth),
    )


def fit_scaling(scores: object, hits: object) -> tuple[float, float]:
    """Slope a > 0 and shift b for which sigmoid(a logit(score) + b) fits validation best.

    Maximum likelihood with Platt's targets, (hits + 1) / (hits + 2) and 1 / (misses + 2) in place
    of 1 and 0, which keep a few boxes from promising certainty.

    Args:
        scores: (N,) in [0, 1], of validation boxes, never of training or test ones.
        hits: bool (N,), whether each box is right.

    Returns:
        a and b; 1 and 0 where all boxes are right, all are wrong, there are none, or a higher score
        does not mean a likelier box.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    right = np.asarray(hits, bool)
    if not 0 < right.sum() < len(right):
        return 1.0, 0.0
    odds = logit(np.clip(np.asarray(scores, np.float64), LEAST, 1 - LEAST))
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * odds + parameters[1]
        error = expit(z) - target
        return (float((np.logaddexp(0, z) - target * z).mean()),
                np.array([(error * odds).mean(), error.mean()]))

    slope, shift = minimize(loss, (1.0, 0.0), jac=True, method="BFGS").x
    return (float(slope), float(shift)) if slope > 0 else (1.0, 0.0)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor, *,
                    bounds: tuple[float, float] = (0.05, 20.0)) -> float:
    """The temperature T > 0 for which softmax(logits / T) fits validation labels best.

    Minimises the mean cross-entropy over log T by L-BFGS; the most probable class never changes.

    Args:
        logits: (N, C), of validation images, never of the training or test ones.
        labels: int64 (N,), class indices.
        bounds: Least and greatest T; logits that are always right would have T go to 0.

    Returns:
        T; 1.0 where there is nothing to fit to.
    """
    if not len(labels):
        return 1.0
    low, high = (float(np.log(b)) for b in bounds)
    # Validation often runs in inference mode, whose tensors cannot take part in a gradient.
    with torch.inference_mode(False), torch.enable_grad():
        scores = logits.detach().clone().to(device="cpu", dtype=torch.float64)
        truth = labels.detach().clone().to(device="cpu", dtype=torch.int64)
        log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([log_t], max_iter=200, tolerance_grad=1e-10,
                                      tolerance_change=1e-14, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            temperature = log_t.clamp(low - 1, high + 1).exp()
            loss = torch.nn.functional.cross_entropy(scores / temperature, truth)
            loss.backward()
            return loss

        optimiser.step(closure)
    return float(np.exp(np.clip(log_t.item(), low, high)))
