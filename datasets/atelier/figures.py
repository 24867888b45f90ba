"""People: a body, then whatever it holds, then the arms and hands over it.

Local units are metres or so; the origin lies between the shoulders, y points down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from musicon.datasets.atelier.canvas import Material, Pen, both_sides, polygon, spline
from musicon.datasets.atelier.heads import draw_hair_behind, draw_head
from musicon.datasets.atelier.materials import cloth, flesh, metal, wood

MOUTH = (0.0, -0.135)
"""Where the mouth is."""
FEET = {"standing": 1.42, "seated": 1.02}
"""Height of the soles below the shoulders."""
_HAIR = (
    (0.10, 0.07, 0.05),
    (0.25, 0.15, 0.08),
    (0.45, 0.28, 0.12),
    (0.62, 0.45, 0.2),
    (0.6, 0.58, 0.55),
    (0.5, 0.2, 0.08),
)


@dataclass(frozen=True)
class Person:
    """How one figure looks.

    Attributes:
        stance: ``standing`` or ``seated``.
        skin: Face and hands.
        dress: Robe or doublet.
        sleeve: Arms.
        hair: Hair.
        robe: Long robe rather than doublet and hose.
        hat: Index of the headgear; 0 and 1 are none.
        look: Where the face is turned, -1 (left) to 1 (right).
        holy: Has a halo.
    """

    stance: str
    skin: Material
    dress: Material
    sleeve: Material
    hair: Material
    robe: bool
    hat: int
    look: float
    holy: bool


def person(rng: np.random.Generator, stance: str, holy: bool = False) -> Person:
    """A new person."""
    dress = cloth(rng)
    sleeve = dress.darker(1.1) if rng.uniform() < 0.6 else cloth(rng)
    if rng.uniform() < 0.2:
        sleeve = Material((0.88, 0.85, 0.78))
    return Person(
        stance,
        flesh(rng),
        dress,
        sleeve,
        Material(_HAIR[int(rng.integers(len(_HAIR)))], rough=0.15),
        bool(rng.uniform() < 0.6),
        int(rng.integers(0, 7)),
        float(rng.uniform(-0.7, 0.7)),
        holy,
    )


def draw_body(pen: Pen, who: Person) -> None:
    """Everything but the arms."""
    draw_hair_behind(pen, who)
    if who.stance == "standing":
        _standing(pen, who)
    else:
        _seated(pen, who)
    _torso(pen, who)
    draw_head(pen, who)


def _standing(pen: Pen, who: Person) -> None:
    rng = pen.rng
    if who.robe:
        flare = float(rng.uniform(0.24, 0.42))
        skirt = both_sides(
            spline([(0.13, 0.4), (0.2, 0.6), (0.26, 1.0), (flare, 1.4), (0.0, 1.43)])
        )
        pen.fill(skirt, who.dress, bevel=0.2)
        _folds(pen, who.dress, 0.42, 1.38, flare, int(rng.integers(5, 9)))
        return
    hose, shoe = cloth(rng), wood(rng, "walnut", "ebony")
    for side in (-1, 1):
        leg = spline(
            [(0.09 * side, 0.5), (0.11 * side, 0.85), (0.1 * side, 1.1), (0.12 * side, 1.36)]
        )
        pen.tube(leg, np.linspace(0.17, 0.085, len(leg)), hose)
        pen.fill(
            spline(
                [(0.07 * side, 1.34), (0.16 * side, 1.33), (0.24 * side, 1.4), (0.07 * side, 1.42)],
                True,
            ),
            shoe,
            bevel=0.03,
        )
    pen.fill(
        both_sides(spline([(0.14, 0.38), (0.2, 0.52), (0.23, 0.68), (0.0, 0.71)])),
        who.dress,
        bevel=0.1,
    )
    _folds(pen, who.dress, 0.42, 0.66, 0.2, 4)


def _seated(pen: Pen, who: Person) -> None:
    rng = pen.rng
    stool = wood(rng, "oak", "walnut")
    for x in (-0.24, 0.24):
        pen.tube([(x * 0.9, 0.55), (x, 1.0)], 0.05, stool)
    if who.robe:
        flare = float(rng.uniform(0.3, 0.44))
        pen.fill(
            both_sides(
                spline(
                    [(0.14, 0.4), (0.25, 0.5), (0.3, 0.66), (0.31, 0.85), (flare, 1.02), (0, 1.04)]
                )
            ),
            who.dress,
            bevel=0.14,
        )
        _folds(pen, who.dress, 0.66, 1.0, flare, int(rng.integers(5, 8)))
        return
    hose, shoe = cloth(rng), wood(rng, "walnut", "ebony")
    for side in (-1, 1):
        pen.tube([(0.17 * side, 0.6), (0.16 * side, 0.97)], [0.13, 0.09], hose)
        pen.tube([(0.07 * side, 0.46), (0.17 * side, 0.62)], [0.2, 0.19], hose)
        pen.disc((0.17 * side, 0.62), 0.095, hose, bevel=0.08)
        pen.disc((0.18 * side, 1.0), (0.085, 0.045), shoe, bevel=0.04)
    pen.fill(
        both_sides(spline([(0.14, 0.36), (0.2, 0.46), (0.2, 0.54), (0.0, 0.56)])),
        who.dress,
        bevel=0.08,
    )


def _torso(pen: Pen, who: Person) -> None:
    rng = pen.rng
    wide = float(rng.uniform(0.19, 0.23))
    pen.fill(
        both_sides(
            spline(
                [
                    (0.05, -0.05),
                    (0.1, -0.02),
                    (wide * 0.9, 0.03),
                    (wide, 0.12),
                    (wide * 0.85, 0.25),
                    (0.15, 0.4),
                    (0.15, 0.47),
                    (0.0, 0.48),
                ]
            )
        ),
        who.dress,
        bevel=0.13,
    )
    style = int(rng.integers(0, 4))
    pen.tube([(0, -0.09), (0, 0.01)], 0.085, who.skin.darker(0.9))
    if style == 0:
        lace = Material((0.93, 0.91, 0.86))
        pen.fill(
            spline(
                [
                    (-0.13, -0.02),
                    (-0.06, -0.045),
                    (0.06, -0.045),
                    (0.13, -0.02),
                    (0.1, 0.06),
                    (0.0, 0.1),
                    (-0.1, 0.06),
                ],
                True,
            ),
            lace,
            bevel=0.015,
        )
    elif style == 1:
        pen.fill(polygon((-0.07, -0.03), (0.07, -0.03), (0.0, 0.13)), who.skin, bevel=0.02)
        pen.line(
            [(-0.075, -0.035), (0.0, 0.135), (0.075, -0.035)], 0.022, who.sleeve.darker(1.2).colour
        )
    elif style == 2:
        pen.line([(0, 0.02), (0, 0.42)], 0.012, who.dress.darker(0.5).colour)
        for y in np.linspace(0.05, 0.38, 6):
            pen.disc((0.015, float(y)), 0.012, metal(rng, "gold"), bevel=0.008)
    belt = wood(rng, "walnut", "ebony") if rng.uniform() < 0.6 else metal(rng, "gold")
    pen.line(spline([(-0.15, 0.41), (0, 0.43), (0.15, 0.41)]), 0.03, belt.colour)
    _folds(pen, who.dress, 0.1, 0.38, 0.12, 3)


def _folds(pen: Pen, dress: Material, top: float, bottom: float, spread: float, count: int) -> None:
    rng = pen.rng
    for u in np.linspace(-0.85, 0.85, count) + rng.normal(0, 0.05, count):
        path = spline(
            [
                (u * 0.13, top + float(rng.uniform(0, 0.08))),
                (u * spread * 0.7, (top + bottom) / 2),
                (u * spread, bottom),
            ]
        )
        width = np.linspace(0.008, 0.04, len(path))
        pen.tube(path, width, dress.darker(0.55), bevel=0, alpha=0.6)
        pen.tube(path + (0.024, 0), width * 0.7, dress.darker(1.35), bevel=0, alpha=0.45)


def draw_arms(pen: Pen, who: Person, hands: ArrayLike) -> None:
    """Arms from the shoulders to two points (2, 2) in local units, the left one first."""
    targets = np.asarray(hands, np.float64)
    order = np.argsort(targets[:, 0])
    for side, target in zip((-1, 1), targets[order], strict=True):
        _arm(pen, who, side, target)


def resting_hands(rng: np.random.Generator) -> NDArray[np.float64]:
    """Where the hands of somebody rest who holds nothing."""
    return np.array(
        [
            (-float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.3, 0.55))),
            (float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.3, 0.55))),
        ]
    )


def _arm(pen: Pen, who: Person, side: int, target: NDArray[np.float64]) -> None:
    shoulder = np.array([0.175 * side, 0.06])
    reach = target - shoulder
    distance = float(np.hypot(*reach))
    upper, lower = 0.3, 0.28
    if distance > 0.56:
        upper, lower = upper * distance / 0.56, lower * distance / 0.56
    along = (upper**2 - lower**2 + distance**2) / (2 * max(distance, 1e-6))
    off = math.sqrt(max(upper**2 - along**2, 0.0))
    unit = reach / max(distance, 1e-6)
    normal = np.array([-unit[1], unit[0]])
    if normal[0] * side + 0.8 * normal[1] < 0:
        normal = -normal
    elbow = shoulder + unit * along + normal * off
    sleeve = spline(
        [
            shoulder,
            shoulder * 0.4 + elbow * 0.6 + normal * 0.02,
            elbow,
            elbow * 0.45 + target * 0.55,
        ]
    )
    pen.tube(
        sleeve,
        np.interp(
            np.linspace(0, 1, len(sleeve)), [0, 0.08, 0.3, 0.66, 1], [0.05, 0.12, 0.15, 0.12, 0.1]
        ),
        who.sleeve,
    )
    cuff = elbow * 0.22 + target * 0.78
    pen.tube([elbow * 0.5 + target * 0.5, cuff], [0.095, 0.085], who.sleeve)
    pen.tube([elbow * 0.3 + target * 0.7, cuff], 0.095, Material((0.9, 0.87, 0.8)))
    pen.tube([cuff, elbow * 0.06 + target * 0.94], 0.055, who.skin)
    _hand(pen, who.skin, target, math.atan2(*(target - elbow)[::-1]))


def _hand(pen: Pen, skin: Material, at: NDArray[np.float64], angle: float) -> None:
    hand = pen.moved(float(at[0]), float(at[1]), math.degrees(angle))
    curl = float(pen.rng.uniform(-0.02, 0.03))
    for i, y in enumerate((-0.027, -0.009, 0.01, 0.027)):
        tip = 0.075 - 0.008 * abs(i - 1.3)
        hand.tube(spline([(0.01, y), (0.045, y * 1.15), (tip, y * 1.2 + curl)]), 0.0185, skin)
    hand.tube(spline([(-0.015, 0.02), (0.015, 0.05), (0.045, 0.052)]), 0.02, skin)
    hand.disc((-0.002, 0.0), (0.042, 0.035), skin, bevel=0.025)
