"""Augmentation keeps its word: seeded, same size, nothing edited."""

from __future__ import annotations

import numpy as np
import pytest

from musicon.datasets.transforms import Augmentation, painterly


def picture() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.dstack([x * 4, y * 5, (x + y) * 2]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("preset", ["none", "light", "strong"])
def test_the_generator_alone_decides(preset: str) -> None:
    augment, image = Augmentation(preset), picture()  # type: ignore[arg-type]
    first = [augment(image, np.random.default_rng(i)) for i in range(40)]
    np.random.seed(1)  # noqa: NPY002 (the global state must not matter)
    second = [augment(image, np.random.default_rng(i)) for i in reversed(range(40))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(a.shape == image.shape and a.dtype == np.uint8 for a in first)
    assert np.array_equal(image, picture())
    changed = np.mean([not np.array_equal(a, image) for a in first])
    assert changed == 0 if preset == "none" else changed > 0.4


@pytest.mark.parametrize("size", [(1, 64), (48, 1), (2, 3), (3, 300), (4, 300)])
def test_slivers_keep_their_shape(size: tuple[int, int]) -> None:
    augment = Augmentation("strong", light_share=0.3)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for i in range(150):
        assert augment(image, np.random.default_rng(i)).shape == image.shape


def test_painterly_makes_several_surfaces_and_keeps_edges() -> None:
    image = np.full((64, 64, 3), 220, np.uint8)
    image[16:48, 16:48] = (40, 80, 150)
    results = [painterly(image, np.random.default_rng(i)) for i in range(60)]
    assert len({r.tobytes() for r in results}) > 30
    for result in results:
        rows = result.astype(float).mean(2)
        inner, outer = rows[20:44, 20:44], rows[:8]
        edge = np.abs(np.diff(rows[32])).max()
        assert abs(inner.mean() - outer.mean()) > 15 or edge > 15
