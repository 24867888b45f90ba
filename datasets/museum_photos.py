"""Museum photos cut down to the instrument, so that nothing beside it is learnt.

Colour panels, rulers and inventory labels stand in nearly every photo of some museums; a network
takes them for a mark of what is photographed there. The photo is cropped to the instrument, and
what else stands on the plain ground inside the crop is painted over with the ground's colour.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from musicon.datasets.boxes import Xyxy
from musicon.datasets.contact_sheet import Cell, contact_sheet, grid
from musicon.datasets.files import to_json, write_atomic
from musicon.datasets.foreground import find_foreground
from musicon.datasets.images import ImageError, decode, decode_reduced
from musicon.datasets.loading import resize_longer

NOT_PLAIN = "no plain ground: kept whole, without a box"
SEVERAL = "several objects"
SMALL = "small: the instrument has fewer than 96 pixels"
CUT = "cut off: touches three edges of the photo or more"
FAULTS = (NOT_PLAIN, SEVERAL, SMALL, CUT)
MARGIN = 0.04
"""Of the instrument's longer side, kept around it."""
_SMALL = 96
_VERSION = 1
"""Of the cropping; another one crops anew what an earlier run has done."""
_SHEET_ROWS = 12
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Cropped:
    """A photo cut down.

    Attributes:
        image: uint8 RGB (h, w, 3), or None where the photo stays as it is.
        window: What of the photo it shows, in the photo's pixels.
        xyxy: The instrument's box in the crop; None where it wasn't found.
        parts: Large separate pieces.
        painted: Share of the crop that was painted over.
        faults: Of ``FAULTS``.
    """

    image: Picture | None
    window: Xyxy
    xyxy: Xyxy | None
    parts: int
    painted: float
    faults: tuple[str, ...]


def crop(photo: Picture, margin: float = MARGIN) -> Cropped:
    """Cut a photo (H, W, 3) down to its instrument."""
    height, width = photo.shape[:2]
    found = find_foreground(photo)
    if found is None:
        return Cropped(None, (0.0, 0.0, float(width), float(height)), None, 0, 0.0, (NOT_PLAIN,))
    x0, y0, x1, y1 = found.xyxy
    room = round(margin * max(x1 - x0, y1 - y0)) + 2
    left, top = max(0, int(x0) - room), max(0, int(y0) - room)
    right, bottom = min(width, int(x1) + room), min(height, int(y1) + room)
    view = np.s_[top:bottom, left:right]
    aside = found.aside[view]
    image = photo[view].copy()
    if aside.any():
        _paint_over(image, aside, (found.mask[view] < 0.1) & ~aside)
    edges = (x0 <= 1) + (y0 <= 1) + (x1 >= width - 1) + (y1 >= height - 1)
    faults = [word for word, is_so in (
        (SEVERAL, found.parts > 1), (SMALL, max(x1 - x0, y1 - y0) < _SMALL), (CUT, edges >= 3))
        if is_so]
    return Cropped(image, (float(left), float(top), float(right), float(bottom)),
                   (x0 - left, y0 - top, x1 - left, y1 - top), found.parts,
                   float(aside.mean()), tuple(faults))


def _paint_over(image: Picture, aside: NDArray[np.bool_], ground: NDArray[np.bool_]) -> None:
    """Fill what stands aside with a plane of colour fitted to the ground, and its noise."""
    around = cv2.dilate(aside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    ys, xs = np.nonzero(ground & ~around)
    if len(ys) < 50:
        return
    rng = np.random.default_rng(0)
    some = rng.choice(len(ys), min(len(ys), 5000), replace=False)
    height, width = image.shape[:2]

    def design(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.stack([np.ones(len(y)), y / height, x / width], 1)

    colours = image[ys[some], xs[some]].astype(np.float64)
    plane, *_ = np.linalg.lstsq(design(ys[some], xs[some]), colours, rcond=None)
    spread = np.median(np.abs(colours - design(ys[some], xs[some]) @ plane), axis=0)
    fill = around & (ground | aside)
    ys, xs = np.nonzero(fill)
    noise = rng.normal(0, 1, (len(ys), 1)) * spread
    image[ys, xs] = (design(ys, xs) @ plane + noise).round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Kept:
    """What became of one photo: the file to use, and a row of the quality report.

    Attributes:
        file: The crop, or the photo itself.
        label: Its class.
        width: Of the photo.
        height: Of the photo.
        window: As in ``Cropped``.
        xyxy: As in ``Cropped``.
        parts: As in ``Cropped``.
        painted: As in ``Cropped``.
        faults: As in ``Cropped``.
    """

    file: str
    label: str
    width: int
    height: int
    window: Xyxy
    xyxy: Xyxy | None
    parts: int
    painted: float
    faults: tuple[str, ...]


def crop_all(photos: Sequence[tuple[Path, str, str]], folder: Path,
             workers: int = 2) -> Iterator[Kept | ImageError]:
    """Crop photos into ``folder``, in their order; those done by an earlier run are kept.

    Args:
        photos: (file, its name below ``folder``, class name).
        folder: Gets a JPEG and a line of JSON a photo.
        workers: Threads.
    """
    def one(item: tuple[Path, str, str]) -> Kept | ImageError:
        try:
            return _crop_file(*item, folder)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, photos)


def _crop_file(file: Path, name: str, label: str, folder: Path) -> Kept:
    try:
        status = file.stat()
    except OSError as error:
        raise ImageError(file, f"cannot be read ({error.strerror or error})") from None
    key = f"{file} {status.st_size} {status.st_mtime_ns} {_VERSION}".encode()
    stem = Path(name).with_suffix("").as_posix() + f".{hashlib.sha256(key).hexdigest()[:12]}"
    target, row = folder / f"{stem}.jpg", folder / f"{stem}.json"
    try:
        told = json.loads(row.read_text(encoding="utf-8"))
        kept = Kept(**{**told, "label": label, "window": tuple(told["window"]),
                       "xyxy": told["xyxy"] and tuple(told["xyxy"]),
                       "faults": tuple(told["faults"])})
        if Path(kept.file).exists():
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    photo = decode(file)
    done = crop(photo)
    if done.image is not None:
        stream = io.BytesIO()
        Image.fromarray(done.image).save(stream, "JPEG", quality=95, subsampling=0)
        write_atomic(target, stream.getvalue())
    kept = Kept(str(target if done.image is not None else file), label, photo.shape[1],
                photo.shape[0], done.window, done.xyxy, done.parts, done.painted, done.faults)
    write_atomic(row, to_json(asdict(kept)))
    return kept


def quality_report(kept: Iterable[Kept]) -> str:
    """CSV, a row a class: photos, boxed ones, faults, and medians of size and share."""
    classes: dict[str, list[Kept]] = defaultdict(list)
    for row in kept:
        classes[row.label].append(row)
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["class", "photos", "boxed", "painted over",
                    *(fault.partition(":")[0] for fault in FAULTS),
                    "median pixels of the photo", "median share of the instrument's box"])
    for label, rows in sorted(classes.items()):
        shares = [(r.xyxy[2] - r.xyxy[0]) * (r.xyxy[3] - r.xyxy[1]) / (r.width * r.height)
                  for r in rows if r.xyxy is not None]
        table.writerow([
            label, len(rows), len(shares), sum(r.painted > 0.001 for r in rows),
            *(sum(fault in r.faults for r in rows) for fault in FAULTS),
            round(float(np.median([r.width * r.height for r in rows]))),
            f"{np.median(shares):.2f}" if shares else ""])
    return stream.getvalue()


def before_and_after(rows: Sequence[tuple[Path, Kept]], side: int = 150) -> bytes:
    """A PNG sheet of photos and what became of them, at most twelve rows of four; faults first.

    The photo shows in red what is cut out of it; the crop shows the box.
    """
    ordered = sorted(rows, key=lambda row: (not row[1].faults, -row[1].painted))
    cells = []
    for file, kept in ordered[:4 * _SHEET_ROWS]:
        photo, _ = decode_reduced(file, 4 * side)
        cells.append(Cell(_drawn(photo, kept.window, kept.width, (220, 30, 30), side), kept.label))
        after, (width, _) = decode_reduced(Path(kept.file), 4 * side)
        caption = ", ".join(fault.partition(":")[0] for fault in kept.faults)
        cells.append(Cell(_drawn(after, kept.xyxy, width, (30, 160, 60), side), caption))
    return contact_sheet(grid(cells, 8), "left: the photo, and in red what is cut out; "
                         "right: what is learnt from, and in green its box", side)


def _drawn(picture: Picture, box: Xyxy | None, width: int, colour: tuple[int, int, int],
           side: int) -> Picture:
    small = resize_longer(picture, side)
    if box is not None:
        zoom = small.shape[1] / width
        x0, y0, x1, y1 = (round(value * zoom) for value in box)
        cv2.rectangle(small, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
    return small
