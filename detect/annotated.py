"""The annotated pictures of a search: where they lie, and what each was drawn for."""

from __future__ import annotations

import hashlib
import io
import json
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from musicon.detect.detections import Detections
from musicon.detect.draw import draw_detections
from musicon.detect.progress import ProgressLog

if TYPE_CHECKING:
    from musicon.detect.inference import Listing

MIN_PICTURE_SIDE = 512
"""Pixels; annotated pictures of smaller images are enlarged, so that names can be read."""
JPEG_QUALITY = 90
JPEG_HEAD = 256
"""Bytes at a picture's beginning that hold its mark."""
JPEG_SUFFIXES = (".jpg", ".jpeg")
PART = ".part"
"""Suffix of a picture that is being written."""
MAX_NAME_BYTES = 255


class Pictures:
    """Names and writes the annotated pictures, which mirror the folders of the images.

    Each bears a mark of what it was drawn for, as another image's may have the same place.
    """

    def __init__(self, listing: Listing, folder: Path, key: Mapping[str, Any]) -> None:
        """``key`` is the model and the settings, as the progress log has them."""
        self.listing = listing
        self.folder = folder
        self.key = dict(key)

    def path(self, index: int) -> Path:
        """JPEG files keep their name; others get ``.jpg`` added, so that a.png and a.jpg differ."""
        file = self.listing.files[index]
        target = file
        if not file.lower().endswith(JPEG_SUFFIXES):
            target += ".jpg"
            while _holds(self.listing.files, target):
                target = target[:-4] + "~.jpg"
        relative = os.path.relpath(target, self.listing.root)
        parent, name = os.path.split(relative)
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            name = f"{name[:50]}~{index}.jpg"
        return self.folder / parent / name

    def write(self, index: int, image: NDArray[np.uint8], found: Detections,
              names: dict[int, str]) -> None:
        """Draw and save one picture, whole or not at all.

        Raises:
            OSError: No space, no permission; it names the picture.
        """
        drawn = draw_detections(image, found, names, min_side=MIN_PICTURE_SIDE)
        path = self.path(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        jpeg = io.BytesIO()
        Image.fromarray(drawn).save(jpeg, "JPEG", quality=JPEG_QUALITY, comment=self._mark(index))
        part = path.with_name(f".{index}{PART}")
        try:
            part.write_bytes(jpeg.getvalue())
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            error.filename = str(path)  # a failed write names no file
            raise

    def is_drawn(self, index: int) -> bool:
        """Whether the picture is there, drawn for this very image with this model and settings."""
        try:
            with open(self.path(index), "rb") as stream:
                return self._mark(index) in stream.read(JPEG_HEAD)
        except OSError:
            return False

    def foreign(self, log: ProgressLog) -> int:
        """Pictures in the folder that were not drawn for what the log holds."""
        there = sum(not name.endswith(PART) for _, _, names in os.walk(self.folder)
                    for name in names)
        if not there:
            return 0
        return there - sum(self.is_drawn(index) for index, row in log.rows()
                           if "reject" not in row)

    def _mark(self, index: int) -> bytes:
        image = [self.listing.files[index], *self.listing.stamps[index].tolist()]
        told = json.dumps([self.key, image], sort_keys=True).encode("ascii")
        return b"musicon " + hashlib.sha256(told).hexdigest().encode("ascii")


def _holds(files: Sequence[str], path: str) -> bool:
    place = bisect_left(files, path)
    return place < len(files) and files[place] == path
