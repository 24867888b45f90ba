"""Organ, piano and virginals. See ``strings`` for the conventions."""

from __future__ import annotations

import math

import numpy as np

from musicon.datasets.atelier.canvas import (
    Array,
    Material,
    Pen,
    both_sides,
    box_points,
    polygon,
    spline,
)
from musicon.datasets.atelier.materials import cloth, ivory, metal, paint, wood
from musicon.datasets.atelier.strings import Anchors


def draw_organ(pen: Pen) -> Anchors:
    """A positive or portative organ: ranks of metal pipes over a case with a keyboard."""
    rng = pen.rng
    case = wood(rng, "oak", "walnut", "mahogany", "honey") if rng.uniform() < 0.7 else paint(rng)
    half = float(rng.uniform(0.24, 0.38))
    belly = float(rng.uniform(0.05, 0.16))
    low = float(rng.uniform(0.36, 0.5))
    pen.fill(box_points(-half, -0.3, half, belly), case.darker(0.28), bevel=0.01)
    _pipes(pen, half * 0.94, belly, int(rng.integers(0, 3)))
    trim = metal(rng, "gold") if rng.uniform() < 0.5 else case.darker(1.25)
    for side in (-1, 1):
        post = box_points(
            side * half - 0.022, -0.42 if rng.uniform() < 0.5 else -0.34, side * half + 0.022, belly
        )
        pen.fill(post, case, bevel=0.012)
        pen.disc((side * half, float(post[0, 1]) - 0.015), (0.026, 0.03), trim, bevel=0.02)
    pen.fill(
        box_points(-half - 0.03, belly - 0.04, half + 0.03, belly), case.darker(1.1), bevel=0.012
    )
    pen.fill(box_points(-half, belly, half, low), case, bevel=0.012)
    panels = int(rng.integers(2, 5))
    for i in range(panels):
        x0 = -half + 2 * half * (i + 0.12) / panels
        x1 = -half + 2 * half * (i + 0.88) / panels
        pen.fill(box_points(x0, belly + 0.13, x1, low - 0.03), case.darker(0.7), bevel=0.006)
        pen.fill(
            box_points(x0 + 0.015, belly + 0.145, x1 - 0.015, low - 0.045),
            case.darker(0.95),
            bevel=0.02,
        )
    _keyboard(pen, half * 0.86, belly + 0.03, belly + 0.075, trim_colour=case)
    pen.fill(
        box_points(-half - 0.02, low - 0.015, half + 0.02, low + 0.02),
        case.darker(0.8),
        bevel=0.012,
    )
    return Anchors(((-half * 0.4, belly + 0.06), (half * 0.35, belly + 0.06)))


def _pipes(pen: Pen, half: float, base: float, order: int) -> None:
    """A rank of pipes; ``order`` 0 is a central tower, 1 two towers, 2 falls to one side."""
    rng = pen.rng
    count = int(rng.integers(9, 20))
    tin = metal(rng, "tin", "silver", "gold", "tin", "brass")
    pitch = 2 * half / count
    longest = base + float(rng.uniform(0.46, 0.5))
    flip = -1 if rng.uniform() < 0.5 else 1
    for i in range(count):
        u = (i + 0.5) / count * 2 - 1
        share = {0: 1 - 0.55 * abs(u), 1: 0.5 + 0.5 * abs(u), 2: 0.7 + 0.3 * u * flip}[order]
        x, top = u * half, base - longest * share
        mouth = base - 0.12 - 0.05 * share
        pen.tube(
            [(x, base), (x, mouth + 0.02), (x, mouth)],
            [pitch * 0.3, pitch * 0.86, pitch * 0.9],
            tin,
        )
        pen.tube([(x, mouth), (x, top)], pitch * 0.9, tin)
        pen.fill(
            both_sides([(0, -0.022), (pitch * 0.22, 0.008), (0, 0.01)]) + np.array([x, mouth]),
            tin.darker(0.25),
        )
        pen.disc((x, top), (pitch * 0.45, pitch * 0.16), tin.darker(0.35))


def _keyboard(
    pen: Pen, half: float, back: float, front: float, trim_colour: Material, spread: float = 1.06
) -> None:
    """White and black keys in slight perspective between two heights."""
    rng = pen.rng
    reverse = rng.uniform() < 0.2
    white = ivory(rng)
    black = Material((0.07, 0.06, 0.06), gloss=0.3)
    if reverse:
        white, black = Material((0.12, 0.09, 0.08), gloss=0.3), Material(white.colour)
    wide = half * spread
    pen.fill(
        polygon(
            (-half - 0.01, back - 0.012),
            (half + 0.01, back - 0.012),
            (wide + 0.012, front + 0.02),
            (-wide - 0.012, front + 0.02),
        ),
        trim_colour.darker(0.6),
        bevel=0.006,
    )
    pen.fill(
        polygon((-half, back), (half, back), (wide, front), (-wide, front)), white, bevel=0.004
    )
    count = max(10, int(half * 2 / 0.026))
    for i in range(count + 1):
        u = i / count * 2 - 1
        pen.line([(u * half, back), (u * wide, front)], 0.0025, (0.25, 0.2, 0.15), 0.8)
        if i % 7 in (1, 2, 4, 5, 6) and i < count:
            w, middle = half / count * 0.55, back + (front - back) * 0.6
            mid = u * (half + (wide - half) * 0.6)
            pen.fill(
                polygon(
                    (u * half - w, back), (u * half + w, back), (mid + w, middle), (mid - w, middle)
                ),
                black,
                bevel=0.003,
            )


def draw_piano(pen: Pen) -> Anchors:
    """A keyboard instrument: upright piano, grand with raised lid, or virginals on a stand."""
    kind = str(pen.rng.choice(["upright", "grand", "virginals"]))
    return {"upright": _upright, "grand": _grand, "virginals": _virginals}[kind](pen)


def _upright(pen: Pen) -> Anchors:
    rng = pen.rng
    case = wood(rng, "ebony", "mahogany", "walnut", "rosewood", "oak")
    half, top, low = float(rng.uniform(0.4, 0.49)), float(rng.uniform(-0.42, -0.3)), 0.4
    pen.fill(box_points(-half, top, half, low), case, bevel=0.015)
    pen.fill(
        box_points(-half - 0.02, top - 0.03, half + 0.02, top + 0.01),
        case.darker(1.15),
        bevel=0.012,
    )
    for x0, x1 in ((-0.92, -0.34), (-0.3, 0.3), (0.34, 0.92)):
        pen.fill(
            box_points(x0 * half, top + 0.04, x1 * half, -0.07), case.darker(0.75), bevel=0.008
        )
        pen.fill(
            box_points(x0 * half + 0.015, top + 0.055, x1 * half - 0.015, -0.085), case, bevel=0.02
        )
    pen.fill(box_points(-half * 0.9, 0.14, half * 0.9, low - 0.05), case.darker(0.7), bevel=0.012)
    pen.fill(
        box_points(-half * 0.88, 0.155, half * 0.88, low - 0.065), case.darker(0.92), bevel=0.02
    )
    pen.fill(box_points(-half - 0.02, 0.055, half + 0.02, 0.105), case.darker(1.1), bevel=0.015)
    _keyboard(pen, half * 0.9, -0.025, 0.045, case)
    if rng.uniform() < 0.6:
        pen.fill(
            polygon((-0.11, -0.05), (0.11, -0.05), (0.1, -0.18), (-0.1, -0.18)),
            Material((0.93, 0.9, 0.82)),
            bevel=0.004,
        )
        for y in np.linspace(-0.16, -0.07, 6):
            pen.line([(-0.085, y), (-0.01, y)], 0.003, (0.2, 0.18, 0.16), 0.8)
            pen.line([(0.01, y), (0.085, y)], 0.003, (0.2, 0.18, 0.16), 0.8)
    for side in (-1, 1):
        x = side * half * 0.94
        pen.tube([(x, 0.1), (x, 0.2), (x, low)], [0.06, 0.035, 0.05], case)
        if rng.uniform() < 0.6:
            brass = metal(rng, "brass")
            pen.tube([(x * 0.6, -0.16), (x * 0.6, -0.24)], 0.014, Material((0.95, 0.92, 0.82)))
            pen.line(
                spline([(x * 0.6, -0.16), (x * 0.52, -0.14), (x * 0.5, -0.17)]), 0.01, brass.colour
            )
    pen.fill(
        box_points(-half - 0.03, low - 0.015, half + 0.03, low + 0.03),
        case.darker(0.85),
        bevel=0.012,
    )
    for x in (-0.05, 0.05):
        pen.disc((x, low - 0.02), (0.022, 0.009), metal(rng, "brass"), bevel=0.006)
    return Anchors(((-half * 0.35, 0.0), (half * 0.3, 0.0)))


def _grand(pen: Pen) -> Anchors:
    rng = pen.rng
    case = wood(rng, "ebony", "mahogany", "walnut", "red") if rng.uniform() < 0.7 else paint(rng)
    inside = wood(rng, "spruce", "honey")
    rise = float(rng.uniform(0.26, 0.42))
    rim = spline(
        [(0.46, -0.02), (0.36, -0.08), (0.2, -0.1), (0.02, -0.12), (-0.22, -0.15), (-0.44, -0.13)]
    )
    lid = np.vstack(
        [
            [(-0.45, -0.12)],
            spline(
                [
                    (-0.42, -0.13 - rise),
                    (-0.15, -0.15 - rise),
                    (0.12, -0.11 - rise * 0.85),
                    (0.32, -0.08 - rise * 0.55),
                    (0.47, -0.03),
                ]
            ),
        ]
    )
    pen.fill(lid, case.darker(0.8), bevel=0.01)
    pen.fill(
        (lid - lid.mean(0)) * 0.93 + lid.mean(0),
        inside if rng.uniform() < 0.4 else case.darker(1.2),
        bevel=0.008,
    )
    body_top = np.vstack(
        [rim, [(-0.46, 0.0)], spline([(-0.46, 0.0), (-0.1, 0.02), (0.2, 0.015), (0.47, 0.0)])]
    )
    pen.fill(body_top, inside, bevel=0.01)
    for x in np.linspace(-0.38, 0.36, 26):
        pen.line([(x, 0.0), (x * 0.9 + 0.04, -0.09)], 0.003, (0.85, 0.75, 0.45), 0.7)
    pen.tube([(0.1, -0.02), (0.2, -0.12 - rise * 0.55)], 0.014, case.darker(0.6))
    for x in (-0.36, 0.02, 0.4):
        pen.tube([(x, 0.1), (x, 0.2), (x, 0.36), (x, 0.4)], [0.06, 0.05, 0.028, 0.035], case)
    side = np.vstack(
        [
            spline([(-0.46, -0.01), (-0.1, 0.015), (0.2, 0.01), (0.48, -0.03)]),
            spline([(0.48, 0.11), (0.2, 0.15), (-0.1, 0.155), (-0.46, 0.14)]),
        ]
    )
    pen.fill(side, case, bevel=0.04)
    pen.fill(box_points(-0.5, 0.04, -0.2, 0.145), case.darker(0.7), bevel=0.008)
    keys = pen.moved(-0.35, 0.03)
    _keyboard(keys, 0.13, 0.02, 0.07, case, spread=1.1)
    pen.tube([(-0.3, 0.14), (-0.3, 0.36)], 0.012, metal(rng, "brass"))
    return Anchors(((-0.42, 0.06), (-0.28, 0.06)))


def _virginals(pen: Pen) -> Anchors:
    rng = pen.rng
    case = wood(rng, "walnut", "oak", "mahogany", "honey") if rng.uniform() < 0.5 else paint(rng)
    half = float(rng.uniform(0.42, 0.48))
    lid_top = float(rng.uniform(-0.42, -0.34))
    skew = float(rng.uniform(-0.05, 0.05))
    lid = polygon((-half, -0.08), (half, -0.08), (half + skew, lid_top), (-half + skew, lid_top))
    pen.fill(lid, case.darker(0.85), bevel=0.012)
    scene = cloth(rng, (0.55, 0.33, 0.1, 0.05))
    inner = (lid - lid.mean(0)) * (0.93, 0.86) + lid.mean(0)
    pen.fill(inner, scene.darker(1.2), bevel=0.008)
    hill = [
        (float(x), -0.2 + 0.04 * math.sin(9 * x + skew * 40))
        for x in np.linspace(-0.8, 0.8, 20) * half
    ]
    pen.fill(np.vstack([hill, [(half * 0.88, -0.11), (-half * 0.88, -0.11)]]), scene.darker(0.55))
    board: Array = polygon((-half, -0.08), (half, -0.08), (half * 1.03, 0.03), (-half * 1.03, 0.03))
    pen.fill(board, wood(rng, "spruce", "pale"), bevel=0.006)
    for i in range(16):
        pen.line(
            [(-half * 0.9 + i * 0.012, -0.07), (half * 0.2 + i * 0.022, 0.02)],
            0.002,
            (0.4, 0.3, 0.15),
            0.7,
        )
    pen.fill(box_points(-half * 1.03, 0.03, half * 1.03, 0.2), case, bevel=0.015)
    shift = float(rng.uniform(-0.08, 0.08))
    _keyboard(pen.moved(shift, 0.0), half * 0.6, 0.045, 0.1, case)
    for x in (-0.85, 0.85):
        leg = pen.moved(x * half, 0.2)
        leg.tube(
            [(0, 0), (0, 0.06), (0, 0.1), (0, 0.2), (0, 0.26)],
            [0.05, 0.03, 0.05, 0.028, 0.045],
            case.darker(0.85),
        )
    pen.tube([(-half * 0.9, 0.42), (half * 0.9, 0.42)], 0.03, case.darker(0.8))
    return Anchors(((shift - 0.1, 0.07), (shift + 0.1, 0.07)))
