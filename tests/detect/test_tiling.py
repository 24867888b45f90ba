"""Tiles cover the image, cut boxes go, and what several looks find is found once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finder import CATEGORIES, ColourFinder, ColourNamer, colour_detector, picture, settings
from hypothesis import given
from hypothesis import strategies as st

from musicon.datasets.boxes import iou
from musicon.datasets.records import UserError
from musicon.detect.fusion import Proposals
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.tiling import OVERLAP, Look, TestTime, joined, looks, spans


@given(length=st.integers(1, 5000), zoom=st.floats(1.01, 64))
def test_spans_cover_a_side_and_overlap(length: int, zoom: float) -> None:
    found = spans(length, zoom)
    tile = found[0][1] - found[0][0]
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(end - start == tile for start, end in found)
    assert tile >= length / zoom and tile <= length / zoom + 1
    for (_, end), (start, _) in zip(found, found[1:], strict=False):
        assert end - start >= OVERLAP * tile - 1


def test_looks_by_hand() -> None:
    # Tiles of 100: the second begins where it overlaps the first by 30 at least, three cover 200.
    assert spans(200, 2) == [(0, 100), (50, 150), (100, 200)]
    found = looks((200, 200), TestTime(flip=True, zooms=(2,)))
    assert len(found) == 2 * (1 + 9)
    assert found[0] == Look((0, 0, 200, 200), (200, 200))
    assert looks((200, 200), TestTime()) == found[:1]
    for zooms in ((1.0,), (2.0, 100.0)):
        with pytest.raises(UserError, match="above 1 and up to 64"):
            TestTime(zooms=zooms)


@given(seed=st.integers(0, 10_000), mirrored=st.booleans())
def test_boxes_are_placed_where_their_pixels_are(seed: int, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    look = Look((10, 5, 50, 35), (60, 40), mirrored)
    x0, y0 = rng.integers(0, 15, 2)
    x1, y1 = x0 + rng.integers(1, 15), y0 + rng.integers(1, 15)
    seen = look.cut(image)
    (box,) = look.place(np.array([[x0, y0, x1, y1]], np.float32), (40, 30)).astype(int)
    part = image[box[1]:box[3], box[0]:box[2]]
    np.testing.assert_array_equal(part[:, ::-1] if mirrored else part, seen[y0:y1, x0:x1])


def test_cut_boxes_are_those_at_edges_inside_the_image() -> None:
    boxes = np.array([[0, 20, 30, 40], [20, 20, 50, 40], [20, 20, 49, 40]], np.float32)
    assert Look((0, 0, 50, 60), (100, 60)).whole(boxes).tolist() == [True, False, True]
    assert Look((0, 0, 50, 60), (50, 60)).whole(boxes).all()


def test_the_better_of_two_duplicates_stays_and_other_names_do() -> None:
    one = Proposals(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.5]), torch.tensor([1]))
    two = Proposals(torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10]]), torch.tensor([0.8, 0.3]),
                    torch.tensor([1, 2]))
    look = Look((0, 0, 20, 20), (20, 20))
    both = joined([(look, one), (look, two)], 0.5, 10)
    assert both.labels.tolist() == [1, 2] and both.scores.tolist() == pytest.approx([0.8, 0.3])
    assert len(joined([(look, one), (look, two)], 0.5, 1)) == 1
    assert joined([(look, one)], 0.5, 10) is one


@pytest.mark.parametrize(("other", "score", "stays"), [
    ([38, 40, 150, 82], 0.6, False),  # goes on beyond the edge that the box ends close to
    ([38, 40, 150, 82], 0.4, True),  # is hardly seen
    ([38, 40, 90, 150], 0.6, True),  # goes on beyond another edge
    ([38, 20, 99, 90], 0.6, True),  # lies in the tile
    ([60, 40, 150, 82], 0.6, True),  # holds less than 80% of it
])
def test_a_part_of_what_a_tile_cuts_goes(other: list[int], score: float, stays: bool) -> None:
    tile = Look((0, 0, 100, 100), (200, 200))
    parts = [(Look((0, 0, 200, 200), (200, 200)), Proposals(
        torch.tensor([other]).float(), torch.tensor([score]), torch.tensor([1]))),
             (tile, Proposals(torch.tensor([[40.0, 42, 96, 80], [10, 10, 80, 20]]),
                              torch.tensor([0.9, 0.3]), torch.tensor([1, 1])))]
    assert tile.whole(parts[1][1].boxes.numpy()).all()
    found = joined(parts, 0.9, 10)
    assert (0.9 in found.scores.numpy().round(3)) is stays
    assert len(found) == 2 + stays


def test_an_image_of_one_column_has_a_mirror_image_too() -> None:
    look = Look((0, 0, 1, 4), (1, 4), mirrored=True)
    assert torch.from_numpy(look.cut(np.zeros((4, 1, 3), np.uint8))).shape == (4, 1, 3)


@pytest.mark.parametrize("flip", [False, True])
def test_every_instrument_is_found_once_whatever_the_seams(flip: bool) -> None:
    boxes = {"red": (560, 300, 700, 420), "green": (30, 40, 90, 100),
             "blue": (1100, 700, 1190, 790)}
    image = picture(1200, 800, **boxes)
    looking = ArtworkDetector(ColourNamer(), ColourFinder(), settings(), CATEGORIES, "cpu",
                              test_time=TestTime(flip, (2.0, 4.0)))
    (found,) = looking.predict([image])
    assert len(found) == 3
    for box in boxes.values():
        assert iou(np.array([box], np.float32), found.boxes).max() > 0.6
    (plain,) = colour_detector().predict([image])
    assert sorted(plain.labels) == sorted(found.labels)


class NearSighted(ColourFinder):
    """Sees nothing smaller than 12 pixels, as a network whose finest cells are large."""

    def _one(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        found = super()._one(image)
        sides = (found["boxes"][:, 2:] - found["boxes"][:, :2]).amin(1)
        return {key: value[sides >= 12] for key, value in found.items()}


def test_tiles_bring_back_what_is_too_small() -> None:
    image = picture(1200, 800, red=(560, 300, 600, 340))  # 4 pixels at the detector's 128

    def count(*zooms: float) -> int:
        looking = ArtworkDetector(ColourNamer(), NearSighted(), settings(), CATEGORIES, "cpu",
                                  test_time=TestTime(zooms=zooms))
        return len(looking.predict([image])[0])

    assert (count(), count(2), count(4)) == (0, 0, 1)
