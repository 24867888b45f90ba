"""The harp. See ``strings`` for the conventions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.atelier.canvas import Array, Material, Pen, both_sides, box_points, spline
from musicon.datasets.atelier.materials import metal, wood
from musicon.datasets.atelier.strings import Anchors, Point


def draw_harp(pen: Pen) -> Anchors:
    """A harp: sound box, curved neck and column around a fan of strings."""
    rng = pen.rng
    frame = wood(rng, "walnut", "amber", "oak", "mahogany", "honey")
    if rng.uniform() < 0.3:
        frame = metal(rng, "gold")
    bulge = float(rng.uniform(-0.02, 0.13))
    top = (float(rng.uniform(-0.29, -0.22)), float(rng.uniform(-0.46, -0.38)))
    joint = (float(rng.uniform(0.2, 0.3)), float(rng.uniform(-0.36, -0.2)))
    foot = (float(rng.uniform(-0.24, -0.16)), 0.44)
    dip = float(rng.uniform(0.05, 0.13))
    neck = spline(
        [
            joint,
            (joint[0] * 0.62, joint[1] - 0.045),
            ((joint[0] + top[0]) / 2 + 0.02, (joint[1] + top[1]) / 2 + dip),
            (top[0] * 0.62, top[1] + dip * 0.5),
            top,
        ]
    )
    column = spline([top, (top[0] - bulge * 0.8, -0.1), (foot[0] - bulge * 0.5, 0.25), foot])
    thick = float(rng.uniform(0.032, 0.05))
    base = np.array(foot) + (0.04, 0.02)
    along = np.array(joint) - base
    across = np.array([-along[1], along[0]]) / np.hypot(*along)
    low, high = float(rng.uniform(0.06, 0.1)), float(rng.uniform(0.022, 0.035))
    box = np.array(
        [base - across * low, base + across * low, joint + across * high, joint - across * high]
    )
    pen.fill(box + across * 0.02, frame.darker(0.55), bevel=0.02)
    pen.fill(box, frame, bevel=0.03)
    board = np.array(
        [
            base - across * low * 0.62,
            base + across * low * 0.62,
            joint + across * high * 0.6,
            joint - across * high * 0.6,
        ]
    )
    pen.fill(board, wood(rng, "spruce", "pale", "honey"), bevel=0.006)
    _harp_strings(pen, neck, base, along)
    pen.tube(
        column,
        thick * np.interp(np.linspace(0, 1, len(column)), [0, 0.5, 1], [0.9, 0.85, 1.25]),
        frame,
    )
    pen.tube(neck, np.interp(np.linspace(0, 1, len(neck)), [0, 0.4, 1], [0.05, 0.07, 0.055]), frame)
    _harp_ornament(pen, frame, top, foot)
    return Anchors(((0.02, -0.05), (0.1, 0.08)))


def _harp_strings(
    pen: Pen, neck: Array, base: NDArray[np.float64], along: NDArray[np.float64]
) -> None:
    rng = pen.rng
    count = int(rng.integers(14, 30))
    pins = metal(rng, "brass", "silver")
    for i, share in enumerate(np.linspace(0.1, 0.94, count)):
        upper = neck[int((1 - share * 0.95) * (len(neck) - 1))]
        lower = base + along * (0.03 + share * 0.93)
        colour = (0.7, 0.16, 0.12) if i % 7 == 2 else (0.93, 0.9, 0.8)
        pen.line([upper + (0, 0.015), lower], 0.003, colour, 0.9)
        pen.disc(upper + (0, 0.012), 0.005, pins)


def _harp_ornament(pen: Pen, frame: Material, top: Point, foot: Point) -> None:
    rng = pen.rng
    style = int(rng.integers(0, 3))
    if style == 0:
        pen.disc(top, (0.04, 0.035), frame, bevel=0.03)
    elif style == 1:
        pen.fill(
            both_sides(
                [
                    (0.0, -0.06),
                    (0.03, -0.045),
                    (0.042, -0.055),
                    (0.034, 0.0),
                    (0.045, 0.015),
                    (0.0, 0.02),
                ]
            )
            + top,
            frame,
            bevel=0.015,
        )
    else:
        curl = spline(
            [
                (top[0] + 0.03, top[1]),
                (top[0] - 0.02, top[1] - 0.04),
                (top[0] - 0.065, top[1] - 0.02),
                (top[0] - 0.05, top[1] + 0.02),
            ]
        )
        pen.tube(curl, np.linspace(0.05, 0.025, len(curl)), frame)
    pen.fill(
        box_points(foot[0] - 0.075, 0.452, foot[0] + 0.16, 0.495), frame.darker(0.9), bevel=0.015
    )
    pen.fill(box_points(foot[0] - 0.055, 0.425, foot[0] + 0.14, 0.457), frame, bevel=0.012)
