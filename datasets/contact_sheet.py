"""Many small pictures on one: rows and columns with words beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from musicon.datasets.loading import resize_longer

Picture = NDArray[np.uint8]
GAP = 6
LINE = 14
INK, PAPER = (34, 48, 60), (255, 255, 255)


@dataclass(frozen=True)
class Cell:
    """A picture (H, W, 3), or an empty place, and a line of words below it."""

    picture: Picture | None = None
    caption: str = ""


def contact_sheet(rows: Sequence[Sequence[Cell]], title: str = "", side: int = 150) -> bytes:
    """A PNG file: pictures fitted into squares of ``side`` pixels, captions cut to their width."""
    columns = max((len(row) for row in rows), default=1)
    caption = LINE if any(cell.caption for row in rows for cell in row) else 0
    top = GAP + (LINE + GAP if title else 0)
    height = top + len(rows) * (side + caption + GAP)
    width = max(GAP + columns * (side + GAP), GAP + 7 * len(title) + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(13))
    for number, row in enumerate(rows):
        y = top + number * (side + caption + GAP)
        for column, cell in enumerate(row):
            x = GAP + column * (side + GAP)
            if cell.picture is not None:
                small = resize_longer(cell.picture, side)
                h, w = small.shape[:2]
                sheet.paste(Image.fromarray(small), (x + (side - w) // 2, y + (side - h) // 2))
            draw.text((x, y + side), _cut(cell.caption, side, font), INK, font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def grid(cells: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    """Rows of so many cells."""
    return [cells[i:i + columns] for i in range(0, len(cells), columns)]


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
