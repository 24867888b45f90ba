"""Museum photo -> the instrument alone: mask, box and cut-out.

Museum and product photos stand on a plain ground. The ground's colour is modelled from the
image's border, everything connected to the border that looks like it is ground, and what is left
is the instrument. Small pieces at the edge (colour panels, scale bars, captions) are dropped. A
photo without a plain ground (an instrument in use, a room) is not guessed at: it has no foreground.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import Xyxy

WORKING_SIDE = 320
"""Longer side, in pixels, at which the ground is modelled."""


@dataclass(frozen=True)
class Foreground:
    """The instrument of a photo.

    Attributes:
        mask: float32 (H, W) in [0, 1], soft at the outline, in the pixels of the photo.
        xyxy: Tight box of the mask in pixels of the photo.
        parts: How many large separate pieces; more than one may be several instruments.
        aside: bool (H, W), what else stands out from the ground: panels, scales, captions, specks.
    """

    mask: NDArray[np.float32]
    xyxy: Xyxy
    parts: int
    aside: NDArray[np.bool_]


def find_foreground(image: NDArray[np.uint8], *, tolerance: float = 11.0,
                    plain_share: float = 0.62) -> Foreground | None:
    """Separate an instrument from a plain ground.

    Args:
        image: RGB (H, W, 3).
        tolerance: Colour distance (CIE Lab units) up to which a pixel still looks like ground;
            grown where the ground itself is uneven.
        plain_share: Share of the border that must look like ground.

    Returns:
        The foreground, or None when the ground is not plain or nothing (or nearly everything)
        stands out from it.
    """
    height, width = image.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    distance, spread, plain = _distance_to_ground(lab)
    if plain < plain_share:
        return None
    limit = tolerance + 2 * spread
    ground = _connected_to_border(distance < limit)
    ground |= _holes(distance, ground)
    instrument = _keep_large_pieces(~ground)
    share = float(instrument.mean())
    if not 0.01 <= share <= 0.9:
        return None
    parts = _count_parts(instrument)
    soft = cv2.GaussianBlur(instrument.astype(np.float32), (0, 0), 0.8)
    mask = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    box = tight_box(mask)
    if box is None:
        return None
    rest = cv2.dilate((~ground & ~instrument).astype(np.uint8), np.ones((3, 3), np.uint8))
    rest = cv2.resize(rest, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return Foreground(mask, box, parts, rest & (mask < 0.5))


def tight_box(mask: NDArray[np.floating], level: float = 0.5) -> Xyxy | None:
    """Smallest half-open box around the pixels of a mask (H, W) above ``level``; None if empty."""
    solid = mask > level
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    if not len(columns):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _distance_to_ground(lab: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
    """Colour distance (H, W) to the ground, its unevenness, and the plain share of the border.

    The ground is a plane fitted to each Lab channel over the border (light falls off across a
    backdrop), refitted without the pixels that lie far from it.
    """
    height, width = lab.shape[:2]
    rim = max(2, round(0.03 * min(height, width)))
    border = np.ones((height, width), bool)
    border[rim:-rim, rim:-rim] = False
    y, x = np.mgrid[0:height, 0:width]
    design = np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], -1).astype(np.float32)
    points, colours = design[border], lab[border]
    near = np.linalg.norm(colours - np.median(colours, axis=0), axis=1) < 20
    for _ in range(3):
        if near.sum() < 20:
            break
        plane, *_ = np.linalg.lstsq(points[near], colours[near], rcond=None)
        near = np.linalg.norm(colours - points @ plane, axis=1) < 12
    if near.sum() < 20:
        return np.zeros((height, width), np.float32), 0.0, 0.0
    distance = np.linalg.norm(lab - design @ plane, axis=-1).astype(np.float32)
    spread = float(np.percentile(distance[border][near], 90))
    return distance, min(spread, 8.0), float(near.mean())


def _connected_to_border(like_ground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask (H, W) that is connected to the image's border."""
    padded = np.pad(like_ground, 1, constant_values=True).astype(np.uint8)
    _, pieces = cv2.connectedComponents(padded, connectivity=4)
    return (pieces == pieces[0, 0])[1:-1, 1:-1] & like_ground


def _holes(distance: NDArray[np.float32], ground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Ground seen through the instrument: enclosed, and of nearly the ground's very colour.

    A white drum head on a white ground is enclosed as well; holes that would take more than 70 %
    of what is left are therefore kept as instrument.
    """
    enclosed = (distance < 3.5) & ~ground
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(enclosed.astype(np.uint8))
    large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= 12]
    holes = np.isin(pieces, large)
    return holes if holes.sum() < 0.7 * (~ground).sum() else np.zeros_like(holes)


def _keep_large_pieces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop specks, and small pieces that hug the edge (panels, scale bars, captions)."""
    height, width = mask.shape
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, pieces, stats, centres = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return np.zeros_like(mask)
    areas = stats[1:, cv2.CC_STAT_AREA]
    centrality = 1 - np.abs(centres[1:] / (width, height) - 0.5).max(axis=1)
    margin = np.minimum(centres[1:], (width, height) - centres[1:]) / (width, height)
    panel = np.array([_is_panel(row, edge.min(), width * height)
                      for row, edge in zip(stats[1:], margin, strict=True)])
    if panel.all():
        return np.zeros_like(mask)
    areas = np.where(panel, 0, areas)
    weight = areas * centrality**2
    kept = []
    for i, (x, y, w, h, area) in enumerate(stats[1:]):
        at_edge = x <= 1 or y <= 1 or x + w >= width - 1 or y + h >= height - 1
        aside = at_edge or margin[i].min() < 0.12
        if weight[i] == weight.max() or (
                not panel[i] and area >= (0.35 if aside else 0.06) * areas.max()):
            kept.append(i + 1)
    return np.isin(pieces, kept) & (closed > 0)


def _is_panel(stats: NDArray[np.int32], margin: float, pixels: int) -> bool:
    """A colour panel, a scale bar or a caption: a long strip along the edge, well filled."""
    w, h, area = (int(value) for value in stats[2:5])
    long, short = max(w, h), max(1, min(w, h))
    most, filled = (0.06, 0.8) if long < 5 * short else (0.1, 0.45)
    return bool(margin < 0.16 and long > 2.5 * short and area < most * pixels
                and area > filled * w * h)


def _count_parts(mask: NDArray[np.bool_]) -> int:
    """Pieces that hold at least a quarter of the largest one's pixels."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int((areas >= 0.25 * areas.max()).sum())
