"""Mean and deviation of each channel of feature maps: what AdaIN and instance norms work with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

EPSILON = 1e-5
"""Added to variances, so that a channel that is constant divides by no zero."""


def moments(parts: Iterable[Tensor], epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel over all parts of feature maps.

    Args:
        parts: Each (N, C, h, w), of any h and w.
        epsilon: Added to the variance.

    Returns:
        (N, C) means and (N, C) deviations √(σ² + ε), float32. Parts are merged as by Chan, Golub
        & LeVeque (1979), which loses no digits.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        number = part.shape[2] * part.shape[3]
        variance, centre = torch.var_mean(part.float(), (2, 3), correction=0)
        if count == 0:
            count, mean, squares = number, centre, variance * number
            continue
        distance, total = centre - mean, count + number
        squares = squares + variance * number + distance.square() * (count * number / total)
        mean, count = mean + distance * (number / total), total
    return mean, (squares / count + epsilon).sqrt()
