"""What a bank looks like: each content beside its styled versions, boxes and styles drawn in."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.contact_sheet import Cell, contact_sheet
from musicon.datasets.files import write_atomic
from musicon.datasets.images import decode_reduced
from musicon.datasets.loading import resize_longer
from musicon.datasets.records import ImageRecord, Manifest
from musicon.styletransfer.bank_files import SCENES
from musicon.styletransfer.weights import StyleError

SIDE = 170
BOX = (255, 220, 0)


def show(bank: Path, out: Path, *, contents: Path | None = None, styles: Path | None = None,
         rows: int = 8, columns: int = 6) -> Path:
    """Write a contact sheet of a part of a bank.

    Args:
        bank: The bank.
        out: PNG file.
        contents: Manifest of the contents; with it the first column shows them as they were.
        styles: Folder of styles; with it each picture has its style in a corner.
        rows: Contents at most, spread over the bank.
        columns: Styles of each at most.

    Raises:
        StyleError: Nothing in it.
    """
    manifest = Manifest.read(bank)
    by_content: dict[str, dict[str, ImageRecord]] = {}
    for record in manifest.images:
        name = record.attributes.get("content")
        if name is not None:
            by_content.setdefault(name, {})[record.attributes.get("style", "")] = record
    if not by_content:
        raise StyleError(f"{bank}: no styled picture in it; make a bank with: python "
                         "tools/build_bank.py make")
    names = list(by_content)
    names = [names[int(i)] for i in np.linspace(0, len(names) - 1, min(rows, len(names)))]
    plain: dict[str, NDArray[np.uint8]] = {}
    for place in (contents, bank / SCENES) if contents is not None else ():
        if place == contents or place.is_dir():
            plain |= _plain(Manifest.read(place), {name.split("/", 1)[-1] for name in names})
    looks: dict[str, Path] = {}
    if styles is not None:
        found = Manifest.read(styles)
        looks = {str(record.extra.get("style")): found.path(record) for record in found.images}
    sheet = []
    for name in names:
        row = [Cell(plain.get(name.split("/", 1)[-1]), Path(name).name)] if plain else []
        for style, record in sorted(by_content[name].items())[:columns]:
            picture = _picture(manifest.path(record), record)
            if style in looks:
                picture = _with_style(picture, _picture(looks[style]))
            row.append(Cell(picture, style))
        sheet.append(row)
    method = manifest.info.get("method", {}).get("method", "")
    write_atomic(out, contact_sheet(sheet, f"{bank.resolve().name}: {len(manifest):,} pictures of "
                                           f"{len(by_content):,} contents, {method}", SIDE))
    return out


def _plain(manifest: Manifest, wanted: Container[str]) -> dict[str, NDArray[np.uint8]]:
    return {record.file_name: _picture(manifest.path(record), record)
            for record in manifest.images if record.file_name in wanted}


def _picture(path: Path, record: ImageRecord | None = None) -> NDArray[np.uint8]:
    """The picture with its boxes, reduced."""
    image, (width, _) = decode_reduced(path, 2 * SIDE)
    scale = image.shape[1] / width
    image = image.copy()
    for box in record.boxes if record is not None else ():
        x0, y0, x1, y1 = (round(v * scale) for v in box.xyxy)
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), BOX, 2)
    return image


def _with_style(picture: NDArray[np.uint8], style: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with its style, framed, in the lower left corner."""
    small = resize_longer(style, max(picture.shape) // 3)
    framed = cv2.copyMakeBorder(small, 2, 0, 0, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    height, width = min(len(framed), len(picture)), min(framed.shape[1], picture.shape[1])
    picture[-height:, :width] = framed[-height:, :width]
    return picture
