"""Records -> pictures: decoded once, cut to what a network sees."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.images import decode_reduced

Image = NDArray[np.uint8]
T = TypeVar("T")
ENTRY_BYTES = 500
"""Of memory for an entry whose value is empty."""

_sharing = 1
"""Processes that memory is shared with, this one included."""


def share_memory(processes: int) -> None:
    """Hold the n-th part of what could be held alone, in each of n processes that load at once."""
    global _sharing
    _sharing = max(1, processes)


class Recent(Generic[T]):
    """What was made of files, the last used kept in memory; a copy sent elsewhere is empty."""

    def __init__(self, max_bytes: int, size: Callable[[T], int]) -> None:
        """Keep values whose ``size`` in bytes is at most ``max_bytes`` together."""
        self.max_bytes = max_bytes
        self.size = size
        self._held: OrderedDict[Path, T] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes get the rule, not gigabytes of pictures."""
        return {**self.__dict__, "_held": OrderedDict(), "_bytes": 0}

    def get(self, path: Path, make: Callable[[], T]) -> T:
        """The file's value, made by ``make`` where it isn't held."""
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        value = make()
        self._held[path] = value
        self._bytes += self.size(value) + ENTRY_BYTES
        while self._bytes > self.max_bytes // _sharing and len(self._held) > 1:
            _, old = self._held.popitem(last=False)
            self._bytes -= self.size(old) + ENTRY_BYTES
        return value


class ImageStore:
    """Decoded images, reduced to a working size, the last used kept in memory.

    An image that cannot be decoded raises: training never swaps it for another.
    """

    def __init__(self, max_side: int, max_bytes: int = 1_500_000_000) -> None:
        """Keep images with a longer side of at most ``max_side`` pixels in ``max_bytes``."""
        self.max_side = max_side
        self._recent: Recent[tuple[Image, float]] = Recent(max_bytes, _image_bytes)

    def get(self, path: Path) -> tuple[Image, float]:
        """The image, RGB (H, W, 3), not to be changed, and its scale (this over original)."""
        return self._recent.get(path, lambda: self._decode(path))

    def _decode(self, path: Path) -> tuple[Image, float]:
        image, (width, _) = decode_reduced(path, self.max_side)
        image.setflags(write=False)
        return image, image.shape[1] / width


def _image_bytes(entry: tuple[Image, float]) -> int:
    return entry[0].nbytes


def square_around(box: NDArray[np.floating], margin: float) -> tuple[int, int, int, int]:
    """The square that ``crop_square`` cuts out, xyxy in whole pixels."""
    x0, y0, x1, y1 = (float(v) for v in box)
    half = max(x1 - x0, y1 - y0, 8.0) * (0.5 + margin)
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    return (int(np.floor(centre_x - half)), int(np.floor(centre_y - half)),
            int(np.ceil(centre_x + half)), int(np.ceil(centre_y + half)))


def crop_square(image: Image, box: NDArray[np.floating], margin: float, size: int) -> Image:
    """The square around a box, resized.

    The square's side is the box's longer side, grown by ``margin`` of it on each side, and at
    least 8 pixels; what lies outside the image is filled with its nearest pixels.

    Args:
        image: RGB (H, W, 3).
        box: xyxy in pixels.
        margin: Share of the longer side.
        size: Side of the result in pixels.
    """
    left, top, right, bottom = square_around(box, margin)
    height, width = image.shape[:2]
    inner = image[max(top, 0):max(min(bottom, height), 1), max(left, 0):max(min(right, width), 1)]
    if inner.size == 0:
        raise ValueError(f"box {[float(v) for v in box]} lies outside the {width}x{height} image")
    padding = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(padding):
        inner = cv2.copyMakeBorder(inner, *padding, cv2.BORDER_REPLICATE)
    shrinks = inner.shape[0] > size
    return cv2.resize(inner, (size, size),
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_longer(image: Image, side: int) -> Image:
    """An image (H, W, 3) with its longer side scaled to ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def shrink(image: Image, side: int) -> Image:
    """An image (H, W, 3) with its longer side at most ``side`` pixels; a small one as it is."""
    return image if max(image.shape[:2]) <= side else resize_longer(image, side)
