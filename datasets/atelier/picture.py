"""A picture under construction: a background, layers over it, and whose pixels they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from musicon.datasets.atelier.canvas import Array, Layer, mask_bounds

VISIBLE = 0.5


@dataclass
class Owned:
    """An instrument in a picture: its label and its visible mask, updated as others cover it."""

    label: int
    mask: Array
    drawn: float = field(default=0.0)

    def __post_init__(self) -> None:
        if not self.drawn:
            self.drawn = float((self.mask > VISIBLE).sum())


class Picture:
    """Composites layers and keeps every instrument's visible mask exact.

    Args:
        background: RGB (height, width, 3) in 0..1; copied.
    """

    def __init__(self, background: Array) -> None:
        self.rgb = background.astype(np.float32).copy()
        self.owned: list[Owned] = []

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def place(self, layer: Layer, label: int | None = None) -> None:
        """Lay a layer over the picture; ``label`` makes it an instrument."""
        bounds = layer.bounds(0.002)
        if bounds is None:
            return
        x0, y0, x1, y1 = bounds
        patch = layer.rgba[y0:y1, x0:x1]
        clear = 1 - patch[..., 3:]
        self.rgb[y0:y1, x0:x1] *= clear
        self.rgb[y0:y1, x0:x1] += patch[..., :3]
        for other in self.owned:
            other.mask[y0:y1, x0:x1] *= clear[..., 0]
        if label is not None:
            self.owned.append(Owned(label, layer.alpha.copy()))

    def shade(self, shadow: Array, strength: float) -> None:
        """Darken by a soft mask (height, width); colours keep, masks too."""
        self.rgb *= (1 - strength * shadow)[..., None]

    def cast(self, layer: Layer, dx: float, dy: float, blur: float, strength: float) -> None:
        """The soft shadow of a layer, moved by (dx, dy) pixels."""
        self.shade(shifted(layer.alpha, dx, dy, blur), strength)

    def replaced(self, rgb: Array, masks: list[Array]) -> Picture:
        """A picture with new colours and moved masks, one a known instrument."""
        other = Picture(rgb)
        for owned, mask in zip(self.owned, masks, strict=True):
            other.owned.append(Owned(owned.label, mask, owned.drawn))
        return other

    def boxes(self, least: float = 0.0) -> list[tuple[int, tuple[int, int, int, int], float]]:
        """(label, tight visible box, visible share) of every instrument that is not hidden.

        Args:
            least: Instruments of which a smaller share is visible are left out.
        """
        found = []
        for owned in self.owned:
            mask = owned.mask > VISIBLE
            bounds = mask_bounds(mask)
            share = float(mask.sum()) / max(owned.drawn, 1.0)
            if bounds is not None and share >= least:
                found.append((owned.label, bounds, share))
        return found


def shifted(alpha: Array, dx: float, dy: float, blur: float) -> Array:
    """A mask moved and blurred; cheap, at a quarter of the size when the blur is wide."""
    height, width = alpha.shape
    zoom = 0.25 if blur > 5 else 0.5
    small = cv2.resize(alpha, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, dx * zoom], [0, 1, dy * zoom]], np.float32)
    small = cv2.warpAffine(small, move, (small.shape[1], small.shape[0]))
    small = cv2.GaussianBlur(small, (0, 0), max(blur * zoom, 0.5))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
