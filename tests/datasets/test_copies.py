"""Copies told from other pictures, however cropped, framed, recoloured or mirrored."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from musicon.datasets.copies import file_prints, groups, pairs, picture_print, same
from musicon.datasets.images import ImageError

Picture = NDArray[np.uint8]


def picture(seed: int) -> Picture:
    """Blobs of colour with edges: something to find features in."""
    noise = np.random.default_rng(seed).uniform(0, 255, (18, 24, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def framed(image: Picture) -> Picture:
    return np.asarray(cv2.copyMakeBorder(image, 40, 40, 40, 40, cv2.BORDER_CONSTANT,
                                         value=(90, 60, 20)), np.uint8)


EDITS = {
    "cropped": lambda p: p[40:200, 90:300],
    "framed": framed,
    "recoloured": lambda p: (p * (0.7, 0.9, 0.6) + 30).astype(np.uint8),
    "mirrored and cropped": lambda p: p[20:220, ::-1][:, 40:],
    "small": lambda p: cv2.resize(p, (160, 120), interpolation=cv2.INTER_AREA),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_found_among_others(name: str) -> None:
    originals = [picture(seed) for seed in range(6)]
    edited = np.ascontiguousarray(EDITS[name](originals[3]))
    prints = [picture_print(p) for p in [*originals, edited]]
    assert pairs(prints) == [(3, 6)]


def test_a_picture_on_a_wall_is_found() -> None:
    wall = np.asarray(cv2.GaussianBlur(picture(9), (0, 0), 2)[:, ::-1] // 3, np.uint8).copy()
    wall[60:180, 80:240] = cv2.resize(picture(3), (160, 120), interpolation=cv2.INTER_AREA)
    assert pairs([picture_print(picture(3)), picture_print(wall)]) == [(0, 1)]


def test_repeated_patterns_are_not_one_picture() -> None:
    tiles = np.kron(np.indices((12, 16)).sum(0) % 2, np.ones((20, 20))).astype(np.uint8) * 255
    board = np.repeat(tiles[..., None], 3, axis=2)
    print_of = picture_print(board)
    assert not same(print_of, picture_print(picture(1)))


def violin(width: int, angle: float = 0.0, seed: int = 0) -> Picture:
    """A product photo on white: the frets are alike on all of them, body and grain are not."""
    rng = np.random.default_rng(seed)
    photo = np.full((300, 200, 3), 255, np.uint8)
    cv2.ellipse(photo, (100, 200), (width, 80), 0, 0, 360, (160, 90, 40), -1)
    cv2.rectangle(photo, (93, 20), (107, 160), (40, 25, 20), -1)
    for x, y in rng.integers((60, 150), (140, 260), (60, 2)):  # the wood's own grain
        cv2.circle(photo, (int(x), int(y)), 2, tuple(int(v) for v in rng.integers(0, 255, 3)), -1)
    for y in range(30, 150, 12):  # frets, alike on all of them
        cv2.rectangle(photo, (94, y), (105, y + 3 + y % 5), (230, 230 - y, 190), -1)
    turn = cv2.getRotationMatrix2D((100, 150), angle, 0.8)
    return np.asarray(cv2.warpAffine(photo, turn, (200, 300), borderValue=(255, 255, 255)),
                      np.uint8)


def test_two_instruments_of_a_kind_are_not_one_picture() -> None:
    first, other, turned = (picture_print(p) for p in (
        violin(50, seed=1), violin(85, seed=2), violin(50, angle=40, seed=3)))
    assert pairs([first, other]) == [] and not same(first, turned)
    assert pairs([first, picture_print(violin(50, angle=3, seed=1))]) == [(0, 1)]


def test_few_or_flat_pictures() -> None:
    flat = [picture_print(np.full((50, 60, 3), v, np.uint8)) for v in (0, 128)]
    assert pairs([]) == [] and pairs(flat[:1]) == [] and pairs(flat) == []


def test_unreadable_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (found,) = file_prints([tmp_path / "a.jpg"])
    assert isinstance(found, ImageError)


def test_groups_join_chains() -> None:
    assert groups(6, [(4, 5), (1, 4), (2, 3)]) == [0, 1, 2, 2, 1, 1]
    assert groups(0, []) == []
