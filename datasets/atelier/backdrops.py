"""What lies behind: the museum photographer's paper, and the rooms and landscapes of paintings."""

from __future__ import annotations

import math

import cv2
import numpy as np

from musicon.datasets.atelier.canvas import (
    Array,
    Colour,
    Layer,
    Material,
    Pen,
    arc,
    box_points,
    noise_field,
    pose,
)
from musicon.datasets.atelier.materials import cloth, jitter, wood

Rng = np.random.Generator
_PAPERS: tuple[Colour, ...] = (
    (0.93, 0.93, 0.92),
    (0.86, 0.86, 0.86),
    (0.72, 0.73, 0.74),
    (0.55, 0.56, 0.58),
    (0.88, 0.84, 0.76),
    (0.30, 0.31, 0.33),
    (0.12, 0.12, 0.13),
    (0.62, 0.68, 0.74),
    (0.97, 0.97, 0.97),
)
_PATCHES: tuple[Colour, ...] = (
    (0.10, 0.35, 0.65),
    (0.15, 0.65, 0.70),
    (0.15, 0.55, 0.25),
    (0.95, 0.85, 0.15),
    (0.80, 0.15, 0.15),
    (0.75, 0.20, 0.55),
    (0.98, 0.98, 0.98),
    (0.45, 0.28, 0.18),
    (0.05, 0.05, 0.05),
)


def gradient(width: int, height: int, top: Colour, bottom: Colour, bend: float = 1.0) -> Array:
    """A vertical blend of two colours (height, width, 3)."""
    t = (np.linspace(0, 1, height, dtype=np.float32) ** bend)[:, None, None]
    column = np.asarray(top, np.float32) * (1 - t) + np.asarray(bottom, np.float32) * t
    return np.repeat(column, width, axis=1)


def museum_paper(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    """Seamless backdrop with a cove and falling light, and the height of its floor in pixels."""
    base = np.asarray(jitter(_PAPERS[int(rng.integers(len(_PAPERS)))], rng, 0.03), np.float32)
    floor = height * float(rng.uniform(0.6, 0.8))
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    fall = 1 / (1 + np.exp(-(y - floor) / (height * 0.06)))
    tone = 1 + float(rng.uniform(-0.08, 0.14)) * fall
    cx, cy = width * float(rng.uniform(0.2, 0.8)), height * float(rng.uniform(0.1, 0.6))
    spot = ((x - cx) ** 2 + (y - cy) ** 2) / (max(width, height) ** 2)
    tone = tone * (1.06 - float(rng.uniform(0.15, 0.5)) * spot)
    tone += 0.008 * noise_field("cloud", width, height, rng, 3.0)
    return (tone[..., None] * base).clip(0, 1).astype(np.float32), floor


def museum_furniture(layer: Layer, rng: Rng) -> None:
    """Colour panel, scale bar and number card at the photo's edge."""
    height, width = layer.alpha.shape
    unit = min(width, height)
    pen = Pen(layer, pose(0, 0, 1), rng)
    if rng.uniform() < 0.6:
        size = unit * float(rng.uniform(0.032, 0.05))
        upright = rng.uniform() < 0.4
        x, y = (
            (width * float(rng.choice([0.015, 0.93])), height * float(rng.uniform(0.1, 0.4)))
            if upright
            else (width * float(rng.uniform(0.03, 0.09)), height - size * 1.5)
        )
        _colour_panel(pen, x, y, size, upright)
    if rng.uniform() < 0.6:
        cell = unit * float(rng.uniform(0.025, 0.045))
        x, y = width * float(rng.uniform(0.57, 0.61)), height * float(rng.choice([0.025, 0.965]))
        pen.fill(
            box_points(x - 2, y - cell * 0.32, x + cell * 8 + 2, y + cell * 0.32),
            Material((0.97, 0.97, 0.97), edge=0.1),
        )
        for i in range(8):
            dark = Material((0.06, 0.06, 0.06), edge=0.0)
            top = y - cell * 0.25 if i % 2 else y
            pen.fill(box_points(x + i * cell, top, x + (i + 1) * cell, top + cell * 0.25), dark)
    if rng.uniform() < 0.3:
        x, y = width * float(rng.uniform(0.03, 0.8)), height * float(rng.uniform(0.02, 0.05))
        pen.fill(
            box_points(x, y, x + unit * 0.12, y + unit * 0.05),
            Material((0.97, 0.96, 0.93), edge=0.2),
        )
        for i in range(5):
            at = x + unit * (0.018 + 0.02 * i)
            pen.line(
                [(at, y + unit * 0.014), (at + unit * 0.008, y + unit * 0.036)],
                unit * 0.006,
                (0.1, 0.1, 0.1),
            )


def _colour_panel(pen: Pen, x: float, y: float, size: float, upright: bool) -> None:
    count = len(_PATCHES)
    step = np.array((0, size) if upright else (size, 0))
    end = np.array((size, size * count)) if upright else np.array((size * count, size))
    pen.fill(
        box_points(x - 3, y - 3, x + end[0] + 3, y + end[1] + 3),
        Material((0.96, 0.96, 0.95), edge=0.15),
    )
    for i, colour in enumerate(_PATCHES):
        at = np.array((x, y)) + i * step
        pen.fill(
            box_points(at[0], at[1], at[0] + size, at[1] + size),
            Material(colour, rough=0.01, edge=0.0),
        )


def photo_finish(rgb: Array, rng: Rng) -> Array:
    """Lens, white balance, exposure and sensor noise."""
    height, width = rgb.shape[:2]
    out = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.4, 0.8)))
    out = out * rng.normal(1, 0.02, 3).astype(np.float32) * float(rng.uniform(0.9, 1.08))
    out += noise_field("fine", width, height, rng)[..., None] * float(rng.uniform(0.004, 0.014))
    return out.clip(0, 1).astype(np.float32)


def painted(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    """The background of a painting, and the height of its floor in pixels."""
    kind = int(rng.choice(6, p=[0.22, 0.2, 0.2, 0.14, 0.08, 0.16]))
    return (_dark, _room, _landscape, _drapery, _gold, _hall)[kind](width, height, rng)


def _dark(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    wall = cloth(rng, (0.06, 0.08, 0.1, 0.3, 0.0)).colour
    top = np.asarray(wall) * float(rng.uniform(0.25, 0.5))
    out = gradient(width, height, tuple(top), tuple(np.asarray(wall) * 0.8))
    out *= 1 + 0.12 * noise_field("cloud", width, height, rng, 2.5)[..., None]
    floor = height * float(rng.uniform(0.68, 0.82))
    out[int(floor) :] *= 0.75
    return out.clip(0, 1), floor


def _room(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    wall = jitter((0.62, 0.56, 0.46), rng, 0.2)
    floor = height * float(rng.uniform(0.66, 0.8))
    out = gradient(width, height, tuple(np.asarray(wall) * 0.75), wall)
    layer = Layer(width, height)
    pen = Pen(layer, pose(0, 0, 1), rng)
    tiles = wood(rng, "oak", "walnut", "amber")
    pen.fill(box_points(-5, floor, width + 5, height + 5), tiles.darker(0.75))
    vanish = width * float(rng.uniform(0.2, 0.8))
    for u in np.linspace(-2.5, 3.5, 22):
        pen.line(
            [(vanish + (u * width - vanish) * 0.45, floor), (u * width, height)],
            1.6,
            tiles.darker(0.4).colour,
            0.6,
        )
    for t in (0.12, 0.3, 0.56, 0.92):
        pen.line(
            [(0, floor + (height - floor) * t), (width, floor + (height - floor) * t)],
            1.6,
            tiles.darker(0.4).colour,
            0.4,
        )
    pen.fill(
        box_points(-5, floor - height * 0.025, width + 5, floor),
        wood(rng, "oak", "walnut").darker(0.7),
        3,
    )
    if rng.uniform() < 0.7:
        _window(pen, width, height, floor)
    if rng.uniform() < 0.5:
        _wall_picture(pen, width, height)
    _over(out, layer)
    return out.clip(0, 1), floor


def _window(pen: Pen, width: int, height: int, floor: float) -> None:
    rng = pen.rng
    x = width * float(rng.choice([0.04, 0.72]))
    w, top = width * float(rng.uniform(0.18, 0.26)), height * float(rng.uniform(0.04, 0.12))
    bottom = floor - height * float(rng.uniform(0.15, 0.3))
    frame = wood(rng, "oak", "walnut").darker(0.7)
    pen.fill(box_points(x - 6, top - 6, x + w + 6, bottom + 6), frame, bevel=4)
    pen.fill(
        box_points(x, top, x + w, bottom),
        Material(jitter((0.80, 0.86, 0.88), rng, 0.08), rough=0.1),
    )
    for i in range(1, 3):
        pen.line([(x + w * i / 3, top), (x + w * i / 3, bottom)], 3, frame.colour)
    for i in range(1, 4):
        y = top + (bottom - top) * i / 4
        pen.line([(x, y), (x + w, y)], 3, frame.colour)


def _wall_picture(pen: Pen, width: int, height: int) -> None:
    rng = pen.rng
    x, y = width * float(rng.uniform(0.35, 0.55)), height * float(rng.uniform(0.05, 0.14))
    w, h = width * float(rng.uniform(0.14, 0.24)), height * float(rng.uniform(0.16, 0.24))
    pen.fill(
        box_points(x - 9, y - 9, x + w + 9, y + h + 9),
        Material((0.6, 0.45, 0.2), gloss=0.4),
        bevel=6,
    )
    pen.fill(box_points(x, y, x + w, y + h), cloth(rng, (0.55, 0.3, 0.1)), bevel=2)
    hills = [
        (x + w * t, y + h * (0.55 + 0.12 * math.sin(5 * t + x))) for t in np.linspace(0, 1, 14)
    ]
    pen.fill(np.array([*hills, (x + w, y + h), (x, y + h)]), cloth(rng, (0.28, 0.1)).darker(0.7))


def _landscape(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    top, low = jitter((0.40, 0.56, 0.75), rng, 0.12), jitter((0.88, 0.82, 0.68), rng, 0.08)
    floor = height * float(rng.uniform(0.6, 0.74))
    out: Array = gradient(width, height, top, low)
    clouds = (noise_field("cloud", width, height, rng, 1.6) - 0.3).clip(0, 1)[..., None] * 0.55
    out = (out * (1 - clouds) + np.array([0.97, 0.95, 0.92]) * clouds).astype(np.float32)
    layer = Layer(width, height)
    pen = Pen(layer, pose(0, 0, 1), rng)
    green = cloth(rng, (0.22, 0.28, 0.33)).colour
    for depth in range(3):
        base = floor - height * (0.16 - 0.07 * depth)
        phase = rng.uniform(0, 6, 3)
        ridge = [
            (
                x,
                base
                - height
                * (
                    0.05 * math.sin(x / width * 6 + phase[0])
                    + 0.03 * math.sin(x / width * 13 + phase[1])
                ),
            )
            for x in np.linspace(-5, width + 5, 40)
        ]
        haze = 0.55 - 0.25 * depth
        colour = tuple(np.asarray(green) * (1 - haze) + np.asarray(low) * haze)
        pen.fill(
            np.array([*ridge, (width + 5, height + 5), (-5, height + 5)]),
            Material(colour, rough=0.14, edge=0),
        )
    for _ in range(int(rng.integers(0, 4))):
        _tree(
            pen,
            width * float(rng.uniform(0, 1)),
            floor,
            height * float(rng.uniform(0.25, 0.55)),
            green,
        )
    _over(out, layer)
    return out.clip(0, 1), floor


def _tree(pen: Pen, x: float, y: float, tall: float, green: Colour) -> None:
    rng = pen.rng
    pen.tube(
        [(x, y + 8), (x + tall * 0.03, y - tall * 0.4), (x, y - tall * 0.7)],
        [tall * 0.07, tall * 0.045, tall * 0.02],
        wood(rng, "walnut", "rosewood"),
    )
    leaves = Material(jitter(green, rng, 0.15), rough=0.2, edge=0.1).darker(0.7)
    for _ in range(14):
        cx, cy = x + tall * float(rng.normal(0, 0.16)), y - tall * float(rng.uniform(0.45, 1.0))
        r = tall * float(rng.uniform(0.07, 0.15))
        pen.disc((cx, cy), (r * 1.2, r), leaves.darker(float(rng.uniform(0.8, 1.35))), bevel=r)


def _hall(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    """A hall of columns and arches, open to the sky or dark behind, on a chequered floor."""
    floor = height * float(rng.uniform(0.66, 0.78))
    stone = Material(jitter((0.68, 0.62, 0.52), rng, 0.12), rough=0.08, edge=0.3)
    sky = jitter((0.55, 0.66, 0.78), rng, 0.1) if rng.uniform() < 0.6 else (0.16, 0.13, 0.11)
    out = gradient(width, height, sky, tuple(np.asarray(sky) * 1.2))
    layer = Layer(width, height)
    pen = Pen(layer, pose(0, 0, 1), rng)
    bays = int(rng.integers(2, 5))
    bay = width / bays
    spring = floor * float(rng.uniform(0.3, 0.45))
    holes = []
    for i in range(bays):
        left, right = bay * (i + 0.13), bay * (i + 0.87)
        crown = arc(((left + right) / 2, spring), ((right - left) / 2, spring * 0.75), 180, 360, 24)
        holes.append(np.vstack([crown, [(right, floor), (left, floor)]]))
    wall = Layer(width, height)
    screen = Pen(wall, pose(0, 0, 1), rng)
    screen.fill(box_points(-4, -4, width + 4, floor), stone, bevel=5, holes=holes)
    pen.fill(box_points(-4, floor * 0.72, width + 4, floor), cloth(rng, (0.3, 0.24)).darker(0.9))
    _over(out, layer)
    _over(out, wall)
    front = Layer(width, height)
    pen = Pen(front, pose(0, 0, 1), rng)
    for i in range(bays + 1):
        x, half = bay * i, bay * 0.085
        pen.tube(
            [(x, spring), (x, floor * 0.6), (x, floor - 6)],
            [half * 1.7, half * 2, half * 2.1],
            stone.darker(1.1),
        )
        for y in (spring, floor - 5):
            pen.fill(box_points(x - half * 1.5, y - 6, x + half * 1.5, y + 7), stone, bevel=4)
    pen.fill(box_points(-4, floor, width + 4, height + 4), stone.darker(0.85))
    _chequers(pen, width, height, floor, stone.darker(0.45))
    _over(out, front)
    return out.clip(0, 1), floor


def _chequers(pen: Pen, width: int, height: int, floor: float, dark: Material) -> None:
    """Square tiles in perspective."""
    rows = [floor + (height - floor) * t for t in (0.0, 0.14, 0.33, 0.6, 1.0)]
    vanish, up = width * float(pen.rng.uniform(0.3, 0.7)), floor - (height - floor) * 0.8

    def at(u: float, y: float) -> tuple[float, float]:
        return vanish + (u - vanish) * (y - up) / (height - up), y

    edges = np.linspace(-0.9 * width, 1.9 * width, 17)
    for row in range(len(rows) - 1):
        for column in range(row % 2, len(edges) - 1, 2):
            a, b = float(edges[column]), float(edges[column + 1])
            pen.fill(
                np.array(
                    [at(a, rows[row]), at(b, rows[row]), at(b, rows[row + 1]), at(a, rows[row + 1])]
                ),
                dark,
            )


def _drapery(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    dye = np.asarray(cloth(rng).colour, np.float32)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    sway = noise_field("cloud", width, height, rng, 3.0) * 0.7
    folds = np.sin(
        x / width * float(rng.uniform(18, 40)) + y / height * float(rng.uniform(-3, 3)) + sway
    )
    tone = 0.62 + 0.3 * folds + 0.12 * np.sin(2 * x / width * 31 + sway * 2)
    out: Array = (tone[..., None] * dye).astype(np.float32)
    floor = height * float(rng.uniform(0.7, 0.82))
    out[int(floor) :] = out[int(floor) :].mean() * 0.8 * np.array([1.1, 0.95, 0.75], np.float32)
    out *= 1 + 0.06 * noise_field("cloud", width, height, rng)[..., None]
    return out.clip(0, 1).astype(np.float32), floor


def _gold(width: int, height: int, rng: Rng) -> tuple[Array, float]:
    gold = jitter((0.80, 0.62, 0.26), rng, 0.06)
    out = gradient(width, height, gold, tuple(np.asarray(gold) * 0.85))
    out *= 1 + 0.09 * noise_field("cloud", width, height, rng, 1.5)[..., None]
    layer = Layer(width, height)
    pen = Pen(layer, pose(0, 0, 1), rng)
    step = width / float(rng.integers(7, 13))
    for i in range(int(width / step) + 2):
        for j in range(int(height * 0.75 / step) + 1):
            cx, cy = (i + 0.5 * (j % 2)) * step, j * step
            pen.line(
                [
                    (cx - step * 0.5, cy),
                    (cx, cy - step * 0.5),
                    (cx + step * 0.5, cy),
                    (cx, cy + step * 0.5),
                ],
                1.4,
                tuple(np.asarray(gold) * 0.6),
                0.5,
                closed=True,
            )
    floor = height * float(rng.uniform(0.7, 0.82))
    pen.fill(
        box_points(-5, floor, width + 5, height + 5),
        cloth(rng, (0.3, 0.02, 0.6)).darker(0.8),
        bevel=3,
    )
    _over(out, layer)
    return out.clip(0, 1), floor


def _over(rgb: Array, layer: Layer) -> None:
    rgb *= 1 - layer.rgba[..., 3:]
    rgb += layer.rgba[..., :3]
