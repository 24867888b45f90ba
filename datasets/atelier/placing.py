"""Figures, instruments and things, each placed in a picture with its shadow.

Sizes are natural (a person is about 1.6 high); ``unit`` is pixels a natural unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.atelier import figures, props
from musicon.datasets.atelier.canvas import (
    Layer,
    Material,
    Pen,
    box_points,
    polygon,
    pose,
    spline,
)
from musicon.datasets.atelier.kinds import Kind, draw, extent, label_of
from musicon.datasets.atelier.materials import cloth, wood
from musicon.datasets.atelier.picture import Picture

Rng = np.random.Generator
Light = tuple[float, float, float]


@dataclass(frozen=True)
class Hold:
    """How a player holds an instrument: its centre from the shoulders, turn, size, stance.

    A wind instrument is hung from the mouth instead of ``centre``.
    """

    centre: tuple[float, float]
    turns: tuple[float, float]
    size: float
    stance: str | None = None
    by_mouth: bool = False


_HOLDS: dict[str, tuple[Hold, ...]] = {
    "lute": (Hold((0.04, 0.36), (48, 80), 0.86),),
    "guitar": (Hold((0.05, 0.38), (50, 80), 0.95),),
    "violin": (
        Hold((0.2, 0.04), (72, 100), 0.6, "standing"),
        Hold((0.0, 0.62), (-12, 12), 1.15, "seated"),
    ),
    "harp": (Hold((-0.32, 0.36), (-8, 4), 1.2, "seated"),),
    "trumpet": (Hold((0, 0), (-28, 22), 0.72, None, True),),
    "flute": (Hold((0, 0), (4, 26), 0.66, None, True),),
    "bagpipe": (Hold((0, 0), (-4, 12), 0.86, None, True),),
    "drum": (Hold((0.0, 0.62), (-8, 8), 0.52, "standing"),),
    "organ": (Hold((0.06, 0.42), (-4, 4), 0.66, "seated"),),
}
"""Instruments that a figure holds; the others stand on the floor."""


def can_be_held(kind: Kind) -> bool:
    """Whether a figure can hold an instrument."""
    return kind.name in _HOLDS


def random_light(rng: Rng) -> Light:
    """A light from the upper left or right."""
    return (
        float(rng.choice([-1, 1])) * float(rng.uniform(0.35, 0.65)),
        float(rng.uniform(-0.7, -0.45)),
        0.6,
    )


def player(
    picture: Picture,
    kind: Kind,
    x: float,
    feet: float,
    unit: float,
    rng: Rng,
    light: Light,
    shoulders: float | None = None,
) -> None:
    """Place a figure that holds an instrument; feet stand at ``feet`` pixels from the top.

    Where ``shoulders`` is given, they are at that height instead.
    """
    hold = _HOLDS[kind.name][int(rng.integers(len(_HOLDS[kind.name])))]
    stance = hold.stance or str(rng.choice(["standing", "seated"]))
    mirror = bool(rng.uniform() < 0.5)
    if shoulders is not None:
        feet = shoulders + figures.FEET[stance] * unit
    # What reaches far to one side is centred together with its player.
    aside = 0.18 if kind.name == "harp" else 0.0
    if hold.by_mouth and shoulders is not None:
        aside = -0.2
    x += (-aside if mirror else aside) * unit
    who = figures.person(rng, stance, holy=bool(rng.uniform() < 0.08))
    frame = pose(
        x, feet - figures.FEET[stance] * unit, unit, float(rng.normal(0, 2)), mirror=mirror
    )
    ground_shadow(picture, x, feet, unit * 0.42)
    body = _pen(picture, frame, rng, light)
    figures.draw_body(body, who)
    picture.place(body.layer)
    held = _pen(picture, frame, rng, light)
    turn = float(rng.uniform(*hold.turns))
    size = hold.size * float(rng.uniform(0.92, 1.12))
    grip = held.moved(*hold.centre, turn, size)
    if hold.by_mouth:
        grip = _at_mouth(held, kind, turn, size)
    anchors = kind.draw(grip)
    picture.cast(held.layer, 0.05 * unit, 0.07 * unit, 0.06 * unit, 0.35)
    picture.place(held.layer, label_of(kind))
    hands = np.linalg.solve(
        body.matrix[:, :2], (grip.to_pixels(anchors.hands) - body.matrix[:, 2]).T
    ).T
    arms = _pen(picture, frame, rng, light)
    if kind.name == "violin" and rng.uniform() < 0.8:
        hands = _bowing(arms, hands, rng)
    figures.draw_arms(arms, who, hands)
    picture.place(arms.layer)


def _at_mouth(pen: Pen, kind: Kind, turn: float, size: float) -> Pen:
    """A pen turned about the mouthpiece; a dry run on a spare layer finds where that is."""
    trial = Pen(Layer(4, 4), pose(0, 0, 1), pen.rng, texture=pen.texture)
    state = pen.rng.bit_generator.state
    mouth = np.asarray(kind.draw(trial).mouth)
    pen.rng.bit_generator.state = state
    a = math.radians(turn)
    c, s = math.cos(a) * size, math.sin(a) * size
    x = figures.MOUTH[0] - (c * mouth[0] - s * mouth[1])
    y = figures.MOUTH[1] - (s * mouth[0] + c * mouth[1])
    return pen.moved(x, y, turn, size)


def _bowing(pen: Pen, hands: NDArray[np.float64], rng: Rng) -> NDArray[np.float64]:
    """Draw the bow across the strings; its heel is where the other hand goes."""
    neck, bridge = hands
    along = (neck - bridge) / max(float(np.hypot(*(neck - bridge))), 1e-6)
    across = np.array([-along[1], along[0]])
    if across[1] < 0:
        across = -across
    across = across + along * float(rng.normal(0, 0.2))
    heel, tip = (
        bridge + across * float(rng.uniform(0.2, 0.34)),
        bridge - across * float(rng.uniform(0.2, 0.34)),
    )
    stick = wood(rng, "walnut", "rosewood", "amber")
    pen.line([heel + 0.018 * along, tip + 0.018 * along], 0.008, (0.9, 0.88, 0.82))
    pen.tube([heel * 1.0, (heel + tip) / 2 - 0.01 * along, tip], [0.016, 0.014, 0.01], stick)
    return np.array([neck, heel])


def bystander(picture: Picture, x: float, feet: float, unit: float, rng: Rng, light: Light) -> None:
    """Place a figure without an instrument, sometimes with a thing in its hands."""
    stance = str(rng.choice(["standing", "seated"]))
    who = figures.person(rng, stance, holy=bool(rng.uniform() < 0.08))
    frame = pose(
        x,
        feet - figures.FEET[stance] * unit,
        unit,
        float(rng.normal(0, 2)),
        mirror=bool(rng.uniform() < 0.5),
    )
    ground_shadow(picture, x, feet, unit * 0.42)
    pen = _pen(picture, frame, rng, light)
    figures.draw_body(pen, who)
    hands = figures.resting_hands(rng)
    if rng.uniform() < 0.6:
        thing, height = props.TABLE_PROPS[int(rng.integers(len(props.TABLE_PROPS)))]
        if rng.uniform() < 0.3:
            thing, height = props.bow, 1.0
        at = hands.mean(0) - (0, height * 0.2)
        thing(pen.moved(float(at[0]), float(at[1]), float(rng.normal(0, 8)), height * 0.9))
    figures.draw_arms(pen, who, hands)
    picture.place(pen.layer)


def standing_instrument(
    picture: Picture,
    kind: Kind,
    x: float,
    base: float,
    scale: float,
    degrees: float,
    rng: Rng,
    light: Light,
) -> None:
    """Place an instrument that rests on ``base``; ``scale`` is its length in pixels."""
    drawn = draw(
        kind,
        picture.size,
        (x, base - extent(kind, degrees)[1] * scale / 2),
        scale,
        degrees,
        rng,
        bool(rng.uniform() < 0.5),
        light,
    )
    bounds = drawn.layer.bounds()
    if bounds is None:
        return
    ground_shadow(picture, (bounds[0] + bounds[2]) / 2, bounds[3] - 2, (bounds[2] - bounds[0]) / 2)
    picture.cast(drawn.layer, -light[0] * scale * 0.08, scale * 0.05, scale * 0.04, 0.4)
    picture.place(drawn.layer, label_of(kind))


def prop(
    picture: Picture,
    thing: Callable[[Pen], None],
    x: float,
    base: float,
    height: float,
    rng: Rng,
    light: Light,
) -> None:
    """Place a thing that is not an instrument, standing on ``base``."""
    pen = _pen(
        picture,
        pose(
            x,
            base - height / 2,
            height,
            float(rng.normal(0, 1.5)),
            mirror=bool(rng.uniform() < 0.5),
        ),
        rng,
        light,
    )
    thing(pen)
    ground_shadow(picture, x, base, height * 0.32)
    picture.cast(pen.layer, -light[0] * height * 0.1, height * 0.05, height * 0.05, 0.3)
    picture.place(pen.layer)


def _pen(picture: Picture, frame: NDArray[np.float64], rng: Rng, light: Light) -> Pen:
    return Pen(Layer(*picture.size), frame, rng, light)


def ground_shadow(picture: Picture, x: float, y: float, half: float) -> None:
    """Darken the floor around (x, y), ``half`` pixels to either side."""
    layer = Layer(*picture.size)
    Pen(layer, pose(0, 0, 1), np.random.default_rng(0)).disc(
        (x, y), (half, half * 0.16), Material((0, 0, 0))
    )
    picture.cast(layer, 0, 0, max(half * 0.12, 2.0), 0.55)


def table(picture: Picture, top: float, rng: Rng, light: Light) -> None:
    """A table across the picture, its far edge at ``top`` pixels; often with a cloth."""
    width, height = picture.size
    pen = _pen(picture, pose(0, 0, 1), rng, light)
    timber = wood(rng, "oak", "walnut", "mahogany")
    left, right = (-10.0, width + 10.0) if rng.uniform() < 0.5 else (width * 0.06, width * 0.95)
    depth = (height - top) * float(rng.uniform(0.45, 0.7))
    slab = polygon((left + 20, top), (right - 20, top), (right, top + depth), (left, top + depth))
    cover = cloth(rng) if rng.uniform() < 0.6 else None
    pen.fill(slab, cover or Material(timber.colour, grain=0.12, angle=0.0), bevel=3)
    if cover is None:
        pen.fill(
            box_points(left, top + depth, right, top + depth + 14), timber.darker(0.75), bevel=5
        )
        pen.fill(
            box_points(left + 20, top + depth + 14, right - 20, height + 5), timber.darker(0.35)
        )
    else:
        x = np.linspace(left, right, 40)
        hem = top + depth + (height - top - depth) * 0.8 + 6 * np.sin(x / 23)
        pen.fill(
            np.vstack([np.stack([x, np.full(40, top + depth)], 1), np.stack([x, hem], 1)[::-1]]),
            cover.darker(0.75),
            bevel=6,
        )
        for u in x[::3]:
            pen.tube(
                spline([(u, top + depth), (u + 6, top + depth + 25), (u + 2, height)]),
                [*np.linspace(1, 12, 21)],
                cover.darker(0.5),
                bevel=0,
                alpha=0.5,
            )
    picture.place(pen.layer)
