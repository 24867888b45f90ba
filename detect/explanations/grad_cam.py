"""Grad-CAM: the deepest maps, weighted by how much each speaks for a class.

Selvaraju et al. 2017 (arXiv:1610.02391), as the library Captum computes it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicon.detect.explanations.tracing import trace

CLASSES_DIFFER = True


def heat(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Heat maps (N, H, W), 1 at the greatest; 0 all over where nothing speaks for the class.

    Args:
        network: In eval mode; gives logits (N, outputs).
        images: float (N, 3, H, W).
        classes: int64 (N,), the output to explain.

    Raises:
        ExplanationError: A network whose deepest maps cannot be found.
    """
    from captum.attr import LayerGradCam

    layer = network.get_submodule(trace(network, images[:1]).deepest_module())
    with torch.enable_grad():
        found = LayerGradCam(network, layer).attribute(images, target=classes,
                                                       relu_attributions=True)
    maps = F.interpolate(found.detach().cpu().double(), size=images.shape[2:], mode="bilinear",
                         align_corners=False)[:, 0]
    top = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(top > 0, maps / torch.where(top > 0, top, 1), 0)
