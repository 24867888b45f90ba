"""The network of YOLOX: a cross-stage-partial backbone, a path-aggregating pyramid, a split head.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430. Layers run in the order of the
published network, by which published weights are put in (``yolox_weights``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
PRIOR = 0.01
"""Chance of an object, and of each class, that untrained score layers say."""


@dataclass(frozen=True)
class Size:
    """How large a network of the family is.

    Attributes:
        depth: Share of the largest number of blocks.
        width: Share of the largest number of channels.
        depthwise: 3 x 3 convolutions are a depthwise and a 1 x 1 one.
    """

    depth: float
    width: float
    depthwise: bool = False


SIZES = {"yolox_nano": Size(0.33, 0.25, depthwise=True), "yolox_tiny": Size(0.33, 0.375),
         "yolox_s": Size(0.33, 0.5), "yolox_m": Size(0.67, 0.75), "yolox_l": Size(1.0, 1.0)}


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU; the side is kept, or divided by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1,
                 groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups,
                              bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return nn.functional.silu(self.bn(self.conv(maps)))


def conv3(size: Size, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A 3 x 3 convolution, in two steps where the size says so."""
    if not size.depthwise:
        return Conv(inputs, outputs, 3, stride)
    return nn.Sequential(Conv(inputs, inputs, 3, stride, groups=inputs), Conv(inputs, outputs, 1))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, and what came in added to it."""

    def __init__(self, size: Size, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(Conv(channels, channels, 1), conv3(size, channels, channels))
        self.shortcut = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return self.layers(maps) + maps if self.shortcut else self.layers(maps)


class CrossStage(nn.Module):
    """Half of the channels through ``blocks`` bottlenecks, the other half past them."""

    def __init__(self, size: Size, inputs: int, outputs: int, blocks: int = 3,
                 shortcut: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.first, self.past = Conv(inputs, half, 1), Conv(inputs, half, 1)
        count = max(round(blocks * size.depth), 1)
        self.blocks = nn.Sequential(*(Bottleneck(size, half, shortcut) for _ in range(count)))
        self.last = Conv(2 * half, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        first, past = self.first(maps), self.past(maps)
        merged: Tensor = self.last(torch.cat([self.blocks(first), past], 1))
        return merged


class Pooled(nn.Module):
    """A map beside its maxima over three neighbourhoods (spatial pyramid pooling)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = Conv(channels, channels // 2, 1), Conv(channels * 2, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        maps = self.first(maps)
        around = [nn.functional.max_pool2d(maps, k, 1, k // 2) for k in (5, 9, 13)]
        merged: Tensor = self.last(torch.cat([maps, *around], 1))
        return merged


class Backbone(nn.Module):
    """Images (N, 3, H, W) -> maps at strides 8, 16, 32, finest first."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        base = int(64 * size.width)
        self.channels = [base * 4, base * 8, base * 16]
        self.stem = Conv(12, base, 3)
        self.dark2 = self._stage(size, base, 3)
        self.dark3 = self._stage(size, base * 2, 9)
        self.dark4 = self._stage(size, base * 4, 9)
        self.dark5 = nn.Sequential(conv3(size, base * 8, base * 16, 2), Pooled(base * 16),
                                   CrossStage(size, base * 16, base * 16))

    @staticmethod
    def _stage(size: Size, channels: int, blocks: int) -> nn.Sequential:
        """Half the side, twice the channels."""
        return nn.Sequential(conv3(size, channels, 2 * channels, 2),
                             CrossStage(size, 2 * channels, 2 * channels, blocks, shortcut=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        """H and W are multiples of 32; pixels are BGR in 0..255."""
        quarters = [images[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        maps = [self.dark2(self.stem(torch.cat(quarters, 1)))]
        for stage in (self.dark3, self.dark4, self.dark5):
            maps.append(stage(maps[-1]))
        return maps[1:]


class Neck(nn.Module):
    """Coarse maps merged into fine ones, then fine ones into coarse ones again."""

    def __init__(self, size: Size, channels: list[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.narrow_coarse = Conv(coarse, middle, 1)
        self.down_middle = CrossStage(size, 2 * middle, middle)
        self.narrow_middle = Conv(middle, fine, 1)
        self.down_fine = CrossStage(size, 2 * fine, fine)
        self.halve_fine = conv3(size, fine, fine, 2)
        self.up_middle = CrossStage(size, 2 * fine, middle)
        self.halve_middle = conv3(size, middle, middle, 2)
        self.up_coarse = CrossStage(size, 2 * middle, coarse)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Three maps -> three of the same shapes."""
        fine, middle, coarse = maps
        top = self.narrow_coarse(coarse)
        side = self.narrow_middle(self.down_middle(torch.cat([_double(top), middle], 1)))
        fine = self.down_fine(torch.cat([_double(side), fine], 1))
        middle = self.up_middle(torch.cat([self.halve_fine(fine), side], 1))
        coarse = self.up_coarse(torch.cat([self.halve_middle(middle), top], 1))
        return [fine, middle, coarse]


class LevelHead(nn.Module):
    """What one map says of each of its cells: class logits, a box, whether there is one."""

    def __init__(self, size: Size, inputs: int, classes: int) -> None:
        super().__init__()
        width = int(256 * size.width)
        self.stem = Conv(inputs, width, 1)
        self.class_layers = nn.Sequential(conv3(size, width, width), conv3(size, width, width))
        self.class_scores = nn.Conv2d(width, classes, 1)
        self.box_layers = nn.Sequential(conv3(size, width, width), conv3(size, width, width))
        self.box = nn.Conv2d(width, 4, 1)
        self.objectness = nn.Conv2d(width, 1, 1)
        for layer in (self.class_scores, self.objectness):
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 + 1 + classes, H, W)."""
        maps = self.stem(maps)
        classes = self.class_scores(self.class_layers(maps))
        around = self.box_layers(maps)
        return torch.cat([self.box(around), self.objectness(around), classes], 1)


class Yolox(nn.Module):
    """The whole: images -> boxes and logits of every cell.

    Args:
        size: One of ``SIZES``.
        classes: C.
    """

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(size)
        self.neck = Neck(size, self.backbone.channels)
        self.heads = nn.ModuleList(LevelHead(size, c, classes) for c in self.backbone.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> (N, A, 4 + 1 + C): box xyxy in pixels, logits.

        The A cells are those of ``cells``. Pixels are BGR in 0..255, H and W multiples of 32.
        """
        maps = self.neck(self.backbone(images))
        raw = torch.cat([head(m).flatten(2) for head, m in zip(self.heads, maps, strict=True)], 2)
        raw = raw.permute(0, 2, 1)
        corners, strides = cells(images)
        middle = (raw[..., :2] + corners) * strides
        half = raw[..., 2:4].clamp(max=math.log(images.shape[-1])).exp() * strides / 2
        return torch.cat([middle - half, middle + half, raw[..., 4:]], -1)


def cells(images: Tensor) -> tuple[Tensor, Tensor]:
    """Upper left corners (A, 2), in cells of their level, and strides (A, 1) in pixels."""
    height, width = images.shape[-2:]
    corners, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride),
                              indexing="ij")
        corners.append(torch.stack([x, y], -1).view(-1, 2))
        strides.append(torch.full((y.numel(), 1), stride))
    return torch.cat(corners).to(images), torch.cat(strides).to(images)


def _double(maps: Tensor) -> Tensor:
    return nn.functional.interpolate(maps, scale_factor=2.0, mode="nearest")
