"""Box conversions: round trips, torchvision as the judge of overlap, worked values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_area, box_iou, clip_boxes_to_image

from musicon.datasets import boxes

SIDE = st.integers(1, 5000)
SHARE = st.floats(0, 1, allow_nan=False, width=32)


@st.composite
def placed(draw: st.DrawFn) -> tuple[tuple[float, float, float, float], int, int]:
    """A box of at least a hundredth of a pixel in an image."""
    width, height = draw(SIDE), draw(SIDE)
    x0, y0 = draw(SHARE) * (width - 0.01), draw(SHARE) * (height - 0.01)
    x1 = x0 + 0.01 + draw(SHARE) * (width - 0.01 - x0)
    y1 = y0 + 0.01 + draw(SHARE) * (height - 0.01 - y0)
    return (x0, y0, x1, y1), width, height


@given(placed())
def test_round_trips(case: tuple[tuple[float, float, float, float], int, int]) -> None:
    xyxy, width, height = case
    near = pytest.approx(xyxy, abs=1e-6, rel=1e-9)
    assert boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(xyxy)) == near
    assert boxes.voc_to_xyxy(boxes.xyxy_to_voc(xyxy)) == near
    relative = boxes.xyxy_to_relative_xywh(xyxy, width, height)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in relative)
    assert boxes.relative_xywh_to_xyxy(relative, width, height) == near
    yolo = boxes.xyxy_to_yolo(xyxy, width, height)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in yolo)
    assert boxes.yolo_to_xyxy(yolo, width, height) == near


def test_worked_values() -> None:
    # A box over pixel columns 10..19 and rows 20..49 of a 100 x 200 image.
    box = (10.0, 20.0, 20.0, 50.0)
    assert boxes.xyxy_to_xywh(box) == (10, 20, 10, 30)
    assert boxes.xyxy_to_voc(box) == (11, 21, 20, 50)  # VOC counts from 1 and includes the end
    assert boxes.xyxy_to_relative_xywh(box, 100, 200) == pytest.approx((0.1, 0.1, 0.1, 0.15))
    assert boxes.xyxy_to_yolo(box, 100, 200) == pytest.approx((0.15, 0.175, 0.1, 0.15))


CORNERS = st.tuples(*[st.floats(-50, 300, width=32)] * 4)
BOXES = st.lists(CORNERS.map(lambda c: (min(c[0], c[2]), min(c[1], c[3]),
                                        max(c[0], c[2]), max(c[1], c[3]))), max_size=6)


@given(BOXES, BOXES)
def test_area_and_iou_equal_torchvision(first: list[tuple[float, ...]],
                                        second: list[tuple[float, ...]]) -> None:
    a = torch.tensor(first, dtype=torch.float32).reshape(-1, 4)
    b = torch.tensor(second, dtype=torch.float32).reshape(-1, 4)
    assert boxes.area(first) == pytest.approx(box_area(a).numpy(), rel=1e-6)
    theirs = torch.nan_to_num(box_iou(a, b)).numpy()  # 0/0 of two empty boxes: ours says 0
    assert boxes.iou(first, second) == pytest.approx(theirs, abs=1e-6)
    assert boxes.iou(first, second).shape == (len(first), len(second))


@given(BOXES)
def test_clip_equals_torchvision(values: list[tuple[float, ...]]) -> None:
    theirs = clip_boxes_to_image(torch.tensor(values).reshape(-1, 4), (100, 200))
    assert np.array_equal(boxes.clip(values, 200, 100), theirs.numpy())


def test_empty_and_odd_shapes() -> None:
    assert boxes.as_boxes([]).shape == (0, 4)
    assert boxes.as_boxes([1, 2, 3, 4]).shape == (1, 4)
    assert boxes.iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert boxes.area([[5, 5, 1, 1]]) == [0]
    for bad in ([1, 2, 3], [[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7, 8]], np.zeros((4, 3))):
        with pytest.raises(ValueError, match="expected"):
            boxes.as_boxes(bad)


def test_functions_leave_their_arguments_alone() -> None:
    given_boxes = np.array([[-5, -5, 500, 500]], np.float32)
    boxes.clip(given_boxes, 10, 10)
    boxes.expand(given_boxes, 0.5, 10, 10)
    assert given_boxes.tolist() == [[-5, -5, 500, 500]]


def test_expand() -> None:
    assert boxes.expand([[40, 40, 60, 80]], 0.1, 100, 82).tolist() == [[38, 36, 62, 82]]


@given(placed(), st.integers(1, 8))
def test_orient_follows_the_pixels(case: tuple[tuple[float, float, float, float], int, int],
                                   orientation: int) -> None:
    """Area, and the distances to the four edges, are only dealt out anew."""
    (x0, y0, x1, y1), width, height = case
    (out,) = boxes.orient([(x0, y0, x1, y1)], width, height, orientation)
    w, h = (height, width) if orientation >= 5 else (width, height)
    assert (out[2] - out[0]) * (out[3] - out[1]) == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-6)
    assert sorted([out[0], out[1], w - out[2], h - out[3]]) == pytest.approx(
        sorted([x0, y0, width - x1, height - y1]), abs=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orient_equals_turning_a_mask(orientation: int) -> None:
    from musicon.datasets.pixels import upright

    mask = np.zeros((7, 11), np.uint8)
    mask[2:4, 5:10] = 1
    turned = upright(mask, orientation)
    ys, xs = np.nonzero(turned)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert boxes.orient([(5, 2, 10, 4)], 11, 7, orientation) == [expected]


def test_infinite_boxes_do_not_pass_for_numbers() -> None:
    assert math.isinf(boxes.area([[0, 0, math.inf, 1]])[0])


def test_well_known_text_points_up() -> None:
    # On a picture 200 pixels high, y 20 to 80 from below is 120 to 180 from above.
    wkt = "POLYGON ((40 20, 140 20, 140 60, 90 80, 40 60, 40 20))"
    assert boxes.wkt_to_xyxy(wkt, 200) == (40, 120, 140, 180)
    several = "MULTIPOLYGON (((1 1, 2 1, 2 2, 1 1)), ((-.5 1e1, 8 11, 8.25 30, -.5 10)))"
    assert boxes.wkt_to_xyxy(several, 40) == (-0.5, 10, 8.25, 39)
    assert boxes.xyxy_to_wkt((0, 0, 10, 5), 100) == "POLYGON ((0 95, 10 95, 10 100, 0 100, 0 95))"
    with pytest.raises(ValueError, match="'POLYGON EMPTY' is no outline"):
        boxes.wkt_to_xyxy("POLYGON EMPTY", 40)


@given(st.tuples(*[st.floats(0, 5000)] * 4), st.integers(1, 20_000))
def test_well_known_text_round_trip(values: tuple[float, ...], height: int) -> None:
    x0, x1 = sorted(values[:2])
    y0, y1 = sorted(values[2:])
    box = (x0, y0, x1, y1)
    assert boxes.wkt_to_xyxy(boxes.xyxy_to_wkt(box, height), height) == pytest.approx(box, abs=1e-4)
