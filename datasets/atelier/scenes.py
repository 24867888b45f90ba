"""Scenes: still lifes, players, concerts, and works without any instrument."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musicon.datasets.atelier import backdrops, props
from musicon.datasets.atelier.canvas import LIGHT
from musicon.datasets.atelier.kinds import Kind, draw, extent, label_of
from musicon.datasets.atelier.picture import Picture
from musicon.datasets.atelier.placing import (
    Light,
    Rng,
    bystander,
    can_be_held,
    ground_shadow,
    player,
    prop,
    random_light,
    standing_instrument,
    table,
)


def fits_table(kind: Kind) -> bool:
    """Whether an instrument can lie on a table; the larger ones have a portative sister."""
    return kind.size < 1.3 or kind.name == "organ"


def still_life(picture: Picture, kinds: Sequence[Kind], rng: Rng, count: int) -> None:
    """Instruments and things on a table, back to front."""
    width, height = picture.size
    light = random_light(rng)
    top = height * float(rng.uniform(0.5, 0.64))
    table(picture, top, rng, light)
    unit = min(width * 0.95, height * 1.2) * float(rng.uniform(0.72, 0.98))
    unit /= max(1.0, (len(kinds) / 1.8) ** 0.5)
    places = (np.arange(len(kinds)) + 0.5) / max(len(kinds), 1) + rng.normal(0, 0.04, len(kinds))
    rng.shuffle(places)
    items = [
        (float(rng.uniform(0.05, 0.3)), kind, 0.16 + 0.68 * float(place))
        for kind, place in zip(kinds, places, strict=True)
    ]
    spots = (np.arange(count) + 0.5) / max(count, 1) + rng.normal(0, 0.05, count)
    bare: list[tuple[float, Kind | None, float]] = [
        (float(rng.uniform(0.05, 0.62)), None, 0.06 + 0.88 * float(spot)) for spot in spots
    ]
    for depth, kind, place in sorted([*bare, *items], key=lambda item: item[0]):
        base = top + (height - top) * depth
        near = 0.9 + 0.4 * depth
        if kind is None:
            thing, tall = props.TABLE_PROPS[int(rng.integers(len(props.TABLE_PROPS)))]
            # Beside instruments a thing stays smaller, so that it does not hide them.
            tall *= unit * near * (0.68 if kinds else 0.9)
            prop(picture, thing, place * width, base, tall, rng, light)
            continue
        size = min(kind.size, 0.95) * unit * near * float(rng.uniform(0.82, 1.05))
        turn = _resting_turn(kind, rng)
        size = min(size, base * 0.98 / extent(kind, turn)[1], 1.05 * width / extent(kind, turn)[0])
        standing_instrument(picture, kind, place * width, base, size, turn, rng, light)


def _resting_turn(kind: Kind, rng: Rng) -> float:
    if kind.stands:
        return float(rng.uniform(*kind.turns))
    if kind.half[0] > kind.half[1]:
        return float(rng.uniform(-22, 22))
    return float(rng.choice([-1, 1])) * float(rng.uniform(12, 84))


def concert(
    picture: Picture, kinds: Sequence[Kind], rng: Rng, floor: float, people: int, things: int
) -> None:
    """Players, bystanders and floor-standing instruments, back to front."""
    width, height = picture.size
    light = random_light(rng)
    held = [kind for kind in kinds if can_be_held(kind) and rng.uniform() < 0.78]
    stood = [kind for kind in kinds if not any(kind is other for other in held)]
    actors: list[tuple[str, Kind | None]] = [("player", kind) for kind in held]
    actors += (
        [("stands", kind) for kind in stood]
        + [("bystander", None)] * people
        + [("prop", None)] * things
    )
    rng.shuffle(actors)
    crowd = max(len(actors) - things, 1)
    unit = height * float(rng.uniform(0.44, 0.57)) / (1 + 0.06 * (crowd - 1))
    slots = (np.arange(len(actors)) + 0.5) / max(len(actors), 1) + rng.normal(0, 0.03, len(actors))
    depth = rng.uniform(0.25, 0.95, len(actors))
    for i in np.argsort(depth):
        role, kind = actors[int(i)]
        near = 0.8 + 0.35 * float(depth[i])
        feet = (
            floor
            + (height - floor) * float(depth[i])
            + (0.25 * unit if role in ("player", "bystander") else 0)
        )
        x = (0.06 + 0.88 * float(slots[i])) * width
        if role == "player" and kind is not None:
            player(picture, kind, x, feet, unit * near, rng, light)
        elif role == "stands" and kind is not None:
            size = kind.size * unit * near * float(rng.uniform(0.8, 1.0))
            turn = _resting_turn(kind, rng) * (1 if kind.stands else 0.4)
            standing_instrument(picture, kind, x, min(feet, height * 0.99), size, turn, rng, light)
        elif role == "bystander":
            bystander(picture, x, feet, unit * near, rng, light)
        else:
            thing, tall = props.FLOOR_PROPS[int(rng.integers(len(props.FLOOR_PROPS)))]
            prop(picture, thing, x, min(feet, height * 0.99), tall * unit * near, rng, light)


def portrait(picture: Picture, kind: Kind, rng: Rng) -> None:
    """One player, large, cut by the frame at the knees or lower."""
    width, height = picture.size
    light = random_light(rng)
    unit = height * float(rng.uniform(0.6, 0.85))
    shoulders = height * float(rng.uniform(0.33, 0.42))
    if not can_be_held(kind):
        bystander(
            picture, width * float(rng.uniform(0.3, 0.7)), height * 1.02, height * 0.6, rng, light
        )
        standing_instrument(
            picture,
            kind,
            width * 0.5,
            height * 0.98,
            min(height, width) * 0.72,
            _resting_turn(kind, rng),
            rng,
            light,
        )
        return
    x = width * float(rng.uniform(0.42, 0.58))
    player(picture, kind, x, height, unit, rng, light, shoulders)


def single(
    picture: Picture, kind: Kind, rng: Rng, light: Light = LIGHT, floor: float | None = None
) -> None:
    """One instrument, large, hanging or lying before the background."""
    width, height = picture.size
    turn = float(rng.uniform(*kind.turns))
    wide, tall = extent(kind, turn)
    scale = min(width / wide, height / tall) * float(rng.uniform(0.68, 0.9))
    x, y = width * float(rng.uniform(0.47, 0.53)), height * float(rng.uniform(0.46, 0.52))
    drawn = draw(kind, picture.size, (x, y), scale, turn, rng, bool(rng.uniform() < 0.3), light)
    bounds = drawn.layer.bounds()
    if bounds is None:
        return
    if kind.stands:
        ground_shadow(
            picture, (bounds[0] + bounds[2]) / 2, bounds[3] - 3, (bounds[2] - bounds[0]) * 0.52
        )
    picture.cast(
        drawn.layer,
        -light[0] * scale * 0.05,
        scale * 0.05,
        scale * float(rng.uniform(0.015, 0.05)),
        float(rng.uniform(0.2, 0.5)),
    )
    picture.place(drawn.layer, label_of(kind))


def background(width: int, height: int, rng: Rng) -> tuple[Picture, float]:
    """A picture with a painted background, and the height of its floor."""
    rgb, floor = backdrops.painted(width, height, rng)
    return Picture(rgb), floor
