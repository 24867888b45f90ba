"""The references have the published sizes; layers, views and likeness do what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from musicon.detect.config import load_as
from musicon.detect.tasks import TaskError
from musicon.detect.tasks.networks import (
    WorkClassifier,
    build_layers,
    count_parameters,
    direction,
    square,
    views,
)
from musicon.detect.tasks.settings import NetworkConfig, TaskConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "tasks"
VGG16_CONVOLUTIONS = 14_714_688
RESNET50_V2, INCEPTION_V3 = 23_500_352, 21_785_568
TOWER = (2048, 512, 256, 128, 64, 32, 16, 8, 3)


def dense(*sizes: int) -> int:
    """Parameters of dense layers, by hand: weights and biases."""
    return sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False))


def conv(*channels: int) -> int:
    """Parameters of 3 x 3 convolutions, by hand."""
    return sum(9 * a * b + b for a, b in zip(channels, channels[1:], strict=False))


@pytest.mark.parametrize(("name", "classes", "whole", "learning"), [
    ("medium_4_cnn", 4, 1_459_204, 1_459_204),
    ("movement_9_cnn", 9, conv(3, 32, 64, 128) + dense(6 * 6 * 128, 9), None),
    ("movement_9_vgg16", 9, VGG16_CONVOLUTIONS + dense(2048, 128, 9), dense(2048, 128, 9)),
    ("movement_9_vgg16_pooled", 9, VGG16_CONVOLUTIONS + dense(512, 128, 9), dense(512, 128, 9)),
    ("movement_9_vgg16_unfrozen", 9, VGG16_CONVOLUTIONS + dense(2048, 128, 9),
     dense(2048, 128, 9) + 3 * conv(512, 512)),
    ("movement_18_resnet50", 18, RESNET50_V2 + dense(2048, 18), dense(2048, 18)),
    ("painter_inceptionv3", 3, INCEPTION_V3 + dense(*TOWER), dense(*TOWER)),
])
def test_references_have_the_published_sizes(name: str, classes: int, whole: int,
                                             learning: int | None) -> None:
    from musicon.detect.backbones import freeze_stages

    config = load_as(TaskConfig, CONFIGS / f"{name}.yaml", ["network.weights=none"])
    network = WorkClassifier(config.network, classes)
    assert count_parameters(network) == whole
    network.body.requires_grad_(config.learns(config.whole))
    freeze_stages(network.body, config.whole.freeze)
    assert count_parameters(network, learning=True) == (whole if learning is None else learning)


@pytest.mark.parametrize(("name", "shares", "examples"), [
    ("movement_9_cnn", (0.8, 0.1, 0.1), 30), ("movement_18_resnet50", (0.8, 0.1, 0.1), 2000),
    ("painter_inceptionv3", (0.8, 0.1, 0.1), 50), ("medium_4_cnn", (0.8, 0.1, 0.1), 30)])
def test_references_have_the_published_splits_and_lengths(
        name: str, shares: tuple[float, ...], examples: int) -> None:
    config = load_as(TaskConfig, CONFIGS / f"{name}.yaml")
    assert config.split.shares == shares
    assert examples in (config.head.steps, config.head.epochs, config.whole.epochs)
    if name == "movement_18_resnet50":
        assert (config.head.batch_size, config.split.apart) == (10, ())
    if name == "medium_4_cnn":
        assert config.whole.batch_size == 64


def test_layers_by_words() -> None:
    body = build_layers(["conv 4", "pool", "dropout 0.5"], (3, 10, 10))
    assert body(torch.zeros(2, 3, 10, 10)).shape == (2, 4, 4, 4)
    head = build_layers(["dense 5", "logits 3"], (4, 4, 4))
    assert head(torch.zeros(2, 4, 4, 4)).shape == (2, 3)
    assert (head(torch.randn(64, 4, 4, 4)) < 0).any(), "the last layer has no ReLU"


@pytest.mark.parametrize("word", ["konv 3", "conv", "conv x", "dropout 2", "dense -1", ""])
def test_a_word_that_is_no_layer(word: str) -> None:
    with pytest.raises(TaskError, match="write conv N, dense N"):
        build_layers([word])


def test_a_convolution_has_no_place_after_a_dense_layer() -> None:
    with pytest.raises(TaskError, match="its input is 5"):
        build_layers(["dense 5", "conv 3"], (3, 8, 8))


def test_views_are_the_whole_its_mirror_image_and_parts() -> None:
    image = np.arange(60 * 90 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 90, 3)
    cfg = NetworkConfig(image_size=32)
    found = views(image, cfg, 5)
    assert found.shape == (5, 32, 32, 3)
    assert (found[0] == square(image, "squash", 32)).all()
    assert (found[1] == found[0][:, ::-1]).all()
    assert (views(image, cfg, 3) == found[:3]).all(), "the same picture has the same views"
    assert not (found[2] == found[4]).all()


@pytest.mark.parametrize(("view", "corner", "middle"), [
    ("squash", 255, 255), ("crop", 0, 255), ("pad", 255, 255)])
def test_squares(view: str, corner: int, middle: int) -> None:
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, :20] = image[:, 50:70] = 255
    seen = square(image, view, 40)
    assert seen.shape == (40, 40, 3)
    assert (seen[20, 0, 0], seen[20, 20, 0]) == (corner, middle)


def test_likeness_is_the_mean_cosine_to_the_nearest() -> None:
    network = WorkClassifier(NetworkConfig(backbone=None, layers=("conv 2",), image_size=32), 2)
    assert network.likeness(torch.ones(3, 2)).tolist() == [1, 1, 1], "nothing known, nothing odd"
    angles = torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0, 170.0]).deg2rad()
    network.known = torch.stack([angles.cos(), angles.sin()], 1)
    expected = float(angles[:5].cos().mean())
    assert network.likeness(torch.tensor([[7.0, 0.0]])).item() == pytest.approx(expected)
    besides = torch.tensor([[True, False, False, False, False, False]])
    others = float(angles[1:].cos().mean())
    assert network.likeness(torch.tensor([[7.0, 0.0]]), besides).item() == pytest.approx(others)
    maps = torch.tensor([[7.0, 0.0]])[:, :, None, None].expand(1, 2, 3, 3)
    assert torch.allclose(direction(maps), torch.tensor([[1.0, 0.0]]))
