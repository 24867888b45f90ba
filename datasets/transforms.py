"""Augmentation presets on albumentations.

Every call takes its own random generator, so that a training example is a function of
(seed, step, position) alone, whichever process makes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

Preset = Literal["none", "light", "strong"]
Image = NDArray[np.uint8]

LEAST_SIDE = 4
"""Pixels; shrinking and blurring leave nothing of a shorter side."""


class Augmentation:
    """Changes how an image looks without moving anything in it, so that boxes stay true."""

    def __init__(self, preset: Preset, light_share: float = 0.0) -> None:
        """Take a preset, and the share of the images that get ``light`` instead."""
        self.preset, self.light_share = preset, light_share
        self._colour = _pipeline(preset)
        self._light = Augmentation("light") if light_share else None

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """A changed copy of an RGB image (H, W, 3); one of a few pixels comes back as it is."""
        if min(image.shape[:2]) < LEAST_SIDE:
            return image.copy()
        if self._light is not None and rng.random() < self.light_share:
            return self._light(image, rng)
        if self.preset == "none":
            return image
        if self.preset == "strong" and rng.random() < 0.35:
            image = painterly(image, rng)
        self._colour.set_random_seed(int(rng.integers(2**31)))
        return self._colour(image=image)["image"]


def _pipeline(preset: Preset) -> A.Compose:
    light: list[Any] = [
        A.RandomBrightnessContrast(0.2, 0.2, p=0.6),
        A.HueSaturationValue(8, 25, 10, p=0.4),
        A.ImageCompression(quality_range=(50, 95), p=0.2),
    ]
    strong: list[Any] = [
        A.RandomBrightnessContrast(0.3, 0.35, p=0.7),
        A.HueSaturationValue(25, 45, 15, p=0.5),
        A.RGBShift(25, 15, 25, p=0.4),
        A.OneOf([A.ToGray(p=1.0), A.ToSepia(p=1.0)], p=0.2),
        A.RandomGamma((60, 160), p=0.3),
        A.OneOf([A.GaussianBlur(blur_limit=(3, 5), p=1.0), A.Downscale((0.4, 0.8), p=1.0),
                 A.Sharpen(p=1.0)], p=0.3),
        A.OneOf([A.GaussNoise(std_range=(0.02, 0.09), p=1.0), A.ISONoise(p=1.0),
                 A.ImageCompression(quality_range=(30, 90), p=1.0)], p=0.3),
    ]
    return A.Compose({"none": [], "light": light, "strong": strong}[preset], seed=0)


def painterly(image: Image, rng: np.random.Generator) -> Image:
    """Give a photo the surface of a drawing or a painting, in a few milliseconds.

    One of: daubs (median filter), flat colours (edge-preserving smoothing and few tones), pencil
    (colour dodge on the blurred negative), woodcut (local threshold), canvas (woven relief). It is
    no style transfer; it removes what a photo's texture gives away.
    """
    makers: tuple[Callable[[Image, np.random.Generator], Image], ...] = (
        _daubs, _flat, _pencil, _woodcut, _canvas)
    weights = (0.32, 0.26, 0.15, 0.05, 0.22)
    return makers[int(rng.choice(len(makers), p=weights))](image, rng)


def _daubs(image: Image, rng: np.random.Generator) -> Image:
    size = int(rng.choice([3, 5, 7]))
    smooth = cv2.medianBlur(image, size)
    noise = rng.normal(0, 18, (image.shape[0] // 3 + 1, image.shape[1] // 3 + 1)).astype(np.float32)
    strokes = cv2.resize(noise, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    strokes = cv2.GaussianBlur(strokes, (0, 0), sigmaX=rng.uniform(0.5, 3),
                               sigmaY=rng.uniform(0.5, 3))
    return (smooth.astype(np.float32) + strokes[..., None]).clip(0, 255).astype(np.uint8)


def _flat(image: Image, rng: np.random.Generator) -> Image:
    smooth = cv2.bilateralFilter(image, 5, 60, 5)
    tones = float(rng.integers(4, 10))
    step = 255 / tones
    return (np.floor(smooth / step) * step + step / 2).clip(0, 255).astype(np.uint8)


def _pencil(image: Image, rng: np.random.Generator) -> Image:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), rng.uniform(2, 7))
    sketch = cv2.divide(grey, 255 - blurred, scale=255).astype(np.float32)
    sketch = 255 * (sketch / 255) ** rng.uniform(1.5, 5)
    paper = np.array([255, 255, 255]) * rng.uniform([0.8, 0.75, 0.6], 1.0)
    ink = paper * rng.uniform(0, 0.35)
    share = (sketch / 255)[..., None]
    drawing = paper * share + ink * (1 - share)
    tint = rng.uniform(0, 0.5) * (rng.random() < 0.4)
    return (drawing * (1 - tint) + image * tint).clip(0, 255).astype(np.uint8)


def _woodcut(image: Image, rng: np.random.Generator) -> Image:
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 0.8)
    block = int(rng.choice([9, 15, 25]))
    cut = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY,
                                block, float(rng.uniform(2, 9)))
    share = (cv2.GaussianBlur(cut, (0, 0), 0.5).astype(np.float32) / 255)[..., None]
    paper = np.array([250, 245, 235]) * rng.uniform([0.85, 0.8, 0.65], 1.0)
    ink = rng.uniform(0, 70, 3)
    return (paper * share + ink * (1 - share)).astype(np.uint8)


def _canvas(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    period, depth = rng.uniform(2, 5), rng.uniform(0.04, 0.16)
    y, x = np.mgrid[0:height, 0:width]
    weave = 1 + depth * np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
    varnish = np.array([1.0, 0.96, 0.85]) ** rng.uniform(0, 2)
    return (image * weave[..., None] * varnish).clip(0, 255).astype(np.uint8)
