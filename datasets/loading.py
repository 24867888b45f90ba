"""Records -> pictures: decoded once, cut to what a network sees."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.images import decode_reduced

Image = NDArray[np.uint8]


class ImageStore:
    """Decoded images, reduced to a working size, the last used kept in memory.

    An image that cannot be decoded raises: training never swaps it for another.
    """

    def __init__(self, max_side: int, max_bytes: int = 1_500_000_000) -> None:
        """Keep images with a longer side of at most ``max_side`` pixels in ``max_bytes``."""
        self.max_side = max_side
        self.max_bytes = max_bytes
        self._held: OrderedDict[Path, tuple[Image, float]] = OrderedDict()
        self._bytes = 0

    def get(self, path: Path) -> tuple[Image, float]:
        """The image, RGB (H, W, 3), not to be changed, and its scale (this over original)."""
        held = self._held.get(path)
        if held is not None:
            self._held.move_to_end(path)
            return held
        image, (width, _) = decode_reduced(path, self.max_side)
        image.setflags(write=False)
        entry = image, image.shape[1] / width
        self._held[path] = entry
        self._bytes += image.nbytes
        while self._bytes > self.max_bytes and len(self._held) > 1:
            _, (old, _) = self._held.popitem(last=False)
            self._bytes -= old.nbytes
        return entry


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
    x0, y0, x1, y1 = (float(v) for v in box)
    half = max(x1 - x0, y1 - y0, 8.0) * (0.5 + margin)
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = image.shape[:2]
    left, top = int(np.floor(centre_x - half)), int(np.floor(centre_y - half))
    right, bottom = int(np.ceil(centre_x + half)), int(np.ceil(centre_y + half))
    inner = image[max(top, 0):max(min(bottom, height), 1), max(left, 0):max(min(right, width), 1)]
    if inner.size == 0:
        raise ValueError(f"box {[x0, y0, x1, y1]} lies outside the {width}x{height} image")
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
