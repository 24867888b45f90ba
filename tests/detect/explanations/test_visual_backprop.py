"""VisualBackProp by hand, against scatter-adding in NumPy, and in every kind of backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.detect.backbones import build_network
from musicon.detect.explanations.tracing import ExplanationError, Window, trace
from musicon.detect.explanations.visual_backprop import heat

Map = NDArray[np.float64]
SHIPPED = ("tf_efficientnet_lite0", "torchvision:resnet50", "torchvision:vgg19",
           "torchvision:inception_v3", "inception_v3", "resnet50", "mobilenetv3_small_050",
           "torchvision:mobilenet_v3_large", "torchvision:densenet121")


@lru_cache(maxsize=2)
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, 3, weights="none").eval()


def masks(model: nn.Module, images: Tensor) -> Tensor:
    return heat(model.eval(), images, torch.zeros(len(images), dtype=torch.long))


# --- by hand -----------------------------------------------------------------------------------


def tiny_chain() -> nn.Sequential:
    """Two 2 x 2 convolutions: the first copies a window's upper left pixel (and, as a second
    map, its negative, which the ReLU takes away), the second its lower right."""
    chain = nn.Sequential(nn.Conv2d(3, 2, 2, bias=False), nn.ReLU(),
                          nn.Conv2d(2, 1, 2, bias=False), nn.ReLU())
    for layer, ones in ((chain[0], [(0, 0, 0, 0, 1.0), (1, 0, 0, 0, -1.0)]),
                        (chain[2], [(0, 0, 1, 1, 1.0)])):
        nn.init.zeros_(layer.weight)
        for *place, value in ones:
            layer.weight.data[tuple(place)] = value
    return chain


def test_a_chain_of_two_layers_worked_out_by_hand() -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0] = torch.tensor([[0., 1, 2, 0], [3, 0, 1, 0], [0, 0, 4, 0], [0, 0, 0, 0]])
    # First averages: half of the upper left 3 x 3. Second: [[0, 1], [0, 4]], which a deconvolution
    # of ones makes [[0, 1, 1], [0, 5, 5], [0, 4, 4]]. Their product is
    # [[0, .5, 1], [0, 0, 2.5], [0, 0, 8]], and a last deconvolution leads to the picture.
    by_hand = torch.tensor([[0., 0.5, 1.5, 1], [0, 0.5, 4, 3.5], [0, 0, 10.5, 10.5], [0, 0, 8, 8]])
    torch.testing.assert_close(masks(tiny_chain(), images)[0], by_hand.double() / 10.5)


class Residual(nn.Module):
    """A block with a shortcut, and its activation after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3, padding=1)
        self.inside = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.first(images).relu()
        return (self.inside(stem) + stem).relu_()


class Joined(nn.Module):
    """Two branches whose maps are joined, then one more layer; ReLU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        both = torch.cat([self.left(images).relu(), self.right(images).relu()], dim=1)
        return nn.functional.relu(self.last(both))


def test_the_shortcut_of_a_residual_block_is_left_aside() -> None:
    torch.manual_seed(1)
    block, images = Residual(), torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        stem = block.first(images).relu()
        end = (block.inside(stem) + stem).relu()
    steps = [(3, 1, 1, (6, 7), stem), (3, 1, 1, (6, 7), None)]
    np.testing.assert_allclose(masks(block, images), scattered(end, steps), atol=1e-6)


def test_joined_branches_are_averaged_over_all_their_channels() -> None:
    torch.manual_seed(1)
    joined, images = Joined(), torch.randn(2, 3, 7, 6)
    with torch.no_grad():
        both = torch.cat([joined.left(images).relu(), joined.right(images).relu()], dim=1)
        end = joined.last(both).relu()
    found = masks(joined, images)
    # Both branches have one activation: the path may lead through either.
    either = [scattered(end, [(3, 2, 1, (7, 6), both), (kernel, 1, kernel // 2, (7, 6), None)])
              for kernel in (1, 3)]
    assert any(np.allclose(found, one, atol=1e-6) for one in either)


def test_nothing_fired_is_cold_all_over() -> None:
    assert not masks(tiny_chain(), torch.zeros(2, 3, 5, 4)).any()


# --- against an independent computation --------------------------------------------------------


def scattered(deepest: Tensor, steps: Sequence[tuple[int, int, int, tuple[int, int],
                                                     Tensor | None]]) -> Map:
    """VisualBackProp by adding each value to all pixels of its window, one by one.

    Args:
        deepest: The last maps (N, C, h, w).
        steps: From the last layer to the first: kernel, stride, padding, height and width of its
            input, and the ReLU maps (N, C, H, W) that went in.
    """
    mask: Map = deepest.double().mean(dim=1).numpy()
    for kernel, stride, padding, (height, width), before in steps:
        canvas = np.zeros((len(mask), height + 2 * padding + kernel,
                           width + 2 * padding + kernel))
        for y in range(mask.shape[1]):
            for x in range(mask.shape[2]):
                canvas[:, y * stride:y * stride + kernel,
                       x * stride:x * stride + kernel] += mask[:, y, x, None, None]
        mask = canvas[:, padding:padding + height, padding:padding + width]
        if before is not None:
            mask = mask * before.double().mean(dim=1).numpy()
        mask = mask / mask.max()
    low, high = (f(mask, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (mask - low) / (high - low)


def seen_by(modules: Sequence[nn.Module], model: nn.Module, images: Tensor) -> list[Tensor]:
    """Every output of these modules in the order in which they ran."""
    seen: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
             for module in modules]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return seen


def windows_of_vgg(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Any]]:
    """All sixteen ReLU maps of a VGG-19 and what lies between them."""
    layers = list(model.features)[:-1]  # the last pooling comes after the deepest ReLU
    outputs = seen_by(layers, model, images)
    sizes = [tuple(images.shape[-2:]), *(tuple(out.shape[-2:]) for out in outputs)]
    steps: list[Any] = []
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            relu = outputs[i - 1] if i and isinstance(layers[i - 1], nn.ReLU) else None
            steps.append((3, 1, 1, sizes[i], relu))
        elif isinstance(layer, nn.MaxPool2d):
            steps.append((2, 2, 0, sizes[i], outputs[i - 1]))
    assert len(steps) == 16 + 4
    return outputs[-1], steps[::-1]


def windows_of_resnet(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Any]]:
    """The 49 ReLU maps of a ResNet-50: the stem's and three of each of sixteen blocks."""
    blocks = [block for i in range(1, 5) for block in getattr(model, f"layer{i}")]
    maps = seen_by([model.relu, model.maxpool, *(block.relu for block in blocks)], model, images)
    stem, pooled, inside = maps[0], maps[1], maps[2:]
    steps: list[Any] = [(7, 2, 3, tuple(images.shape[-2:]), None),
                           (3, 2, 1, tuple(stem.shape[-2:]), stem)]
    before, given = pooled, None  # after the pooling no ReLU of its own
    for i, block in enumerate(blocks):
        steps.append((1, 1, 0, tuple(before.shape[-2:]), given))
        for j, convolution in enumerate((block.conv2, block.conv3)):
            maps_in = inside[3 * i + j]
            steps.append((convolution.kernel_size[0], convolution.stride[0],
                          convolution.padding[0], tuple(maps_in.shape[-2:]), maps_in))
        before = given = inside[3 * i + 2]
    assert len(inside) == 48
    return inside[-1], steps[::-1]


@pytest.mark.parametrize(("name", "windows"), [
    ("torchvision:vgg19", windows_of_vgg), ("torchvision:resnet50", windows_of_resnet)])
def test_the_thesis_networks_against_scattering(name: str, windows: Callable[..., Any]) -> None:
    model = network(name)
    torch.manual_seed(2)
    images = torch.randn(1, 3, 64, 80)
    deepest, steps = windows(model, images)
    np.testing.assert_allclose(masks(model, images).numpy(), scattered(deepest, steps), atol=1e-6)


@pytest.mark.parametrize("window", [
    Window((3, 3), (2, 2), (1, 1)), Window((2, 2), (2, 2)), Window((1, 7), (1, 1), (0, 3)),
    Window((3, 3), (3, 1), (0, 2)), Window((3, 3), (1, 1), (2, 2), (2, 2)), Window((1, 1), (2, 2))])
@pytest.mark.parametrize("hw", [(9, 11), (12, 8)])
def test_scaling_up_is_the_gradient_of_summing_the_windows(window: Window,
                                                           hw: tuple[int, int]) -> None:
    """Which autograd knows without any deconvolution of ours."""
    images = torch.randn(2, 1, *hw, dtype=torch.float64, requires_grad=True)
    sums = nn.functional.conv2d(images, torch.ones(1, 1, *window.kernel, dtype=torch.float64),
                                stride=window.stride, padding=window.padding,
                                dilation=window.dilation)
    mask = torch.rand_like(sums)
    gradient, = torch.autograd.grad(sums, images, mask)
    torch.testing.assert_close(window.scale_up(mask[:, 0], hw), gradient[:, 0])


# --- every backbone ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_the_heat_lies_where_the_picture_is_not_plain(name: str) -> None:
    model, size = network(name), 160
    torch.manual_seed(3)
    for top, left in ((16, 80), (96, 24)):
        images = torch.zeros(1, 3, size, size)
        images[..., top:top + 40, left:left + 48] = 2 * torch.randn(1, 3, 40, 48)
        found = masks(model, images)[0]
        assert found.shape == (size, size)
        assert (found.min(), found.max()) == (0, 1)
        rows, columns = (torch.arange(size) + 0.5 for _ in range(2))
        share = found / found.sum()
        centre = torch.stack([(share.sum(1) * rows).sum(), (share.sum(0) * columns).sum()])
        assert (centre - torch.tensor([top + 20.0, left + 24.0])).abs().max() < 12, centre
        # Four fifths of the pixels lie further than 8 from the patch.
        near = found[max(top - 8, 0):top + 48, max(left - 8, 0):left + 56].sum()
        assert near / found.sum() > 0.6


@pytest.mark.parametrize(("name", "activations"), [
    ("torchvision:vgg19", 16), ("torchvision:resnet50", 49), ("resnet50", 49)])
def test_the_path_has_all_activations_of_the_network(name: str, activations: int) -> None:
    seen = trace(network(name), torch.randn(1, 3, 64, 64))
    kinds = [seen.steps[place].kind for place in seen.main_path()]
    assert kinds.count("activation") == activations


def test_a_network_without_convolutions_after_its_first_says_what_to_do() -> None:
    vit = build_network("vit_tiny_patch16_224", 2, weights="none").eval()
    with pytest.raises(ExplanationError, match="--method integrated-gradients"):
        masks(vit, torch.randn(1, 3, 224, 224))
