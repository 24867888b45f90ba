"""Fusion of two opinions: values worked out by hand, and the laws it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicon.datasets.boxes import iou
from musicon.detect.config import FusionConfig
from musicon.detect.fusion import Proposals, calibrated, evidence, fuse, suppress, within_reach


def proposals(*rows: tuple[list[float], float, int]) -> Proposals:
    return Proposals(torch.tensor([r[0] for r in rows]).reshape(-1, 4).float(),
                     torch.tensor([r[1] for r in rows]).float(),
                     torch.tensor([r[2] for r in rows]).long())


def some_proposals(seed: int, count: int, classes: int) -> tuple[Proposals, torch.Tensor]:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(5, 60, (count, 2))
    found = Proposals(torch.tensor(np.hstack([corner, corner + size])).float(),
                      torch.tensor(rng.uniform(0, 1, count)).float(),
                      torch.tensor(rng.integers(1, classes + 1, count)))
    opinions = rng.dirichlet(np.full(classes + 1, 0.3), count)
    return found, torch.tensor(opinions).float()


def test_evidence_by_hand() -> None:
    # The second box covers the right half of the first: IoU = 50 / 100 = 0.5.
    found = proposals(([0, 0, 10, 10], 0.8, 1), ([5, 0, 10, 10], 0.6, 2))
    held = evidence(found, 3, disagreement=0.25, class_agnostic=False)
    expected = [[0.8, 0.5 * 0.6, 0.25 * 0.8],   # own, half of the neighbour's, a quarter of own
                [0.5 * 0.8, 0.6, 0.25 * 0.6]]
    np.testing.assert_allclose(held.numpy(), expected, rtol=1e-6)


def test_agnostic_evidence_is_the_score_for_every_class() -> None:
    found = proposals(([0, 0, 10, 10], 0.8, 1), ([5, 0, 10, 10], 0.6, 1))
    held = evidence(found, 3, 0.25, class_agnostic=True)
    np.testing.assert_allclose(held.numpy(), [[0.8] * 3, [0.6] * 3], rtol=1e-6)


def test_product_is_the_weighted_geometric_mean() -> None:
    found = proposals(([0, 0, 10, 10], 0.64, 1))
    opinion = torch.tensor([[0.19, 0.5, 0.31, 0.0]])
    config = FusionConfig(classifier_weight=0.5)
    fused = fuse(evidence(found, 3, 0.25, False), found, opinion, config, False)
    assert fused.labels.tolist() == [1]
    np.testing.assert_allclose(fused.scores, [0.8 * 0.9], rtol=1e-6)
    np.testing.assert_allclose(fused.classifier_scores, [0.5], rtol=1e-6)


def test_a_sure_classifier_corrects_the_name() -> None:
    found = proposals(([0, 0, 10, 10], 0.64, 1))
    opinion = torch.tensor([[0.05, 0.01, 0.94]])
    config = FusionConfig(classifier_weight=0.5)
    fused = fuse(evidence(found, 2, 0.25, False), found, opinion, config, False)
    assert fused.labels.tolist() == [2]
    np.testing.assert_allclose(fused.scores, [(0.64 * 0.95) ** 0.5], rtol=1e-6)


def test_an_unsure_name_does_not_lower_the_score() -> None:
    found = proposals(([0, 0, 10, 10], 0.64, 1))
    held = evidence(found, 3, 0.25, True)
    sure = fuse(held, found, torch.tensor([[0.1, 0.9, 0.0, 0.0]]), FusionConfig(), True)
    unsure = fuse(held, found, torch.tensor([[0.1, 0.3, 0.31, 0.29]]), FusionConfig(), True)
    assert float(sure.scores) == pytest.approx(float(unsure.scores))
    assert (sure.labels.tolist(), unsure.labels.tolist()) == ([1], [2])


def test_negative_class_lowers_the_score() -> None:
    found = proposals(([0, 0, 10, 10], 0.9, 1))
    held = evidence(found, 2, 0.25, False)
    sure = fuse(held, found, torch.tensor([[0.0, 1.0, 0.0]]), FusionConfig(), False)
    none = fuse(held, found, torch.tensor([[0.98, 0.01, 0.01]]), FusionConfig(), False)
    assert float(none.scores) < 0.15 < 0.9 < float(sure.scores)


def test_rules_detector_and_classifier() -> None:
    found = proposals(([0, 0, 10, 10], 0.7, 1))
    opinion = torch.tensor([[0.1, 0.3, 0.6]])
    held = evidence(found, 2, 0.25, False)
    alone = fuse(held, found, opinion, FusionConfig(rule="detector"), False)
    assert (alone.labels.tolist(), alone.scores.tolist()) == ([1], found.scores.tolist())
    assert fuse(held, found, opinion, FusionConfig(rule="detector"), True).labels.tolist() == [2]
    named = fuse(held, found, opinion, FusionConfig(rule="classifier"), False)
    np.testing.assert_allclose(named.scores, [0.9], rtol=1e-6)
    assert named.labels.tolist() == [2]


@given(seed=st.integers(0, 10_000), count=st.integers(0, 12), weight=st.floats(0, 1),
       threshold=st.floats(0, 1), agnostic=st.booleans(),
       rule=st.sampled_from(["product", "detector", "classifier"]),
       slope=st.sampled_from([1.0, 0.4, 3.0]), shift=st.sampled_from([0.0, -2.5, 1.0]))
def test_setting_boxes_aside_early_changes_nothing(
        seed: int, count: int, weight: float, threshold: float, agnostic: bool,
        rule: str, slope: float, shift: float) -> None:
    found, opinions = some_proposals(seed, count, 4)
    config = FusionConfig.model_validate({"rule": rule, "classifier_weight": weight,
                                          "slope": slope, "shift": shift})
    held = evidence(found, 4, config.disagreement, agnostic)
    fused = fuse(held, found, opinions, config, agnostic)
    every = suppress(found.boxes, fused.scores, config.nms_iou, threshold).tolist()
    near = within_reach(found, 4, config, threshold, agnostic)
    assert set(every) <= set(torch.nonzero(near)[:, 0].tolist())
    kept = suppress(found.boxes[near], fused.scores[near], config.nms_iou, threshold)
    assert torch.nonzero(near)[:, 0][kept].tolist() == every


@given(seed=st.integers(0, 10_000), count=st.integers(0, 15))
def test_suppressed_boxes_are_duplicates_and_the_rest_are_not(seed: int, count: int) -> None:
    found, _ = some_proposals(seed, count, 4)
    kept = suppress(found.boxes, found.scores, 0.5, 0.0).numpy()
    scores, overlap = found.scores.numpy(), iou(found.boxes.numpy(), found.boxes.numpy())
    assert (np.diff(scores[kept]) <= 0).all()
    among = overlap[np.ix_(kept, kept)] - np.eye(len(kept))
    assert (among <= 0.5 + 1e-6).all()
    for gone in set(range(count)) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[gone]]
        assert max(overlap[gone, better]) > 0.5 - 1e-6


@given(seed=st.integers(0, 10_000), count=st.integers(1, 10), weight=st.floats(0, 1))
def test_scores_stay_between_nought_and_one(seed: int, count: int, weight: float) -> None:
    found, opinions = some_proposals(seed, count, 3)
    config = FusionConfig(classifier_weight=weight)
    fused = fuse(evidence(found, 3, config.disagreement, False), found, opinions, config, False)
    assert ((fused.scores >= 0) & (fused.scores <= 1 + 1e-6)).all()
    assert ((fused.labels >= 1) & (fused.labels <= 3)).all()


def test_calibration_by_hand() -> None:
    odds = 2 * np.log(0.8 / 0.2) - 1
    shown = calibrated(torch.tensor([0.8, 0.0, 1.0]), FusionConfig(slope=2, shift=-1))
    assert shown[0].item() == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-6)
    assert 0 < shown[1] < 1e-6 and 1 - 1e-6 < shown[2] <= 1
