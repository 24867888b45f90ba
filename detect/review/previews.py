"""JPEG copies of the pictures that a browser cannot show: TIFF and JPEG 2000, vast scans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from musicon.datasets.command import progress
from musicon.datasets.images import ImageError, decode_reduced

SHOWN_BY_BROWSERS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"})
MAX_PIXELS = 50_000_000
"""Larger pictures make a browser slow or are refused by it."""
MAX_SIDE = 2560


def make_previews(images: Iterable[tuple[Path, int, int]], folder: Path,
                  quiet: bool = True) -> dict[Path, Path]:
    """Write a preview of each picture that needs one and has none yet.

    Args:
        images: Absolute path, width and height of each picture.
        folder: Where previews are kept, for all reviews.
        quiet: No progress bar.

    Returns:
        Picture -> preview, for those that have one. A picture that cannot be decoded has none:
        the App says so in its place.
    """
    needed = [path for path, width, height in images
              if path.suffix.lower() not in SHOWN_BY_BROWSERS or width * height > MAX_PIXELS]
    previews = {}
    for path in progress(needed, desc="previews", quiet=quiet):
        key = f"{path}:{path.stat().st_mtime_ns}"
        preview = folder / f"{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:24]}.jpg"
        if not preview.exists():
            try:
                pixels, _ = decode_reduced(path, MAX_SIDE)
            except ImageError:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            part = preview.with_suffix(".part")
            Image.fromarray(pixels).save(part, format="JPEG", quality=88)
            part.replace(preview)
        previews[path] = preview
    return previews
