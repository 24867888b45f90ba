"""Picture frames around painted works."""

from __future__ import annotations

import cv2
import numpy as np

from musicon.datasets.atelier.canvas import Layer, Pen, box_points, pose
from musicon.datasets.atelier.materials import metal, wood
from musicon.datasets.atelier.picture import Picture


def framed(picture: Picture, rng: np.random.Generator) -> Picture:
    """The picture inside a frame, of the same size; the masks shrink with it."""
    width, height = picture.size
    border = int(min(width, height) * float(rng.uniform(0.04, 0.085)))
    inner = (width - 2 * border, height - 2 * border)

    def shrunk(values: np.ndarray) -> np.ndarray:
        out = np.zeros_like(values)
        out[border : border + inner[1], border : border + inner[0]] = cv2.resize(
            values, inner, interpolation=cv2.INTER_AREA
        )
        return out

    layer = Layer(width, height)
    pen = Pen(layer, pose(0, 0, 1), rng)
    gilt = (
        metal(rng, "gold", "bronze") if rng.uniform() < 0.6 else wood(rng, "ebony", "walnut", "oak")
    )
    for share, tone, bevel in ((1.0, 0.8, 0.3), (0.7, 1.0, 0.4), (0.22, 0.7, 0.1)):
        inset = border * (1 - share)
        outer = box_points(inset, inset, width - inset, height - inset)
        hole = box_points(border, border, width - border, height - border)
        pen.fill(outer, gilt.darker(tone), bevel=border * bevel, holes=[hole])
    out = picture.replaced(shrunk(picture.rgb), [shrunk(owned.mask) for owned in picture.owned])
    out.place(layer)
    return out
