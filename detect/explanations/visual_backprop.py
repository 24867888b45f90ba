"""VisualBackProp: where the pixels are that fired the network's deepest maps.

Bojarski et al. 2016, "VisualBackProp: visualizing CNNs for autonomous driving"
(arXiv:1611.05418): the maps after each ReLU are averaged over their channels; from the deepest
on, each is scaled up by a deconvolution of ones with the layer's own kernel, stride and padding,
and multiplied by the map before it, down to the input.

The paper's networks are chains. Where a network branches, the path with most ReLU maps is taken:
shortcuts around residual blocks are left aside, and where branches are joined (Inception), the
average is over the channels of all of them. Poolings and paddings between two maps are undone
by a deconvolution of ones as well. Of activations that can be negative (hard swish, SiLU), the
positive part is averaged, which for a ReLU is all of it.

It asks what the network looked at, not what speaks for a class: it is the same for every class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from musicon.detect.explanations.tracing import Step, Trace, trace

CLASSES_DIFFER = False


def heat(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Heat maps (N, H, W) in 0..1, float64, of images (N, 3, H, W).

    Args:
        network: In eval mode.
        images: What the network takes.
        classes: Not used: the maps are the same for every class.

    Raises:
        ExplanationError: A network without convolutions and activations to follow.
    """
    return visual_backprop(trace(network, images))


def visual_backprop(seen: Trace) -> Tensor:
    """The masks (N, H, W) of a forward pass, each stretched to 0..1; 0 where nothing fired."""
    path = seen.main_path()
    averages = _averages(seen.steps, path)
    mask = averages[path[-1]]
    for place, before in zip(path[:0:-1], path[-2::-1], strict=True):
        step = seen.steps[place]
        if step.window is not None:
            mask = step.window.scale_up(mask, seen.steps[before].hw)
        if before in averages:
            mask = mask * averages[before]
        # A factor for the whole mask changes nothing, and fifty products would underflow.
        mask = mask / mask.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(mask.dtype).tiny)
    return unit_range(mask)


def unit_range(maps: Tensor) -> Tensor:
    """Maps (N, H, W), each stretched from its least and greatest value to 0..1; flat ones are 0."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, 1), 0)


def _averages(steps: Sequence[Step], path: Sequence[int]) -> dict[int, Tensor]:
    """Steps of the path whose averaged maps are multiplied.

    Maps that are joined with others right after the activation count where they are joined, all
    channels together: to join ReLU maps and to apply one ReLU to joined maps is the same.
    """
    found: dict[int, Tensor] = {}
    last: int | None = None
    for place in path:
        step = steps[place]
        if step.window is not None:
            last = None
        if step.average is None or (step.kind == "joining" and last is None):
            continue
        if step.kind == "joining" and last is not None:
            del found[last]
        found[place] = step.average
        last = place
    return found
