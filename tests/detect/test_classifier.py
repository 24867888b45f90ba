"""The crop classifier, and fitting its last layer on fixed features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from musicon.detect.classifier import build
from musicon.detect.config import ClassifierConfig
from musicon.detect.crops import fit_linear

CONFIG = ClassifierConfig(backbone="mobilenetv3_small_050", weights="none", image_size=64)


def test_probabilities_and_preprocessing() -> None:
    torch.manual_seed(0)
    model = build(CONFIG, 4).eval()
    crops = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    probabilities = model.classify_crops(list(crops))
    assert probabilities.shape == (3, 5)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    mean, std = (torch.tensor(model.network.pretrained_cfg[k]).view(3, 1, 1)  # type: ignore[union-attr,index,operator]
                 for k in ("mean", "std"))
    by_hand = (torch.from_numpy(crops[0]).permute(2, 0, 1) / 255 - mean) / std
    with torch.no_grad():
        expected = model.network(by_hand[None]).softmax(1).numpy()
    assert np.allclose(probabilities[:1], expected, atol=1e-5)
    assert model.classify_crops([]).shape == (0, 5)


def test_temperature_softens() -> None:
    model = build(CONFIG, 2).eval()
    crops = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        sharp = model.probabilities(crops)
        model.temperature.fill_(1e6)
        flat = model.probabilities(crops)
    assert torch.allclose(flat, torch.full_like(flat, 1 / 3), atol=1e-4)
    assert not torch.allclose(sharp, flat, atol=1e-4)


@pytest.mark.parametrize(("batch_norm", "changes"), [("held", False), ("learnt", True)])
def test_batch_statistics_are_held_or_learnt(batch_norm: str, changes: bool) -> None:
    model = build(CONFIG.model_copy(update={"batch_norm": batch_norm}), 2).train()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model(torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8))
    after = model.state_dict()
    assert before and any(not torch.equal(v, after[k]) for k, v in before.items()) == changes


def test_head_rows_name_the_last_layer() -> None:
    model = build(CONFIG, 3)
    state = model.state_dict()
    for name, rows in model.head_rows().items():
        assert rows.tolist() == [[0], [1], [2], [3]]
        assert state[name].shape[0] == 4


def test_fit_linear_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    spread, shift = (1, 5, 0.2, 1, 1, 1), (1, 3, 0.1, 0, 0, 0)
    features = rng.normal(0, 1, (300, 6)) * spread + labels[:, None] * shift
    weight, bias = fit_linear(torch.tensor(features, dtype=torch.float32), torch.tensor(labels),
                              nn.Linear(6, 3), decay=1e-3)
    own = (torch.tensor(features, dtype=torch.float32) @ weight.T + bias).softmax(1).numpy()
    mean, deviation = features.mean(0), features.std(0, ddof=1)
    # scikit-learn: sum of losses + |w|^2 / (2 C); ours: mean of losses + decay |w|^2.
    oracle = LogisticRegression(C=1 / (2 * 1e-3 * 300), max_iter=500)
    oracle.fit((features - mean) / deviation, labels)
    expected = oracle.predict_proba((features - mean) / deviation)
    assert np.abs(own - expected).max() < 0.01
