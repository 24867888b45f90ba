"""How well works are labelled: figures that a table of probabilities and the truth give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.detect.calibration import Calibration, calibration

Labels = NDArray[np.integer[Any]]


def accuracy(truth: Labels, said: Labels) -> float:
    """Share of equal labels; 0 of none."""
    return float((truth == said).mean()) if len(truth) else 0.0


def confusion(truth: Labels, said: Labels, classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes): row is the truth, column what was said."""
    flat = np.bincount(truth * classes + said, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def f1_by_class(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each class; NaN where the truth holds none of it."""
    hits = np.diag(matrix).astype(np.float64)
    found, there = matrix.sum(0), matrix.sum(1)
    f1 = 2 * hits / np.maximum(found + there, 1)
    return np.where(there > 0, f1, np.nan)


def macro_f1(truth: Labels, said: Labels) -> float:
    """Mean F1 over the classes that the truth holds; 0 of none."""
    if not len(truth):
        return 0.0
    classes = int(max(truth.max(), said.max())) + 1
    return float(np.nanmean(f1_by_class(confusion(truth, said, classes))))


@dataclass(frozen=True)
class LabelMetrics:
    """Figures of one split.

    Attributes:
        count: Works.
        top1: Share whose most probable class is right.
        top3: Share whose class is among the three most probable.
        macro_f1: Mean F1 over the classes that occur.
        matrix: (L, L) counts; row is the truth, column the most probable class.
        f1: (L,) of each class; NaN where none occurs.
        calibration: Of the most probable class.
        uncertain: Share that is called uncertain.
        top1_certain: ``top1`` of those that are not; None where all are.
    """

    count: int
    top1: float
    top3: float
    macro_f1: float
    matrix: NDArray[np.int64]
    f1: NDArray[np.float64]
    calibration: Calibration
    uncertain: float
    top1_certain: float | None

    def figures(self) -> dict[str, float | None]:
        """The single numbers, by name."""
        return {"accuracy": self.top1, "top3": self.top3, "macro_f1": self.macro_f1,
                "ece": self.calibration.error, "uncertain": self.uncertain,
                "accuracy_certain": self.top1_certain}

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Plain values; a class that does not occur has null for its F1."""
        by_class = {name: {"works": int(self.matrix[i].sum()),
                           "f1": None if np.isnan(self.f1[i]) else float(self.f1[i])}
                    for i, name in enumerate(classes)}
        return {"works": self.count, **self.figures(), "classes": by_class,
                "confusion": self.matrix.tolist(), "calibration": self.calibration.to_json()}


def label_metrics(probabilities: NDArray[np.floating], truth: Labels,
                  uncertain: NDArray[np.bool_]) -> LabelMetrics:
    """Score probabilities (N, L), rows summing to 1, against labels (N,)."""
    p = np.asarray(probabilities, np.float64)
    classes = p.shape[1]
    ranking = np.argsort(-p, axis=1, kind="stable")
    said = ranking[:, 0]
    matrix = confusion(truth, said, classes)
    f1 = f1_by_class(matrix)
    right = said == truth
    return LabelMetrics(
        count=len(truth), top1=accuracy(truth, said),
        top3=float((ranking[:, :3] == truth[:, None]).any(1).mean()) if len(truth) else 0.0,
        macro_f1=float(np.nanmean(f1)) if len(truth) else 0.0, matrix=matrix, f1=f1,
        calibration=calibration(p.max(1), right),
        uncertain=float(uncertain.mean()) if len(truth) else 0.0,
        top1_certain=float(right[~uncertain].mean()) if (~uncertain).any() else None)


def confused_pairs(matrix: NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """(truth, said, count) of the commonest mistakes, most first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [(int(i) // len(wrong), int(i) % len(wrong)) for i in order]
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def top(probabilities: NDArray[np.floating], classes: Sequence[str],
        count: int = 3) -> Mapping[str, float]:
    """The most probable classes of one work, most first, with their probabilities."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return {classes[int(i)]: round(float(probabilities[int(i)]), 4) for i in order}
