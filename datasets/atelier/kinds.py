"""The instruments the atelier draws, in the order of their category ids."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from musicon.datasets.atelier import drums, harps, keyboards, lutes, strings, winds
from musicon.datasets.atelier.canvas import LIGHT, Layer, Pen, pose
from musicon.datasets.atelier.strings import Anchors


@dataclass(frozen=True)
class Kind:
    """One instrument class.

    Attributes:
        name: Taxonomy name.
        draw: Draws it about one unit long.
        half: Half width and half height of the drawing, local units.
        turns: Range of angles it is shown at, degrees.
        stands: It stands on the floor or a table by itself, upright.
        size: Natural size; a person is about 1.6.
    """

    name: str
    draw: Callable[[Pen], Anchors]
    half: tuple[float, float]
    turns: tuple[float, float]
    stands: bool
    size: float


KINDS: tuple[Kind, ...] = (
    Kind("bagpipe", winds.draw_bagpipe, (0.32, 0.54), (-25, 25), False, 0.8),
    Kind("drum", drums.draw_drum, (0.5, 0.48), (-8, 8), True, 0.55),
    Kind("flute", winds.draw_flute, (0.5, 0.04), (-75, 75), False, 0.7),
    Kind("guitar", strings.draw_guitar, (0.22, 0.51), (-40, 40), False, 0.95),
    Kind("harp", harps.draw_harp, (0.36, 0.51), (-6, 6), True, 1.25),
    Kind("lute", lutes.draw_lute, (0.3, 0.52), (-55, 55), False, 0.85),
    Kind("organ", keyboards.draw_organ, (0.42, 0.5), (-2, 2), True, 1.6),
    Kind("piano", keyboards.draw_piano, (0.53, 0.46), (-2, 2), True, 1.45),
    Kind("trumpet", winds.draw_trumpet, (0.52, 0.16), (-50, 50), False, 0.75),
    Kind("violin", strings.draw_violin, (0.24, 0.51), (-60, 60), False, 0.75),
)


def label_of(kind: Kind) -> int:
    """Category id of a class."""
    return KINDS.index(kind) + 1


@dataclass(frozen=True)
class Drawn:
    """An instrument on its own layer.

    Attributes:
        layer: RGBA; its alpha is the exact mask.
        hands: Where hands hold it, pixels, shape (2, 2).
        mouth: Where the mouth blows, pixels, or None.
    """

    layer: Layer
    hands: np.ndarray
    mouth: np.ndarray | None


def extent(kind: Kind, degrees: float) -> tuple[float, float]:
    """Width and height of the turned instrument at scale 1."""
    a = math.radians(degrees)
    c, s = abs(math.cos(a)), abs(math.sin(a))
    hx, hy = kind.half
    return 2 * (hx * c + hy * s), 2 * (hx * s + hy * c)


def draw(
    kind: Kind,
    canvas_wh: tuple[int, int],
    at: tuple[float, float],
    scale: float,
    degrees: float,
    rng: np.random.Generator,
    mirror: bool = False,
    light: tuple[float, float, float] = LIGHT,
) -> Drawn:
    """Draw one instrument on a new layer.

    Args:
        kind: Which.
        canvas_wh: Size of the layer in pixels.
        at: Its centre in pixels.
        scale: Pixels a local unit.
        degrees: Turn, clockwise.
        rng: Shape, material and details.
        mirror: Swap left and right.
        light: Direction towards the light.
    """
    layer = Layer(*canvas_wh)
    squash = float(rng.uniform(0.86, 1.0)) if kind.half[0] < kind.half[1] else 1.0
    shear = float(rng.normal(0, 0.03)) if not kind.stands else float(rng.normal(0, 0.015))
    pen = Pen(layer, pose(at[0], at[1], scale, degrees, squash, mirror, shear), rng, light)
    anchors = kind.draw(pen)
    mouth = None if anchors.mouth is None else pen.to_pixels([anchors.mouth])[0]
    return Drawn(layer, pen.to_pixels(anchors.hands), mouth)
