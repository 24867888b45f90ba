"""Integrated gradients: what each pixel adds to a class, on the way from a plain grey picture.

Sundararajan et al. 2017 (arXiv:1703.01365), as the library Captum computes it. Single pixels say
little, so that what speaks for the class is summed over a few neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

CLASSES_DIFFER = True
STEPS = 24
"""Points on the way from the plain picture; their gradients are averaged."""
AT_ONCE = 8
"""Pictures that go through the network together; bounds the memory."""
SMOOTHING = 1 / 56
"""Standard deviation of the blur, as a share of the picture's width."""
TOP = 0.995
"""Share of the pixels below full heat: a few outliers would leave all others black."""


def heat(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Heat maps (N, H, W) in 0..1; 0 all over where nothing speaks for the class.

    Args:
        network: In eval mode; gives logits (N, outputs). The plain picture has the colour of
            its ``mean``, which it normalises to 0, if it has one, and is black else.
        images: float (N, 3, H, W).
        classes: int64 (N,), the output to explain.
    """
    plain = getattr(network, "mean", torch.zeros((), device=images.device)).expand_as(images)
    given = attributions(network, images, plain, classes).sum(dim=1).clamp(min=0).cpu().double()
    sigma = SMOOTHING * images.shape[-1]
    width = 2 * round(3 * sigma) + 1
    maps = gaussian_blur(given[:, None], [width, width], [sigma, sigma])[:, 0]
    top = torch.quantile(maps.flatten(1), TOP, dim=1).view(-1, 1, 1)
    return torch.where(top > 0, (maps / torch.where(top > 0, top, 1)).clamp(max=1), 0)


def attributions(network: nn.Module, images: Tensor, plain: Tensor, classes: Tensor,
                 steps: int = STEPS) -> Tensor:
    """What each value adds (N, 3, H, W); they sum to the class's logit minus the plain one's."""
    from captum.attr import IntegratedGradients

    with torch.enable_grad():
        found: Tensor = IntegratedGradients(network).attribute(
            images, baselines=plain, target=classes, n_steps=steps,
            internal_batch_size=max(AT_ONCE, len(images)))
    return found.detach()
