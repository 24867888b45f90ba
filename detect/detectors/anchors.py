"""Anchors from the data: the sizes and shapes that a stage's instruments really have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musicon.datasets import boxes as box_tools
from musicon.detect.config import ConfigError, DetectorConfig

SIZE_SHARES = (0.08, 0.35, 0.65, 0.92)
SHAPE_SHARES = (0.15, 0.5, 0.85)
SMALLEST = 12.0
"""Pixels; the finest map has a cell every 8."""
LEAST_STEP = 1.25
"""Each size is at least so many times the one before it."""


def fit_anchors(boxes: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Anchor sizes and aspect ratios that cover boxes (N, 4), in pixels as the network sees them.

    Returns:
        Four square roots of areas, rising (quantiles of the boxes' own), and three ratios of
        height over width, rising.

    Raises:
        ValueError: No box.
    """
    sides = box_tools.as_boxes(boxes)
    if not len(sides):
        raise ValueError("no boxes to fit anchors to")
    width, height = (sides[:, 2:] - sides[:, :2]).clip(1).T
    sizes = _spread(np.quantile(np.sqrt(width * height), SIZE_SHARES))
    ratios = np.exp(np.quantile(np.log(height / width), SHAPE_SHARES))
    return tuple(sizes), tuple(round(float(r), 2) for r in ratios)


def one_a_level(cfg: DetectorConfig, levels: int) -> list[list[float]]:
    """For each level of a pyramid an anchor size and its double in area, in pixels.

    Raises:
        ConfigError: Sizes that nobody has fitted yet, or more of them than levels.
    """
    if cfg.anchor_sizes == "auto":
        raise ConfigError("detector.anchor_sizes is 'auto', which only training can resolve; "
                          "write numbers, such as [24, 64, 128, 256]")
    if len(cfg.anchor_sizes) > levels:
        raise ConfigError(f"detector.anchor_sizes: {len(cfg.anchor_sizes)} sizes, but this network "
                          f"has {levels} levels of one size each; leave some out, or write auto")
    sizes = sorted(cfg.anchor_sizes)
    picks = [sizes[round(i * (len(sizes) - 1) / (levels - 1))] for i in range(levels)]
    return [[size, size * 2**0.5] for size in picks]


def _spread(sizes: NDArray[np.float64]) -> list[float]:
    """Sizes pushed apart where boxes are all alike: equal anchors would be one."""
    spread = [max(SMALLEST, float(sizes[0]))]
    for size in sizes[1:]:
        spread.append(max(float(size), spread[-1] * LEAST_STEP))
    return [round(size, 1) for size in spread]
