"""Lutes: pear-shaped body with a rose, pegbox bent back, double strings."""

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
from musicon.datasets.atelier.materials import ivory, wood
from musicon.datasets.atelier.strings import Anchors, Point


def draw_lute(pen: Pen) -> Anchors:
    """A lute seen from the front (sometimes from its ribbed back), pegbox bent back."""
    rng = pen.rng
    w, top = float(rng.uniform(0.19, 0.265)), float(rng.uniform(-0.2, -0.08))
    neck = float(rng.uniform(0.026, 0.038))
    nut = float(rng.uniform(-0.46, -0.4))
    right = spline(
        [
            (neck, top),
            (0.42 * w, top + 0.1),
            (0.83 * w, 0.1 + top * 0.3),
            (w, 0.25),
            (0.88 * w, 0.38),
            (0.5 * w, 0.475),
            (0.0, 0.5),
        ]
    )
    body = both_sides(right)
    ribs, ebony = (
        wood(rng, "rosewood", "walnut", "amber", "red", "honey"),
        wood(rng, "ebony", "walnut"),
    )
    _lute_pegbox(pen, nut, neck, ebony)
    shift = float(rng.uniform(-0.05, 0.05))
    if rng.uniform() < 0.12:
        pen.fill(box_points(-neck, nut, neck, top + 0.06), ebony, bevel=neck)
        _ribbed_back(pen, body, w, ribs)
        return Anchors(((0.0, nut + 0.1), (0.4 * w, 0.3)))
    pen.fill(body * (1.0, 1.0) + (shift, 0.012), ribs, bevel=0.06)
    board = wood(rng, "spruce", "pale", "honey")
    pen.fill(body, board, bevel=0.012)
    _rose(pen, (0.0, float(rng.uniform(0.08, 0.14))), w * float(rng.uniform(0.24, 0.33)), board)
    _lute_neck(pen, nut, top, neck, ebony)
    _lute_strings(pen, nut, neck, w, ebony)
    return Anchors(((0.0, nut + 0.08), (0.1 * w, 0.26)))


def _lute_pegbox(pen: Pen, nut: float, neck: float, material: Material) -> None:
    rng = pen.rng
    side = -1 if rng.uniform() < 0.5 else 1
    box = pen.moved(0.0, nut + 0.008, side * float(rng.uniform(35, 88)))
    length, count = float(rng.uniform(0.15, 0.2)), int(rng.integers(5, 8))
    peg = ivory(rng) if rng.uniform() < 0.25 else wood(rng, "ebony", "boxwood", "rosewood")
    for i in range(count):
        y = -length * (i + 0.8) / (count + 0.4)
        reach = 0.055 * float(rng.uniform(0.85, 1.1))
        box.tube([(-reach, y), (reach, y + 0.006)], 0.008, peg)
        for end in (-reach, reach):
            box.disc((end, y), (0.014, 0.009), peg, bevel=0.007)
    box.fill(
        polygon((-neck, 0.006), (neck, 0.006), (neck * 0.62, -length), (-neck * 0.62, -length)),
        material,
        bevel=0.015,
    )
    box.fill(
        polygon(
            (-neck * 0.5, -0.012),
            (neck * 0.5, -0.012),
            (neck * 0.3, -length * 0.94),
            (-neck * 0.3, -length * 0.94),
        ),
        material.darker(0.45),
    )


def _lute_neck(pen: Pen, nut: float, top: float, neck: float, material: Material) -> None:
    """The fingerboard, from the nut down to the body, and gut frets around it."""
    pen.fill(
        polygon(
            (-neck * 0.82, nut),
            (neck * 0.82, nut),
            (neck, top + 0.05),
            (neck * 0.6, top + 0.09),
            (-neck * 0.6, top + 0.09),
            (-neck, top + 0.05),
        ),
        material,
        bevel=0.01,
    )
    for i in range(int(pen.rng.integers(7, 10))):
        y = nut + (top - nut) * (1 - 0.5 ** ((i + 1) / 6)) * 2
        if y < top:
            pen.line([(-neck, y), (neck, y)], 0.003, (0.75, 0.66, 0.45))


def _lute_strings(pen: Pen, nut: float, neck: float, w: float, material: Material) -> None:
    """The bridge, and double strings from it to the nut."""
    rng = pen.rng
    bridge = float(rng.uniform(0.36, 0.41))
    pen.fill(
        both_sides(
            [
                (0.0, bridge - 0.011),
                (0.42 * w, bridge - 0.009),
                (0.56 * w, bridge + 0.004),
                (0.42 * w, bridge + 0.012),
                (0.0, bridge + 0.012),
            ]
        ),
        material,
        bevel=0.008,
    )
    courses = int(rng.integers(5, 9))
    for offset in np.linspace(-1, 1, courses):
        for pair in (-0.0035, 0.0035):
            pen.line(
                [(offset * neck * 0.72 + pair * 0.6, nut), (offset * 0.36 * w + pair, bridge)],
                0.0022,
                (0.93, 0.88, 0.72),
                0.85,
            )


def _ribbed_back(pen: Pen, body: Array, w: float, material: Material) -> None:
    pen.fill(body, material, bevel=w)
    strips = int(pen.rng.integers(7, 12))
    half = body[: len(body) // 2]
    for share in np.linspace(-1, 1, strips + 1)[1:-1]:
        pen.line(half * (math.sin(share * math.pi / 2), 1.0), 0.004, (0.82, 0.68, 0.45), 0.7)
    pen.line(body, 0.004, (0.1, 0.07, 0.05), 0.6, closed=True)


def _rose(pen: Pen, centre: Point, radius: float, board: Material) -> None:
    """A carved rosette: a dark disc behind interlaced circles."""
    x, y = centre
    pen.disc(centre, radius * 1.12, board.darker(0.82))
    pen.disc(centre, radius, board.darker(0.22))
    petals = int(pen.rng.choice([6, 8, 12]))
    tracery = board.darker(0.95).colour
    for i in range(petals):
        a = 2 * math.pi * i / petals
        pen.line(
            arc(
                (x + 0.5 * radius * math.cos(a), y + 0.5 * radius * math.sin(a)),
                radius * 0.48,
                steps=24,
            ),
            radius * 0.075,
            tracery,
        )
    pen.line(arc(centre, radius), radius * 0.1, tracery)
    pen.line(arc(centre, radius * 0.3, steps=20), radius * 0.1, tracery)
