"""Contact sheets: what a domain looks like, on one small JPEG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.atelier.works import Work, draw_work
from musicon.datasets.records import write_atomic

MAX_BYTES = 300_000
_ROW = 190
_WIDTH = 1280


def sheet(
    domain: str, seed: int = 0, rows: int = 4, first: int = 0, boxed: bool | None = None
) -> NDArray[np.uint8]:
    """Rows of works, justified to the same width.

    Args:
        domain: Which domain.
        seed: Which set.
        rows: Number of rows.
        first: Index of the first work.
        boxed: Draw the published boxes; by default where the domain has them.

    Returns:
        uint8 RGB, 1280 wide.
    """
    lines: list[NDArray[np.uint8]] = []
    index = first
    while len(lines) < rows:
        line: list[NDArray[np.uint8]] = []
        while sum(picture.shape[1] for picture in line) < _WIDTH:
            line.append(_thumb(draw_work(seed, domain, index), boxed))
            index += 1
        lines.append(_justified(line))
    return np.vstack(lines)


def _thumb(work: Work, boxed: bool | None) -> NDArray[np.uint8]:
    height, width = work.rgb.shape[:2]
    zoom = _ROW / height
    small = cv2.resize(work.rgb, (round(width * zoom), _ROW), interpolation=cv2.INTER_AREA)
    if boxed is not False:
        for _, box in work.boxes:
            x0, y0, x1, y1 = (round(v * zoom) for v in box)
            cv2.rectangle(small, (x0, y0), (x1, y1), (255, 255, 255), 3)
            cv2.rectangle(small, (x0, y0), (x1, y1), (200, 30, 30), 1)
    return small


def _justified(line: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = 6
    joined = np.hstack(
        [
            cv2.copyMakeBorder(p, 0, 0, 0, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255))
            for p in line
        ]
    )[:, :-gap]
    height = round(_ROW * _WIDTH / joined.shape[1])
    row = cv2.resize(joined, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(row, 0, gap, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def write(path: Path, domain: str, seed: int = 0) -> Path:
    """Write a domain's sheet as a JPEG below ``MAX_BYTES``."""
    picture = sheet(domain, seed)
    for quality in (88, 80, 70, 60, 45, 30):
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= MAX_BYTES:
            break
    write_atomic(path, data.tobytes())
    return path
