"""Pictures too large for memory, cut into tiles that overlap as far as a network reaches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """A part of an image: what it answers for, and what it must see for that.

    Attributes:
        core: (top, bottom, left, right) in pixels, half-open.
        outer: The core and its surroundings.
    """

    core: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]

    def cut(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> the outer part."""
        top, bottom, left, right = self.outer
        return images[:, :, top:bottom, left:right]

    def inner(self, maps: Tensor, stride: int = 1) -> Tensor:
        """Of maps made from the outer part, at ``stride`` pixels a value, those of the core."""
        top, bottom, left, right = self.core
        upper, left_most = self.outer[0], self.outer[2]
        return maps[:, :, (top - upper) // stride:-((upper - bottom) // stride),
                    (left - left_most) // stride:-((left_most - right) // stride)]

    def paste(self, result: Tensor, made: Tensor) -> None:
        """Write the core of an image made from the outer part into the whole, in place."""
        top, bottom, left, right = self.core
        result[:, :, top:bottom, left:right] = self.inner(made)


def tiles(height: int, width: int, side: int, halo: int, stride: int) -> list[Tile]:
    """Tiles that cover an image; one that covers it all where it has no more pixels than a tile.

    Args:
        height: Of the image, pixels.
        width: Of the image, pixels.
        side: Of a core, pixels; rounded down to whole strides.
        halo: Pixels that a tile sees around its core; whole strides.
        stride: Pixels a feature: every tile starts at a multiple of it, as the features do.
    """
    if height * width <= side * side:
        whole = (0, height, 0, width)
        return [Tile(whole, whole)]
    step = max(stride, side // stride * stride)
    found = []
    for top in range(0, height, step):
        bottom = min(top + step, height)
        for left in range(0, width, step):
            right = min(left + step, width)
            outer = (max(0, top - halo), min(height, bottom + halo),
                     max(0, left - halo), min(width, right + halo))
            found.append(Tile((top, bottom, left, right), outer))
    return found
