"""Figures of labels against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from musicon.detect.tasks.scores import confused_pairs, confusion, label_metrics, macro_f1, top


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 7))
def test_figures_are_scikit_learns(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    p = rng.dirichlet(np.ones(classes), count)
    found = label_metrics(p, truth, np.zeros(count, bool))
    said = p.argmax(1)
    assert found.top1 == pytest.approx(reference.accuracy_score(truth, said))
    assert found.macro_f1 == pytest.approx(reference.f1_score(
        truth, said, labels=np.unique(truth), average="macro", zero_division=0))
    assert found.macro_f1 == pytest.approx(macro_f1(truth, said))
    labels = np.arange(classes)
    assert (found.matrix == reference.confusion_matrix(truth, said, labels=labels)).all()
    if classes > 3:
        assert found.top3 == pytest.approx(reference.top_k_accuracy_score(
            truth, p, k=3, labels=labels))


def test_no_works() -> None:
    found = label_metrics(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, bool))
    assert (found.count, found.top1, found.macro_f1, found.top1_certain) == (0, 0.0, 0.0, None)
    assert found.to_json(["a", "b", "c"])["classes"]["a"] == {"works": 0, "f1": None}


def test_uncertain_works_are_counted_apart() -> None:
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    found = label_metrics(p, np.array([0, 0, 1, 1]), np.array([False, True, False, True]))
    assert (found.top1, found.uncertain, found.top1_certain) == (0.5, 0.5, 1.0)


def test_confused_pairs_come_most_first() -> None:
    matrix = confusion(np.array([0, 0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2, 0]), 3)
    assert confused_pairs(matrix, 9) == [(0, 1, 2), (1, 0, 1), (2, 0, 1)]
    assert confused_pairs(matrix, 1) == [(0, 1, 2)]
    assert confused_pairs(np.diag([3, 4]), 5) == []


def test_top_classes() -> None:
    assert top(np.array([0.1, 0.6, 0.3]), ["a", "b", "c"], 2) == {"b": 0.6, "c": 0.3}
