"""Near-duplicates: recall and precision on edits of real paintings, kind by kind.

Each painting is edited once in every way; originals and edits of one kind are then searched
together, as a data set with copies in it would be. A pair of an original and its own edit is right;
any other is wrong.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.command import DONE, DONE_WITH_REJECTS, SummaryTable, count, progress, share
from musicon.datasets.copies import Print, pairs, picture_print
from musicon.datasets.images import decode_reduced, find_images
from musicon.datasets.records import UserError

Picture = NDArray[np.uint8]
Edit = Callable[[Picture, np.random.Generator], Picture]


def resize(picture: Picture, scale: float) -> Picture:
    """Smaller or larger by a factor."""
    height, width = picture.shape[:2]
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def jpeg(picture: Picture, quality: int) -> Picture:
    """Compressed and read again."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def crop(picture: Picture, cut: float, rng: np.random.Generator) -> Picture:
    """A share of each side cut off, anywhere between its two ends."""
    height, width = picture.shape[:2]
    high, wide = round(height * (1 - cut)), round(width * (1 - cut))
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    return np.ascontiguousarray(picture[top:top + high, left:left + wide])


def frame(picture: Picture, thick: float, rng: np.random.Generator) -> Picture:
    """A coloured frame with a gold line around it, so thick a share of the longer side."""
    side = max(1, round(max(picture.shape[:2]) * thick))
    colour = [int(v) for v in rng.integers(20, 200, 3)]
    out = cv2.copyMakeBorder(picture, side, side, side, side, cv2.BORDER_CONSTANT, value=colour)
    low, (height, width) = side // 3, out.shape[:2]
    return np.asarray(cv2.rectangle(out, (low, low), (width - low, height - low), (220, 190, 90),
                                    max(2, side // 6)), np.uint8)


def recolour(picture: Picture, rng: np.random.Generator) -> Picture:
    """Another white balance, brightness and gamma."""
    values = picture * rng.uniform(0.6, 1.4, 3) + rng.uniform(-30, 30)
    return np.asarray(255 * (values.clip(0, 255) / 255) ** rng.uniform(0.6, 1.6), np.uint8)


def grey(picture: Picture) -> Picture:
    """Black and white."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
                      np.uint8)


def turn(picture: Picture, degrees: float) -> Picture:
    """Turned a little, as a hand-held photo is."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.08)
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height)), np.uint8)


EDITS: dict[str, Edit] = {
    "a quarter of the size": lambda p, rng: resize(p, 0.25),
    "JPEG at quality 25": lambda p, rng: jpeg(p, 25),
    "other colours": recolour,
    "black and white": lambda p, rng: grey(p),
    "mirrored": lambda p, rng: np.ascontiguousarray(p[:, ::-1]),
    "turned by 3 degrees": lambda p, rng: turn(p, 3),
    "10 % cut off": lambda p, rng: crop(p, 0.1, rng),
    "20 % cut off": lambda p, rng: crop(p, 0.2, rng),
    "35 % cut off": lambda p, rng: crop(p, 0.35, rng),
    "50 % cut off": lambda p, rng: crop(p, 0.5, rng),
    "frame of 5 %": lambda p, rng: frame(p, 0.05, rng),
    "frame of 12 %": lambda p, rng: frame(p, 0.12, rng),
    "15 % cut off, recoloured, half size, JPEG 40":
        lambda p, rng: jpeg(resize(recolour(crop(p, 0.15, rng), rng), 0.5), 40),
    "frame of 8 %, recoloured, half size":
        lambda p, rng: resize(recolour(frame(p, 0.08, rng), rng), 0.5),
    "mirrored, 15 % cut off":
        lambda p, rng: crop(np.ascontiguousarray(p[:, ::-1]), 0.15, rng),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py copies``."""
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="DIR|FILE|GLOB",
        help="paintings, no two alike")
    add("--limit", type=count, default=100, help="paintings edited (default: 100)")
    add("--seed", type=int, default=0, help="of the edits (default: 0)")
    add("--require", type=share, metavar="RECALL",
        help="exit with 1 where any kind has less, or any pair is wrong")
    add("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Edit, search, print a line a kind."""
    files = sorted({file for place in options.images for file in find_images(place)})
    files = files[::max(1, len(files) // options.limit)][:options.limit]
    if not files:
        raise UserError(f"{options.images[0]}: no pictures in it")
    pictures = [decode_reduced(file, 640)[0] for file in
                progress(files, len(files), "reading", options.quiet)]
    started = time.perf_counter()
    originals = [picture_print(picture) for picture in
                 progress(pictures, len(pictures), "looking", options.quiet)]
    each = (time.perf_counter() - started) / len(pictures)
    table = SummaryTable("edit", "found", "wrong pairs")
    bad = False
    wrong = wrong_pairs(originals, originals=len(originals))[1]
    table.add("(originals alone)", None, wrong)
    for name, edit in EDITS.items():
        rng = np.random.default_rng(options.seed)
        edited = [picture_print(edit(picture, rng)) for picture in
                  progress(pictures, len(pictures), name, options.quiet)]
        recall, false = wrong_pairs([*originals, *edited], originals=len(originals))
        table.add(name, round(recall, 3), false)
        bad = bad or (options.require is not None and (recall < options.require or false > 0))
    print(f"{table}\n{len(pictures)} paintings, {each * 1000:.0f} ms each to look at")
    return DONE_WITH_REJECTS if bad else DONE


def wrong_pairs(prints: list[Print], originals: int) -> tuple[float, int]:
    """Share of the edits found as copies of their original, and pairs of different pictures."""
    found = pairs(prints)
    right = sum(j == i + originals for i, j in found)
    return right / originals, sum(i % originals != j % originals for i, j in found)
