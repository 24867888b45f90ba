"""Drum, organ and piano. See ``strings`` for the conventions."""

from __future__ import annotations

import math

import numpy as np

from musicon.datasets.atelier.canvas import (
    Array,
    Material,
    Pen,
    arc,
    both_sides,
    box_points,
    polygon,
    spline,
)
from musicon.datasets.atelier.materials import cloth, ivory, metal, paint, skin_head, wood
from musicon.datasets.atelier.strings import Anchors


def draw_drum(pen: Pen) -> Anchors:
    """A drum: shell with hoops and ropes or rods, or a kettledrum; the head seen from above."""
    rng = pen.rng
    rx = float(rng.uniform(0.34, 0.48))
    tilt = float(rng.uniform(0.22, 0.42))
    ry = rx * tilt
    if rng.uniform() < 0.25:
        return _kettle(pen, rx, ry)
    depth = float(rng.uniform(0.3, 0.95)) * rx * 1.6
    top, bottom = -depth / 2, depth / 2
    shell = (
        paint(rng)
        if rng.uniform() < 0.55
        else (metal(rng, "brass", "copper") if rng.uniform() < 0.4 else wood(rng))
    )
    taper = float(rng.uniform(0.93, 1.0))
    side = np.vstack([arc((0, top), (rx, ry), 180, 0), arc((0, bottom), (rx * taper, ry), 0, 180)])
    pen.fill(side, shell, bevel=rx * 0.9)
    if rng.uniform() < 0.5:
        _emblem(pen, (0.0, ry * 0.95), min(depth, rx) * 0.3)
    _lacing(pen, rx, ry, top, bottom, taper)
    hoop = paint(rng) if rng.uniform() < 0.5 else wood(rng, "walnut", "amber", "red")
    _hoop(pen, rx * taper * 1.03, ry, bottom, hoop)
    _hoop(pen, rx * 1.03, ry, top, hoop)
    pen.disc((0, top - 0.01), (rx * 1.03, ry * 1.02), hoop, bevel=0.02)
    _head(pen, (0, top - 0.012), rx * 0.97, ry * 0.94)
    return Anchors(((-rx * 0.45, top - ry * 0.3), (rx * 0.45, top - ry * 0.3)))


def _hoop(pen: Pen, rx: float, ry: float, y: float, material: Material) -> None:
    high = 0.05
    band = np.vstack(
        [arc((0, y - high / 2), (rx, ry), 180, 0), arc((0, y + high / 2), (rx, ry), 0, 180)]
    )
    pen.fill(band, material, bevel=0.025)


def _head(pen: Pen, centre: tuple[float, float], rx: float, ry: float) -> None:
    rng = pen.rng
    skin = skin_head(rng)
    pen.disc(centre, (rx, ry), skin, bevel=0.015)
    if rng.uniform() < 0.4:
        pen.disc(centre, (rx * 0.45, ry * 0.45), skin.darker(0.93))
    if rng.uniform() < 0.55:
        stick = wood(rng, "ebony", "walnut", "honey")
        for side in (-1, 1):
            turn = float(rng.uniform(10, 60)) * side
            sub = pen.moved(centre[0] + 0.05 * side, centre[1], turn)
            sub.tube([(-rx * 0.95, 0), (rx * 0.8, 0)], [0.026, 0.016], stick)
            sub.disc((rx * 0.82, 0), (0.026, 0.018), stick, bevel=0.015)


def _lacing(pen: Pen, rx: float, ry: float, top: float, bottom: float, taper: float) -> None:
    rng = pen.rng
    count = int(rng.integers(6, 11))
    angles = np.linspace(176, 4, 2 * count + 1)
    upper = np.stack(
        [rx * 1.02 * np.cos(np.radians(angles)), top + 0.03 + ry * np.sin(np.radians(angles))], 1
    )
    lower = np.stack(
        [
            rx * 1.02 * taper * np.cos(np.radians(angles)),
            bottom - 0.02 + ry * np.sin(np.radians(angles)),
        ],
        1,
    )
    if rng.uniform() < 0.7:
        zigzag = np.where((np.arange(len(angles)) % 2 == 0)[:, None], upper, lower)
        pen.line(zigzag + (0.008, 0.008), 0.012, (0.08, 0.05, 0.03), 0.4)
        pen.line(zigzag, 0.013, (0.9, 0.85, 0.7))
        leather = Material((0.45, 0.28, 0.15))
        for i in range(1, len(angles) - 1, 2):
            at = lower[i] * 0.65 + (upper[i - 1] + upper[i + 1]) / 2 * 0.35
            pen.fill(
                both_sides([(0.0, -0.03), (0.012, -0.03), (0.026, 0.03), (0.0, 0.034)]) + at,
                leather,
                bevel=0.008,
            )
        return
    rod = metal(rng, "silver", "brass")
    for i in range(0, len(angles), 2):
        pen.tube([upper[i], lower[i]], 0.013, rod)
        pen.tube([(upper[i] * 0.6 + lower[i] * 0.4), (upper[i] * 0.4 + lower[i] * 0.6)], 0.028, rod)


def _emblem(pen: Pen, centre: tuple[float, float], size: float) -> None:
    rng = pen.rng
    gold = metal(rng, "gold", "silver")
    shape = int(rng.integers(0, 3))
    if shape == 0:
        pen.disc(centre, size, gold, bevel=0.02)
        pen.disc(centre, size * 0.7, paint(rng), bevel=0.02)
    elif shape == 1:
        rays = [
            (
                size * (1 if i % 2 else 0.45) * math.cos(i * math.pi / 8),
                size * (1 if i % 2 else 0.45) * math.sin(i * math.pi / 8),
            )
            for i in range(16)
        ]
        pen.fill(np.array(rays) + centre, gold, bevel=0.01)
    else:
        pen.fill(
            both_sides([(0, -size), (size * 0.8, -size), (size * 0.75, 0.1 * size), (0, size)])
            + np.array(centre),
            paint(rng),
            bevel=0.02,
        )
        pen.line([(centre[0], centre[1] - size), (centre[0], centre[1] + size)], 0.02, gold.colour)


def _kettle(pen: Pen, rx: float, ry: float) -> Anchors:
    rng = pen.rng
    copper = metal(rng, "copper", "brass", "copper")
    deep = float(rng.uniform(0.55, 0.8)) * rx * 1.5
    legs = metal(rng, "tin", "bronze")
    for x in (-0.6, 0.0, 0.6):
        pen.tube(
            spline([(x * rx, 0.0), (x * rx * 1.15, deep * 0.7), (x * rx * 1.3, deep + 0.05)]),
            0.028,
            legs,
        )
    bowl = np.vstack(
        [
            arc((0, -0.15), (rx, ry), 180, 0),
            spline(
                [
                    (rx, -0.15),
                    (rx * 0.93, deep * 0.35 - 0.1),
                    (rx * 0.55, deep * 0.8 - 0.1),
                    (0.0, deep - 0.1),
                    (-rx * 0.55, deep * 0.8 - 0.1),
                    (-rx * 0.93, deep * 0.35 - 0.1),
                    (-rx, -0.15),
                ]
            ),
        ]
    )
    pen.fill(bowl, copper, bevel=rx * 0.8)
    for angle in np.linspace(170, 10, 7):
        x, y = rx * 1.02 * math.cos(math.radians(angle)), -0.13 + ry * math.sin(math.radians(angle))
        pen.tube([(x, y), (x, y + 0.12)], 0.014, legs)
        pen.tube([(x - 0.02, y), (x + 0.02, y)], 0.012, legs)
    _hoop(pen, rx * 1.02, ry, -0.15, legs)
    pen.disc((0, -0.165), (rx * 1.02, ry), legs, bevel=0.015)
    _head(pen, (0, -0.168), rx * 0.97, ry * 0.94)
    return Anchors(((-rx * 0.45, -0.25), (rx * 0.45, -0.25)))


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
