"""The only box conversions.

Inside musicon a box is float32 (x0, y0, x1, y1) in absolute pixels of the upright original,
half-open: x1 - x0 is the width. Every other convention lives here, at the edge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Xyxy = tuple[float, float, float, float]
BoxArray = NDArray[np.float32]
BOX_SLACK = 1.0
"""Pixels by which a box may stick out of its image (rounding in the tools that drew it)."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def xywh_to_xyxy(xywh: Sequence[float]) -> Xyxy:
    """COCO's (x, y, width, height) in pixels -> (x0, y0, x1, y1)."""
    x, y, w, h = (float(v) for v in xywh)
    return x, y, x + w, y + h


def xyxy_to_xywh(xyxy: Sequence[float]) -> Xyxy:
    """(x0, y0, x1, y1) -> COCO's (x, y, width, height) in pixels."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    return x0, y0, x1 - x0, y1 - y0


def relative_xywh_to_xyxy(xywh: Sequence[float], width: int, height: int) -> Xyxy:
    """FiftyOne's (left, top, width, height) in shares of the image -> pixels."""
    x, y, w, h = (float(v) for v in xywh)
    return x * width, y * height, (x + w) * width, (y + h) * height


def xyxy_to_relative_xywh(xyxy: Sequence[float], width: int, height: int) -> Xyxy:
    """Pixels -> FiftyOne's (left, top, width, height) in shares of the image."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    return x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height


def yolo_to_xyxy(cxcywh: Sequence[float], width: int, height: int) -> Xyxy:
    """YOLO's (centre x, centre y, width, height) in shares of the image -> pixels."""
    cx, cy, w, h = (float(v) for v in cxcywh)
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height


def xyxy_to_yolo(xyxy: Sequence[float], width: int, height: int) -> Xyxy:
    """Pixels -> YOLO's (centre x, centre y, width, height) in shares of the image."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    return (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height


def voc_to_xyxy(corners: Sequence[float]) -> Xyxy:
    """Pascal VOC's 1-based, closed (xmin, ymin, xmax, ymax) -> 0-based, half-open pixels."""
    x0, y0, x1, y1 = (float(v) for v in corners)
    return x0 - 1, y0 - 1, x1, y1


def xyxy_to_voc(xyxy: Sequence[float]) -> Xyxy:
    """0-based, half-open pixels -> Pascal VOC's 1-based, closed (xmin, ymin, xmax, ymax)."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    return x0 + 1, y0 + 1, x1, y1


def wkt_to_xyxy(wkt: str, height: float) -> Xyxy:
    """The tight box of an outline in well-known text, whose y axis points up, as Cytomine's does.

    Args:
        wkt: ``POLYGON ((x y, ...))`` or any other kind with pairs of x and y.
        height: Pixels of the image that the outline is drawn on.

    Raises:
        ValueError: No coordinates in it.
    """
    pairs = re.findall(rf"({_NUMBER})\s+({_NUMBER})", wkt)
    if not pairs:
        raise ValueError(f"{wkt[:60]!r} is no outline in well-known text")
    xs, ys = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    return min(xs), height - max(ys), max(xs), height - min(ys)


def xyxy_to_wkt(xyxy: Sequence[float], height: float) -> str:
    """A box -> a closed polygon in well-known text, y pointing up from the image's lower edge."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    low, high = height - y1, height - y0
    corners = ((x0, low), (x1, low), (x1, high), (x0, high), (x0, low))
    return f"POLYGON (({', '.join(f'{x:.10g} {y:.10g}' for x, y in corners)}))"


def orient(boxes: Sequence[Xyxy], width: int, height: int, orientation: int) -> list[Xyxy]:
    """Boxes drawn on stored pixels -> boxes on the upright picture.

    Args:
        boxes: In pixels of the picture as stored.
        width: Of the picture as stored.
        height: Of the picture as stored.
        orientation: EXIF orientation 1 to 8.
    """
    out = []
    for x0, y0, x1, y1 in boxes:
        w, h = width, height
        if orientation in (5, 6, 7, 8):
            x0, y0, x1, y1, w, h = y0, x0, y1, x1, h, w
        if orientation in (2, 3, 6, 7):
            x0, x1 = w - x1, w - x0
        if orientation in (3, 4, 7, 8):
            y0, y1 = h - y1, h - y0
        out.append((x0, y0, x1, y1))
    return out


def box_fault(xyxy: Sequence[float], width: int, height: int) -> str | None:
    """What is wrong with a box in an image of this size, or None.

    A box may stick out by ``BOX_SLACK`` pixels; sources clip before they build records.
    """
    x0, y0, x1, y1 = xyxy
    if not all(math.isfinite(v) for v in xyxy):
        return f"box {list(xyxy)} has a value that is not a number"
    if x1 <= x0 or y1 <= y0:
        return f"box of {x1 - x0:g}x{y1 - y0:g} pixels is empty or reversed"
    if x0 < -BOX_SLACK or y0 < -BOX_SLACK or x1 > width + BOX_SLACK or y1 > height + BOX_SLACK:
        return f"box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] lies outside the {width}x{height} image"
    return None


def as_boxes(values: object) -> BoxArray:
    """Any sequence of four-number boxes -> float32 array of shape (N, 4); N may be 0.

    Raises:
        ValueError: Neither empty, nor one box of shape (4,), nor boxes of shape (N, 4).
    """
    boxes = np.asarray(values, dtype=np.float32)
    if boxes.size and (boxes.ndim not in (1, 2) or boxes.shape[-1] != 4
                       or boxes.ndim == 1 and boxes.size != 4):
        raise ValueError(f"boxes of shape {boxes.shape}; expected (N, 4)")
    return boxes.reshape(-1, 4)


def clip(boxes: object, width: int, height: int) -> BoxArray:
    """Boxes (N, 4) cut to the image; one that lay outside ends with no area."""
    out = as_boxes(boxes).copy()
    out[:, 0::2] = out[:, 0::2].clip(0, width)
    out[:, 1::2] = out[:, 1::2].clip(0, height)
    return out


def area(boxes: object) -> NDArray[np.float32]:
    """Pixels covered by each of (N, 4) boxes, shape (N,); reversed boxes count as 0."""
    b = as_boxes(boxes)
    return (b[:, 2] - b[:, 0]).clip(0) * (b[:, 3] - b[:, 1]).clip(0)


def intersection(first: object, second: object) -> NDArray[np.float32]:
    """Pixels shared by each pair of (N, 4) and (M, 4) boxes, shape (N, M)."""
    a, b = as_boxes(first)[:, None], as_boxes(second)[None]
    side = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return side.clip(0).prod(axis=-1)


def iou(first: object, second: object) -> NDArray[np.float32]:
    """Intersection over union of each pair of (N, 4) and (M, 4) boxes, shape (N, M)."""
    shared = intersection(first, second)
    union = area(first)[:, None] + area(second)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def expand(boxes: object, share: float, width: int, height: int) -> BoxArray:
    """Boxes (N, 4) grown on each side by ``share`` of their side, then clipped."""
    b = as_boxes(boxes)
    margin = np.tile((b[:, 2:] - b[:, :2]) * share, 2) * np.array([-1, -1, 1, 1], np.float32)
    return clip(b + margin, width, height)
