"""Inference over a folder: any number of images in constant memory, resumable after kill -9.

Threads decode ahead of the model and draw behind it; the model itself runs in the calling
thread. A batch is finished when its pictures are written and its rows are on the disk.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets.command import progress
from musicon.datasets.files import Rejects
from musicon.datasets.images import ImageError, decode_reduced, existing_folder, find_images
from musicon.datasets.loading import shrink
from musicon.datasets.records import Category, UserError
from musicon.detect.annotated import Pictures
from musicon.detect.detections import Detections, rescale
from musicon.detect.outputs import (
    ANNOTATED,
    DETECTIONS_NAME,
    REJECTS_NAME,
    TABLE_NAME,
    detection_row,
    reject_row,
    write_outputs,
)
from musicon.detect.pipeline import WORKING_SIDE, ArtworkDetector
from musicon.detect.progress import FOLDER, RUN_NAME, ProgressLog, Row
from musicon.detect.summary import InferenceSummary
from musicon.detect.tasks.models import TaskModel
from musicon.detect.tiling import TestTime

PROBE_BYTES = 100_000
"""Written to see whether a disk has room at all."""
BIG_FILE = 25_000_000
"""Bytes; files above are decoded one at a time, as each may need hundreds of megabytes."""


@dataclass(frozen=True)
class Listing:
    """The images to search.

    Attributes:
        root: Folder whose layout ``annotated/`` mirrors; every file is under it.
        files: Absolute paths, sorted, each once.
        stamps: int64 (N, 2): bytes and modification time in ns; -1 where the file has gone.
        left_out: Pictures of earlier results found among the images.
    """

    root: str
    files: list[str]
    stamps: NDArray[np.int64]
    left_out: int = 0


@dataclass(frozen=True)
class InferenceOptions:
    """How to run; see ``tools/infer.py`` for what each means."""

    threshold: float | None = None
    batch_size: int = 8
    workers: int = 2
    annotated: bool = True
    quiet: bool = False
    attributes: Sequence[TaskModel] = ()


@dataclass(frozen=True)
class NoDetector:
    """Finds nothing: takes the place of ``ArtworkDetector`` where only attributes are wanted."""

    categories: tuple[Category, ...] = ()
    threshold = 0.0
    precision = "32"
    test_time = TestTime()
    working_side = WORKING_SIDE
    names: dict[int, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """No model."""
        return "none"

    def predict(self, images: Sequence[NDArray[np.uint8]],
                threshold: float | None = None, at_once: int | None = None) -> list[Detections]:
        """No box in any image."""
        return [Detections.empty((image.shape[1], image.shape[0])) for image in images]


@dataclass(frozen=True)
class _Decoded:
    """One image ready for the model, or the reason why not."""

    index: int
    image: NDArray[np.uint8] | None
    image_wh: tuple[int, int]
    reason: str = ""

    @property
    def pixels(self) -> int:
        """How many are held in memory."""
        return 0 if self.image is None else self.image.shape[0] * self.image.shape[1]


def check_out(out: Path) -> None:
    """Refuse a results' folder that cannot be written to, before anything takes time.

    Nothing is left there.

    Raises:
        UserError: Something else has the place of a file or folder of the results.
        OSError: No permission, no space.
    """
    for folder in (out, out / FOLDER, out / ANNOTATED):
        there = next(place for place in (folder, *folder.absolute().parents)
                     if os.path.lexists(place))
        if not there.is_dir():
            raise UserError(f"{there}: not a folder, but results are to go there; move it, or give "
                            "another folder with --out")
        try:
            with tempfile.TemporaryFile(dir=there) as probe:
                probe.write(bytes(PROBE_BYTES))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            error.filename = str(folder)
            raise
    for name in (DETECTIONS_NAME, TABLE_NAME, REJECTS_NAME):
        if (out / name).is_dir():
            raise UserError(f"{out / name}: a folder, where a file of the results is to go; move "
                            "it, or give another folder with --out")


def list_images(places: Sequence[str], out: Path, limit: int | None = None) -> Listing:
    """Find the images of folders, files and patterns; each file counts once.

    Pictures that an earlier inference wrote (``annotated/`` beside its progress) are left out.
    Folders that cannot be read stand among the files, so that they are rejected like one.

    Raises:
        UserError: Nothing there, or the results would overwrite images.
    """
    found: set[str] = set()
    unread = Rejects()
    for place in places:
        found.update(os.path.abspath(path) for path in find_images(place, unread))
    found.update(os.path.abspath(folder) for folder, _ in unread.rows)
    ours: dict[str, bool] = {}
    files = sorted(path for path in found if not _is_result(os.path.dirname(path), ours))
    if not files:
        raise UserError(f"no images in {', '.join(places)}; give a folder, a file or a pattern "
                        "such as 'paintings/**/*.jpg' with --images")
    root = os.path.commonpath([os.path.abspath(existing_folder(place)) for place in places])
    pictures = os.path.realpath(out / ANNOTATED) + os.sep
    if any(os.path.realpath(path).startswith(pictures) for path in files):
        raise UserError(f"{out / ANNOTATED} holds images to search, which results would "
                        "overwrite; give another folder with --out")
    left_out = len(found) - len(files)
    files = files[:limit]
    stamps = np.array([_stamp(path) for path in files], np.int64).reshape(-1, 2)
    return Listing(root, files, stamps, left_out)


def run_inference(detector: ArtworkDetector | NoDetector, listing: Listing, out: Path,
                  options: InferenceOptions) -> InferenceSummary:
    """Search every image and write the results' folder.

    Results already there are kept if model and settings are the same: only images that are new,
    changed, or without an annotated picture drawn for them are searched.

    Raises:
        UserError: No image could be read (``rejects.jsonl`` is written), another run writes
            here, or the model fails.
        OSError: No space, no permission.
    """
    threshold = detector.threshold if options.threshold is None else options.threshold
    key = {"model": detector.fingerprint(), "threshold": threshold,
           "precision": detector.precision, "looks": repr(detector.test_time), "format": 3}
    if options.attributes:
        key["attributes"] = {model.kind.name: model.fingerprint for model in options.attributes}
    with ProgressLog(out, listing.files, listing.stamps, key) as log:
        pictures = Pictures(listing, out / ANNOTATED, key)
        drawn = pictures if options.annotated else None
        pending = _pending(log, drawn)
        started = time.perf_counter()
        _search(detector, log, pending, drawn, threshold, options)
        seconds = time.perf_counter() - started
        info = {"description": "Musical instruments found by musicon",
                "model": key["model"], "threshold": threshold}
        counts = write_outputs(log, detector.categories, info,
                               [model.kind.name for model in options.attributes])
        if not counts.images:
            reason = counts.reasons.most_common(1)[0][0]
            raise UserError(f"none of the {counts.rejected} files could be read (the most common "
                            f"reason: {reason}); all are listed in {out / REJECTS_NAME}")
        unread = {index for index, row in log.rows() if "reject" in row}
        return InferenceSummary(counts, len(set(pending) - unread), seconds,
                                len(listing.files) - len(pending), listing.left_out,
                                log.started_anew, log.take_over(listing.root),
                                pictures.foreign(log), out, options.annotated)


def _pending(log: ProgressLog, pictures: Pictures | None) -> list[int]:
    """Indices still to search.

    An image whose picture is missing, or was drawn for another, counts as not done. Files that
    could not be read are tried again once all others are done, not before: they would change
    which images share a batch.
    """
    rejected = []
    for index, row in log.rows():
        if "reject" in row:
            rejected.append(index)
        elif pictures is not None and not pictures.is_drawn(index):
            log.forget(index)
    return [index for index in range(len(log.files)) if not log.is_done(index)] or rejected


def _search(detector: ArtworkDetector | NoDetector, log: ProgressLog, pending: Sequence[int],
            pictures: Pictures | None, threshold: float, options: InferenceOptions) -> None:
    """Decode, predict, draw, log: batches of ``pending`` in order, so that a rerun makes the same.

    One batch is drawn while the next is searched; the log takes them in order.
    """
    pool = ThreadPoolExecutor(options.workers, thread_name_prefix="images")
    # No more threads than can decode at once: each keeps some of the memory that it has used.
    decoders = ThreadPoolExecutor(
        max(1, min(options.workers, _room(options) // detector.working_side ** 2)),
        thread_name_prefix="decoders")
    unlogged: deque[tuple[list[Row], list[int], list[Future[None]]]] = deque()
    try:
        stream = _decode_ahead(decoders, log, pending, options, detector.working_side)
        images = progress(stream, total=len(pending), desc="searching", quiet=options.quiet)
        while batch := _take(images, options.batch_size, detector.working_side):
            unlogged.append(_search_batch(detector, batch, pictures, threshold, pool, options))
            del batch  # else it would be in memory while the next is decoded
            if len(unlogged) > 1:
                _log_batch(log, *unlogged.popleft())
        while unlogged:
            _log_batch(log, *unlogged.popleft())
    finally:
        for threads in (decoders, pool):
            threads.shutdown(wait=True, cancel_futures=True)


def _ahead(options: InferenceOptions) -> int:
    """Images that are decoded before they are asked for."""
    return 2 * options.batch_size + options.workers


def _room(options: InferenceOptions) -> int:
    """Pixels that these and the next one may have together."""
    return (_ahead(options) + 1) * WORKING_SIDE ** 2


def _take(images: Iterator[_Decoded], most: int, max_side: int) -> list[_Decoded]:
    """The next batch: ``most`` images, or as many as the memory of so many usual ones holds."""
    batch, room = [], most * WORKING_SIDE ** 2
    for item in images:
        batch.append(item)
        room -= item.pixels
        if len(batch) == most or room < max_side ** 2:
            break
    return batch


def _search_batch(detector: ArtworkDetector | NoDetector, batch: Sequence[_Decoded],
                  pictures: Pictures | None, threshold: float, pool: ThreadPoolExecutor,
                  options: InferenceOptions) -> tuple[list[Row], list[int], list[Future[None]]]:
    """Rows and indices for the log, and the pictures that are being drawn meanwhile."""
    images = [item.image for item in batch if item.image is not None]
    results = iter(_predict(detector, images, threshold, options.batch_size))
    names = [model.kind.name for model in options.attributes]
    said = zip(*(model.label(images) for model in options.attributes), strict=True)
    rows, draws = [], []
    for item in batch:
        if item.image is None:
            rows.append(reject_row(item.reason))
            continue
        found = rescale(next(results), item.image_wh)
        rows.append(detection_row(found, dict(zip(names, next(said), strict=True))
                                  if names else None))
        if pictures is not None:
            draws.append(pool.submit(pictures.write, item.index,
                                     shrink(item.image, WORKING_SIDE), found, detector.names))
    return rows, [item.index for item in batch], draws


def _predict(detector: ArtworkDetector | NoDetector, images: Sequence[NDArray[np.uint8]],
             threshold: float, at_once: int) -> list[Detections]:
    try:
        return detector.predict(images, threshold, at_once)
    except torch.OutOfMemoryError:
        raise UserError(f"the device has too little memory for {at_once} images at once; "
                        f"run again with --batch-size {max(1, at_once // 2)}") from None


def _log_batch(log: ProgressLog, rows: list[Row], indices: list[int],
               draws: list[Future[None]]) -> None:
    for draw in draws:
        draw.result()
    log.append(rows, indices)


def _decode_ahead(pool: ThreadPoolExecutor, log: ProgressLog, pending: Sequence[int],
                  options: InferenceOptions, max_side: int) -> Iterator[_Decoded]:
    """Decoded images in order, at most two batches before they are asked for.

    Where tiles need larger images it is fewer of them: the memory is that of usual ones.
    """
    big = threading.Lock()

    def decode(index: int) -> _Decoded:
        with big if log.stamps[index, 0] > BIG_FILE else nullcontext():
            return _decode(log.files[index], index, max_side)

    def held(future: Future[_Decoded]) -> int:
        return future.result().pixels if future.done() else max_side ** 2

    ahead = _ahead(options)
    waiting: deque[Future[_Decoded]] = deque()
    for index in pending:
        while waiting and (len(waiting) > ahead or sum(map(held, waiting)) + max_side ** 2
                           > _room(options)):
            yield waiting.popleft().result()
        waiting.append(pool.submit(decode, index))
    while waiting:
        yield waiting.popleft().result()


def _decode(file: str, index: int, max_side: int) -> _Decoded:
    try:
        image, image_wh = decode_reduced(file, max_side)
    except ImageError as error:
        return _Decoded(index, None, (0, 0), error.reason)
    return _Decoded(index, image, image_wh)


def _is_result(folder: str, known: dict[str, bool]) -> bool:
    """Whether a folder lies in the ``annotated`` folder of an earlier inference."""
    if folder not in known:
        parent, name = os.path.split(folder)
        ours = name == ANNOTATED and os.path.isfile(os.path.join(parent, FOLDER, RUN_NAME))
        known[folder] = ours or (parent != folder and _is_result(parent, known))
    return known[folder]


def _stamp(path: str) -> tuple[int, int]:
    try:
        status: Any = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
