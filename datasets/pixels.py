"""From whatever a picture file stores to upright 8-bit sRGB; ``images`` is the way in."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO = 0
_SEPARATE_PLANES = 2
_BITS_TAG, _PHOTOMETRIC_TAG, _PLANAR_TAG = 258, 262, 284
_MAX_SAMPLE_TAG, _S_MAX_SAMPLE_TAG = 281, 341
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")

_LOOKS_LIKE = (
    (b"\x89PNG", "a PNG picture whose header is damaged"),
    (b"\xff\xd8", "a JPEG picture whose header is damaged or cut short"),
    (b"GIF8", "a GIF picture whose header is damaged"),
    (b"BM", "a BMP picture whose header is damaged"),
    (b"%PDF", "a PDF document, not a picture; export its pages as JPEG or PNG"),
    (b"PK\x03\x04", "a ZIP archive, not a picture; unpack it first"),
    (b"8BPS", "a Photoshop document; export it as TIFF, PNG or JPEG"),
    (b"%!PS", "a PostScript drawing; export it as PNG"),
    (b"\xff\x0a", "a JPEG XL picture; convert it to JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture; convert it to JPEG or PNG"),
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself; run git lfs pull"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")


def what_it_is(head: bytes) -> str:
    """A reason for a file that no decoder knows, from its first bytes."""
    for magic in TIFF_MAGIC:
        if head.startswith(magic):
            return ("a TIFF picture that is damaged or of a kind that cannot be read; save it anew "
                    "as 8-bit RGB")
    for magic, words in _LOOKS_LIKE:
        if head.startswith(magic):
            return words
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIF_BRANDS:
            return "a HEIC picture; convert it to JPEG"
        if head[8:12] in (b"avif", b"avis"):
            return "an AVIF picture that is damaged or cannot be read here; convert it to JPEG"
        return "a film, not a picture"
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return "a web page (HTML), not a picture; the download probably failed"
    if b"<svg" in text:
        return "an SVG drawing; export it as PNG"
    if not head.strip(b"\0"):
        return "nothing but zero bytes; copy the file again"
    if text and all(32 <= byte < 127 or byte in (9, 10, 13) for byte in text):
        return "a text file, not a picture"
    return "not a picture that can be read"


def too_large(width: int, height: int, max_pixels: int) -> str:
    """The reason for refusing a picture of this size."""
    return (f"{width}x{height} pixels is more than the {max_pixels:,} decoded in one piece "
            "(a decompression bomb, or a scan to be tiled)")


def fitted(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(width, height) scaled to at most ``max_side``, never enlarged, never below 1."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def upright(array: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels (H, W[, C]) turned and mirrored as EXIF orientation 1 to 8 asks.

    EXIF 2.3, tag 0x0112: the number says where row 0 and column 0 of the stored pixels belong.
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def has_alpha(image: Image.Image) -> bool:
    """True where the file can hold transparent pixels."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def to_srgb(image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """A loaded picture as 8-bit sRGB on white.

    Args:
        image: Any mode that Pillow reads.
        size: (width, height) to shrink to, before the costly conversions; None keeps the size.
    """
    profile = image.info.get("icc_profile")
    alpha = None
    image = _eight_bit(image)
    if has_alpha(image):
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha, image = None, image.convert("RGB")
    elif image.mode in ("P", "1"):
        image = image.convert("RGB" if image.mode == "P" else "L")
    if size is not None and size != image.size:
        # Pillow weighs by alpha, so that the colours of invisible pixels do not bleed in.
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        alpha = None if alpha is None else image.getchannel("A")
    image = _colour_managed(image if alpha is None else image.convert("RGB"), profile)
    if alpha is not None:
        white = Image.new("RGB", image.size, (255, 255, 255))
        image = Image.composite(image, white, alpha)
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey scaled to 8 bits; every other mode as it is."""
    if image.mode not in (*_SIXTEEN_BIT, "I", "F"):
        return image
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.float64)
    grey = scaled(values, image.mode == "F", _maximum(tags))
    if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey)


def _maximum(tags: Mapping[int, Any]) -> float | None:
    """The largest value that a TIFF's tags allow, such as 4,095 for 12 bits; None for 65,535."""
    bits = tags.get(_BITS_TAG, (16,))[0]
    top = tags.get(_MAX_SAMPLE_TAG, tags.get(_S_MAX_SAMPLE_TAG,
                                             2 ** bits - 1 if bits < 16 else None))
    top = top[0] if isinstance(top, tuple) else top
    return None if top is None else float(top)


def scaled(values: NDArray[Any], is_float: bool, top: float | None = None) -> NDArray[np.uint8]:
    """Values of any range to 0..255.

    Integers: the full range is 65,535 (or ``top``, the file's own maximum; or, for larger
    values, their range). Floats: 0..1 or 0..255 where they lie in it, otherwise their range.
    What is not a number counts as the smallest value, infinity as the largest.
    """
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    full = (1.0, 255.0) if is_float else (top or 65535.0, 65535.0)
    for limit in full:
        if low >= 0 and high <= limit:
            return np.rint(values * (255.0 / limit)).astype(np.uint8)
    span = (high - low) or 1.0
    return np.rint((values - low) * (255.0 / span)).astype(np.uint8)


def _colour_managed(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB through the embedded profile; a profile that doesn't fit is passed over."""
    if image.mode == "LAB":
        transform = _lab_transform()
        return cast(Image.Image, ImageCms.applyTransform(image, transform))
    if image.mode == "YCbCr":
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        made = _transform(bytes(profile), image.mode)
        if made is not None:
            return cast(Image.Image, ImageCms.applyTransform(image, made))
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Embedded profile -> sRGB; None for sRGB itself and for a broken or foreign profile."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = (ImageCms.getProfileDescription(source) or "").lower()
        if mode == "RGB" and "srgb" in name:
            return None
        return ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"),
                                   ImageCms.createProfile("sRGB"), "LAB", "RGB")


def is_misread(image: Image.Image) -> bool:
    """True for TIFF with 16-bit colours in separate planes, which Pillow opens but garbles."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, (8,))
    return bool(tags.get(_PLANAR_TAG) == _SEPARATE_PLANES and len(bits) > 1 and max(bits) > 8)


def open_unusual_tiff(stream: BinaryIO, max_pixels: int) -> Image.Image | None:
    """First page of a TIFF that Pillow does not know (float or planar RGB), upright, or None.

    Needs the package ``tifffile``, which FiftyOne and scikit-image bring along; without it such
    files are refused.

    Raises:
        ValueError: More pixels than ``max_pixels``.
    """
    try:
        import tifffile
    except ImportError:
        return None
    # It logs every oddity of a broken file; the reject list says all that a person needs.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as file:
            page = file.pages[0]
            width, height = int(page.imagewidth), int(page.imagelength)
            orientation = int(page.tags.valueof(274, default=1))
            values = page.asarray() if width * height <= max_pixels else None
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError, OSError,
            AttributeError, RuntimeError, ImportError):
        return None
    if values is None:
        raise ValueError(too_large(width, height, max_pixels))
    if values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[2] not in (3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        return None
    if values.dtype != np.uint8:
        values = scaled(values[..., :3] if values.ndim == 3 else values,
                        bool(np.issubdtype(values.dtype, np.floating)))
    image = Image.fromarray(upright(values, orientation))
    image.format = "TIFF"
    return image
