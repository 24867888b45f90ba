"""Further looks at an image when it is searched: mirrored, and tile by tile.

A detector sees every image at one size, so that what is small in a large scan is lost. Tiles that
overlap, each shown at that size, bring it back. A box that the edge of a tile cuts is left out:
the neighbour, or the look at the whole image, sees all of it. So is one that ends close to the edge
where another look's goes on beyond it. What several looks find is one instrument after the
suppression of duplicates.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from musicon.datasets.boxes import BoxArray, area, clip, intersection
from musicon.datasets.records import UserError
from musicon.detect.fusion import Proposals

OVERLAP = 0.3
"""Share of a tile's side that it has in common with the next one, at least."""
MOST_ZOOM = 64
CUT = 0.01
"""A box that ends within this share of a tile's side from an edge inside the image is cut."""
NEAR = 0.05
"""One that ends within this share may be a part of what the edge cuts."""
PART, PART_SCORE = 0.8, 0.5
"""It is, if so much of it lies in a box that another look sees beyond the edge, and that scores at
least so many times as high."""


@dataclass(frozen=True)
class TestTime:
    """Which looks join the one at the whole image.

    Attributes:
        flip: Each look also mirrored; the classifier's opinion is the mean of both.
        zooms: For each number z above 1, tiles whose sides are 1/z of the image's.
    """

    __test__ = False  # no test, whatever its name begins with

    flip: bool = False
    zooms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(not 1 < zoom <= MOST_ZOOM for zoom in self.zooms):
            raise UserError(f"zoom {', '.join(f'{zoom:g}' for zoom in self.zooms)}: write numbers "
                            f"above 1 and up to {MOST_ZOOM}, such as 2 or 2 4 8")

    def __str__(self) -> str:
        """``mirrored, zoom 2``; nothing where there are none."""
        return ", ".join(["mirrored"] * self.flip + [f"zoom {zoom:g}" for zoom in self.zooms])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that ``TestTime`` is made of."""
    parser.add_argument("--flip", action="store_true",
                        help="look at each image mirrored too: twice the time")
    parser.add_argument("--zoom", nargs="+", type=float, default=[], metavar="Z",
                        help="look at overlapping tiles too, 1/Z of the image's sides each, such "
                             "as 2, or 2 4 8 for large scans")


@dataclass(frozen=True)
class Look:
    """A part of an image, mirrored or not.

    Attributes:
        window: x0, y0, x1, y1 in whole pixels of the image.
        image_wh: Size of the image.
        mirrored: Left and right exchanged.
    """

    window: tuple[int, int, int, int]
    image_wh: tuple[int, int]
    mirrored: bool = False

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Its pixels (h, w, 3)."""
        x0, y0, x1, y1 = self.window
        part = image[y0:y1, x0:x1]
        return part[:, ::-1].copy() if self.mirrored else part

    def place(self, boxes: BoxArray, seen_wh: tuple[int, int]) -> BoxArray:
        """Boxes (N, 4) in pixels of the look as seen -> in those of the image."""
        x0, y0, x1, y1 = self.window
        scale = np.array([(x1 - x0) / seen_wh[0], (y1 - y0) / seen_wh[1]] * 2, np.float32)
        placed = np.asarray(boxes, np.float32) * scale
        if self.mirrored:
            placed[:, [0, 2]] = (x1 - x0) - placed[:, [2, 0]]
        return clip(placed + np.array([x0, y0, x0, y0], np.float32), *self.image_wh)

    def whole(self, boxes: BoxArray) -> NDArray[np.bool_]:
        """Which boxes (N, 4) of the image are not cut by an edge of the window inside it."""
        return np.asarray((self.gaps(boxes) > CUT).all(axis=1))

    def gaps(self, boxes: BoxArray) -> NDArray[np.float32]:
        """(N, 4): from each edge of the window inwards to boxes (N, 4) of the image.

        In shares of its longer side; below 0 where a box goes on beyond the edge, and infinite for
        edges of the image.
        """
        window = np.array(self.window, np.float32)
        found = (boxes - window) * [1, 1, -1, -1] / (window[2:] - window[:2]).max()
        found[:, window == [0, 0, *self.image_wh]] = np.inf
        return found.astype(np.float32)


def looks(image_wh: tuple[int, int], settings: TestTime) -> list[Look]:
    """All looks at an image, the whole one first."""
    width, height = image_wh
    windows = [(0, 0, width, height)]
    for zoom in settings.zooms:
        windows += [(x0, y0, x1, y1) for y0, y1 in spans(height, zoom)
                    for x0, x1 in spans(width, zoom)]
    return [Look(window, image_wh, mirrored) for window in dict.fromkeys(windows)
            for mirrored in ((False, True) if settings.flip else (False,))]


def spans(length: int, zoom: float) -> list[tuple[int, int]]:
    """Starts and ends of the tiles along a side: all equally long, the first and last at its ends.

    Args:
        length: Of the side in pixels.
        zoom: Side over tile, above 1.
    """
    tile = max(1, math.ceil(length / zoom))
    count = 1 if tile >= length else max(2, math.ceil((length - OVERLAP * tile)
                                                      / ((1 - OVERLAP) * tile)))
    starts = dict.fromkeys(round(start) for start in np.linspace(0, length - tile, count).tolist())
    return [(start, start + tile) for start in starts]


def joined(parts: Sequence[tuple[Look, Proposals]], nms_iou: float, most: int) -> Proposals:
    """What several looks at one image found: at most ``most`` boxes, no duplicates, best first."""
    if len(parts) == 1:
        return parts[0][1]
    everything = _stacked([found for _, found in parts])
    everything = _stacked([_without_parts(look, found, everything) for look, found in parts])
    boxes, scores, labels = everything.boxes, everything.scores, everything.labels
    keep = batched_nms(boxes, scores, labels, nms_iou)[:most]
    return Proposals(boxes[keep], scores[keep], labels[keep])


def _without_parts(look: Look, found: Proposals, everything: Proposals) -> Proposals:
    """A look's boxes without those that show a part of what its window cuts."""
    near = look.gaps(found.boxes.numpy()) <= NEAR
    beyond = look.gaps(everything.boxes.numpy()) < 0
    doubtful, others = np.flatnonzero(near.any(axis=1)), np.flatnonzero(beyond.any(axis=1))
    if not len(doubtful) or not len(others):
        return found
    boxes, whole = found.boxes[doubtful].numpy(), everything.boxes[others].numpy()
    inside = intersection(boxes, whole) >= PART * area(boxes)[:, None]
    strong = (everything.scores[others].numpy()
              >= PART_SCORE * found.scores[doubtful].numpy()[:, None])
    same_edge = (near[doubtful][:, None] & beyond[others][None]).any(axis=2)
    keep = torch.ones(len(found), dtype=torch.bool)
    keep[doubtful[(inside & strong & same_edge).any(axis=1)]] = False
    return Proposals(found.boxes[keep], found.scores[keep], found.labels[keep])


def _stacked(parts: Sequence[Proposals]) -> Proposals:
    scores: Tensor = torch.cat([part.scores for part in parts])
    return Proposals(torch.cat([part.boxes for part in parts]), scores,
                     torch.cat([part.labels for part in parts]))
