"""Heads of people: hair, face, and what is worn on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from musicon.datasets.atelier.canvas import Material, Pen, arc, both_sides, spline
from musicon.datasets.atelier.materials import cloth, ivory, metal

if TYPE_CHECKING:
    from musicon.datasets.atelier.figures import Person


def draw_hair_behind(pen: Pen, who: Person) -> None:
    """Hair that falls behind the head, and the halo; drawn before the body."""
    length = float(pen.rng.choice([-0.16, -0.12, -0.02, 0.1])) + float(pen.rng.normal(0, 0.015))
    pen.fill(
        spline(
            [
                (-0.1, -0.2),
                (-0.06, -0.34),
                (0.06, -0.34),
                (0.1, -0.2),
                (0.12, length),
                (0.0, length + 0.02),
                (-0.12, length),
            ],
            True,
        ),
        who.hair,
        bevel=0.05,
    )
    if who.holy:
        pen.disc((0.0, -0.2), 0.2, metal(pen.rng, "gold"), bevel=0.01)
        pen.line(arc((0, -0.2), 0.185), 0.006, (0.5, 0.33, 0.1), closed=True)


def draw_head(pen: Pen, who: Person) -> None:
    """Face, beard, fringe and what is worn on the head."""
    turn = who.look * 0.03
    face = spline(
        [
            (0.0, -0.32),
            (0.07, -0.29),
            (0.087, -0.21),
            (0.075, -0.13),
            (0.035, -0.075),
            (0.0, -0.066),
            (-0.035, -0.075),
            (-0.075, -0.13),
            (-0.087, -0.21),
            (-0.07, -0.29),
        ],
        True,
    )
    pen.fill(face, who.skin, bevel=0.07)
    _features(pen, who, turn)
    if pen.rng.uniform() < 0.22 and not who.holy:
        beard = [
            (-0.076, -0.16),
            (-0.035, -0.108),
            (0.035, -0.108),
            (0.076, -0.16),
            (0.052, -0.06),
            (0, -0.03),
            (-0.052, -0.06),
        ]
        pen.fill(spline(beard, True), who.hair, bevel=0.03)
    _headgear(pen, who)


def _features(pen: Pen, who: Person, turn: float) -> None:
    """Brows, eyes, nose, mouth; a face turned aside shifts them."""
    dark, shade = who.skin.darker(0.4).colour, who.skin.darker(0.66).colour
    for side in (-1, 1):
        x = turn + side * 0.033
        brow = [(x - 0.019, -0.223), (x, -0.231), (x + 0.019, -0.225)]
        pen.line(spline(brow), 0.007, who.hair.darker(0.8).colour, 0.7)
        pen.disc((x, -0.204), (0.014, 0.0065), Material((0.92, 0.89, 0.84), edge=0.2, gloss=0))
        pen.disc((x + who.look * 0.004, -0.204), 0.0062, Material((0.13, 0.09, 0.07), edge=0))
        pen.line(spline([(x - 0.016, -0.205), (x, -0.2115), (x + 0.016, -0.205)]), 0.005, dark, 0.9)
    nose = [(turn * 1.2 + 0.004, -0.205), (turn * 1.7 + 0.013, -0.165), (turn * 1.4, -0.158)]
    pen.line(spline(nose), 0.006, shade, 0.8)
    pen.line(
        spline([(turn - 0.022, -0.124), (turn, -0.12), (turn + 0.022, -0.124)]),
        0.009,
        (0.62, 0.27, 0.22),
        0.85,
    )
    pen.line([(turn - 0.01, -0.108), (turn + 0.01, -0.108)], 0.006, shade, 0.5)


def _headgear(pen: Pen, who: Person) -> None:
    fringe = spline(
        [
            (-0.095, -0.19),
            (-0.09, -0.29),
            (0.0, -0.36),
            (0.09, -0.29),
            (0.095, -0.19),
            (0.07, -0.27),
            (0.0, -0.3),
            (-0.07, -0.27),
        ],
        True,
    )
    pen.fill(fringe, who.hair, bevel=0.03)
    felt = cloth(pen.rng)
    if not who.holy and who.hat >= BAREHEADED:
        HATS[who.hat - BAREHEADED](pen, felt)


def _feathered_cap(pen: Pen, felt: Material) -> None:
    pen.fill(
        spline(
            [
                (-0.13, -0.28),
                (-0.12, -0.37),
                (0.02, -0.42),
                (0.15, -0.36),
                (0.13, -0.27),
                (0, -0.29),
            ],
            True,
        ),
        felt,
        bevel=0.05,
    )
    pen.tube(spline([(0.08, -0.34), (0.16, -0.46), (0.25, -0.44)]), 0.03, ivory(pen.rng), alpha=0.9)


def _brimmed_hat(pen: Pen, felt: Material) -> None:
    pen.disc((0, -0.285), (0.21, 0.045), felt.darker(0.8), bevel=0.03)
    pen.fill(
        both_sides(spline([(0.0, -0.42), (0.08, -0.41), (0.1, -0.29), (0.0, -0.275)])),
        felt,
        bevel=0.04,
    )


def _wreath(pen: Pen, _: Material) -> None:
    for a in np.linspace(185, 355, 9):
        x, y = 0.095 * math.cos(math.radians(a)), -0.25 + 0.1 * math.sin(math.radians(a))
        pen.disc((x, y), (0.025, 0.018), cloth(pen.rng, (0.3, 0.95, 0.1)), bevel=0.015)


def _linen_hood(pen: Pen, _: Material) -> None:
    pen.fill(
        spline(
            [
                (-0.12, -0.2),
                (-0.13, -0.33),
                (0, -0.41),
                (0.13, -0.33),
                (0.12, -0.2),
                (0.08, -0.28),
                (0, -0.305),
                (-0.08, -0.28),
            ],
            True,
        ),
        Material((0.9, 0.87, 0.8)),
        bevel=0.05,
    )


def _turban(pen: Pen, felt: Material) -> None:
    for i in range(3):
        pen.tube(
            spline(
                [(-0.12, -0.26 - 0.035 * i), (0, -0.32 - 0.035 * i), (0.12, -0.27 - 0.035 * i)]
            ),
            0.06,
            felt.darker(1 - 0.1 * i),
        )


HATS = (_feathered_cap, _brimmed_hat, _wreath, _linen_hood, _turban)
BAREHEADED = 2
"""So many of the values of ``Person.hat`` stand for none."""
