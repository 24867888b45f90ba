"""Woods, metals, skins, cloths; each call picks one, a little different each time."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from musicon.datasets.atelier.canvas import Colour, Material

Rng = np.random.Generator
_WOODS: dict[str, Colour] = {
    "spruce": (0.86, 0.69, 0.43),
    "amber": (0.74, 0.42, 0.15),
    "red": (0.50, 0.18, 0.08),
    "walnut": (0.38, 0.23, 0.12),
    "rosewood": (0.26, 0.12, 0.08),
    "ebony": (0.10, 0.085, 0.08),
    "boxwood": (0.80, 0.60, 0.31),
    "oak": (0.56, 0.39, 0.21),
    "honey": (0.79, 0.52, 0.21),
    "mahogany": (0.42, 0.17, 0.10),
    "pale": (0.90, 0.78, 0.57),
}
_METALS: dict[str, Colour] = {
    "brass": (0.83, 0.63, 0.26),
    "gold": (0.93, 0.72, 0.28),
    "silver": (0.76, 0.77, 0.79),
    "copper": (0.76, 0.44, 0.27),
    "tin": (0.62, 0.63, 0.62),
    "bronze": (0.58, 0.43, 0.20),
}


def jitter(colour: Colour, rng: Rng, amount: float = 0.06) -> Colour:
    """A colour near another."""
    r, g, b = np.clip(
        np.asarray(colour) * (1 + rng.normal(0, amount)) + rng.normal(0, amount / 3, 3), 0.02, 0.98
    )
    return float(r), float(g), float(b)


def wood(rng: Rng, *names: str) -> Material:
    """One of the named woods (any when none is named)."""
    name = str(rng.choice(names or tuple(_WOODS)))
    return Material(
        jitter(_WOODS[name], rng),
        grain=float(rng.uniform(0.04, 0.12)),
        gloss=float(rng.uniform(0.1, 0.4)),
    )


def metal(rng: Rng, *names: str) -> Material:
    """One of the named metals (any when none is named)."""
    name = str(rng.choice(names or tuple(_METALS)))
    return Material(
        jitter(_METALS[name], rng, 0.04),
        gloss=float(rng.uniform(0.5, 0.8)),
        metal=float(rng.uniform(0.7, 0.95)),
        rough=float(rng.uniform(0.02, 0.08)),
    )


def skin_head(rng: Rng) -> Material:
    """Parchment of a drum."""
    return Material(jitter((0.88, 0.81, 0.66), rng, 0.04), gloss=0.08, rough=0.05)


def ivory(rng: Rng) -> Material:
    """Ivory or bone."""
    return Material(jitter((0.92, 0.87, 0.74), rng, 0.03), gloss=0.35, rough=0.04)


def cloth(rng: Rng, hues: Sequence[float] | None = None) -> Material:
    """Dyed cloth, matt; ``hues`` (0..1) limits the dye."""
    hue = float(rng.uniform() if hues is None else rng.choice(np.asarray(hues)))
    r, g, b = colorsys.hsv_to_rgb(
        (hue + rng.normal(0, 0.02)) % 1,
        float(rng.uniform(0.35, 0.85)),
        float(rng.uniform(0.25, 0.8)),
    )
    return Material((r, g, b), gloss=0.03, rough=0.1, edge=0.25)


def paint(rng: Rng) -> Material:
    """Painted wood, as on drum shells and cases."""
    return cloth(rng, (0.0, 0.02, 0.58, 0.62, 0.33, 0.12, 0.9))


def flesh(rng: Rng) -> Material:
    """Skin of a person."""
    tones = (
        (0.90, 0.71, 0.58),
        (0.83, 0.62, 0.47),
        (0.70, 0.48, 0.34),
        (0.52, 0.34, 0.23),
        (0.36, 0.23, 0.16),
    )
    weights = np.array([0.34, 0.28, 0.16, 0.12, 0.10])
    return Material(
        jitter(tones[int(rng.choice(5, p=weights))], rng, 0.03), gloss=0.08, rough=0.05, edge=0.3
    )
