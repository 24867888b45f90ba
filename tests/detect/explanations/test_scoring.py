"""Figures that say whether a heat map is right, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from musicon.detect.explanations.scoring import (
    BLUR,
    area_under,
    centre_map,
    curves,
    points_at,
    share_in,
)


class RedShare(nn.Module):
    """Output 1 is the share of full red in a crop, output 0 the rest; the mean colour is black."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))

    def probabilities(self, crops: Tensor) -> Tensor:
        red = crops[:, 0].double().mean(dim=(1, 2)) / 255
        return torch.stack([1 - red, red], dim=1)


def crop_with_red(side: int = 32) -> np.ndarray:
    """A quarter of it is red: the upper left one."""
    crop = np.zeros((side, side, 3), np.uint8)
    crop[:side // 2, :side // 2, 0] = 255
    return crop


def test_deletion_and_insertion_of_a_perfect_and_of_a_wrong_map() -> None:
    crop: Any = crop_with_red()
    network: Any = RedShare()
    right = curves(network, crop, crop[..., 0] / 255.0, 1, steps=4)
    wrong = curves(network, crop, 1 - crop[..., 0] / 255.0, 1, steps=4)
    np.testing.assert_allclose(right.deletion, [0.25, 0, 0, 0, 0])
    np.testing.assert_allclose(wrong.deletion, [0.25, 0.25, 0.25, 0.25, 0])
    assert area_under(right.deletion) == pytest.approx(0.25 / 8)
    assert area_under(wrong.deletion) == pytest.approx(0.25 * 7 / 8)
    # Insertion: sharp red where the map is hot, beside what the blur has spread elsewhere.
    blurred = gaussian_filter(crop[..., 0] / 255.0, 32 * BLUR, mode="mirror", truncate=3)
    outside = blurred[crop[..., 0] == 0].sum() / 32 ** 2
    assert right.insertion[0] == pytest.approx(blurred.mean(), abs=2e-3)
    assert right.insertion[1] == pytest.approx(0.25 + outside, abs=2e-3)
    assert right.insertion[4] == wrong.insertion[4] == 0.25
    assert wrong.insertion[3] == pytest.approx(blurred.mean() - outside, abs=2e-3)
    assert np.allclose(curves(network, crop, right.deletion.mean() * np.ones((32, 32)), 0,
                              steps=4).deletion[[0, 4]], [0.75, 1])


def test_areas_are_trapeziums() -> None:
    assert area_under(np.array([1.0, 0.0])) == 0.5
    assert area_under(np.array([0.0, 1.0, 1.0])) == 0.75
    grid = np.linspace(0, 1, 9) ** 2
    assert area_under(grid) == pytest.approx(trapezoid(grid, dx=1 / 8))


def test_pointing_and_shares() -> None:
    heat = np.array([[0.0, 0.2], [0.6, 0.2]])
    lower = np.array([[False, False], [True, True]])
    assert points_at(heat, lower) and not points_at(heat, ~lower)
    assert share_in(heat, lower) == pytest.approx(0.8)
    assert share_in(heat, np.zeros_like(lower)) == 0
    flat = np.zeros((2, 2))
    assert not points_at(flat, np.ones_like(lower)) and math.isnan(share_in(flat, lower))


@pytest.mark.parametrize("hw", [(5, 5), (4, 9), (1, 1)])
def test_the_baseline_is_hottest_in_the_middle(hw: tuple[int, int]) -> None:
    heat = centre_map(*hw)
    assert heat.shape == hw and heat.max() <= 1 and heat.min() >= 0
    y, x = np.unravel_index(int(heat.argmax()), hw)
    assert abs(y - (hw[0] - 1) / 2) <= 0.5 and abs(x - (hw[1] - 1) / 2) <= 0.5
    np.testing.assert_allclose(heat, heat[::-1, ::-1])
