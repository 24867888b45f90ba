"""Decoding that survives real files.

Every picture becomes uint8 RGB, upright, in sRGB, or an ``ImageError`` whose reason a
cataloguer understands. Safe to call from many threads.
"""

from __future__ import annotations

import glob
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from musicon.datasets import pixels
from musicon.datasets.files import Rejects
from musicon.datasets.records import UserError

MAX_PIXELS = 200_000_000
"""Pixels given back in one piece: 600 MB of RGB. A larger file is refused as a likely bomb."""
MAX_SCAN_PIXELS = 600_000_000
"""Pixels of a scan that is only wanted reduced: 2.4 GB while it is decoded."""
LARGE = 50_000_000
"""Pixels from which files are decoded one at a time, however many threads there are."""

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".jp2",
    ".j2k", ".jpx", ".avif", ".mpo", ".ppm", ".pgm", ".pnm"})
"""Suffixes of pictures that can be decoded (lower case)."""

FOREIGN_SUFFIXES = frozenset({
    ".heic", ".heif", ".psd", ".svg", ".eps", ".dng", ".cr2", ".nef", ".arw", ".jxl"})
"""Suffixes of pictures that cannot: found all the same, so that the reject list names them."""

_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "AVIF", "PPM")
_ORIENTATION_TAG = 0x0112
_HEAD = 1 << 16
_VERIFIED_SIDE = 1024
_SWAPPING = frozenset({5, 6, 7, 8})
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError,
           ArithmeticError, RuntimeError, EOFError, NotImplementedError)
"""What the decoders raise for broken files (struct.error is listed by ``_broken``)."""

_LEAN = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
"""Modes that are reduced without a larger copy: those that a scan may have."""


class _Lifted:
    """Context without Pillow's own bomb check, for any number of threads at once.

    That is a process-wide setting, which warns first and refuses later; ours is per call.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *fault: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_pillows_limit_lifted = _Lifted()
_large_lock = threading.Lock()
RgbArray = NDArray[np.uint8]


class ImageError(UserError):
    """A file that is not a usable picture.

    Attributes:
        path: The file.
        reason: What is wrong with it, without the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


@dataclass(frozen=True)
class ImageInfo:
    """What the header says.

    Attributes:
        width: Pixels of the upright image.
        height: Pixels of the upright image.
        format: ``JPEG``, ``PNG``, ``TIFF``, ...
        mode: Pillow's name of the stored pixels: ``RGB``, ``CMYK``, ``I;16``, ...
        orientation: EXIF orientation 1 to 8.
        frames: Frames or pages in the file; only the first is used.
        has_alpha: Some pixels may be transparent.
    """

    width: int
    height: int
    format: str
    mode: str
    orientation: int = 1
    frames: int = 1
    has_alpha: bool = False


def decode(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> RgbArray:
    """The picture as it is meant to be seen.

    EXIF orientation is applied, transparency laid on white, 16-bit and float values scaled,
    CMYK and embedded colour profiles converted to sRGB; of several frames the first is taken.

    Args:
        path: The file; its content decides what it is, not its suffix.
        max_pixels: Larger pictures are refused before they are decoded.

    Returns:
        uint8 array (H, W, 3), RGB, writable.

    Raises:
        ImageError: Missing, unreadable, truncated, no picture, or too large.
    """
    with _opened(path, max_pixels) as picture:
        return _finish(picture, None)


def decode_reduced(path: str | Path, max_side: int, *,
                   max_pixels: int = MAX_SCAN_PIXELS) -> tuple[RgbArray, tuple[int, int]]:
    """The picture at most ``max_side`` pixels long, fast; never enlarged.

    JPEG files are decoded at a half, a quarter or an eighth where that is enough. Large scans take
    turns, so that many threads need no more memory than one.

    Returns:
        uint8 array (h, w, 3) and (width, height) of the upright original.

    Raises:
        ImageError: As ``decode``.
        ValueError: ``max_side`` below 1.
    """
    if max_side < 1:
        raise ValueError(f"max_side is {max_side}; it must be at least 1")
    with _opened(path, max_pixels) as picture:
        wanted = pixels.fitted(picture.image.size, max_side)
        picture.image.draft(None, wanted)  # None keeps the colour mode
        return _finish(picture, wanted), picture.upright_size


def probe(path: str | Path, *, verify: bool = False,
          max_pixels: int = MAX_SCAN_PIXELS) -> ImageInfo:
    """Upright size and kind, from the header alone.

    Args:
        path: The file.
        verify: Decode the pixels too, so that damage is found.
        max_pixels: As in ``decode``.

    Raises:
        ImageError: As ``decode``.
    """
    with _opened(path, max_pixels) as picture:
        image = picture.image
        width, height = picture.upright_size
        info = ImageInfo(
            width=width, height=height, format=image.format or "", mode=image.mode,
            orientation=picture.orientation, frames=_frames(image),
            has_alpha=pixels.has_alpha(image))
        if verify:
            image.seek(0)
            _finish(picture, pixels.fitted(image.size, _VERIFIED_SIDE))
        return info


def find_images(path: str | Path, rejects: Rejects | None = None) -> list[Path]:
    """Pictures of a folder (and the folders in it), a file, or a pattern such as ``art/*.jpg``.

    A path that exists is taken as it is written, blanks and brackets included; only else is it
    read as a pattern (``**`` reaches into folders). A file named outright is returned whatever
    its suffix; elsewhere the suffix decides. Hidden files and folders are skipped; a folder
    linked into itself is walked once.

    Args:
        path: What to look for.
        rejects: Gets the folders that cannot be read; without it one of them is an error.

    Returns:
        Files, sorted; those in ``FOREIGN_SUFFIXES``, and pipes or devices that are called like
        pictures, included, as ``decode`` tells why not.

    Raises:
        ImageError: Nothing of that name, and nothing that matches it, or a folder that cannot be
            read and without which there is nothing.
    """
    place = Path(path).expanduser()
    unread: dict[Path, str] = {}
    if os.path.isdir(place):
        found = set(_walk(place, unread))
    elif os.path.exists(place):
        found = {place}
    else:
        found = _matches(place, unread)
    for folder, reason in sorted(unread.items()):
        if rejects is None or not found:
            raise ImageError(folder, reason)
        rejects.add(folder, reason)
    return sorted(found)


def existing_folder(path: str | Path) -> Path:
    """The folder that ``find_images`` searches: the longest part of a path that is a folder.

    It stands for itself in a pattern, brackets included: ``Lutes [new]/*.jpg``.
    """
    place = Path(path).expanduser()
    while not os.path.isdir(place) and place != place.parent:
        place = place.parent
    return place


def _matches(place: Path, unread: dict[Path, str]) -> set[Path]:
    """Pictures that match a pattern, in folders that match it too; ``unread`` as in ``_walk``."""
    folder = existing_folder(place)
    parts = place.relative_to(folder).parts
    start = glob.escape(str(folder))
    for depth in range(len(parts)):  # glob passes over folders that cannot be read
        for name in glob.glob(os.path.join(start, *parts[:depth], ""), recursive=True):
            try:
                os.scandir(name).close()
            except OSError as error:
                unread[Path(name)] = _os_reason(error)
    matches = [Path(match) for match in glob.glob(os.path.join(start, *parts), recursive=True)]
    if not matches and not unread:
        raise ImageError(place, "no such file or folder, and no file matches it as a pattern")
    found: set[Path] = set()
    for match in matches:
        if os.path.isdir(match):
            found.update(_walk(match, unread))
        elif _is_picture(match.name):
            found.add(match)
    return found


def _walk(folder: Path, unread: dict[Path, str]) -> Iterator[Path]:
    """Pictures below a folder; ``unread`` gets the folders that cannot be read."""
    def note(error: OSError) -> None:
        unread[Path(error.filename)] = _os_reason(error)

    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        yield from (Path(parent, name) for name in files if _is_picture(name))


def _is_picture(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (suffix in IMAGE_SUFFIXES or suffix in FOREIGN_SUFFIXES)


class _opened:
    """Context: the open picture, its orientation and upright size; faults become ImageError."""

    def __init__(self, path: str | Path, max_pixels: int) -> None:
        self.path = path
        self.max_pixels = max_pixels

    def __enter__(self) -> _opened:
        try:
            self.stream = _open(self.path)
        except OSError as error:
            raise ImageError(self.path, _os_reason(error)) from None
        try:
            self.image = _identify(self.path, self.stream, self.max_pixels)
            self.orientation = _orientation(self.image)
            width, height = self.image.size
            lean = self.image.mode in _LEAN
            limit = self.max_pixels if lean else min(self.max_pixels, MAX_PIXELS)
            if width * height > limit:
                raise ImageError(self.path, pixels.too_large(width, height, limit))
        except BaseException as error:
            self.stream.close()
            self._translate(error)
            raise
        self.upright_size = (height, width) if self.orientation in _SWAPPING else (width, height)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stream.close()
        if error is not None:
            self._translate(error)

    def _translate(self, error: BaseException) -> None:
        """Raise ImageError in place of what the decoders raise; let the rest pass."""
        if isinstance(error, ImageError):
            return
        if isinstance(error, MemoryError):
            raise ImageError(self.path, "not enough memory to decode it") from None
        if isinstance(error, UnidentifiedImageError) or _broken(error):
            raise ImageError(self.path, _damage(error)) from error


def _open(path: str | Path) -> BinaryIO:
    """The file's bytes. Anything else is refused: opening a pipe would wait for ever."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # where that fails, it says more
        raise ImageError(path, "a folder, not a picture")
    if not stat.S_ISREG(mode):
        raise ImageError(path, "a pipe, socket or device, not a picture; save it as a file")
    return open(path, "rb", buffering=_HEAD)


def _broken(error: BaseException) -> bool:
    import struct
    import zlib

    return isinstance(error, (*_BROKEN, struct.error, zlib.error))


def _damage(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in text.lower() or "broken data stream" in text or "decoder error" in text:
        return f"truncated or damaged picture ({text})"
    return f"damaged picture ({text})"


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        what = "folder" if os.path.isdir(error.filename) else "file"
        return f"no permission to read this {what}; change its permissions"
    return f"cannot be read ({error.strerror or error})"


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _identify(path: str | Path, stream: BinaryIO, max_pixels: int) -> Image.Image:
    """Open by content. Formats are limited: some of Pillow's start other programs."""
    head = stream.read(_HEAD)  # also fetches the header before the lock is taken
    if not head:
        raise ImageError(path, "empty file (0 bytes)")
    stream.seek(0)
    formats = _formats()
    try:
        with _pillows_limit_lifted:
            image = Image.open(stream, formats=formats)
        if not pixels.is_misread(image):
            return image
    except UnidentifiedImageError:
        pass
    unusual = None
    if head[:4] in pixels.TIFF_MAGIC:
        unusual = pixels.open_unusual_tiff(stream, min(max_pixels, MAX_PIXELS))  # read whole
    if unusual is None:
        raise ImageError(path, pixels.what_it_is(head))
    return unusual


def _orientation(image: Image.Image) -> int:
    """EXIF orientation still to be applied, 1 where none or nonsense; Pillow turns TIFF itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception as error:
        if not _broken(error):
            raise
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # a broken later frame does not matter: the first is used
        if not _broken(error):
            raise
        return 1


def _finish(picture: _opened, size: tuple[int, int] | None) -> RgbArray:
    image, orientation = picture.image, picture.orientation
    # A progressive JPEG is held whole while it is decoded, however small it is wanted.
    width, height = picture.upright_size if "progressive" in image.info else image.size
    with _large_lock if width * height > LARGE else nullcontext(), _pillows_limit_lifted:
        image.load()
        return pixels.upright(np.array(pixels.to_srgb(image, size)), orientation)
