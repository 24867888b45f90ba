"""A feed-forward network a style (Johnson, Alahi & Fei-Fei 2016), with instance normalisation.

Convolution 9x9, two of stride 2, five residual blocks, two transposed convolutions, convolution
9x9; an instance normalisation (Ulyanov et al. 2016) follows each. The result is
150 tanh(x) + 127.5, as in the widely used TensorFlow networks, whose weights can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicon.styletransfer.methods.base import MethodSettings, StyleMethod
from musicon.styletransfer.moments import moments
from musicon.styletransfer.tiling import tiles
from musicon.styletransfer.weights import State, StyleError, read_state

EPSILON = 1e-3
"""Of the instance normalisations, as the published networks were trained."""
STRIDE = 4
REACH = 64
"""Pixels that the network reaches (60), in whole strides."""
WIDTHS = (32, 64, 128)
_RESIDUAL = tuple(f"residual{block}_{half}" for block in range(1, 6) for half in (1, 2))
NAMES = ("down1", "down2", "down3", *_RESIDUAL, "up1", "up2", "up3")
"""The convolutions in order; a published network's Variable, Variable_1, Variable_2 are the weight,
shift and scale of the first, and so on."""
_STRIDES = dict.fromkeys(NAMES, 4) | {"down1": 1, "down2": 2, "up1": 2, "up2": 1, "up3": 1}
Moments = tuple[Tensor, Tensor]


class Settings(MethodSettings):
    """Where the network is."""

    weights: Path
    """A network of ``build_bank.py train-style``, or a published one (see ``network_state``)."""


class Network(nn.Module):
    """Images (N, 3, H, W) in 0..1, H and W multiples of 4 -> stylised images of the same size."""

    def __init__(self, seed: int = 0, widths: Sequence[int] = WIDTHS) -> None:
        """An untrained network with these channels at strides 1, 2 and 4, equal for equal seeds."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        fine, middle, coarse = widths
        sizes = {"down1": (3, fine, 9), "down2": (fine, middle, 3), "down3": (middle, coarse, 3),
                 **dict.fromkeys(_RESIDUAL, (coarse, coarse, 3)), "up1": (coarse, middle, 3),
                 "up2": (middle, fine, 3), "up3": (fine, 3, 9)}
        self.weights, self.shifts = nn.ParameterDict(), nn.ParameterDict()
        self.scales = nn.ParameterDict()
        for name, (inputs, outputs, kernel) in sizes.items():
            shape = ((inputs, outputs) if name in ("up1", "up2") else (outputs, inputs))
            weight = torch.randn(*shape, kernel, kernel, generator=generator)
            self.weights[name] = nn.Parameter(weight / (inputs * kernel * kernel) ** 0.5)
            self.shifts[name] = nn.Parameter(torch.zeros(outputs))
            self.scales[name] = nn.Parameter(torch.ones(outputs))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, known: Sequence[Moments] = (), *,
                until: int | None = None) -> Tensor:
        """Stylise, or stop before a normalisation.

        Args:
            images: (N, 3, H, W) in 0..1.
            known: Moments of the first normalisations' inputs, where they are those of a larger
                image; the others are taken from the maps themselves.
            until: Return what enters this normalisation (from 0).
        """
        maps, shortcut = images * 255, images
        for number, name in enumerate(NAMES):
            if name in _RESIDUAL[::2]:
                shortcut = maps
            maps = self._convolve(name, maps)
            if number == until:
                return maps
            mean, deviation = known[number] if number < len(known) else moments([maps], EPSILON)
            factor = self.scales[name] / deviation
            offset = self.shifts[name] - mean * factor
            maps = torch.addcmul(offset[..., None, None].to(maps), maps,
                                 factor[..., None, None].to(maps))
            if name in _RESIDUAL[1::2]:
                maps = maps + shortcut
            elif name != NAMES[-1]:
                maps = F.relu(maps)
        return (150 * torch.tanh(maps) + 127.5) / 255

    def _convolve(self, name: str, maps: Tensor) -> Tensor:
        """Padded with zeros to the same size, halved or doubled, aligned as TensorFlow's SAME."""
        weight = self.weights[name]
        if name in ("down2", "down3"):
            return F.conv2d(F.pad(maps, (0, 1, 0, 1)), weight, stride=2)
        if name in ("up1", "up2"):
            return F.conv_transpose2d(maps, weight, stride=2)[:, :, :-1, :-1]
        return F.conv2d(maps, weight, padding=weight.shape[-1] // 2)


class Johnson(StyleMethod):
    """The style is in the weights: ``encode_style`` gives an empty code, (N, 0).

    Alpha mixes the pixels of the content with those of the stylised image.
    """

    def __init__(self, network: Network, settings: MethodSettings) -> None:
        super().__init__("johnson", settings)
        self.network = network.requires_grad_(False)

    def _encode(self, style: Tensor) -> Tensor:
        return torch.zeros(len(style), 0, device=self.device)

    def _transfer(self, content: Tensor, code: Tensor, alpha: Tensor) -> Tensor:
        height, width = content.shape[2:]
        padded = F.pad(content, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        image = self._stylise(padded)[:, :, :height, :width].float().clamp(0, 1)
        styles = len(code) // len(content)
        return torch.lerp(content.float().repeat_interleave(styles, 0),
                          image.repeat_interleave(styles, 0), alpha)

    def _stylise(self, images: Tensor) -> Tensor:
        parts = tiles(images.shape[2], images.shape[3], self.settings.tile, REACH, STRIDE)
        if len(parts) == 1:
            return self.network(images)
        # Each normalisation needs the moments of the whole image, which need those before it.
        # Nothing of the whole image is held: the layers before are computed again, which makes a
        # tiled image about eight times as slow, and equal to the whole.
        known: list[Moments] = []

        def entering(number: int) -> Iterator[Tensor]:
            for part in parts:
                maps = self.network(part.cut(images), known, until=number)
                yield part.inner(maps, _STRIDES[NAMES[number]])

        for number in range(len(NAMES)):
            known.append(moments(entering(number), EPSILON))
        result = torch.empty_like(images)
        for part in parts:
            part.paste(result, self.network(part.cut(images), known))
        return result


def network_state(state: Mapping[str, Tensor], source: str) -> State:
    """A network's tensors under the names that ``Network`` has.

    Known are our own (``weights.down1``, ...) and published TensorFlow networks (``Variable``,
    ``Variable_1``, ...; weights in the order height, width, in, out, those of transposed
    convolutions height, width, out, in).

    Raises:
        StyleError: Neither.
    """
    if all(re.fullmatch(r"Variable(_\d+)?", key) for key in state) and len(state) == 3 * len(NAMES):
        values = [state["Variable"], *(state[f"Variable_{i}"] for i in range(1, len(state)))]
        found: State = {}
        for number, name in enumerate(NAMES):
            weight, shift, scale = values[3 * number:3 * number + 3]
            found[f"weights.{name}"] = weight.permute(3, 2, 0, 1).contiguous()
            found[f"shifts.{name}"], found[f"scales.{name}"] = shift, scale
        return found
    expected = {f"{kind}.{name}" for kind in ("weights", "shifts", "scales") for name in NAMES}
    if set(state) != expected:
        raise StyleError(f"{source}: not a style network (the first tensors are "
                         f"{', '.join(list(state)[:4]) or 'none'}); train one with python "
                         "tools/build_bank.py train-style")
    return dict(state)


def build(settings: Settings) -> Johnson:
    """Read the network.

    Raises:
        StyleError: Weights that cannot be read.
    """
    state = network_state(read_state(settings.weights), str(settings.weights))
    network = Network(widths=[len(state[f"shifts.{name}"]) for name in NAMES[:3]])
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise StyleError(f"{settings.weights}: not a style network ({reason})") from None
    return Johnson(network, settings)
