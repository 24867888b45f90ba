"""From VGG features back to an image: the mirror of the encoder, as in Huang & Belongie 2017."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicon.styletransfer.encoder import Encoder, reflect
from musicon.styletransfer.weights import LAYERS, State, conv_names

# Rows: which of the 3 taps of a kernel, applied to an image enlarged twofold by repetition, fall
# on the 2 source pixels that an even (first) or an odd (second) pixel of the result sees.
_PHASES = (((1.0, 0, 0), (0, 1, 1)), ((1.0, 1, 0), (0, 0, 1)))


class Decoder(nn.Module):
    """Features (N, C, h, w) of a VGG layer -> images (N, 3, s h, s w), RGB around 0..1.

    Attributes:
        depth: The layer that it inverts.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Build from tensors named after the encoder's layers (``weights.decoder_state``)."""
        super().__init__()
        counts = {2 * len(conv_names(depth)): depth for depth in LAYERS}
        self.depth = counts[len(state)]
        self.names = tuple(reversed(conv_names(self.depth)))
        self.convs = nn.ModuleDict()
        for name in self.names:
            weight = state[f"{name}.weight"]
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
            conv.load_state_dict({"weight": weight, "bias": state[f"{name}.bias"]})
            self.convs[name] = conv
        self.to(memory_format=torch.channels_last)

    @classmethod
    def mirror(cls, encoder: Encoder, seed: int = 0) -> Decoder:
        """An untrained decoder of an encoder's deepest features, equal for equal seeds."""
        generator = torch.Generator().manual_seed(seed)
        state: State = {}
        for name in reversed(conv_names(encoder.depth)):
            outputs, inputs = encoder.conv(name).weight.shape[:2]
            weight = torch.randn(inputs, outputs, 3, 3, generator=generator)
            state[f"{name}.weight"] = weight * math.sqrt(2 / (9 * outputs))
            state[f"{name}.bias"] = torch.zeros(inputs)
        return cls(state)

    def state(self) -> State:
        """The weights under their common names, as ``weights.decoder_state`` reads them."""
        return {key.removeprefix("convs."): value for key, value in self.state_dict().items()}

    def forward(self, features: Tensor) -> Tensor:
        """Decode; nothing is cut to 0..1, so that training sees how far it is off."""
        maps, above = features, ""
        for name in self.names:
            conv: Any = self.convs[name]
            # What the encoder pooled before convN_1 is enlarged after its mirror.
            if above.endswith("_1"):
                maps = convolve_enlarged(maps, conv.weight, conv.bias)
            else:
                maps = conv(reflect(maps))
            if name != self.names[-1]:
                maps = F.relu(maps, inplace=not torch.is_grad_enabled())
            above = name
        return maps


def convolve_enlarged(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Enlarge twofold (nearest), pad by reflection, convolve 3x3: at 4/9 of the work.

    A pixel of the result sees 2x2 different source pixels only: which ones, and with which sums of
    taps, depends on whether its row and column are even. The four cases are one 2x2 convolution
    of the source with four times the channels. Reflection of the enlarged image repeats the
    source's border.

    Args:
        maps: (N, C, h, w).
        weight: (D, C, 3, 3).
        bias: (D,).

    Returns:
        (N, D, 2 h, 2 w).
    """
    taps = weight.new_tensor(_PHASES)
    outputs, inputs = weight.shape[:2]
    kernel = torch.einsum("atk,bul,oikl->aboitu", taps, taps, weight)
    kernel = kernel.reshape(4 * outputs, inputs, 2, 2).contiguous(memory_format=torch.channels_last)
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    found = F.conv2d(padded, kernel, bias.repeat(4))
    count, _, height, width = maps.shape
    result = found.new_empty((count, 2 * height, 2 * width, outputs)).permute(0, 3, 1, 2)
    for row in (0, 1):
        for column in (0, 1):
            first = (2 * row + column) * outputs
            result[:, :, row::2, column::2] = found[
                :, first:first + outputs, row:row + height, column:column + width]
    return result
