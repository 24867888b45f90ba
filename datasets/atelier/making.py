"""Drawing many works: over processes, resumable, the same bytes whatever the order.

Works are drawn in shards. A shard's notes (JSON, beside the images) are written when all its
images are, so a run that was cut off goes on with the first shard that lacks them; notes of
another seed or of another version of the drawing code don't count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from musicon.datasets.atelier.works import Work, draw_work
from musicon.datasets.boxes import xywh_to_xyxy, xyxy_to_xywh
from musicon.datasets.records import Box, ImageRecord, write_atomic
from musicon.datasets.sources.base import NOTES

QUALITY = 90
SHARD = 32


@dataclass(frozen=True)
class Order:
    """What is to be drawn: works 0 to ``size`` of one domain, below ``folder``."""

    domain: str
    seed: int
    size: int
    folder: Path

    @property
    def shards(self) -> int:
        """Number of shards, the last one perhaps not full."""
        return -(-self.size // SHARD)


def file_name(index: int) -> str:
    """Path of work ``index`` below the folder."""
    return f"{index // 1000:03d}/{index:06d}.jpg"


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Changes with the drawing code, so that works of different versions are never mixed."""
    digest = hashlib.sha256(f"{np.__version__} {cv2.__version__} {QUALITY}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def make(order: Order, workers: int) -> Iterator[list[ImageRecord]]:
    """Draw what is not there yet; yields the records of each shard, in order.

    Args:
        order: What to draw.
        workers: Processes; 1 draws in this one.
    """
    jobs = range(order.shards)
    if workers <= 1 or order.shards == 1:
        for number in jobs:
            yield _records(order, _shard(order, number))
        return
    # "spawn" works the same on every system and inherits no threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from (_records(order, rows) for rows in _in_order(pool, order, workers))


def _in_order(
    pool: ProcessPoolExecutor, order: Order, workers: int
) -> Iterator[list[dict[str, Any]]]:
    """Results in the order of the shards, a few shards ahead: memory stays the same at any size."""
    todo = iter(range(order.shards))
    running: dict[Future[list[dict[str, Any]]], int] = {}
    done: dict[int, list[dict[str, Any]]] = {}
    for turn in range(order.shards):
        while turn not in done:
            for number in islice(todo, max(0, workers * 3 - len(running) - len(done))):
                running[pool.submit(_shard, order, number)] = number
            for finished in wait(running, return_when=FIRST_COMPLETED).done:
                done[running.pop(finished)] = finished.result()
        yield done.pop(turn)


def _shard(order: Order, number: int) -> list[dict[str, Any]]:
    """Draw one shard, or take its notes where it is complete."""
    cv2.setNumThreads(1)
    first = number * SHARD
    wanted = range(first, min(first + SHARD, order.size))
    notes = order.folder / NOTES / f"{number:06d}.json"
    rows = _noted(notes, order)
    if [row["index"] for row in rows][: len(wanted)] == list(wanted) and all(
        (order.folder / file_name(index)).is_file() for index in wanted
    ):
        return rows[: len(wanted)]
    rows = [_draw(order, index) for index in wanted]
    write_atomic(notes, json.dumps({"key": _key(order), "works": rows}))
    return rows


def _key(order: Order) -> list[str | int]:
    return [order.domain, order.seed, fingerprint()]


def _noted(notes: Path, order: Order) -> list[dict[str, Any]]:
    try:
        document = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(document, dict) or document.get("key") != _key(order):
        return []
    works = document.get("works")
    return works if isinstance(works, list) else []


def _draw(order: Order, index: int) -> dict[str, Any]:
    work = draw_work(order.seed, order.domain, index)
    payload = encode(work)
    write_atomic(order.folder / file_name(index), payload)
    height, width = work.rgb.shape[:2]
    return {
        "index": index,
        "width": width,
        "height": height,
        "labels": list(work.labels),
        "split": work.split,
        "group": work.group,
        "attributes": work.attributes,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "boxes": [[label, *xyxy_to_xywh(box)] for label, box in work.boxes],
        "true_boxes": [[label, *xyxy_to_xywh(box)] for label, box in work.true_boxes],
    }


def encode(work: Work) -> bytes:
    """The work as a JPEG file."""
    _, data = cv2.imencode(".jpg", work.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def _records(order: Order, rows: list[dict[str, Any]]) -> list[ImageRecord]:
    return [_record(order, row) for row in rows]


def _record(order: Order, row: dict[str, Any]) -> ImageRecord:
    boxes = tuple(Box(xywh_to_xyxy(xywh), label, "human") for label, *xywh in row["boxes"])
    true_boxes = [{"category_id": label, "bbox": xywh} for label, *xywh in row["true_boxes"]]
    return ImageRecord(
        id=row["index"] + 1,
        file_name=file_name(row["index"]),
        width=row["width"],
        height=row["height"],
        boxes=boxes,
        labels=tuple(row["labels"]),
        split=row["split"],
        domain=order.domain,
        group=row["group"],
        attributes=row["attributes"],
        rights="CC0-1.0 (generated)",
        sha256=row["sha256"],
        extra={"true_boxes": true_boxes},
    )
