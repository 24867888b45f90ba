"""Painting styles and the masters who work in them.

A master is synthetic: a name, a movement, a palette. Works are grouped by master, so a split
never divides one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from musicon.datasets.atelier import brushwork as brush
from musicon.datasets.atelier.canvas import Array, Colour, noise_field
from musicon.datasets.atelier.materials import jitter

Rng = np.random.Generator
Painted = tuple[Array, list[Array]]


@dataclass(frozen=True)
class Master:
    """One synthetic painter.

    Attributes:
        name: Shown as the painter.
        movement: One of ``STYLES``.
        shadows: Colour that dark tones lean towards.
        lights: Colour that light tones lean towards.
        saturation: Multiplier of colourfulness.
        contrast: Multiplier of contrast.
        stroke: Width of the brush, pixels.
    """

    name: str
    movement: str
    shadows: Colour
    lights: Colour
    saturation: float
    contrast: float
    stroke: float


@dataclass(frozen=True)
class Style:
    """How a movement looks: its medium, and what turns a scene into a painting."""

    medium: str
    paint: Callable[[Array, list[Array], Master, Rng], Painted]


def paint(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    """Turn a drawn scene into the master's painting; masks follow what moves."""
    painted, moved = STYLES[master.movement].paint(rgb, masks, master, rng)
    return painted.astype(np.float32), moved


def _graded(rgb: Array, master: Master) -> Array:
    return brush.grade(
        _lifted(rgb), master.shadows, master.lights, master.saturation, master.contrast
    )


def _lifted(rgb: Array) -> Array:
    """A scene too dark to be read gets more light; shadows stay dark in Baroque alone."""
    level = float(np.percentile(brush.luminance(rgb[::4, ::4].astype(np.float32)), 80))
    return (rgb ** np.float32(min(1.0, max(0.55, (level + 0.25) / 0.7)))).astype(np.float32)


def _baroque(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    out = brush.vignette(rgb, float(rng.uniform(0.45, 0.75)), rng.uniform(0.35, 0.65, 2).tolist())
    out = _graded(out, master)
    smooth = brush.to_float(cv2.medianBlur(brush.to_bytes(out), 3))
    out = 0.45 * smooth + 0.55 * brush.dabs(
        out, rng, master.stroke * 0.9, 3.0, 0.35, 0.03, 0.16, 1.2, 0.2
    )
    out *= 1 + 0.02 * brush.weave(rgb.shape[1], rgb.shape[0], 3.1)[..., None]
    out = brush.craquelure(out, rng, float(rng.uniform(0.12, 0.38)))
    return brush.varnish(out, float(rng.uniform(0.15, 0.6))).clip(0, 1), masks


def _renaissance(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    out = _graded(rgb, master)
    out = brush.to_float(cv2.bilateralFilter(brush.to_bytes(out), 5, 30, 3))
    out = brush.emboss(out, noise_field("fine", rgb.shape[1], rgb.shape[0], rng) * 0.02, 1.0)
    out *= 1 + 0.03 * noise_field("wood", rgb.shape[1], rgb.shape[0], rng, 2.0)[..., None]
    out = brush.craquelure(out, rng, float(rng.uniform(0.15, 0.35)), 1600)
    return brush.varnish(out, float(rng.uniform(0.1, 0.4))).clip(0, 1), masks


def _impressionism(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    out = _graded(rgb * 0.88 + 0.12, master)
    out = brush.dabs(out, rng, master.stroke * 1.4, 2.6, 0.38, 0.07, 0.3, 1.9, 0.4)
    out *= 1 + 0.04 * brush.weave(rgb.shape[1], rgb.shape[0], 3.7)[..., None]
    return out.clip(0, 1), masks


def _expressionism(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    out = brush.displace(_graded(rgb, master), rng, 2.0, 2.0)
    lines = brush.outlines(brush.calm(out), 1.4, 0.06)
    out = brush.dabs(out, rng, master.stroke * 1.7, 3.6, 0.35, 0.08, 0.35, 1.7, 0.25)
    dark = np.asarray(jitter((0.08, 0.07, 0.12), rng), np.float32)
    cover = (lines * 0.75)[..., None]
    return out * (1 - cover) + dark * cover, masks


def _pointillism(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    graded = _graded(rgb * 0.85 + 0.12, master)
    return brush.dots(graded, rng, max(3.6, master.stroke * 0.8), 0.09), masks


def _engraving(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    height, width = rgb.shape[:2]
    ink = jitter((0.13, 0.10, 0.08), rng, 0.2)
    out = brush.hatch(rgb, rng, float(rng.uniform(3.3, 4.3)), (1.0, 1.0, 1.0), ink)
    sheet = brush.aged_paper(width, height, rng, master.lights)
    return (out * sheet).clip(0, 1).astype(np.float32), masks


def _drawing(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    """Red or black chalk on toned paper, heightened with white."""
    height, width = rgb.shape[:2]
    tone = brush.luminance(cv2.GaussianBlur(rgb, (0, 0), 1.0))
    low, high = np.percentile(tone[::4, ::4], (3, 97)).tolist()
    tone = ((tone - low) / max(high - low, 0.1)).clip(0, 1) * 0.75 + 0.2
    chalk = (0.5, 0.2, 0.12) if rng.uniform() < 0.5 else (0.16, 0.14, 0.13)
    streak = noise_field("wood", width, height, rng, 0.8) * 0.5
    streak = cv2.warpAffine(
        streak,
        cv2.getRotationMatrix2D((width / 2, height / 2), 40, 1.5),
        (width, height),
        borderMode=cv2.BORDER_WRAP,
    )
    grain = noise_field("fine", width, height, rng) * 0.35
    cover = ((0.62 - tone) * 1.35 + 0.16 * streak + 0.12 * grain).clip(0, 0.85)
    lines = brush.outlines(brush.calm(rgb), 0.9, 0.045)
    cover = np.maximum(cover, lines * (0.8 + 0.2 * grain))[..., None]
    sheet = brush.aged_paper(width, height, rng, master.lights)
    white = (((tone - 0.75) * 1.6 + 0.1 * streak).clip(0, 0.6))[..., None]
    out = sheet * (1 - cover) + np.asarray(chalk, np.float32) * cover
    return (out * (1 - white) + 0.97 * white).clip(0, 1).astype(np.float32), masks


def _fresco(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    height, width = rgb.shape[:2]
    graded = _graded(rgb * 0.9 + 0.1, master)
    out = 0.6 * brush.posterise(graded, 6) + 0.4 * graded
    lines = (brush.outlines(brush.calm(rgb), 1.1, 0.05) * 0.7)[..., None]
    out = out * (1 - lines) + np.array([0.22, 0.12, 0.09], np.float32) * lines
    out = 0.12 * np.array([0.86, 0.8, 0.68], np.float32) + 0.88 * out
    out *= 1 + 0.05 * noise_field("cloud", width, height, rng, 1.2)[..., None]
    out *= 1 + 0.04 * noise_field("fine", width, height, rng)[..., None]
    lost = (noise_field("cloud", width, height, rng, 1.3) - float(rng.uniform(1.9, 2.5))) * 3
    lost = lost.clip(0, 0.8)[..., None]
    out = out * (1 - lost) + np.array([0.82, 0.76, 0.66], np.float32) * lost
    return brush.craquelure(out, rng, 0.22, 120).clip(0, 1), masks


def _watercolour(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    height, width = rgb.shape[:2]
    out = brush.displace(_graded(rgb * 0.9 + 0.12, master), rng, 1.2, 0.8)
    flat = 0.5 * brush.posterise(out, 6) + 0.5 * brush.calm(out)
    rim = brush.luminance(flat) - brush.luminance(cv2.GaussianBlur(flat, (0, 0), 2.5))
    flat = flat * (1 + 1.3 * rim.clip(-0.25, 0))[..., None]
    wash = 0.86 + 0.05 * noise_field("cloud", width, height, rng, 1.2)
    wash += 0.03 * noise_field("fine", width, height, rng)
    wash = wash.clip(0.5, 1)[..., None]
    paper = np.asarray(master.lights, np.float32) * 0.3 + 0.7
    out = paper * (1 - wash) + flat * wash
    lines = brush.outlines(brush.calm(rgb), 0.8, 0.06) * float(rng.uniform(0.3, 0.7))
    out = out * (1 - lines[..., None]) + np.array([0.22, 0.17, 0.16], np.float32) * lines[..., None]
    ragged = _ragged_edge(width, height, rng)[..., None]
    return (paper * (1 - ragged) + out * ragged).clip(0, 1).astype(np.float32), masks


def _ragged_edge(width: int, height: int, rng: Rng) -> Array:
    """1 inside, 0 at the sheet's margin, with a wet border."""
    x = np.minimum(np.arange(width), np.arange(width)[::-1])[None, :]
    y = np.minimum(np.arange(height), np.arange(height)[::-1])[:, None]
    margin = 6 + 5 * noise_field("cloud", width, height, rng, 0.6)
    return ((np.minimum(x, y) - margin) / 3).clip(0, 1).astype(np.float32)


def _cubism(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    graded = _graded(rgb, master)
    slide = min(rgb.shape[:2]) * float(rng.uniform(0.011, 0.019))
    out, moved = brush.facets(graded, masks, rng, int(rng.integers(28, 60)), slide)
    lines = (brush.outlines(out, 1.2) * 0.5)[..., None]
    out = brush.dabs(out, rng, master.stroke, 2.2, 0.5, 0.05, 0.25, 1.2, 0.2)
    return out * (1 - lines) + 0.08 * lines, moved


def _poster(rgb: Array, masks: list[Array], master: Master, rng: Rng) -> Painted:
    out = brush.posterise(_graded(rgb * 0.9 + 0.08, master), int(rng.integers(4, 6)))
    lines = brush.outlines(brush.calm(rgb), 1.2, 0.055)[..., None]
    ink = np.asarray(jitter((0.16, 0.09, 0.09), rng, 0.3), np.float32)
    out = out * (1 - lines) + ink * lines
    out *= 1 + 0.025 * noise_field("fine", rgb.shape[1], rgb.shape[0], rng)[..., None]
    return out.clip(0, 1), masks


STYLES: dict[str, Style] = {
    "Baroque": Style("oil on canvas", _baroque),
    "Impressionism": Style("oil on canvas", _impressionism),
    "Renaissance": Style("tempera on panel", _renaissance),
    "Engraving": Style("engraving on paper", _engraving),
    "Medieval": Style("fresco", _fresco),
    "Cubism": Style("oil on canvas", _cubism),
    "Romanticism": Style("watercolour on paper", _watercolour),
    "Art Nouveau": Style("colour lithograph", _poster),
    "Expressionism": Style("oil on canvas", _expressionism),
    "Pointillism": Style("oil on canvas", _pointillism),
    "Mannerism": Style("chalk on paper", _drawing),
}

_PALETTES: dict[str, tuple[Colour, Colour, float, float]] = {
    "Baroque": ((0.55, 0.36, 0.22), (0.62, 0.52, 0.36), 0.9, 1.15),
    "Impressionism": ((0.42, 0.44, 0.62), (0.6, 0.56, 0.45), 1.2, 0.9),
    "Renaissance": ((0.46, 0.42, 0.36), (0.56, 0.52, 0.42), 1.1, 1.05),
    "Engraving": ((0.3, 0.3, 0.3), (0.93, 0.88, 0.77), 0.0, 1.0),
    "Medieval": ((0.52, 0.4, 0.34), (0.6, 0.55, 0.44), 1.0, 1.0),
    "Cubism": ((0.44, 0.42, 0.4), (0.56, 0.52, 0.43), 0.5, 1.05),
    "Romanticism": ((0.46, 0.46, 0.52), (0.58, 0.55, 0.5), 0.95, 0.95),
    "Art Nouveau": ((0.5, 0.42, 0.4), (0.6, 0.55, 0.43), 0.85, 1.05),
    "Expressionism": ((0.42, 0.4, 0.56), (0.6, 0.55, 0.4), 1.35, 1.1),
    "Pointillism": ((0.44, 0.42, 0.62), (0.6, 0.56, 0.44), 1.3, 0.95),
    "Mannerism": ((0.3, 0.3, 0.3), (0.82, 0.72, 0.58), 0.0, 1.0),
}

_FIRST = (
    "Ansa",
    "Belmiro",
    "Cesare",
    "Dorothea",
    "Egidio",
    "Fenna",
    "Gaspard",
    "Hanneke",
    "Ilario",
    "Jutta",
    "Klaas",
    "Lavinia",
    "Matthis",
    "Nerina",
    "Orsola",
    "Pieter",
    "Quirin",
    "Rosalba",
    "Sibylle",
    "Teodoro",
    "Ursel",
    "Vico",
    "Wendel",
    "Ysabeau",
)
_LAST = (
    "van der Leer",
    "Montalto",
    "Brauwer",
    "Carrel",
    "Dessin",
    "Elsmark",
    "Fioravante",
    "Grau",
    "Halden",
    "Iversen",
    "Jansch",
    "Kessel",
    "Lombard",
    "Morandel",
    "Nachtwey",
    "Ostrava",
    "Perugio",
    "Quast",
    "Rivalta",
    "Steen-Holm",
    "Tavel",
    "Uhlmann",
    "Verduyn",
    "Wolters",
    "Zanetti",
)


def master(seed: int, domain: str, number: int) -> Master:
    """The ``number``-th master of a domain: same seed, same person."""
    rng = np.random.default_rng([seed, sum(map(ord, domain)), number, 77])
    movement = list(STYLES)[number % len(STYLES)]
    shadows, lights, saturation, contrast = _PALETTES[movement]
    first = _FIRST[int(rng.integers(len(_FIRST)))]
    return Master(
        f"{first} {_LAST[number % len(_LAST)]} (atelier {domain} {number + 1:02d})",
        movement,
        jitter(shadows, rng, 0.12),
        jitter(lights, rng, 0.07),
        saturation * float(rng.uniform(0.75, 1.25)),
        contrast * float(rng.uniform(0.92, 1.1)),
        float(rng.uniform(3.8, 6.5)),
    )
