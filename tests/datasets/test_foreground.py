"""Foregrounds of drawn photos, whose true mask is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from musicon.datasets.boxes import iou
from musicon.datasets.foreground import find_foreground, tight_box


def backdrop(height: int = 200, width: int = 260) -> np.ndarray:
    """A grey ground that darkens to one side, with sensor noise."""
    ramp = np.linspace(225, 195, width)[None, :, None]
    noise = np.random.default_rng(0).normal(0, 1.5, (height, width, 3))
    return (np.broadcast_to(ramp, (height, width, 3)) + noise).clip(0, 255).astype(np.uint8)


def test_finds_an_object_on_an_uneven_ground() -> None:
    photo, truth = backdrop(), np.zeros((200, 260), np.uint8)
    for canvas, colour in ((photo, (120, 60, 20)), (truth, 1)):
        cv2.ellipse(canvas, (130, 110), (60, 30), 30, 0, 360, colour, -1)
    found = find_foreground(photo)
    assert found is not None
    mask = found.mask > 0.5
    assert (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum() > 0.93
    assert found.parts == 1
    assert iou([found.xyxy], [tight_box(truth.astype(float))])[0, 0] > 0.93


def test_leaves_out_the_colour_panel_and_the_scale_bar() -> None:
    photo = backdrop()
    cv2.rectangle(photo, (90, 40), (170, 150), (90, 40, 20), -1)
    for i, colour in enumerate([(200, 30, 30), (30, 160, 40), (30, 40, 190), (230, 210, 40)]):
        cv2.rectangle(photo, (10 + 12 * i, 182), (20 + 12 * i, 194), colour, -1)
    cv2.rectangle(photo, (180, 186), (250, 190), (0, 0, 0), -1)
    found = find_foreground(photo)
    assert found is not None
    assert np.abs(np.array(found.xyxy) - (90, 40, 171, 151)).max() <= 3


def test_sees_the_ground_through_a_harp() -> None:
    photo = backdrop()
    cv2.ellipse(photo, (130, 100), (70, 70), 0, 0, 360, (110, 70, 30), 14)
    found = find_foreground(photo)
    assert found is not None
    assert found.mask[100, 130] < 0.5 < found.mask[100, 60]


def test_counts_the_instruments_of_a_pair() -> None:
    photo = backdrop()
    cv2.circle(photo, (70, 100), 30, (90, 40, 20), -1)
    cv2.circle(photo, (190, 100), 30, (20, 40, 90), -1)
    found = find_foreground(photo)
    assert found is not None
    assert found.parts == 2


@pytest.mark.parametrize("kind", ["empty", "busy", "full"])
def test_says_none_where_there_is_nothing_to_cut(kind: str) -> None:
    photo = backdrop()
    if kind == "busy":
        photo = np.random.default_rng(1).integers(0, 255, photo.shape).astype(np.uint8)
    elif kind == "full":
        photo[2:-2, 2:-2] = (90, 40, 20)
    assert find_foreground(photo) is None


def test_tight_box_is_half_open() -> None:
    mask = np.zeros((10, 12))
    mask[3:5, 4:9] = 1
    assert tight_box(mask) == (4, 3, 9, 5)
    assert tight_box(np.zeros((4, 4))) is None


@pytest.mark.real
def test_finds_most_product_photos(real_fixture: object) -> None:
    """Three of four photos stand on a plain ground; the others must be left alone, not guessed."""
    from pathlib import Path

    from musicon.datasets.images import decode, find_images

    files = find_images(Path(str(real_fixture)) / "photos_kaggle30")[::15]
    found = [find_foreground(decode(file)) for file in files]
    share = np.mean([f is not None for f in found])
    assert 0.6 < share < 0.9
