"""VGG19's features, which style transfer takes content and style from.

Preprocessing belongs to the encoder: it takes RGB images in 0..1 of any size.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicon.styletransfer.weights import (
    LAYERS,
    State,
    StyleError,
    conv_names,
    deepest,
    encoder_state,
    read_state,
)

POOLINGS = ("max", "average")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDTHS = (64, 128, 256, 512, 512)


class Encoder(nn.Module):
    """The convolutions of a VGG19 up to a layer of ``LAYERS``, frozen, for images in 0..1.

    Attributes:
        layers: The layers that ``forward`` returns, from fine to coarse.
        depth: The last of them.
        channels: Layer -> channels.
        stride: Pixels between neighbouring features of ``depth``.
        reach: Pixels around a feature's own block that it depends on, in whole strides.
        source: Where the weights came from.
    """

    def __init__(self, state: Mapping[str, Tensor], *, depth: str | None = None,
                 pooling: str = "max", source: str = "weights") -> None:
        """Build from tensors under the common names (``weights.encoder_state``).

        Without ``preprocess`` the weights are taken to expect ImageNet's normalisation and
        padding with zeros, as torchvision's do; with it, reflection, as the normalised VGG does.

        Raises:
            StyleError: A depth that the weights don't have, or an unknown pooling.
        """
        super().__init__()
        if pooling not in POOLINGS:
            raise StyleError(f"pooling {pooling!r} is not known; write {' or '.join(POOLINGS)}")
        self.depth = depth or deepest(state)
        if self.depth not in LAYERS:
            raise StyleError(f"layer {depth!r} is not known; write one of: {', '.join(LAYERS)}")
        if LAYERS.index(self.depth) > LAYERS.index(deepest(state)):
            raise StyleError(f"{source}: these weights reach {deepest(state)}, not {self.depth}; "
                             "ask for that layer, or give other weights")
        self.layers = LAYERS[:LAYERS.index(self.depth) + 1]
        self.pooling, self.source = pooling, source
        self.reflects = "preprocess.weight" in state
        if not self.reflects:
            state = {**state, **_imagenet_normalisation()}
        self.convs = nn.ModuleDict()
        for name in ("preprocess", *conv_names(self.depth)):
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            padded = 0 if self.reflects or name == "preprocess" else 1
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=padded)
            conv.load_state_dict({"weight": weight, "bias": bias})
            self.convs[name] = conv
        self.channels = {layer: len(state[layer.replace("relu", "conv") + ".weight"])
                         for layer in self.layers}
        self.stride = 2 ** (len(self.layers) - 1)
        self.reach = reach(self.depth)
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), RGB in 0..1 -> layer -> features (N, C, ~H / 2^k, ~W / 2^k).

        Sides are halved rounding up, so that any size from 1 pixel has features.
        """
        return dict(self._maps(images))

    def features(self, images: Tensor) -> Tensor:
        """The features of ``depth`` alone; the finer ones are let go on the way."""
        maps = images
        for _, maps in self._maps(images):  # noqa: B007 (only the last is wanted)
            pass
        return maps

    def conv(self, name: str) -> nn.Conv2d:
        """One convolution, such as ``conv3_1``."""
        found = self.convs[name]
        if not isinstance(found, nn.Conv2d):
            raise TypeError(f"{name} is a {type(found).__name__}")
        return found

    def _maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        maps = self.convs["preprocess"](images.contiguous(memory_format=torch.channels_last))
        for name in conv_names(self.depth):
            if name.endswith("_1") and name != "conv1_1":
                maps = self._pool(maps)
            if self.reflects:
                maps = reflect(maps)
            maps = F.relu(self.convs[name](maps), inplace=not torch.is_grad_enabled())
            if name.endswith("_1"):
                yield name.replace("conv", "relu"), maps

    def _pool(self, maps: Tensor) -> Tensor:
        if self.pooling == "average":
            return F.avg_pool2d(maps, 2, ceil_mode=True)
        return F.max_pool2d(maps, 2, ceil_mode=True)


def build(source: str | Path = "auto", *, depth: str | None = None, pooling: str = "max",
          seed: int = 0) -> Encoder:
    """An encoder by the origin of its weights.

    Args:
        source: ``auto`` (torchvision's, or with a warning a random start where they cannot be
            had), ``torchvision``, ``random``, or a weight file.
        depth: Deepest layer, such as ``relu4_1``; None takes the deepest that there is.
        pooling: ``max``, or ``average``, which Gatys et al. found to look better.
        seed: Of the random start.

    Raises:
        StyleError: Weights that cannot be had or don't reach ``depth``.
    """
    if source == "random":
        return Encoder(random_state(seed), depth=depth, pooling=pooling,
                       source=f"random weights, seed {seed}")
    if source not in ("auto", "torchvision"):
        return Encoder(encoder_state(read_state(source), str(source)), depth=depth,
                       pooling=pooling, source=str(source))
    try:
        state = _torchvision_state()
    except Exception as error:  # noqa: BLE001 (offline shows itself in many ways)
        reason = str(error).strip().splitlines()[-1][:120] if str(error).strip() else repr(error)
        if source == "torchvision":
            raise StyleError(f"torchvision's VGG19 weights could not be fetched ({reason}); give "
                             "a weight file instead") from None
        warnings.warn(f"torchvision's VGG19 weights could not be fetched ({reason}); going on with "
                      "random weights, whose styles mean little. Give a weight file instead.",
                      stacklevel=2)
        return build("random", depth=depth, pooling=pooling, seed=seed)
    return Encoder(state, depth=depth, pooling=pooling, source="torchvision VGG19")


def random_state(seed: int = 0, widths: Sequence[int] = _WIDTHS) -> State:
    """He-initialised weights of a VGG19 with these channels a block, equal for equal seeds."""
    generator = torch.Generator().manual_seed(seed)
    state, channels = {}, 3
    for name in conv_names(LAYERS[len(widths) - 1]):
        width = widths[int(name[4]) - 1]
        weight = torch.randn(width, channels, 3, 3, generator=generator)
        state[f"{name}.weight"] = weight * math.sqrt(2 / (9 * channels))
        state[f"{name}.bias"] = torch.zeros(width)
        channels = width
    return state


def reach(depth: str) -> int:
    """Pixels around its own block that a feature of VGG19 depends on, in whole strides.

    A 3x3 convolution at stride s reaches s pixels further on each side.
    """
    stride, pixels = 1, 0
    for name in conv_names(depth):
        if name.endswith("_1") and name != "conv1_1":
            stride *= 2
        pixels += stride
    return math.ceil(pixels / stride) * stride


def reflect(maps: Tensor) -> Tensor:
    """Pad by one on each side, by reflection; sides of a single pixel are repeated."""
    if min(maps.shape[2:]) > 1:
        return F.pad(maps, (1, 1, 1, 1), mode="reflect")
    return F.pad(maps, (1, 1, 1, 1), mode="replicate")


def _imagenet_normalisation() -> State:
    std = torch.tensor(IMAGENET_STD)
    return {"preprocess.weight": torch.diag(1 / std)[..., None, None],
            "preprocess.bias": -torch.tensor(IMAGENET_MEAN) / std}


def _torchvision_state() -> State:
    from torchvision.models import VGG19_Weights

    fetched = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    return encoder_state(fetched, "torchvision")
