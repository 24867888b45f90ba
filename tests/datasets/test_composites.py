"""Composed scenes: boxes against what can be seen to have changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from musicon.datasets.composites import (
    BLENDS,
    DISTRACTOR,
    Cutout,
    compose,
    cut_out,
    distractor,
)
from musicon.datasets.records import Category, ImageRecord, Manifest
from musicon.datasets.scenes import Composer


def red_block(height: int = 30, width: int = 50, label: int = 3) -> Cutout:
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 255, 255
    return Cutout(rgba, label)


def plain(height: int = 160, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3))
def test_boxes_hold_all_that_was_pasted(seed: int, count: int) -> None:
    ground = plain()
    scene = compose(ground, [red_block()] * count, np.random.default_rng(seed), harmonise=0,
                    occlude=0, scale=(0.2, 0.6))
    changed = (np.abs(scene.image.astype(int) - ground).max(axis=2) > 60)
    outside = changed.copy()
    for x0, y0, x1, y1 in scene.boxes.astype(int):
        assert 0 <= x0 < x1 <= 200 and 0 <= y0 < y1 <= 160
        outside[y0:y1, x0:x1] = False
    assert outside.sum() <= 0.02 * max(changed.sum(), 1)
    assert set(scene.labels.tolist()) <= {3}


def test_one_box_is_tight() -> None:
    ground = plain()
    scene = compose(ground, [red_block()], np.random.default_rng(1), harmonise=0, occlude=0,
                    scale=(0.4, 0.5))
    changed = np.abs(scene.image.astype(int) - ground).max(axis=2) > 70
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(scene.boxes[0] - seen).max() <= 2


def test_nothing_is_edited_and_the_seed_decides() -> None:
    ground, cutout = plain(), red_block()
    before = cutout.rgba.copy()
    first, second = (compose(ground, [cutout, cutout], np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.image, second.image) and np.array_equal(first.boxes, second.boxes)
    assert np.array_equal(ground, plain()) and np.array_equal(cutout.rgba, before)


def test_a_scene_without_cutouts_is_the_painting() -> None:
    scene = compose(plain(), [], np.random.default_rng(0))
    assert np.array_equal(scene.image, plain())
    assert scene.boxes.shape == (0, 4) and scene.labels.shape == (0,)


def test_distractors_are_pasted_without_a_box() -> None:
    rng = np.random.default_rng(3)
    painting = rng.integers(0, 255, (120, 150, 3)).astype(np.uint8)
    blob = distractor(painting, rng)
    assert blob.label == DISTRACTOR and 0 < (blob.rgba[..., 3] > 0).mean() < 1
    scene = compose(plain(), [blob, red_block()], rng, harmonise=0, occlude=0)
    assert scene.labels.tolist() in ([], [3])
    assert not np.array_equal(scene.image, plain())


def test_cut_out_crops_to_the_mask() -> None:
    image = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    mask = np.zeros((8, 10), np.float32)
    mask[2:5, 3:9] = 1
    cut = cut_out(image, mask, 7)
    assert cut is not None and cut.rgba.shape == (3, 6, 4) and cut.label == 7
    assert np.array_equal(cut.rgba[..., :3], image[2:5, 3:9])
    assert cut_out(image, np.zeros_like(mask), 7) is None


@pytest.mark.parametrize("how", BLENDS)
def test_every_blend_stays_in_its_box(how: str) -> None:
    ground = plain()
    scene = compose(ground, [red_block()], np.random.default_rng(3), harmonise=0, occlude=0,
                    scale=(0.4, 0.5), blends=[how])
    changed = np.argwhere(np.abs(scene.image.astype(int) - ground).max(axis=2) > 12)
    (y0, x0), (y1, x1) = changed.min(0), changed.max(0) + 1
    assert len(scene.boxes) == 1
    assert np.abs(scene.boxes[0] - (x0, y0, x1, y1)).max() <= 6


def test_faces_are_left_free() -> None:
    ground, face = plain(), (50.0, 30.0, 150.0, 130.0)
    pasted = 0
    for seed in range(40):
        scene = compose(ground, [red_block()], np.random.default_rng(seed), harmonise=0,
                        occlude=0, scale=(0.2, 0.6), keep_off=[face])
        changed = np.abs(scene.image.astype(int) - ground).max(axis=2) > 60
        assert changed[30:130, 50:150].mean() <= 0.11
        pasted += len(scene.boxes)
    assert 0 < pasted < 40


def test_transparent_files_are_cut_by_their_own_outline(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgba = np.full((60, 90, 4), 255, np.uint8)
    rgba[..., :3] = (200, 40, 30)
    rgba[..., 3] = 0
    rgba[10:40, 20:80, 3] = 255
    Image.fromarray(rgba, "RGBA").save(tmp_path / "lute.png")
    Image.fromarray(rng.integers(0, 90, (200, 240, 3), np.uint8)).save(tmp_path / "ground.png")
    photos = Manifest(tmp_path, (Category(1, "lute"),), (ImageRecord(
        1, "lute.png", 90, 60, labels=(1,), split="train", extra={"alpha": True}),))
    grounds = Manifest(tmp_path, (), (ImageRecord(1, "ground.png", 240, 200, split="train"),))
    composer = Composer(photos, grounds, 200, blends=BLENDS, keep_faces=True)
    cutout = composer._cutout(np.random.default_rng(0))
    assert cutout is not None and cutout.rgba.shape == (30, 60, 4)
    assert (cutout.rgba == (200, 40, 30, 255)).all()
    assert sum(len(composer.scene(0, number).boxes) for number in range(5)) > 0
