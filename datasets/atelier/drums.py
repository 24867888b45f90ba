"""Drums and kettledrums. See ``strings`` for the conventions."""

from __future__ import annotations

import math

import numpy as np

from musicon.datasets.atelier.canvas import (
    Material,
    Pen,
    arc,
    both_sides,
    spline,
)
from musicon.datasets.atelier.materials import metal, paint, skin_head, wood
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
