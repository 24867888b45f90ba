"""What paint, ink, plaster and paper do to a picture: cheap enough for 100,000 of them.

Pictures are float32 RGB (height, width, 3) in 0..1; every function returns a new one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.atelier.canvas import Array, Colour, noise_field

Rng = np.random.Generator
_CRACK_TILE = 512


def luminance(rgb: Array) -> Array:
    """Brightness (height, width) in 0..1."""
    grey: Array = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return grey


def to_bytes(rgb: Array) -> NDArray[np.uint8]:
    """Colours 0..1 -> uint8."""
    return (rgb * 255 + 0.5).clip(0, 255).astype(np.uint8)


def to_float(rgb: NDArray[np.uint8]) -> Array:
    """Bytes -> float 0..1."""
    return rgb.astype(np.float32) / np.float32(255)


def grade(rgb: Array, shadows: Colour, lights: Colour, saturation: float, contrast: float) -> Array:
    """Push dark tones towards one colour and light ones towards another."""
    lum = luminance(rgb)[..., None]
    out = lum + (rgb - lum) * saturation
    out = (out - 0.45) * contrast + 0.45
    tint = np.asarray(shadows, np.float32) * (1 - lum) + np.asarray(lights, np.float32) * lum
    return (out * (0.55 + 0.9 * tint)).clip(0, 1)


def flow(rgb: Array) -> Array:
    """Direction (height, width) in radians along which strokes follow the forms."""
    small = cv2.resize(luminance(rgb), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    gx, gy = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    xx, yy, xy = (cv2.GaussianBlur(v, (0, 0), 2.5) for v in (gx * gx, gy * gy, gx * gy))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + math.pi / 2
    return angle.astype(np.float32)


def dabs(
    rgb: Array,
    rng: Rng,
    size: float,
    length: float,
    fine: float = 0.4,
    hue: float = 0.05,
    relief: float = 0.25,
    density: float = 1.6,
    turn: float = 0.35,
) -> Array:
    """Repaint with brush strokes that follow the forms, large ones first, then small.

    Args:
        rgb: The picture.
        rng: Places and colours of the strokes.
        size: Width of the large strokes, pixels.
        length: Length of a stroke in widths.
        fine: Width of the small strokes as a share of ``size``.
        hue: Scatter of the strokes' colours.
        relief: Strength of the light on the paint's ridges.
        density: Strokes a picture, as a multiple of full cover.
        turn: Scatter of the strokes' directions, radians.
    """
    height, width = rgb.shape[:2]
    angles = flow(rgb)
    canvas = np.dstack(
        [
            to_bytes(cv2.GaussianBlur(rgb, (0, 0), size * 0.6)),
            np.full((height, width), 128, np.uint8),
        ]
    )
    detail = _detail(rgb)
    for share, where in ((1.0, None), (fine, detail)):
        wide = max(1.5, size * share)
        count = int(density * width * height / (wide * wide * length))
        count = count if where is None else min(count, 5000)
        x, y = _places(rng, count, width, height, where)
        colours = _stroke_colours(rgb, rng, x, y, wide, hue)
        angle = angles[y // 4 % angles.shape[0], x // 4 % angles.shape[1]] + rng.normal(
            0, turn, count
        )
        reach = wide * length * rng.uniform(0.5, 1.1, count) * (0.5 if where is None else 0.4)
        ends = np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1)
        middle = np.stack([x, y], 1)
        starts, stops = ((middle - ends) * 8).astype(int), ((middle + ends) * 8).astype(int)
        thick = np.maximum(1, (wide * rng.uniform(0.7, 1.15, count)).round()).astype(int)
        for a, b, colour, t in zip(
            starts.tolist(), stops.tolist(), colours.tolist(), thick.tolist(), strict=True
        ):
            cv2.line(canvas, a, b, colour, t, cv2.LINE_AA, 3)
    out = to_float(canvas[..., :3])
    return emboss(out, to_float(canvas[..., 3]), relief)


def _detail(rgb: Array) -> Array:
    lum = luminance(rgb)
    edge = np.abs(lum - cv2.GaussianBlur(lum, (0, 0), 3))
    return cv2.GaussianBlur(edge, (0, 0), 2) + 0.004


def _places(
    rng: Rng, count: int, width: int, height: int, where: Array | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``count`` pixels, evenly or in proportion to ``where``."""
    if where is None:
        return rng.integers(0, width, count), rng.integers(0, height, count)
    small = cv2.resize(where, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    total = np.cumsum(small, dtype=np.float64)
    found = np.searchsorted(total, rng.uniform(0, total[-1], count)).clip(0, small.size - 1)
    y, x = np.divmod(found, small.shape[1])
    return x * 2 + rng.integers(0, 2, count), y * 2 + rng.integers(0, 2, count)


def _stroke_colours(
    rgb: Array, rng: Rng, x: NDArray[np.int64], y: NDArray[np.int64], wide: float, hue: float
) -> NDArray[np.int64]:
    """Colours (N, 4): RGB at the places, scattered, and the paint's height."""
    source = cv2.GaussianBlur(rgb, (0, 0), wide * 0.3) if wide > 2.5 else rgb
    colours = source[y, x] * (1 + rng.normal(0, hue, (len(x), 1))) + rng.normal(
        0, hue * 0.5, (len(x), 3)
    )
    height = rng.uniform(0.2, 0.8, (len(x), 1))
    return (np.hstack([colours, height]) * 255).clip(0, 255).astype(int)


def emboss(rgb: Array, height: Array, strength: float) -> Array:
    """Light from the upper left on a relief of paint."""
    soft = cv2.GaussianBlur(height, (0, 0), 0.8)
    slope = cv2.filter2D(
        soft, cv2.CV_32F, np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)
    )
    return (rgb * (1 - strength * slope[..., None])).clip(0, 1)


def dots(rgb: Array, rng: Rng, size: float, hue: float = 0.16) -> Array:
    """Pointillist dots of scattered pure colours."""
    height, width = rgb.shape[:2]
    canvas = to_bytes(cv2.GaussianBlur(rgb, (0, 0), size) * 0.75 + 0.16)
    for share, where in ((1.0, None), (0.6, _detail(rgb))):
        wide = size * share
        count = min(int(1.5 * width * height / (wide * wide)), 9000)
        x, y = _places(rng, count, width, height, where)
        colours = _stroke_colours(rgb, rng, x, y, 1.0, hue)[:, :3]
        mean = colours.mean(1, keepdims=True)
        colours = ((colours - mean) * 1.35 + mean).clip(0, 255).astype(int)
        radius = max(1, round(wide * 8 * 0.52))
        for at, colour in zip((np.stack([x, y], 1) * 8).tolist(), colours.tolist(), strict=True):
            cv2.circle(canvas, at, radius, colour, -1, cv2.LINE_AA, 3)
    return to_float(canvas)


def weave(width: int, height: int, pitch: float) -> Array:
    """Canvas threads (height, width), mean 0, within about -1..1."""
    x = np.sin(np.arange(width, dtype=np.float32) * (2 * math.pi / pitch))
    y = np.sin(np.arange(height, dtype=np.float32) * (2 * math.pi / pitch))
    return x[None, :] * y[:, None]


@lru_cache(maxsize=4)
def _crack_tile(cells: int) -> Array:
    """Edges of a random mosaic: a craquelure net (512, 512), 1 on a crack."""
    rng = np.random.default_rng(cells)
    seeds = np.full((_CRACK_TILE, _CRACK_TILE), 255, np.uint8)
    at = rng.integers(0, _CRACK_TILE, (cells, 2))
    seeds[at[:, 0], at[:, 1]] = 0
    labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[
        1
    ]
    edge = np.zeros_like(seeds, np.float32)
    edge[:-1] += labels[:-1] != labels[1:]
    edge[:, :-1] += labels[:, :-1] != labels[:, 1:]
    return cv2.GaussianBlur(edge.clip(0, 1), (0, 0), 0.7)


def craquelure(rgb: Array, rng: Rng, strength: float, cells: int = 900) -> Array:
    """The fine cracks of old paint, in patches."""
    height, width = rgb.shape[:2]
    zoom, turn = float(rng.uniform(0.8, 1.3)), float(rng.uniform(0, 6.28))
    c, s = math.cos(turn) / zoom, math.sin(turn) / zoom
    matrix = np.array([[c, -s, rng.uniform(0, 512)], [s, c, rng.uniform(0, 512)]])
    net = cv2.warpAffine(
        _crack_tile(cells),
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    patches = (noise_field("cloud", width, height, rng, 2.0) * 0.5 + 0.7).clip(0, 1)
    return (rgb * (1 - strength * (net * patches)[..., None])).clip(0, 1)


def varnish(rgb: Array, strength: float, tint: Colour = (1.0, 0.87, 0.6)) -> Array:
    """Yellowed varnish."""
    return rgb * (1 - strength + strength * np.asarray(tint, np.float32))


def vignette(rgb: Array, strength: float, centre: Sequence[float] = (0.5, 0.5)) -> Array:
    """Darken away from ``centre`` (shares of width and height)."""
    height, width = rgb.shape[:2]
    x = (np.arange(width, dtype=np.float32) / width - float(centre[0]))[None, :]
    y = (np.arange(height, dtype=np.float32) / height - float(centre[1]))[:, None]
    fall = np.clip(1.1 - strength * 2.0 * (x * x + y * y), 1 - strength, 1)
    return rgb * fall[..., None]


def outlines(rgb: Array, width: float, threshold: float = 0.035) -> Array:
    """Where contours run (height, width), 1 on a line."""
    soft = cv2.GaussianBlur(rgb, (0, 0), width)
    edge = np.zeros(rgb.shape[:2], np.float32)
    for channel in cv2.split(soft):
        gx, gy = cv2.Sobel(channel, cv2.CV_32F, 1, 0), cv2.Sobel(channel, cv2.CV_32F, 0, 1)
        # cv2.magnitude differs in its last bits from call to call.
        edge = np.maximum(edge, np.sqrt(gx * gx + gy * gy))
    return ((edge - threshold * 4) / 0.28).clip(0, 1)


def calm(rgb: Array) -> Array:
    """Even out small tones, keep contours."""
    return to_float(cv2.bilateralFilter(to_bytes(rgb), 7, 40, 4))


def posterise(rgb: Array, levels: int) -> Array:
    """Few flat tones with soft steps; hues stay what they are."""
    flat = to_float(cv2.medianBlur(to_bytes(calm(rgb)), 7))
    tone = luminance(cv2.GaussianBlur(flat, (0, 0), 1.2)) * levels
    step = np.floor(tone)
    soft = ((tone - step - 0.5) * 5 + 0.5).clip(0, 1)
    wanted = (step + soft - 0.15).clip(0.15, None) / levels
    gain = wanted / np.maximum(luminance(flat), 0.04)
    return (flat * gain.clip(0.3, 2.2)[..., None]).clip(0, 1)


def displace(rgb: Array, rng: Rng, amount: float, size: float = 1.0) -> Array:
    """Wobble every contour by about ``amount`` pixels."""
    height, width = rgb.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x += amount * noise_field("cloud", width, height, rng, size)
    y += amount * noise_field("cloud", width, height, rng, size)
    return cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def hatch(rgb: Array, rng: Rng, pitch: float, paper: Colour, ink: Colour) -> Array:
    """An engraving: tone turned into crossing lines, contours drawn."""
    height, width = rgb.shape[:2]
    quiet = calm(rgb)
    grey = to_bytes(luminance(0.5 * quiet + 0.5 * rgb))
    tone = to_float(cv2.createCLAHE(1.8, (3, 3)).apply(grey)) ** 0.62
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    # Lines bulge over light forms, as a burin's do.
    wobble = noise_field("cloud", width, height, rng, 2.0) * 0.4
    wobble += 6 * cv2.GaussianBlur(tone, (0, 0), 7)
    cover = np.zeros((height, width), np.float32)
    start = float(rng.uniform(0.3, 1.2)) * float(rng.choice([-1, 1]))
    for i, limit in enumerate((0.9, 0.56, 0.34)):
        angle = start + i * float(rng.uniform(0.7, 1.0))
        phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / pitch)
        wave = 0.5 + 0.5 * np.cos(phase + wobble)
        duty = ((limit - tone) / limit).clip(0, 1)
        ink_here = ((wave - 1 + 0.9 * duty) * 3).clip(0, 1) * (duty > 0.03)
        cover = np.maximum(cover, ink_here)
    cover = np.maximum(cover, outlines(quiet, 0.8, 0.05) * 0.95)[..., None]
    return np.asarray(paper, np.float32) * (1 - cover) + np.asarray(ink, np.float32) * cover


def facets(
    rgb: Array, masks: list[Array], rng: Rng, cells: int, slide: float
) -> tuple[Array, list[Array]]:
    """Break the picture into sliding, separately lit planes; masks slide along."""
    height, width = rgb.shape[:2]
    seeds = np.full((height // 4, width // 4), 255, np.uint8)
    at = np.stack([rng.integers(0, height // 4, cells), rng.integers(0, width // 4, cells)], 1)
    seeds[at[:, 0], at[:, 1]] = 0
    _, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L1, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = cv2.resize(
        labels.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
    ).astype(int)
    count = int(labels.max()) + 1
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    dx, dy, zoom = (
        rng.normal(0, slide, count),
        rng.normal(0, slide, count),
        rng.normal(1, 0.035, count),
    )
    map_x = (width / 2 + (x - width / 2) * zoom[labels] + dx[labels]).astype(np.float32)
    map_y = (height / 2 + (y - height / 2) * zoom[labels] + dy[labels]).astype(np.float32)

    def slid(picture: Array) -> Array:
        return cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    angle = rng.uniform(0, 2 * math.pi, count)
    ramp = np.cos(angle)[labels] * (x - width / 2) + np.sin(angle)[labels] * (y - height / 2)
    light = 1 + 0.28 * np.sin(ramp / 60) + rng.normal(0, 0.06, count)[labels]
    edge = cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((2, 2))) > 0
    shaded = slid(rgb) * (light * (1 - 0.35 * edge))[..., None].astype(np.float32)
    return shaded.clip(0, 1).astype(np.float32), [slid(mask) for mask in masks]


def aged_paper(width: int, height: int, rng: Rng, colour: Colour) -> Array:
    """A sheet with fibres, stains and darker rims."""
    tone = 1 + 0.03 * noise_field("cloud", width, height, rng, 2.2)
    tone += 0.015 * noise_field("fine", width, height, rng)
    sheet = tone[..., None] * np.asarray(colour, np.float32)
    return vignette(sheet.astype(np.float32), 0.22).clip(0, 1)
