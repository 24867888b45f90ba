"""Violin and guitar, and what all instruments say of themselves to their players.

Each ``draw`` function draws one instrument about one unit long, upright, centred on (0, 0),
and returns where hands hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from musicon.datasets.atelier.canvas import (
    Array,
    Material,
    Pen,
    arc,
    both_sides,
    polygon,
    spline,
)
from musicon.datasets.atelier.materials import ivory, metal, wood

Point = tuple[float, float]


@dataclass(frozen=True)
class Anchors:
    """Where a player touches the instrument, in its local units.

    Attributes:
        hands: The two points that hands hold.
        mouth: The mouthpiece, or None.
    """

    hands: tuple[Point, Point]
    mouth: Point | None = None


def draw_violin(pen: Pen) -> Anchors:
    """A violin, viola or cello: bouts with corners, f-holes, scroll, four strings."""
    rng = pen.rng
    wide = float(rng.uniform(0.9, 1.15))
    body = _violin_outline(wide)
    varnish = wood(rng, "amber", "red", "honey", "mahogany", "walnut")
    ebony = wood(rng, "ebony") if rng.uniform() < 0.8 else wood(rng, "boxwood", "rosewood")
    _scroll(pen, varnish, ebony)
    pen.fill(body + (float(rng.uniform(-0.014, 0.014)), 0.006), varnish.darker(0.55), bevel=0.02)
    pen.fill(body, varnish, bevel=float(rng.uniform(0.05, 0.1)))
    inner = (body - (0, 0.2)) * (0.925, 0.945) + (0, 0.2)
    pen.line(inner, 0.0035, varnish.darker(0.3).colour, 0.85, closed=True)
    _f_holes(pen, wide)
    pen.fill(
        both_sides([(0.0, 0.325), (0.03, 0.327), (0.018, 0.44), (0.012, 0.487), (0.0, 0.49)]),
        ebony,
        bevel=0.015,
    )
    if rng.uniform() < 0.5:
        pen.disc((-0.085 * wide, 0.435), (0.058, 0.036), ebony, bevel=0.02)
    _violin_strings(pen, ebony)
    return Anchors(((0.0, -0.3), (0.03, 0.17)))


def _f_holes(pen: Pen, wide: float) -> None:
    dark = (0.06, 0.03, 0.02)
    for side in (-1, 1):
        path = spline(
            [
                (0.062, 0.118),
                (0.047, 0.135),
                (0.058, 0.165),
                (0.078, 0.2),
                (0.092, 0.24),
                (0.083, 0.262),
                (0.072, 0.252),
            ]
        ) * (side * wide, 1)
        pen.tube(
            path,
            np.interp(
                np.linspace(0, 1, len(path)),
                [0, 0.2, 0.5, 0.8, 1],
                [0.006, 0.006, 0.013, 0.006, 0.006],
            ),
            Material(dark, edge=0),
            0,
        )
        pen.disc(path[0], 0.009, Material(dark, edge=0))
        pen.disc(path[-1], 0.011, Material(dark, edge=0))


def _violin_strings(pen: Pen, material: Material) -> None:
    """The fingerboard, the bridge, and four strings over both."""
    pen.fill(
        polygon(
            (-0.019, -0.37),
            (0.019, -0.37),
            (0.03, 0.125),
            (0.02, 0.138),
            (-0.02, 0.138),
            (-0.03, 0.125),
        ),
        material,
        bevel=0.012,
    )
    pen.fill(
        polygon(
            (-0.05, 0.212),
            (-0.035, 0.196),
            (0.035, 0.196),
            (0.05, 0.212),
            (0.05, 0.22),
            (-0.05, 0.22),
        ),
        wood(pen.rng, "pale"),
        bevel=0.005,
    )
    for offset in (-1, -0.33, 0.33, 1):
        pen.line(
            [(offset * 0.013, -0.375), (offset * 0.027, 0.204), (offset * 0.019, 0.335)],
            0.0024,
            (0.87, 0.86, 0.82),
            0.9,
        )


def _violin_outline(wide: float) -> Array:
    upper = spline(
        [
            (0.03, -0.105),
            (0.1, -0.095),
            (0.157, -0.035),
            (0.163, 0.03),
            (0.15, 0.07),
            (0.158, 0.096),
        ]
    )
    waist = spline(
        [
            (0.158, 0.096),
            (0.124, 0.125),
            (0.108, 0.165),
            (0.116, 0.21),
            (0.142, 0.238),
            (0.172, 0.246),
        ]
    )
    lower = spline(
        [
            (0.172, 0.246),
            (0.178, 0.275),
            (0.199, 0.33),
            (0.196, 0.41),
            (0.14, 0.478),
            (0.06, 0.498),
            (0.0, 0.5),
        ]
    )
    return both_sides(np.vstack([upper, waist, lower]) * (wide, 1))


def _scroll(pen: Pen, varnish: Material, pegs: Material) -> None:
    pen.fill(
        polygon((-0.014, -0.4), (0.014, -0.4), (0.018, -0.1), (-0.018, -0.1)), varnish, bevel=0.01
    )
    for i, y in enumerate((-0.385, -0.408, -0.43, -0.452)):
        side = 1 if i % 2 else -1
        pen.tube([(-0.02 * side, y), (0.048 * side, y)], 0.009, pegs)
        pen.disc((0.054 * side, y), (0.016, 0.01), pegs, bevel=0.008)
    pen.fill(
        polygon((-0.021, -0.373), (0.021, -0.373), (0.016, -0.47), (-0.016, -0.47)),
        varnish,
        bevel=0.014,
    )
    pen.fill(
        polygon((-0.009, -0.38), (0.009, -0.38), (0.006, -0.455), (-0.006, -0.455)),
        varnish.darker(0.3),
    )
    pen.disc((0.0, -0.475), (0.028, 0.025), varnish, bevel=0.02)
    spiral = [
        (r * math.cos(a), -0.475 + r * math.sin(a))
        for a, r in zip(np.linspace(0, 10, 36), np.linspace(0.022, 0.003, 36), strict=True)
    ]
    pen.line(spiral, 0.004, varnish.darker(0.4).colour)


def draw_guitar(pen: Pen) -> Anchors:
    """A guitar: figure-eight body, round sound hole, frets, flat head with machine heads."""
    rng = pen.rng
    lower, upper = float(rng.uniform(0.168, 0.205)), float(rng.uniform(0.118, 0.15))
    waist = min(lower, upper) * float(rng.uniform(0.78, 0.92))
    body = both_sides(
        spline(
            [
                (0.0, 0.03),
                (0.07, 0.028),
                (upper * 0.95, 0.075),
                (upper, 0.13),
                (waist, 0.225),
                (lower * 0.93, 0.31),
                (lower, 0.385),
                (lower * 0.72, 0.475),
                (lower * 0.3, 0.5),
                (0.0, 0.502),
            ]
        )
    )
    sides = wood(rng, "rosewood", "mahogany", "walnut", "amber")
    board = wood(rng, "spruce", "pale", "honey", "amber", "red", "ebony")
    neck = wood(rng, "ebony", "rosewood", "walnut")
    _guitar_head(pen, sides)
    pen.fill(body + (float(rng.choice([-0.016, 0.016])), 0.01), sides, bevel=0.03)
    pen.fill(body, sides if rng.uniform() < 0.5 else board.darker(0.5), bevel=0.01)
    inner = (body - (0, 0.265)) * (0.955, 0.965) + (0, 0.265)
    pen.fill(inner, board, bevel=0.008)
    hole = float(rng.uniform(0.05, 0.062))
    pen.disc((0.0, 0.19), hole * 1.32, sides.darker(0.9))
    for ring in (1.24, 1.14):
        pen.line(arc((0.0, 0.19), hole * ring), 0.005, (0.85, 0.72, 0.45))
    pen.disc((0.0, 0.19), hole, Material((0.07, 0.045, 0.03), rough=0.1))
    if rng.uniform() < 0.3:
        guard = spline([(0.04, 0.15), (0.09, 0.17), (0.1, 0.26), (0.05, 0.27), (0.06, 0.21)], True)
        pen.fill(guard, Material((0.12, 0.06, 0.04), gloss=0.4), bevel=0.004)
    pen.fill(
        polygon((-0.025, -0.37), (0.025, -0.37), (0.031, 0.135), (-0.031, 0.135)), neck, bevel=0.01
    )
    for i in range(1, 19):
        y = -0.37 + 0.76 * (1 - 2 ** (-i / 12))
        pen.line([(-0.027, y), (0.027, y)], 0.003, (0.8, 0.78, 0.7))
    _guitar_strings(pen, neck)
    return Anchors(((0.0, -0.25), (0.02, 0.23)))


def _guitar_strings(pen: Pen, material: Material) -> None:
    """The bridge with its saddle, and five or six strings from it."""
    saddle = 0.39
    pen.fill(
        both_sides(
            [
                (0.0, saddle - 0.014),
                (0.05, saddle - 0.013),
                (0.095, saddle - 0.004),
                (0.095, saddle + 0.006),
                (0.05, saddle + 0.016),
                (0.0, saddle + 0.017),
            ]
        ),
        material,
        bevel=0.008,
    )
    pen.line([(-0.045, saddle), (0.045, saddle)], 0.006, (0.95, 0.92, 0.84))
    for offset in np.linspace(-1, 1, int(pen.rng.choice([5, 6, 6]))):
        pen.line(
            [(offset * 0.02, -0.375), (offset * 0.034, saddle)], 0.0022, (0.9, 0.88, 0.8), 0.85
        )


def _guitar_head(pen: Pen, material: Material) -> None:
    rng = pen.rng
    tuner = metal(rng, "silver", "gold", "brass") if rng.uniform() < 0.6 else ivory(rng)
    for i in range(3):
        y = -0.405 - i * 0.035
        for side in (-1, 1):
            pen.tube([(0.02 * side, y), (0.052 * side, y)], 0.007, tuner)
            pen.disc((0.056 * side, y), (0.011, 0.013), tuner, bevel=0.009)
    flare = float(rng.uniform(0.034, 0.046))
    pen.fill(
        both_sides(
            [
                (0.0, -0.495),
                (flare * 0.4, -0.5),
                (flare, -0.485),
                (flare * 0.85, -0.4),
                (0.026, -0.365),
                (0.0, -0.365),
            ]
        ),
        material,
        bevel=0.01,
    )
    for side in (-1, 1):
        pen.line([(0.014 * side, -0.39), (0.014 * side, -0.475)], 0.01, (0.1, 0.07, 0.05))
