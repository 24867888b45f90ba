"""A small picture whose corners tell whether it is upright and in its colours, and its files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

RED, GREEN, BLUE, WHITE = (250, 10, 10), (10, 250, 10), (10, 10, 250), (255, 255, 255)

# What a person sees: red top left, green top right, blue bottom left, white bottom right; wide.
UPRIGHT = np.zeros((16, 32, 3), np.uint8)
UPRIGHT[:8, :16], UPRIGHT[:8, 16:], UPRIGHT[8:, :16], UPRIGHT[8:, 16:] = RED, GREEN, BLUE, WHITE

# EXIF 2.3, tag 0x0112: how row 0 and column 0 of the stored pixels lie in the upright picture,
# so: what to do with the upright pixels to get the stored ones. By hand, corner by corner.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: UPRIGHT.transpose(1, 0, 2)[::-1],
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],
}


def corners(array: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Colours near the four corners, in reading order."""
    h, w = array.shape[:2]
    return [tuple(int(v) for v in array[y, x])
            for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def seen(array: NDArray[np.uint8], tolerance: int = 12) -> None:
    """The picture is upright and in its colours."""
    assert array.dtype == np.uint8 and array.flags.writeable and array.flags.c_contiguous
    for found, wanted in zip(corners(array), (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.abs(np.array(found) - wanted).max() <= tolerance, (found, wanted)


def save(tmp_path: Path, picture: Image.Image, kind: str, **options: object) -> Path:
    file = tmp_path / f"a.{kind.lower()}"
    picture.save(file, kind, **options)
    return file


def png16(width: int, height: int, rows: bytes, colour: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + name + data
                + struct.pack(">I", zlib.crc32(name + data)))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def wide_gamut() -> bytes:
    """A profile whose red is sRGB's green and the other way round: easy to tell from none."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = struct.unpack(">I", srgb[128:132])[0]
    tags = {srgb[132 + 12 * i:136 + 12 * i]: 132 + 12 * i for i in range(count)}
    out = bytearray(srgb)
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    out[red + 4:red + 12], out[green + 4:green + 12] = (srgb[green + 4:green + 12],
                                                        srgb[red + 4:red + 12])
    description = tags[b"desc"]
    at, size = struct.unpack(">II", srgb[description + 4:description + 12])
    body = bytes(out[at:at + size]).replace(b"s\0R\0G\0B", b"m\0i\0n\0e").replace(b"sRGB", b"mine")
    out[at:at + size] = body
    return bytes(out)
