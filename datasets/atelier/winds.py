"""Wind instruments: trumpet, flute, bagpipe. See ``strings`` for the conventions."""

from __future__ import annotations

import math

import numpy as np

from musicon.datasets.atelier.canvas import Array, Material, Pen, arc, polygon, spline
from musicon.datasets.atelier.materials import cloth, ivory, metal, wood
from musicon.datasets.atelier.strings import Anchors


def draw_trumpet(pen: Pen) -> Anchors:
    """A trumpet lying along x, bell at the right: folded natural, valved, or straight herald's."""
    kind = str(pen.rng.choice(["natural", "valves", "valves", "herald"]))
    brass = metal(pen.rng, "brass", "gold", "brass", "silver", "brass", "copper")
    if kind == "herald":
        return _herald(pen, brass)
    rng = pen.rng
    bore = float(rng.uniform(0.017, 0.024)) * (0.85 if kind == "natural" else 1.1)
    gap = float(rng.uniform(0.1, 0.15)) if kind == "natural" else float(rng.uniform(0.12, 0.16))
    left, right = (-0.3, 0.3) if kind == "natural" else (-0.2, 0.24)
    upper, lower = -gap / 2, gap / 2
    turn_r = arc((right, 0.0), (0.075, gap / 2), -90, 90, 20)
    turn_l = arc((left, 0.0), (0.075, gap / 2), 90, 270, 20)
    pen.tube(np.vstack([[(left, lower)], [(right, lower)]]), bore, brass)
    pen.tube(turn_r, bore, brass)
    pen.tube(turn_l, bore, brass)
    pen.tube([(-0.47, upper + bore * 1.25), (right, upper + bore * 1.25)], bore * 0.85, brass)
    if kind == "valves":
        _valves(pen, brass, bore, upper, lower)
    _bell(pen, brass, left, upper, bore)
    for x in (left, right):
        for y in (upper, lower):
            pen.tube([(x - 0.018, y), (x + 0.018, y)], bore * 1.4, brass)
    _mouthpiece(pen, -0.47, upper + bore * 1.25, bore, brass)
    if kind == "natural":
        pen.disc((0.06, upper), (0.034, 0.027), brass, bevel=0.025)
        if rng.uniform() < 0.5:
            _cord(pen, left, right, gap)
    return Anchors(((0.0, 0.02), (-0.12, 0.02)), mouth=(-0.5, upper + bore))


def _bell(pen: Pen, brass: Material, start: float, y: float, bore: float) -> None:
    rim = float(pen.rng.uniform(0.075, 0.105))
    x = np.linspace(start, 0.47, 50)
    t = np.clip((x - 0.02) / 0.45, 0, 1)
    radius = bore / 2 + (rim - bore / 2) * (0.16 * t + 0.84 * t**5)
    pen.tube(np.stack([x, np.full_like(x, y)], 1), radius * 2, brass, bevel=rim * 0.8)
    open_ = float(pen.rng.uniform(0.1, 0.3))
    pen.disc((0.47, y), (rim * open_ + 0.006, rim * 1.03), brass, bevel=0.01)
    pen.disc((0.474, y), (rim * open_, rim * 0.9), brass.darker(0.38))


def _mouthpiece(pen: Pen, x: float, y: float, bore: float, brass: Material) -> None:
    pen.tube([(x - 0.028, y), (x, y), (x + 0.05, y)], [bore * 2.0, bore * 0.9, bore * 1.1], brass)
    pen.tube([(x - 0.032, y), (x - 0.024, y)], bore * 2.2, brass)


def _valves(pen: Pen, brass: Material, bore: float, upper: float, lower: float) -> None:
    silver = metal(pen.rng, "silver", "brass")
    for x in (-0.06, 0.0, 0.06):
        pen.tube([(x, upper - 0.085), (x, upper - 0.02)], 0.014, silver)
        pen.disc((x, upper - 0.088), (0.021, 0.009), ivory(pen.rng), bevel=0.006)
        pen.tube([(x, upper - 0.045), (x, lower + 0.06)], 0.045, brass)
        pen.tube([(x, upper - 0.05), (x, upper - 0.035)], 0.05, silver)
        pen.tube([(x, lower + 0.048), (x, lower + 0.066)], 0.05, silver)
    pen.line(arc((0.12, upper - 0.012), 0.03, 180, 400, 20), bore * 0.4, brass.darker(0.9).colour)


def _cord(pen: Pen, left: float, right: float, gap: float) -> None:
    rope = cloth(pen.rng, (0.0, 0.6, 0.12, 0.33))
    for x in np.linspace(left + 0.08, left + 0.2, 6):
        pen.tube([(x, -gap / 2 - 0.016), (x + 0.012, gap / 2 + 0.014)], 0.012, rope)
    for x in (left + 0.09, left + 0.18):
        hang = spline([(x, gap / 2), (x + 0.02, gap / 2 + 0.05), (x - 0.005, gap / 2 + 0.1)])
        pen.tube(hang, 0.008, rope)
        end = hang[-1]
        pen.fill(
            polygon(end + (-0.008, 0), end + (0.008, 0), end + (0.02, 0.055), end + (-0.02, 0.055)),
            rope,
            bevel=0.012,
        )


def _herald(pen: Pen, brass: Material) -> Anchors:
    rng = pen.rng
    bore = float(rng.uniform(0.018, 0.026))
    if rng.uniform() < 0.6:
        dye = cloth(rng, (0.0, 0.62, 0.33, 0.12))
        wave = np.linspace(-0.22, 0.16, 16)
        depth = float(rng.uniform(0.24, 0.34))
        hem = [(x, depth + 0.012 * math.sin(x * 40)) for x in wave[::-1]]
        pen.fill(np.vstack([[(x, 0.0) for x in wave], hem]), dye, bevel=0.012)
        trim = metal(rng, "gold").colour
        pen.line(hem, 0.014, trim)
        pen.line(hem[::15] + [(wave[0], 0.0)], 0.008, trim)
        pen.fill(
            arc((-0.03, depth * 0.5), 0.06, steps=int(rng.choice([4, 5, 6, 9]))),
            Material(trim),
            bevel=0.01,
        )
    pen.tube([(-0.47, 0.0), (0.1, 0.0)], bore, brass)
    _bell(pen, brass, -0.1, 0.0, bore)
    for x in (-0.25, -0.02, 0.12):
        pen.disc((x, 0.0), (0.02, bore * 1.1), brass, bevel=0.02)
    _mouthpiece(pen, -0.47, 0.0, bore, brass)
    return Anchors(((-0.3, 0.0), (-0.08, 0.0)), mouth=(-0.5, 0.0))


def draw_flute(pen: Pen) -> Anchors:
    """A transverse flute lying along x: keyed silver, or turned wood with ivory rings."""
    if pen.rng.uniform() < 0.5:
        return _boehm_flute(pen)
    rng = pen.rng
    body = wood(rng, "boxwood", "ebony", "rosewood", "honey", "pale")
    bore = float(rng.uniform(0.03, 0.046))
    rings = ivory(rng) if rng.uniform() < 0.6 else metal(rng, "silver", "brass")
    joints = [float(x) for x in np.cumsum(rng.uniform(0.18, 0.3, 4)) - 0.5 if x < 0.4]
    pen.tube([(-0.49, 0.0), (0.49, 0.0)], [bore, bore * float(rng.uniform(0.72, 1.0))], body)
    for x in joints:
        pen.tube(
            np.array([(x - 0.028, 0.0), (x, 0.0), (x + 0.028, 0.0)]),
            [bore * 1.05, bore * 1.32, bore * 1.05],
            body,
        )
        pen.tube([(x + 0.016, 0.0), (x + 0.03, 0.0)], bore * 1.3, rings)
    pen.tube([(-0.5, 0.0), (-0.475, 0.0)], bore * 1.12, rings)
    dark = Material((0.05, 0.03, 0.02), edge=0.0, rough=0.0)
    pen.disc((-0.36, -0.1 * bore), (bore * 0.26, bore * 0.3), dark)
    for x in (-0.1, -0.045, 0.01, 0.12, 0.175, 0.23):
        pen.disc((x, -0.12 * bore), bore * float(rng.uniform(0.15, 0.2)), dark)
    if rng.uniform() < 0.75:
        key = metal(rng, "silver", "brass")
        pen.tube([(0.28, 0.1 * bore), (0.37, -0.1 * bore)], bore * 0.22, key)
        pen.disc((0.375, -0.1 * bore), bore * 0.3, key, bevel=bore * 0.2)
    return Anchors(((-0.05, 0.01), (0.18, 0.01)), mouth=(-0.36, -bore * 0.3))


def _boehm_flute(pen: Pen) -> Anchors:
    rng = pen.rng
    silver = metal(rng, "silver", "silver", "gold", "tin")
    bore = float(rng.uniform(0.03, 0.04))
    pen.tube([(-0.49, 0.0), (0.49, 0.0)], bore, silver)
    pen.disc((-0.36, -bore * 0.15), (bore * 0.75, bore * 0.5), silver, bevel=bore * 0.3)
    pen.disc((-0.36, -bore * 0.22), (bore * 0.3, bore * 0.22), Material((0.08, 0.08, 0.08), edge=0))
    for x in (-0.26, -0.22, 0.34):
        pen.tube([(x, 0.0), (x + 0.016, 0.0)], bore * 1.22, silver)
    pen.tube([(-0.18, -bore * 0.55), (0.32, -bore * 0.55)], bore * 0.2, silver)
    for x in np.concatenate(
        [np.linspace(-0.16, 0.3, int(rng.integers(11, 15))), [0.38, 0.42, 0.455]]
    ):
        pen.disc(
            (float(x), -bore * float(rng.uniform(0.1, 0.25))),
            bore * 0.44,
            silver,
            bevel=bore * 0.25,
        )
    for x in (0.0, 0.13, 0.26):
        pen.tube([(x, -bore * 0.5), (x + 0.04, bore * 0.5)], bore * 0.2, silver)
    return Anchors(((-0.1, 0.01), (0.16, 0.01)), mouth=(-0.36, -bore * 0.4))


def draw_bagpipe(pen: Pen) -> Anchors:
    """A bagpipe: bag, chanter hanging down, one to three drones rising, blowpipe."""
    rng = pen.rng
    pipes = wood(rng, "ebony", "rosewood", "boxwood", "walnut")
    rings = ivory(rng) if rng.uniform() < 0.7 else metal(rng, "silver", "brass")
    count = int(rng.choice([1, 2, 3, 3]))
    lean = float(rng.uniform(-8, 14))
    for i in range(count):
        length = 0.62 if i == 0 else float(rng.uniform(0.36, 0.48))
        drone = pen.moved(0.05 - 0.055 * i, 0.1, lean + 16 - 15 * i)
        _drone(drone, length, pipes, rings)
    if count > 1 and rng.uniform() < 0.6:
        pen.line(spline([(0.24, -0.3), (0.1, -0.2), (0.0, -0.22)]), 0.008, cloth(rng).colour)
    blow = pen.moved(-0.13, 0.1, -48 + float(rng.uniform(-10, 10)))
    blow.tube([(0.0, 0.05), (0.0, -0.2)], [0.036, 0.026], pipes)
    blow.tube([(0.0, -0.2), (0.0, -0.26)], [0.016, 0.014], rings)
    blow.tube([(0.0, -0.04), (0.0, -0.06)], 0.044, rings)
    chanter = pen.moved(-0.15, 0.26, float(rng.uniform(2, 24)))
    chanter.tube([(0.0, -0.06), (0.0, 0.19), (0.0, 0.235)], [0.042, 0.026, 0.058], pipes)
    chanter.tube([(0.0, 0.226), (0.0, 0.242)], 0.062, rings)
    for y in np.linspace(0.02, 0.17, 6):
        chanter.disc((-0.003, float(y)), 0.006, Material((0.03, 0.02, 0.02), edge=0))
    _bag(pen)
    tip = blow.to_pixels([(0.0, -0.26)])
    mouth = np.linalg.solve(pen.matrix[:, :2], tip[0] - pen.matrix[:, 2])
    return Anchors(((-0.17, 0.36), (-0.18, 0.44)), mouth=(float(mouth[0]), float(mouth[1])))


def _drone(pen: Pen, length: float, pipes: Material, rings: Material) -> None:
    pen.tube([(0.0, 0.0), (0.0, -length * 0.5)], [0.04, 0.03], pipes)
    pen.tube([(0.0, -length * 0.45), (0.0, -length)], [0.04, 0.032], pipes)
    pen.tube(
        [(0.0, -length * 0.92), (0.0, -length), (0.0, -length - 0.02)], [0.034, 0.056, 0.05], pipes
    )
    for share in (0.2, 0.47, 0.72, 0.97):
        pen.tube([(0.0, -length * share), (0.0, -length * share - 0.018)], 0.05, rings)


def _bag(pen: Pen) -> None:
    rng = pen.rng
    outline = spline(
        np.array(
            [
                (-0.26, 0.13),
                (-0.1, 0.06),
                (0.1, 0.05),
                (0.25, 0.13),
                (0.3, 0.25),
                (0.2, 0.34),
                (0.02, 0.36),
                (-0.12, 0.31),
                (-0.22, 0.27),
            ]
        )
        + rng.normal(0, 0.008, (9, 2)),
        closed=True,
    )
    cover = cloth(rng) if rng.uniform() < 0.7 else Material((0.5, 0.34, 0.2), gloss=0.2, rough=0.12)
    pen.fill(outline, cover, bevel=0.13)
    if rng.uniform() < 0.5:
        _tartan(pen, outline, cover)
    pen.line(outline, 0.006, cover.darker(0.5).colour, closed=True)
    if rng.uniform() < 0.6:
        fringe = cloth(rng, (0.0, 0.12, 0.16)).colour
        for x, y in outline[45:80]:
            pen.line([(x, y), (x + float(rng.normal(0, 0.006)), y + 0.035)], 0.006, fringe)


def _tartan(pen: Pen, outline: Array, cover: Material) -> None:
    """Crossing stripes, kept inside the bag by clipping each to its outline."""
    rng = pen.rng
    low, high = outline.min(0), outline.max(0)
    colours = [cloth(rng).colour, (0.9, 0.85, 0.6), cover.darker(0.4).colour]
    for axis in (0, 1):
        for i, at in enumerate(np.arange(low[axis] + 0.02, high[axis], 0.045)):
            near = outline[np.abs(outline[:, axis] - at) < 0.02]
            if len(near) < 2:
                continue
            start, end = near[:, 1 - axis].min() + 0.01, near[:, 1 - axis].max() - 0.01
            ends = [(at, start), (at, end)] if axis == 0 else [(start, at), (end, at)]
            pen.line(ends, 0.012 if i % 2 else 0.005, colours[i % 3], 0.45)
