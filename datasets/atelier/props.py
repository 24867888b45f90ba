"""Things that are not instruments, some of which look like them from afar.

Each function draws one thing about one unit high, standing on y = 0.5, centred on x = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from musicon.datasets.atelier.canvas import (
    Material,
    Pen,
    arc,
    both_sides,
    box_points,
    polygon,
    spline,
)
from musicon.datasets.atelier.materials import cloth, ivory, metal, paint, wood


def vase(pen: Pen) -> None:
    """A vase, often with flowers: bellied like a lute's body."""
    rng = pen.rng
    belly, neck = float(rng.uniform(0.16, 0.26)), float(rng.uniform(0.05, 0.1))
    glaze = cloth(rng) if rng.uniform() < 0.6 else Material((0.88, 0.88, 0.86))
    glaze = Material(glaze.colour, gloss=0.7, rough=0.05)
    if rng.uniform() < 0.65:
        _flowers(pen)
    pen.fill(
        both_sides(
            spline(
                [
                    (neck * 1.4, 0.0),
                    (neck, 0.05),
                    (belly * 0.8, 0.16),
                    (belly, 0.27),
                    (belly * 0.7, 0.4),
                    (belly * 0.45, 0.47),
                    (belly * 0.5, 0.5),
                ]
            )
        ),
        glaze,
        bevel=belly,
    )
    pen.line(arc((0, 0.24), (belly * 0.95, 0.03), 10, 170), 0.02, cloth(rng).colour, 0.7)
    pen.disc((0, 0.0), (neck * 1.4, 0.02), glaze.darker(0.4))


def _flowers(pen: Pen) -> None:
    rng = pen.rng
    for _ in range(int(rng.integers(7, 16))):
        x, y = float(rng.normal(0, 0.15)), float(rng.uniform(-0.5, -0.06))
        pen.line(spline([(0, 0.03), (x * 0.4, y * 0.5), (x, y)]), 0.01, (0.2, 0.34, 0.15))
        petal, r = (
            cloth(rng, (0.0, 0.95, 0.1, 0.14, 0.8)).darker(1.3),
            float(rng.uniform(0.03, 0.06)),
        )
        for a in np.linspace(0, 2 * math.pi, 6)[:-1]:
            pen.disc((x + r * math.cos(a), y + r * math.sin(a)), r * 0.75, petal, bevel=r * 0.6)
        pen.disc((x, y), r * 0.45, Material((0.9, 0.75, 0.2)))


def jug(pen: Pen) -> None:
    """A jug with a handle and a spout."""
    rng = pen.rng
    belly = float(rng.uniform(0.2, 0.28))
    body = (
        metal(rng, "tin", "copper", "silver")
        if rng.uniform() < 0.5
        else Material(cloth(rng, (0.06, 0.08, 0.55)).colour, gloss=0.6)
    )
    pen.tube(
        spline(
            [(belly * 0.6, -0.32), (belly * 1.5, -0.25), (belly * 1.5, 0.05), (belly * 0.8, 0.2)]
        ),
        0.05,
        body,
    )
    pen.fill(
        both_sides(
            spline(
                [
                    (0.1, -0.4),
                    (0.085, -0.3),
                    (belly * 0.8, -0.05),
                    (belly, 0.18),
                    (belly * 0.85, 0.4),
                    (belly * 0.6, 0.5),
                ]
            )
        ),
        body,
        bevel=belly * 0.9,
    )
    pen.disc((0, -0.4), (0.1, 0.03), body.darker(0.4))


def bowl(pen: Pen) -> None:
    """A bowl of fruit: round, as a kettledrum is."""
    rng = pen.rng
    for _ in range(int(rng.integers(5, 10))):
        fruit = Material(cloth(rng, (0.0, 0.08, 0.12, 0.24, 0.95)).darker(1.4).colour, gloss=0.4)
        r = float(rng.uniform(0.09, 0.13))
        pen.disc(
            (float(rng.uniform(-0.3, 0.3)), 0.08 - float(rng.uniform(0, 0.16))), r, fruit, bevel=r
        )
    clay = metal(rng, "tin", "brass") if rng.uniform() < 0.4 else wood(rng)
    pen.fill(
        np.vstack([arc((0, 0.1), (0.46, 0.08), 180, 0), arc((0, 0.12), (0.46, 0.36), 0, 180)]),
        clay,
        bevel=0.3,
    )
    pen.fill(
        polygon((-0.16, 0.44), (0.16, 0.44), (0.2, 0.5), (-0.2, 0.5)), clay.darker(0.8), bevel=0.02
    )


def basket(pen: Pen) -> None:
    """A woven basket."""
    rng = pen.rng
    straw = wood(rng, "honey", "boxwood", "oak")
    pen.tube(arc((0, 0.1), (0.3, 0.45), 180, 360), 0.045, straw.darker(0.85))
    sides = polygon((-0.38, 0.05), (0.38, 0.05), (0.28, 0.5), (-0.28, 0.5))
    pen.fill(sides, straw, bevel=0.15)
    for i, y in enumerate(np.linspace(0.09, 0.47, 8)):
        half = 0.38 - 0.1 * (y - 0.05) / 0.45
        for x in np.linspace(-half, half, 12)[(i % 2) :: 2]:
            pen.line([(x - 0.025, y), (x + 0.025, y)], 0.022, straw.darker(0.5).colour, 0.6)
    pen.tube([(-0.39, 0.06), (0.39, 0.06)], 0.05, straw.darker(0.9))


def candle(pen: Pen) -> None:
    """A candlestick: straight like a pipe."""
    rng = pen.rng
    stick = metal(rng, "brass", "silver", "tin")
    pen.tube([(0, -0.2), (0, 0.1), (0, 0.2), (0, 0.4)], [0.07, 0.04, 0.09, 0.05], stick)
    pen.fill(
        both_sides([(0, 0.38), (0.05, 0.4), (0.17, 0.47), (0.17, 0.5), (0, 0.5)]), stick, bevel=0.06
    )
    pen.tube([(0, -0.18), (0, -0.42)], 0.055, Material((0.93, 0.89, 0.76)))
    pen.fill(
        both_sides(spline([(0, -0.54), (0.025, -0.46), (0, -0.42)])),
        Material((1, 0.85, 0.4), edge=0),
    )


def books(pen: Pen) -> None:
    """A pile of books, sometimes one open with music."""
    rng = pen.rng
    y = 0.5
    for _ in range(int(rng.integers(2, 5))):
        thick, half = float(rng.uniform(0.09, 0.15)), float(rng.uniform(0.3, 0.42))
        slip = float(rng.normal(0, 0.04))
        pen.fill(box_points(slip - half, y - thick, slip + half, y), cloth(rng), bevel=0.02)
        pen.fill(
            box_points(slip - half * 0.94, y - thick * 0.82, slip + half * 1.01, y - thick * 0.18),
            Material((0.88, 0.83, 0.7), edge=0.2),
            bevel=0.01,
        )
        y -= thick
    if rng.uniform() < 0.5:
        page = Material((0.92, 0.88, 0.78))
        for side in (-1, 1):
            leaf = polygon((0, y), (side * 0.4, y - 0.03), (side * 0.34, y - 0.3), (0, y - 0.26))
            pen.fill(leaf, page, bevel=0.02)
            for t in np.linspace(0.2, 0.85, 5):
                pen.line(
                    [(side * 0.04, y - 0.26 * t), (side * 0.34, y - 0.29 * t - 0.01)],
                    0.007,
                    (0.25, 0.2, 0.18),
                    0.7,
                )


def shield(pen: Pen) -> None:
    """A round or heater shield: near a drum's face."""
    rng = pen.rng
    rim = metal(rng, "tin", "brass", "bronze")
    face = paint(rng)
    if rng.uniform() < 0.5:
        pen.disc((0, 0), 0.49, rim, bevel=0.05)
        pen.disc((0, 0), 0.42, face, bevel=0.25)
        pen.disc((0, 0), 0.12, rim, bevel=0.1)
        return
    outline = both_sides(
        spline([(0.0, -0.48), (0.38, -0.47), (0.4, -0.1), (0.24, 0.3), (0.0, 0.5)])
    )
    pen.fill(outline, rim, bevel=0.04)
    pen.fill(outline * 0.9, face, bevel=0.1)
    pen.fill(box_points(-0.05, -0.4, 0.05, 0.4), rim, bevel=0.02)


def chair(pen: Pen) -> None:
    """A wooden chair: bars and strings of rungs, like a harp's frame."""
    rng = pen.rng
    frame = wood(rng, "walnut", "oak", "mahogany")
    for x in (-0.24, 0.2):
        pen.tube([(x, -0.5), (x * 1.02, 0.06)], 0.05, frame)
    for y in np.linspace(-0.44, -0.1, int(rng.integers(2, 5))):
        pen.tube([(-0.24, y), (0.2, y)], 0.05, frame)
    for x, y in ((-0.2, 0.46), (0.18, 0.46), (-0.31, 0.5), (0.31, 0.5)):
        pen.tube([(x, 0.06), (x, y)], 0.05, frame.darker(0.85 if y < 0.5 else 1))
    pen.fill(
        polygon((-0.26, 0.02), (0.22, 0.02), (0.34, 0.14), (-0.34, 0.14)), cloth(rng), bevel=0.03
    )
    pen.tube([(-0.31, 0.34), (0.31, 0.34)], 0.035, frame)


def easel(pen: Pen) -> None:
    """An easel with a canvas."""
    rng = pen.rng
    frame = wood(rng, "oak", "honey", "walnut")
    pen.tube([(0, -0.5), (0.05, 0.45)], 0.035, frame.darker(0.7))
    pen.tube([(-0.03, -0.48), (-0.27, 0.5)], 0.04, frame)
    pen.tube([(0.03, -0.48), (0.27, 0.5)], 0.04, frame)
    pen.fill(box_points(-0.24, -0.32, 0.24, 0.16), Material((0.9, 0.87, 0.8)), bevel=0.012)
    hill = [(x, -0.02 + 0.05 * math.sin(14 * x)) for x in np.linspace(-0.22, 0.22, 14)]
    pen.fill(box_points(-0.22, -0.3, 0.22, 0.14), cloth(rng, (0.55, 0.6)).darker(1.2))
    pen.fill(np.array([*hill, (0.22, 0.14), (-0.22, 0.14)]), cloth(rng, (0.25, 0.12)))
    pen.tube([(-0.28, 0.18), (0.28, 0.18)], 0.05, frame)


def bow(pen: Pen) -> None:
    """An archer's or a fiddler's bow: a curved stick and a string."""
    rng = pen.rng
    stick = wood(rng, "walnut", "rosewood", "amber")
    bend = float(rng.uniform(0.03, 0.2))
    path = spline([(0, -0.5), (bend, -0.25), (bend * 1.15, 0), (bend, 0.25), (0, 0.5)])
    pen.line([(0, -0.5), (0, 0.5)], 0.006, (0.9, 0.88, 0.8))
    pen.tube(
        path, np.interp(np.linspace(0, 1, len(path)), [0, 0.5, 1], [0.012, 0.026, 0.012]), stick
    )


def globe(pen: Pen) -> None:
    """A globe on a stand."""
    rng = pen.rng
    brass = metal(rng, "brass")
    stand = wood(rng, "walnut", "mahogany")
    pen.tube([(0, 0.2), (0, 0.3), (0, 0.45)], [0.06, 0.1, 0.05], stand)
    pen.fill(both_sides([(0, 0.44), (0.2, 0.46), (0.22, 0.5), (0, 0.5)]), stand, bevel=0.03)
    pen.line(arc((0, -0.1), 0.36), 0.035, brass.colour)
    pen.disc((0, -0.1), 0.33, Material(cloth(rng, (0.55, 0.12)).colour, gloss=0.3), bevel=0.33)
    for _ in range(4):
        at = rng.normal(0, 0.12, 2) + (0, -0.1)
        blob = at + arc((0, 0), 0.09, steps=9)[:-1] * rng.uniform(0.6, 1.4, (8, 1))
        pen.fill(spline(blob, True), Material((0.55, 0.45, 0.25), edge=0.2))


def bottle(pen: Pen) -> None:
    """A bottle: the silhouette of a small string instrument."""
    rng = pen.rng
    glass = Material(cloth(rng, (0.3, 0.1, 0.35)).darker(0.6).colour, gloss=0.9)
    half = float(rng.uniform(0.13, 0.2))
    pen.fill(
        both_sides(
            spline([(0.045, -0.5), (0.045, -0.2), (half, -0.02), (half, 0.42), (half * 0.9, 0.5)])
        ),
        glass,
        bevel=half * 0.8,
    )
    pen.fill(box_points(-0.04, -0.54, 0.04, -0.46), wood(rng, "oak", "honey"), bevel=0.01)


def wheel(pen: Pen) -> None:
    """A cartwheel."""
    rng = pen.rng
    timber = wood(rng, "oak", "walnut")
    pen.fill(arc((0, 0), 0.5)[:-1], timber, bevel=0.03, holes=[arc((0, 0), 0.4)[:-1]])
    for a in np.linspace(0, math.pi, 6)[:-1]:
        c, s = 0.42 * math.cos(a), 0.42 * math.sin(a)
        pen.tube([(-c, -s), (c, s)], 0.05, timber)
    pen.disc((0, 0), 0.1, timber.darker(0.8), bevel=0.06)


def skull(pen: Pen) -> None:
    """A skull, the vanitas painter's companion of lutes and books."""
    bone = ivory(pen.rng).darker(0.9)
    pen.fill(
        spline(
            [
                (-0.36, 0.05),
                (-0.32, -0.3),
                (0.0, -0.45),
                (0.33, -0.3),
                (0.36, 0.05),
                (0.2, 0.2),
                (0.17, 0.46),
                (-0.17, 0.46),
                (-0.2, 0.2),
            ],
            True,
        ),
        bone,
        bevel=0.25,
    )
    dark = Material((0.12, 0.08, 0.05), edge=0.2)
    for x in (-0.16, 0.16):
        pen.disc((x, 0.05), (0.1, 0.09), dark)
    pen.fill(polygon((0, 0.12), (0.05, 0.24), (-0.05, 0.24)), dark)
    for x in np.linspace(-0.12, 0.12, 6):
        pen.line([(x, 0.33), (x, 0.46)], 0.012, dark.colour, 0.7)


TABLE_PROPS: tuple[tuple[Callable[[Pen], None], float], ...] = (
    (vase, 0.5),
    (jug, 0.36),
    (bowl, 0.3),
    (basket, 0.36),
    (candle, 0.36),
    (books, 0.3),
    (globe, 0.42),
    (bottle, 0.34),
    (skull, 0.24),
)
"""Things for tables, with their natural heights."""

FLOOR_PROPS: tuple[tuple[Callable[[Pen], None], float], ...] = (
    (chair, 1.05),
    (easel, 1.6),
    (basket, 0.5),
    (shield, 0.7),
    (wheel, 0.8),
    (vase, 0.9),
    (jug, 0.5),
    (books, 0.4),
)
"""Things for floors, with their natural heights."""
