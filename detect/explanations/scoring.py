"""Is a heat map right? Pointing, the share that falls on a region, deletion and insertion.

The pointing game is Zhang et al. 2016 (arXiv:1608.00507), without their tolerance of 15 pixels;
the share of the heat in a region is Wang et al. 2020 (Score-CAM, arXiv:1910.01279), section 4.3;
deletion and insertion are Petsiuk et al. 2018 (RISE, arXiv:1806.07421), section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from musicon.detect.classifier import CropClassifier

BLUR = 5 / 224
"""Standard deviation of the blur that insertion starts from, as a share of the width."""

Map = NDArray[np.floating]
Region = NDArray[np.bool_]


@dataclass(frozen=True)
class Curves:
    """What a class's probability does as the hottest pixels go, or come.

    Attributes:
        deletion: (steps + 1,), with 0 .. all of the pixels in the mean colour.
        insertion: (steps + 1,), with 0 .. all of the pixels sharp in a blurred picture.
    """

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]


def centre_map(height: int, width: int) -> Map:
    """Heat that falls evenly from the middle (1) to the corners (0): the centre-point baseline."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    return 1 - distance / max(distance.max(), 1e-9)


def points_at(heat: Map, region: Region) -> bool:
    """Whether the hottest pixel (H, W) lies in the region; a map that is flat points nowhere."""
    return bool(heat.max() > heat.min() and region.ravel()[int(heat.argmax())])


def share_in(heat: Map, region: Region) -> float:
    """Share of the heat in a region; NaN where there is no heat."""
    whole = float(heat.sum())
    return float(heat[region].sum()) / whole if whole > 0 else float("nan")


def area_under(curve: NDArray[np.float64]) -> float:
    """Mean height of a curve whose points are evenly spaced (trapezium rule)."""
    return float((curve[1:] + curve[:-1]).mean() / 2)


@torch.inference_mode()
def curves(classifier: CropClassifier, crop: NDArray[np.uint8], heat: Map, output: int,
           steps: int = 16) -> Curves:
    """Delete, and insert, the pixels of a crop from the hottest to the coldest.

    Args:
        classifier: Gives probabilities; the mean colour that replaces pixels is its ``mean``.
        crop: uint8 RGB (S, S, 3).
        heat: (S, S).
        output: The classifier's output that is followed.
        steps: Into how many equal parts the pixels are divided.
    """
    sharp = torch.from_numpy(crop).permute(2, 0, 1)[None].to(classifier.mean.device).float()
    side = crop.shape[0]
    width = 2 * round(side * 3 * BLUR) + 1
    blurred = gaussian_blur(sharp, [width, width], [side * BLUR, side * BLUR])
    order = np.argsort(-heat, axis=None, kind="stable")
    rank = np.empty(heat.size, np.int64)
    rank[order] = np.arange(heat.size)
    ranks = torch.from_numpy(rank.reshape(heat.shape)).to(sharp.device)

    def followed(reached: Tensor, others: Tensor) -> NDArray[np.float64]:
        limits = [round(heat.size * step / steps) for step in range(steps + 1)]
        made = torch.cat([torch.where(ranks < limit, reached, others) for limit in limits])
        parts = [classifier.probabilities(some)[:, output] for some in made.split(steps)]
        return torch.cat(parts).double().cpu().numpy()

    return Curves(followed(classifier.mean.expand_as(sharp), sharp), followed(sharp, blurred))
