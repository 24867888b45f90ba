"""What single layers make of a picture: the maps of chosen convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.detect.explanations.tracing import ExplanationError, trace


@dataclass(frozen=True)
class Layer:
    """The maps of one convolution for one picture, the most active first.

    Attributes:
        number: Which convolution of the network, from 1.
        module: Its name in the network.
        maps: float32 (C, H, W): the activation's output where one follows, else the
            (normalised) convolution's own.
        channels: int64 (C,), the channel that each map has in the network.
        activity: float32 (C,), mean of each map's positive part, falling.
    """

    number: int
    module: str
    maps: NDArray[np.float32]
    channels: NDArray[np.int64]
    activity: NDArray[np.float32]


def feature_maps(network: nn.Module, images: Tensor, numbers: Sequence[int]) -> list[Layer]:
    """The maps of convolutions for one image (1, 3, H, W).

    Args:
        network: In eval mode.
        images: One image.
        numbers: Convolutions in the order in which they run, from 1.

    Raises:
        ExplanationError: The network has fewer convolutions.
    """
    seen = trace(network, images, keep=[number - 1 for number in numbers])
    known = len(seen.convolutions)
    wrong = [number for number in numbers if not 1 <= number <= known]
    if wrong:
        raise ExplanationError(f"--layers {wrong[0]}: this network has {known} convolutions; "
                               f"write numbers from 1 to {known}")
    return [_sorted(number, seen.convolutions[number - 1], seen.maps[number - 1][0])
            for number in numbers]


def _sorted(number: int, module: str, maps: Tensor) -> Layer:
    activity = maps.clamp(min=0).mean(dim=(1, 2))
    order = torch.argsort(activity, descending=True, stable=True)
    return Layer(number, module, maps[order].float().cpu().numpy(), order.cpu().numpy(),
                 activity[order].float().cpu().numpy())
