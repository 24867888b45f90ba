"""One colour for each instrument, the same wherever it is drawn.

The first seven colours are Okabe and Ito's palette for all kinds of colour vision
(https://jfly.uni-koeln.de/color/); the others were chosen one by one to be as far as possible
from all before them, seen with normal, protanope and deuteranope eyes.
"""

from __future__ import annotations

import zlib

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

PALETTE: tuple[Colour, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
    (240, 228, 66), (30, 30, 255), (90, 255, 150), (30, 120, 255), (135, 45, 30), (75, 255, 255),
    (135, 30, 105), (90, 45, 180), (150, 165, 90), (150, 240, 195), (135, 150, 255),
    (150, 240, 105), (135, 45, 75), (180, 45, 15),
)
_OWN = ("lute", "violin", "harp", "trumpet", "flute", "drum", "organ", "guitar", "bagpipe",
        "cello", "piano", "tambourine", "mandolin", "recorder", "horn", "lyre", "viola da gamba",
        "harpsichord", "clarinet", "accordion")
"""The instruments most painted have a place of their own; any other falls on one by its name."""
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


def class_colour(name: str) -> Colour:
    """The colour of an instrument: a function of its name alone, in any case of letters."""
    key = name.strip().casefold()
    if key in _OWN:
        return PALETTE[_OWN.index(key)]
    return PALETTE[zlib.crc32(key.encode("utf-8", "replace")) % len(PALETTE)]


def hex_colour(colour: Colour) -> str:
    """``#rrggbb``, as web pages and FiftyOne write it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def contrast(first: Colour, second: Colour) -> float:
    """Contrast ratio of two colours, 1 (equal) to 21 (black on white), as WCAG 2.1 defines it."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def text_colour(plate: Colour) -> Colour:
    """Black or white, whichever is easier to read on ``plate``; the ratio is 4.5 at least."""
    return max(BLACK, WHITE, key=lambda text: contrast(text, plate))


def _luminance(colour: Colour) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
              for v in (channel / 255 for channel in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
