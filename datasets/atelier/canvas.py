"""Anti-aliased drawing with materials: layers, pens, splines, tubes, bevel lighting.

Colours are float RGB in 0..1. Layers hold premultiplied RGBA, so a layer's alpha is the exact
mask of what was drawn. Points are (x, y) in the pen's local units, y pointing down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Colour = tuple[float, float, float]
LIGHT = (-0.52, -0.58, 0.63)
"""Default direction towards the light, in image axes: from the upper left, before the picture."""
_SHIFT = 4
_TILE = 256


@dataclass(frozen=True)
class Material:
    """What a surface is made of.

    Attributes:
        colour: Base colour, RGB in 0..1.
        grain: Strength of wood grain, 0..1.
        gloss: Strength of the highlight, 0..1.
        metal: Share of mirrored surroundings in the shading, 0..1.
        rough: Strength of blotches, 0..1.
        angle: Direction of the grain in local axes, radians; 0 runs along x.
        edge: Darkening of the outline, 0..1.
    """

    colour: Colour
    grain: float = 0.0
    gloss: float = 0.15
    metal: float = 0.0
    rough: float = 0.06
    angle: float = math.pi / 2
    edge: float = 0.35

    def dyed(self, colour: Colour) -> Material:
        """The same surface in another colour."""
        return replace(self, colour=colour)

    def darker(self, factor: float) -> Material:
        """The same surface, its colour multiplied by ``factor``."""
        r, g, b = self.colour
        return replace(self, colour=(min(r * factor, 1), min(g * factor, 1), min(b * factor, 1)))


@lru_cache(maxsize=8)
def tile(kind: str) -> Array:
    """A periodic noise texture (256, 256) of mean 0 and standard deviation 1.

    Args:
        kind: ``wood`` (streaks along x), ``cloud`` (fractal), ``fine`` (white).
    """
    rng = np.random.default_rng(sum(map(ord, kind)))
    white = rng.standard_normal((_TILE, _TILE))
    fy, fx = np.meshgrid(np.fft.fftfreq(_TILE), np.fft.fftfreq(_TILE), indexing="ij")
    radius = np.hypot(fx, fy) + 1 / _TILE
    gains = {
        "cloud": radius**-1.6,
        "fine": np.ones_like(radius),
        "wood": np.exp(-((fx * 60) ** 2)) * np.exp(-((fy * 2.8) ** 2)) * (radius + 0.03),
    }
    noise = np.fft.ifft2(np.fft.fft2(white) * gains[kind]).real
    noise = (noise - noise.mean()) / noise.std()
    return noise.clip(-2.5, 2.5).astype(np.float32)


def noise_field(
    kind: str, width: int, height: int, rng: np.random.Generator, size: float = 1.0
) -> Array:
    """Noise (height, width), mean about 0, deviation about 1; ``size`` stretches its features."""
    x, y = rng.uniform(0, _TILE, 2)
    matrix = np.array([[1 / size, 0, x], [0, 1 / size, y]], np.float32)
    return _sample(tile(kind), matrix, width, height)


def _sample(texture: Array, matrix: NDArray[np.floating], width: int, height: int) -> Array:
    return cv2.warpAffine(
        texture,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )


def spline(points: ArrayLike, closed: bool = False, steps: int = 10) -> Array:
    """A Catmull-Rom curve through (N, 2) points, ``steps`` samples a span."""
    p = np.asarray(points, np.float64)
    if closed:
        p = np.vstack([p[-1], p, p[0], p[1]])
    else:
        p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    flat = curve.reshape(-1, 2)
    if not closed:
        flat = np.vstack([flat, p[-2]])
    return flat.astype(np.float32)


def both_sides(right: ArrayLike) -> Array:
    """A closed outline from its right half, listed from top to bottom."""
    half = np.asarray(right, np.float32)
    return np.vstack([half, half[::-1] * np.array([-1, 1], np.float32)])


def arc(
    centre: Sequence[float],
    radius: float | Sequence[float],
    start: float = 0.0,
    end: float = 360.0,
    steps: int = 40,
) -> Array:
    """Points of an elliptic arc; angles in degrees, clockwise on the screen from +x."""
    rx, ry = (radius, radius) if isinstance(radius, (int, float)) else radius
    t = np.radians(np.linspace(start, end, steps))
    return np.stack([centre[0] + rx * np.cos(t), centre[1] + ry * np.sin(t)], 1).astype(np.float32)


def polygon(*points: Sequence[float]) -> Array:
    """Corners as an array (N, 2)."""
    return np.asarray(points, np.float32)


def box_points(x0: float, y0: float, x1: float, y1: float) -> Array:
    """The corners of an upright rectangle."""
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def pose(
    x: float,
    y: float,
    scale: float,
    degrees: float = 0.0,
    squash: float = 1.0,
    mirror: bool = False,
    shear: float = 0.0,
) -> NDArray[np.float64]:
    """A 2x3 matrix from local units to pixels: scale, foreshorten, shear, turn, move."""
    a = math.radians(degrees)
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    shape = np.array([[(-squash if mirror else squash), shear], [0.0, 1.0]])
    return np.hstack([turn @ shape * scale, np.array([[x], [y]])])


class Layer:
    """Premultiplied RGBA picture (height, width, 4), float32, transparent at first."""

    def __init__(self, width: int, height: int) -> None:
        self.rgba = np.zeros((height, width, 4), np.float32)

    @property
    def alpha(self) -> Array:
        """Coverage (height, width) in 0..1: the exact mask of what was drawn."""
        return self.rgba[..., 3]

    def blend(self, x: int, y: int, rgb: NDArray[np.floating] | Colour, alpha: Array) -> None:
        """Lay a patch over the layer at (x, y); it must lie inside."""
        h, w = alpha.shape
        view = self.rgba[y : y + h, x : x + w]
        cover = alpha[..., None]
        view *= 1 - cover
        view[..., :3] += np.asarray(rgb, np.float32) * cover
        view[..., 3] += alpha

    def bounds(self, threshold: float = 0.5) -> tuple[int, int, int, int] | None:
        """(x0, y0, x1, y1) of the pixels covered beyond ``threshold``, or None."""
        return mask_bounds(self.alpha > threshold)


def mask_bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The tight half-open box (x0, y0, x1, y1) of a mask, or None when it is empty."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return (x, y, x + w, y + h) if w and h else None


class Pen:
    """Draws shapes given in local units onto a layer.

    Args:
        layer: Where to draw.
        matrix: 2x3, local units to pixels.
        rng: Source of the small irregularities.
        light: Direction towards the light in image axes.
        texture: Source of grain; its own, so that shapes are the same on any canvas.
    """

    def __init__(
        self,
        layer: Layer,
        matrix: NDArray[np.floating],
        rng: np.random.Generator,
        light: Sequence[float] = LIGHT,
        texture: np.random.Generator | None = None,
    ) -> None:
        self.layer = layer
        self.matrix = np.asarray(matrix, np.float64)
        self.rng = rng
        self.light = np.asarray(light, np.float64) / np.linalg.norm(light)
        self.texture = texture or np.random.default_rng(int(rng.integers(1 << 31)))
        self.scale = math.sqrt(abs(np.linalg.det(self.matrix[:, :2])))

    def moved(
        self, x: float, y: float, degrees: float = 0.0, scale: float = 1.0, mirror: bool = False
    ) -> Pen:
        """A pen whose origin lies at (x, y), turned and scaled."""
        inner = np.vstack([pose(x, y, scale, degrees, mirror=mirror), [0, 0, 1]])
        return Pen(self.layer, self.matrix @ inner, self.rng, self.light, self.texture)

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Local points (N, 2) -> pixels (N, 2)."""
        p = np.asarray(points, np.float64).reshape(-1, 2)
        return p @ self.matrix[:, :2].T + self.matrix[:, 2]

    def fill(
        self,
        points: ArrayLike,
        material: Material,
        bevel: float = 0.0,
        holes: Iterable[ArrayLike] = (),
        alpha: float = 1.0,
    ) -> None:
        """Fill a polygon; ``bevel`` is the width of its rounded edge in local units."""
        contours = [self.to_pixels(points), *(self.to_pixels(hole) for hole in holes)]
        place = self._region(contours[0])
        if place is None:
            return
        x, y, w, h = place
        mask = np.zeros((h, w), np.uint8)
        fixed = [_fixed(contour - (x, y)) for contour in contours]
        cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)
        self._finish(mask, place, material, bevel, alpha)

    def tube(
        self,
        path: ArrayLike,
        width: float | ArrayLike,
        material: Material,
        bevel: float | None = None,
        alpha: float = 1.0,
    ) -> None:
        """A round bar along a path; ``width`` is its diameter, one or one a point."""
        p = np.asarray(path, np.float64)
        half = np.broadcast_to(np.asarray(width, np.float64) / 2, (len(p),))[:, None]
        along = np.gradient(p, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        across = along[:, ::-1] * (-1, 1)
        left, right = self.to_pixels(p + across * half), self.to_pixels(p - across * half)
        place = self._region(np.vstack([left, right]))
        if place is None:
            return
        x, y, w, h = place
        mask = np.zeros((h, w), np.uint8)
        left, right = left - (x, y), right - (x, y)
        for i in range(len(p) - 1):
            quad = np.array([left[i], left[i + 1], right[i + 1], right[i]])
            cv2.fillConvexPoly(mask, _fixed(quad), 255, cv2.LINE_AA, _SHIFT)
        self._finish(mask, place, material, float(half.max()) if bevel is None else bevel, alpha)

    def disc(
        self,
        centre: Sequence[float],
        radius: float | Sequence[float],
        material: Material,
        bevel: float = 0.0,
    ) -> None:
        """A filled ellipse."""
        self.fill(arc(centre, radius, steps=36)[:-1], material, bevel)

    def line(
        self,
        path: ArrayLike,
        width: float,
        colour: Colour,
        alpha: float = 1.0,
        closed: bool = False,
    ) -> None:
        """A thin flat line; below a pixel it fades instead of vanishing."""
        p = self.to_pixels(path)
        pixels = width * self.scale
        thickness = max(1, round(pixels))
        place = self._region(p, thickness + 1)
        if place is None:
            return
        x, y, w, h = place
        mask = np.zeros((h, w), np.uint8)
        cv2.polylines(mask, [_fixed(p - (x, y))], closed, 255, thickness, cv2.LINE_AA, _SHIFT)
        strength = alpha * min(1.0, max(pixels, 0.35))
        self.layer.blend(x, y, colour, mask.astype(np.float32) * (strength / 255))

    def _region(
        self, pixels: NDArray[np.float64], margin: int = 2
    ) -> tuple[int, int, int, int] | None:
        height, width = self.layer.alpha.shape
        x0, y0 = np.maximum(np.floor(pixels.min(0)) - margin, 0).astype(int)
        x1, y1 = np.minimum(np.ceil(pixels.max(0)) + margin + 1, (width, height)).astype(int)
        return (int(x0), int(y0), int(x1 - x0), int(y1 - y0)) if x1 > x0 and y1 > y0 else None

    def _finish(
        self,
        mask: NDArray[np.uint8],
        place: tuple[int, int, int, int],
        material: Material,
        bevel: float,
        alpha: float,
    ) -> None:
        rgb = self._surface(mask, place, material, bevel * self.scale)
        self.layer.blend(place[0], place[1], rgb, mask.astype(np.float32) * (alpha / 255))

    def _surface(
        self,
        mask: NDArray[np.uint8],
        place: tuple[int, int, int, int],
        material: Material,
        bevel_px: float,
    ) -> Array:
        x, y, w, h = place
        tone = np.ones((h, w), np.float32)
        if material.grain:
            tone += material.grain * self._texture("wood", place, material.angle, 0.0052)
        if material.rough:
            tone += material.rough * self._texture("cloud", place, material.angle, 0.004)
        shine = np.zeros((1, 1), np.float32)
        if bevel_px >= 0.75 or material.edge:
            # DIST_MASK_PRECISE differs in its last bits from call to call.
            inside = cv2.distanceTransform(
                (mask > 127).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5
            )
            if bevel_px >= 0.75:
                light, shine = self._lighting(inside, bevel_px, material)
                tone *= light
            if material.edge:
                tone *= 1 - material.edge * np.clip(1 - inside / max(1.2, self.scale * 0.004), 0, 1)
        rgb = tone[..., None] * np.asarray(material.colour, np.float32)
        tint = np.asarray(material.colour, np.float32) ** 0.4 if material.metal else 1.0
        rgb += shine[..., None] * tint
        return rgb.clip(0, 1)

    def _texture(
        self, kind: str, place: tuple[int, int, int, int], angle: float, grain: float
    ) -> Array:
        """Noise fixed to the local axes, so that grain turns with the instrument."""
        x, y, w, h = place
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        # At least a pixel a texel: finer noise would alias, and its coordinates overflow.
        grain = max(grain, 1 / self.scale)
        linear = turn @ np.linalg.inv(self.matrix[:, :2]) / grain
        start = linear @ (np.array([x, y]) - self.matrix[:, 2]) + self.texture.uniform(0, _TILE, 2)
        start %= _TILE
        return _sample(tile(kind), np.hstack([linear, start[:, None]]), w, h)

    def _lighting(self, inside: Array, bevel_px: float, material: Material) -> tuple[Array, Array]:
        """Brightness factor and highlight of a rounded surface ``inside`` pixels from its edge."""
        rise = 1 - np.minimum(inside / bevel_px, 1)
        height = np.sqrt(1 - rise * rise) * bevel_px
        # Blurring hides the steps of a distance measured in whole pixels.
        height = cv2.GaussianBlur(height, (0, 0), min(max(bevel_px * 0.12, 0.8), 6))
        nx = -cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
        ny = -cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
        norm = np.sqrt(nx * nx + ny * ny + 1)
        facing = (nx * self.light[0] + ny * self.light[1] + self.light[2]) / norm
        half = self.light + (0, 0, 1)
        half /= np.linalg.norm(half)
        mirror = np.clip((nx * half[0] + ny * half[1] + half[2]) / norm, 0, 1)
        shine = material.gloss * mirror**22
        tone = 1 + 0.75 * (facing - self.light[2])
        if material.metal:
            e = (nx * self.light[0] + ny * self.light[1]) / norm
            bands = (
                0.42
                + 1.1 * np.exp(-(((e - 0.5) / 0.16) ** 2))
                + 0.55 * np.exp(-(((e + 0.8) / 0.2) ** 2))
                + 0.35 * np.exp(-(((e - 0.02) / 0.1) ** 2))
            )
            tone = tone * (1 - material.metal) + bands * material.metal
        return tone.astype(np.float32), shine.astype(np.float32)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    # OpenCV counts from the centre of the first pixel, we from its corner.
    return np.round((points - 0.5) * (1 << _SHIFT)).astype(np.int32)
