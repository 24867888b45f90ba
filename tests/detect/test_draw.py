"""Drawing: labels inside, apart and legible at any size; colours that can be told apart."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from musicon.detect.colours import (
    PALETTE,
    class_colour,
    contrast,
    hex_colour,
    text_colour,
)
from musicon.detect.detections import Detections
from musicon.detect.draw import _place, draw_boxes, draw_detections, enlarge
from musicon.detect.hierarchy import SureName, in_words

GREY = 128
# Viénot-type simulation matrices on linear RGB: Machado, Oliveira and Fernandes 2009, severity 1.
PROTANOPE = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
             [-0.003882, -0.048116, 1.051998]]
DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]]


def ground(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (before != after).any(axis=2)


@pytest.mark.parametrize("size", [(64, 48), (224, 224), (1600, 1200), (10_000, 7000), (90, 1000)])
def test_the_line_lies_along_the_box_and_scales_with_the_picture(size: tuple[int, int]) -> None:
    width, height = size
    image = ground(width, height)
    x0, y0, x1, y1 = (round(v) for v in (0.2 * width, 0.3 * height, 0.8 * width, 0.9 * height))
    drawn = draw_boxes(image, [[x0, y0, x1, y1]], ["lute"], [0.9])
    assert drawn.shape == image.shape and (image == GREY).all()
    marks = changed(image, drawn)
    assert marks[y1 - 1, x0:x1].all() and marks[y0:y1, x1 - 1].all()
    assert not marks[(y0 + y1) // 2, (x0 + x1) // 2]
    line = int(marks[int(0.75 * height), x0:(x0 + x1) // 2].sum())
    mean_side = (width * height) ** 0.5
    assert 1 <= line <= max(4, mean_side / 80)
    assert line >= mean_side / 400
    assert not marks[:, x1:][y1:].any()  # nothing beyond the lower right corner


@given(width=st.integers(1, 400), height=st.integers(1, 400), count=st.integers(0, 12),
       seed=st.integers(0, 1000))
def test_any_boxes_on_any_picture(width: int, height: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-0.2, 1.2, (count, 4)) * [width, height, width, height]
    names = [["lute", "viola da gamba", "flûte à bec", "Große Trommel"][i % 4]
             for i in range(count)]
    drawn = draw_boxes(ground(width, height), boxes, names, rng.uniform(0, 1, count).tolist())
    assert drawn.shape == (height, width, 3) and drawn.dtype == np.uint8


def test_labels_keep_off_each_other_where_there_is_room() -> None:
    rects = [(50, 50, 200, 150), (52, 52, 198, 149), (55, 50, 205, 152), (50, 55, 201, 155),
             (51, 51, 199, 151), (53, 50, 202, 150)]
    taken: list[tuple[int, int, int, int]] = []
    for rect in rects:
        taken.append(_place(90, 22, rect, taken, rects, 600, 400))
    for first, second in itertools.combinations(taken, 2):
        across = min(first[2], second[2]) - max(first[0], second[0])
        down = min(first[3], second[3]) - max(first[1], second[1])
        assert across <= 0 or down <= 0


@pytest.mark.parametrize("name", ["", "  "])
def test_a_box_without_a_name_has_no_label(name: str) -> None:
    box = [20, 30, 180, 130]
    marks = changed(ground(200, 150), draw_boxes(ground(200, 150), [box], [name]))
    marks[30:130, 20:180] = False
    assert not marks.any()
    inner = changed(ground(200, 150), draw_boxes(ground(200, 150), [box], [name]))[40:120, 30:170]
    assert not inner.any()


def test_a_label_goes_to_a_free_spot_inside() -> None:
    taken = [(0, 0, 100, 20)]
    spot = _place(80, 20, (0, 10, 120, 90), taken, [(0, 10, 120, 90)], 200, 100)
    assert spot[0] >= 0 and spot[1] >= 0 and spot[2] <= 200 and spot[3] <= 100
    assert spot[1] >= 20 or spot[0] >= 100


def test_a_box_in_the_corner_keeps_its_label_inside() -> None:
    image = ground(300, 200)
    drawn = draw_boxes(image, [[280, 0, 300, 12]], ["viola da gamba"], [0.5])
    plate = (drawn == class_colour("viola da gamba")).all(axis=2)
    rows, columns = np.nonzero(plate)
    assert columns.max() < 300 and columns.min() < 240  # the text is wider than the box
    assert rows.max() - rows.min() > 8


def test_detections_are_scaled_to_the_picture_drawn_on() -> None:
    one = np.ones(1, np.float32)
    found = Detections(np.array([[100, 200, 300, 400]], np.float32), one * 0.5,
                       np.array([7]), one, one, (1000, 500))
    small = draw_detections(ground(200, 100), found, {7: "drum"}, colours={"drum": (255, 0, 255)})
    rows, columns = np.nonzero((small == (255, 0, 255)).all(axis=2))
    assert rows.max() <= 80 and abs(int(columns.min()) - 20) <= 2
    grown = draw_detections(ground(200, 100), found, {7: "drum"}, min_side=800)
    assert grown.shape == (400, 800, 3)
    empty = draw_detections(ground(20, 10), Detections.empty((40, 20)), {})
    assert (empty == GREY).all()


def test_a_name_that_is_not_sure_is_a_question_behind_its_family() -> None:
    scores, boxes = np.array([0.9, 0.41], np.float32), [[20, 60, 200, 140], [220, 60, 380, 140]]
    found = Detections(np.array(boxes, np.float32), scores, np.array([2, 1]), scores, scores,
                       (400, 200), (SureName("lute", "leaf"), SureName("plucked lutes", "family")))
    drawn = draw_detections(ground(400, 200), found, {1: "guitar", 2: "lute"})
    said = draw_boxes(ground(400, 200), boxes, ["lute", "plucked lutes, guitar?"], [0.9, 0.41],
                      colours=[class_colour("lute"), class_colour("guitar")])
    assert (drawn == said).all()


@pytest.mark.parametrize(("guess", "sure", "said"), [
    ("guitar", SureName("guitar", "leaf"), "guitar"),
    ("guitar", SureName("plucked lutes", "family"), "plucked lutes, guitar?"),
    ("harp", SureName("plucked lutes", "family"), "plucked lutes"),
    ("harp", SureName("musical instrument", "instrument"), "musical instrument, harp?"),
])
def test_no_guess_contradicts_the_family(guess: str, sure: SureName, said: str) -> None:
    assert in_words(guess, sure) == said


def test_enlarge_keeps_large_pictures() -> None:
    image = ground(700, 20)
    assert enlarge(image, 512) is image
    assert enlarge(ground(1, 1), 512).shape == (512, 512, 3)
    assert enlarge(ground(1, 300), 600).shape == (600, 2, 3)


def test_names_beyond_latin_are_drawn() -> None:
    texts = ["Große Trommel", "скрипка", "λύρα", "flûte"]
    plates = [draw_boxes(ground(300, 100), [[10, 40, 290, 90]], [text], colours=[(255, 255, 0)])
              for text in texts]
    for first, second in itertools.combinations(plates, 2):
        assert (first != second).any()  # missing letters would all be the same empty square


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_text_can_be_read_on_any_plate(colour: tuple[int, int, int]) -> None:
    assert contrast(text_colour(colour), colour) >= 4.5


def test_contrast_by_hand() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((10, 200, 30), (10, 200, 30)) == 1
    # The WCAG's best-known example: #767676 on white just reaches 4.5.
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.01)


def _as_seen(matrix: object) -> NDArray[np.float32]:
    """CIELAB of the palette through a simulated eye."""
    rgb = np.array(PALETTE, np.float32) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(matrix).T, 0, 1)
    back = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab: NDArray[np.float32] = cv2.cvtColor(back[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    return lab


@pytest.mark.parametrize("eye", [np.eye(3), PROTANOPE, DEUTERANOPE])
def test_the_palette_can_be_told_apart_by_every_eye(eye: object) -> None:
    lab = _as_seen(eye)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(len(lab))
    assert apart.min() > 15  # a difference of 2.3 is just noticeable


def test_colours_are_stable_and_own() -> None:
    common = ["lute", "violin", "harp", "trumpet", "flute", "drum", "organ", "guitar", "bagpipe"]
    assert len({class_colour(name) for name in common}) == len(common)
    assert class_colour(" Lute") == class_colour("lute") == (0, 114, 178)
    assert class_colour("nyckelharpa") == class_colour("nyckelharpa")
    assert class_colour("nyckelharpa") in PALETTE
    assert hex_colour((0, 114, 178)) == "#0072b2"
