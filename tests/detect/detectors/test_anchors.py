"""Anchors fitted to boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from musicon.detect.config import ConfigError, DetectorConfig
from musicon.detect.detectors.anchors import fit_anchors, one_a_level


def test_sizes_and_ratios_are_the_boxes_own() -> None:
    sides = np.array([[20, 20], [40, 40], [80, 80], [160, 160]] * 25)
    sizes, ratios = fit_anchors(np.concatenate([np.zeros_like(sides), sides], axis=1))
    assert sizes == (20, 40, 80, 160)
    assert ratios == (1, 1, 1)


def test_equal_boxes_still_give_different_sizes() -> None:
    sizes, _ = fit_anchors([[0, 0, 30, 30]] * 5)
    assert all(b / a >= 1.2 for a, b in zip(sizes, sizes[1:], strict=False))
    with pytest.raises(ValueError, match="no boxes"):
        fit_anchors([])


def test_fitted_anchors_cover_boxes_better_than_fixed_ones() -> None:
    """Best IoU of thin, small boxes with torchvision's own anchors at every place."""
    rng = np.random.default_rng(0)
    wh = np.stack([rng.uniform(40, 90, 60), rng.uniform(8, 20, 60)], 1)
    centres = rng.uniform(60, 200, (60, 2))
    boxes = torch.tensor(np.concatenate([centres - wh / 2, centres + wh / 2], 1)).float()
    sizes, ratios = fit_anchors(boxes.numpy())

    def cover(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> float:
        generator = AnchorGenerator((sizes,), (ratios,))
        images = ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)])
        anchors = generator(images, [torch.zeros(1, 1, 32, 32)])[0]
        return float(box_iou(boxes, anchors).max(dim=1).values.mean())

    assert cover(sizes, ratios) > cover((32, 64, 128, 256), (0.5, 1.0, 2.0)) + 0.1


def test_more_sizes_than_levels_are_refused() -> None:
    cfg = DetectorConfig(anchor_sizes=(16, 32, 64, 128, 256))
    with pytest.raises(ConfigError, match="5 sizes, but this network has 4 levels"):
        one_a_level(cfg, 4)
    assert [size for size, _ in one_a_level(cfg, 5)] == [16, 32, 64, 128, 256]
