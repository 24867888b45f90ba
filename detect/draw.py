"""Boxes and names on a picture, readable at any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from musicon.datasets.boxes import as_boxes, clip
from musicon.detect.colours import Colour, class_colour, text_colour
from musicon.detect.detections import Detections
from musicon.detect.hierarchy import in_words

Picture = NDArray[np.uint8]
Rect = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels, half-open."""

LINE_SHARE = 1 / 230
"""Width of a box's line, as a share of the picture's mean side."""
FONT_SHARE = 1 / 34
"""Height of the letters, as a share of the picture's mean side."""
MIN_FONT = 9
"""Pixels; smaller letters cannot be read."""


def draw_detections(image: Picture, detections: Detections, names: Mapping[int, str], *,
                    colours: Mapping[str, Colour] | None = None, min_side: int = 0) -> Picture:
    """Draw what was found in an image, each box in its likeliest instrument's colour.

    A name that is not sure is a question behind the family, "plucked lutes, guitar? 41%", and left
    out where it is of another family.

    Args:
        image: uint8 RGB (H, W, 3); may be a smaller or larger copy of the one searched.
        detections: Boxes; they are scaled from ``detections.image_wh`` to this image.
        names: Category id -> instrument.
        colours: Instrument -> colour, where it is not to be ``class_colour``'s.
        min_side: A picture whose longer side is shorter than this is enlarged first, so that
            there is room for letters.

    Returns:
        uint8 RGB: a new picture.
    """
    canvas = enlarge(image, min_side)
    scale = np.array([canvas.shape[1] / detections.image_wh[0],
                      canvas.shape[0] / detections.image_wh[1]] * 2, np.float32)
    guesses = [names[int(label)] for label in detections.labels]
    said = guesses if detections.sure is None else [
        in_words(guess, sure) for guess, sure in zip(guesses, detections.sure, strict=True)]
    return draw_boxes(canvas, detections.boxes * scale, said, detections.scores.tolist(),
                      colours=_paints(guesses, colours))


def draw_boxes(image: Picture, boxes: object, names: Sequence[str],
               scores: Sequence[float] | None = None, *,
               colours: Mapping[str, Colour] | Sequence[Colour] | None = None) -> Picture:
    """Draw boxes with their names (and scores, in per cent) on a copy of an image.

    Labels stay inside the image and off each other where there is room.

    Args:
        image: uint8 RGB (H, W, 3).
        boxes: (N, 4), xyxy pixels of this image; the first is the most important.
        names: N texts; a box without name and score gets no label.
        scores: N numbers in [0, 1].
        colours: Name -> colour, or one colour a box; ``class_colour`` where not given.
    """
    canvas = np.array(image, copy=True)
    height, width = canvas.shape[:2]
    rects = [_whole(box, width, height) for box in clip(as_boxes(boxes), width, height)]
    paint = _paints(names, colours)
    mean_side = (height * width) ** 0.5
    line = max(1, round(mean_side * LINE_SHARE))
    for rect, colour in reversed(list(zip(rects, paint, strict=True))):
        _frame(canvas, rect, line, colour)
    size = max(MIN_FONT, round(mean_side * FONT_SHARE))
    taken: list[Rect] = []
    for index, (rect, name, colour) in enumerate(zip(rects, names, paint, strict=True)):
        text = name if scores is None else f"{name} {scores[index]:.0%}"
        plate = _plate(text, size, colour, width, height)
        if plate is None:
            continue
        spot = _place(plate.shape[1], plate.shape[0], rect, taken, rects, width, height)
        canvas[spot[1]:spot[3], spot[0]:spot[2]] = plate
        taken.append(spot)
    return canvas


def enlarge(image: Picture, min_side: int) -> Picture:
    """The image, enlarged to a longer side of ``min_side`` pixels if it is smaller."""
    height, width = image.shape[:2]
    scale = min_side / max(height, width)
    if scale <= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _paints(names: Sequence[str],
            colours: Mapping[str, Colour] | Sequence[Colour] | None) -> list[Colour]:
    if colours is None or isinstance(colours, Mapping):
        chosen = colours or {}
        return [chosen[name] if name in chosen else class_colour(name) for name in names]
    return list(colours)


def _whole(box: NDArray[np.float32], width: int, height: int) -> Rect:
    """A box in whole pixels, at least one wide and high, inside the image."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return x0, y0, min(width, max(x1, x0 + 1)), min(height, max(y1, y0 + 1))


def _frame(canvas: Picture, rect: Rect, line: int, colour: Colour) -> None:
    """A frame just inside a box: its line, edged black or white to show on any ground."""
    edge = max(1, line // 3)
    x0, y0, x1, y1 = rect
    if min(x1 - x0, y1 - y0) > 4 * (line + 2 * edge):
        _ring(canvas, rect, line + 2 * edge, text_colour(colour))
        rect = (x0 + edge, y0 + edge, x1 - edge, y1 - edge)
    _ring(canvas, rect, line, colour)


def _ring(canvas: Picture, rect: Rect, line: int, colour: Colour) -> None:
    x0, y0, x1, y1 = rect
    line = max(1, min(line, (x1 - x0) // 4, (y1 - y0) // 4))
    canvas[y0:y0 + line, x0:x1] = colour
    canvas[y1 - line:y1, x0:x1] = colour
    canvas[y0:y1, x0:x0 + line] = colour
    canvas[y0:y1, x1 - line:x1] = colour


def _plate(text: str, size: int, colour: Colour, width: int, height: int) -> Picture | None:
    """The text on a plate of its colour, no larger than the image.

    None where there is no text, or no room. Letters shrink to ``MIN_FONT`` before the text is cut
    short with an ellipsis.
    """
    text = " ".join(text.split())
    if not text:
        return None
    for smaller in range(size, MIN_FONT - 1, -1):
        if _text_wh(text, smaller)[0] <= width:
            size = smaller
            break
    else:
        size = MIN_FONT
        while len(text) > 1 and _text_wh(text, size)[0] > width:
            text = text[:-2].rstrip("… ") + "…"
    plate_w, plate_h = _text_wh(text, size)
    if plate_w > width or plate_h > height:
        return None
    picture = Image.new("RGB", (plate_w, plate_h), colour)
    pad = _padding(size)
    ImageDraw.Draw(picture).text((pad, plate_h // 2), text, text_colour(colour), _font(size),
                                 anchor="lm")
    return np.asarray(picture, np.uint8)


def _padding(size: int) -> int:
    return max(2, size // 4)


def _text_wh(text: str, size: int) -> tuple[int, int]:
    """Size of a plate around the text: letters, room above and below, padding."""
    font = _font(size)
    return round(font.getlength(text)) + 2 * _padding(size), round(size * 1.35) + 2


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans (Latin, Greek, Cyrillic, Arabic, ...), which comes with matplotlib."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _place(plate_w: int, plate_h: int, rect: Rect, taken: Sequence[Rect], rects: Sequence[Rect],
           width: int, height: int) -> Rect:
    """Where a label goes: the first spot that covers no other label, else the least bad."""
    best: tuple[float, Rect] | None = None
    for rank, (x, y) in enumerate(_spots(plate_w, plate_h, rect)):
        x, y = min(max(x, 0), width - plate_w), min(max(y, 0), height - plate_h)
        spot = (x, y, x + plate_w, y + plate_h)
        covered = sum(_shared(spot, other) for other in taken) / (plate_w * plate_h)
        hidden = sum(_shared(spot, other) / max(1, (other[2] - other[0]) * (other[3] - other[1]))
                     for other in rects)
        cost = 100 * covered + hidden + 0.01 * rank
        if best is None or cost < best[0]:
            best = cost, spot
    if best is None:
        raise ValueError("no spot for a label")
    return best[1]


def _spots(plate_w: int, plate_h: int, rect: Rect) -> Iterator[tuple[int, int]]:
    """Corners to try for a label, best first: above, inside the top, below, then further off."""
    x0, y0, x1, y1 = rect
    for x in (x0, x1 - plate_w):
        yield x, y0 - plate_h
        yield x, y0
        yield x, y1
        yield x, y1 - plate_h
    for step in range(1, 9):
        for x in (x0, x1 - plate_w, (x0 + x1 - plate_w) // 2):
            yield x, y0 + step * plate_h
            yield x, y0 - (step + 1) * plate_h
            yield x, y1 + step * plate_h
    for y in (y0, y1 - plate_h):
        yield x1, y
        yield x0 - plate_w, y


def _shared(first: Rect, second: Rect) -> int:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, across) * max(0, down)
