"""Maps of single layers: what the network itself computes, the most active first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from musicon.detect.backbones import build_network
from musicon.detect.explanations.feature_maps import feature_maps
from musicon.detect.explanations.tracing import ExplanationError


@pytest.mark.parametrize(("name", "outputs"), [
    # The first, third and fourth convolution; in a block's last one no activation follows.
    ("torchvision:vgg11", {1: "features.1", 3: "features.7", 4: "features.9"}),
    ("tf_efficientnet_lite0", {1: "bn1", 3: "blocks.0.0.bn2", 4: "blocks.1.0.bn1"})])
def test_maps_are_those_of_the_network(name: str, outputs: dict[int, str]) -> None:
    torch.manual_seed(0)
    network = build_network(name, 2, weights="none").eval()
    images = torch.randn(1, 3, 64, 48)
    seen: dict[int, np.ndarray] = {}
    for number, module in outputs.items():
        def note(_: nn.Module, __: object, out: torch.Tensor, number: int = number) -> None:
            seen[number] = out[0].detach().clone().numpy()

        network.get_submodule(module).register_forward_hook(note)
    for layer in feature_maps(network, images, list(outputs)):
        expected = seen[layer.number]
        np.testing.assert_allclose(layer.maps, expected[layer.channels], rtol=1e-5, atol=1e-6)
        activity = np.clip(expected, 0, None).mean(axis=(1, 2))
        np.testing.assert_allclose(layer.activity, np.sort(activity)[::-1], rtol=1e-4, atol=1e-6)
        assert sorted(layer.channels) == list(range(len(expected)))


def test_layers_that_are_not_there_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).eval()
    with pytest.raises(ExplanationError, match="--layers 3: this network has 2 convolutions"):
        feature_maps(network, torch.randn(1, 3, 8, 8), [1, 3])
