"""Every picture decoded, every box looked at, every copy found, before training sees them."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from musicon.datasets.boxes import Xyxy, orient
from musicon.datasets.command import counted
from musicon.datasets.files import sha256
from musicon.datasets.images import ImageError, ImageInfo, probe
from musicon.datasets.records import SPLITS, Box, ImageRecord, Rejects

MIN_SIDE = 1.0
"""Pixels; a box that is narrower after cutting holds nothing to learn from."""
MIN_INSIDE = 0.5
"""Share of a box that must lie in its picture; less means that it is another picture's box."""

Item = tuple[Path, ImageRecord]
Bar = Callable[[Iterable[Any], "int | None", str], Iterator[Any]]
"""(items, their number, what is done) -> the items, a bar being drawn meanwhile."""


@dataclass(frozen=True)
class Looked:
    """What decoding one file told: its header and check sum, or why it is no use."""

    info: ImageInfo | None
    sha256: str = ""
    reason: str = ""


class Journal:
    """Files looked at so far, so that an interrupted run need not begin again.

    One JSON line a file: path, size, time of change, and what was found. A torn last line (kill
    -9) is passed over.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int, int], Looked] = {}
        if file.exists():
            for line in file.read_text(encoding="ascii", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                    info = ImageInfo(**row["info"]) if row["info"] else None
                    key = (row["path"], row["size"], row["time"])
                    self._known[key] = Looked(info, row["sha256"], row["reason"])
                except (ValueError, KeyError, TypeError):
                    continue
        self._stream = file.open("a", encoding="ascii")

    def look(self, path: Path) -> Looked:
        """Decode the file, or remember having done so."""
        try:
            status = path.stat()
        except OSError:
            return _look(path)
        key = (os.fspath(path), status.st_size, status.st_mtime_ns)
        if key in self._known:
            return self._known[key]
        found = _look(path)
        row = {"path": key[0], "size": key[1], "time": key[2], "sha256": found.sha256,
               "info": asdict(found.info) if found.info else None, "reason": found.reason}
        with self._lock:
            self._stream.write(json.dumps(row) + "\n")
            self._stream.flush()
        return found

    def close(self) -> None:
        """Close the journal's file."""
        self._stream.close()


def _look(path: Path) -> Looked:
    try:
        return Looked(probe(path, verify=True), sha256(path))
    except ImageError as error:
        return Looked(None, reason=error.reason)
    except OSError as error:
        return Looked(None, reason=f"cannot be read ({error.strerror or error})")


@dataclass
class Checked:
    """Pictures that passed, and sentences on what was mended."""

    items: list[Item]
    notes: list[str]


def check(items: Sequence[Item], rejects: Rejects, journal: Journal, bar: Bar,
          workers: int | None = None) -> Checked:
    """Decode all, mend or reject boxes, reject copies.

    Args:
        items: (file, record) of a source.
        rejects: Gets what is left out.
        journal: Remembers files looked at.
        bar: Draws the progress bar.
        workers: Threads; decoding leaves the interpreter's lock, so threads do run side by side.
    """
    counts: Counter[str] = Counter()
    passed: list[Item] = []
    pool = ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1))
    try:
        looks = pool.map(journal.look, [path for path, _ in items])
        for (path, record), looked in zip(items, bar(looks, len(items), "checking pictures"),
                                          strict=True):
            if looked.info is None:
                rejects.add(shown_as(path, record), looked.reason)
                continue
            mended = _fit(path, record, looked, rejects, counts)
            if mended is not None:
                passed.append((path, mended))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    kept = _without_copies(passed, rejects, counts)
    words = {
        "cut": ("box", "boxes", "cut: stuck out of the picture"),
        "turned": ("picture", None, "with boxes drawn on its side: boxes turned upright"),
        "scaled": ("picture", None, "listed at another size: boxes scaled"),
        "frames": ("picture", None, "with several frames or pages: the first is used"),
        "divided": ("picture", None, "given to several splits: kept for the test, else for val"),
    }
    notes = [f"{counted(counts[key], one, many)} {text}"
             for key, (one, many, text) in words.items() if counts[key]]
    return Checked(kept, notes)


def _fit(path: Path, record: ImageRecord, looked: Looked, rejects: Rejects,
         counts: Counter[str]) -> ImageRecord | None:
    """The record at the file's true size, its boxes in upright pixels and inside."""
    info = looked.info
    if info is None:
        return None
    place = shown_as(path, record)
    found, listed = (info.width, info.height), (record.width, record.height)
    corners = [box.xyxy for box in record.boxes]
    if listed not in (found, (0, 0)):
        if info.orientation in (5, 6, 7, 8) and listed == found[::-1]:
            corners = orient(corners, *listed, info.orientation)
            counts["turned"] += 1
        elif _same_shape(listed, found):
            sx, sy = found[0] / listed[0], found[1] / listed[1]
            corners = [(x0 * sx, y0 * sy, x1 * sx, y1 * sy) for x0, y0, x1, y1 in corners]
            counts["scaled"] += 1
        elif corners:
            rejects.add(place, f"listed as {listed[0]}x{listed[1]}, but the file has "
                               f"{found[0]}x{found[1]} pixels: its boxes cannot be placed")
            return None
    counts["frames"] += info.frames > 1
    kept: list[Box] = []
    labels = None if record.labels is None else set(record.labels)
    for box, xyxy in zip(record.boxes, corners, strict=True):
        cut, fault = _inside(xyxy, *found)
        if fault is not None:
            rejects.add(place, f"box left out: {fault}")
            # The instrument is still in the picture: not a negative.
            labels = (labels or set()) | {box.label}
            continue
        counts["cut"] += cut != xyxy
        kept.append(replace(box, xyxy=cut))
    extra = {**record.extra, "alpha": True} if info.has_alpha else record.extra
    return replace(record, width=info.width, height=info.height, boxes=tuple(kept),
                   labels=None if labels is None else tuple(sorted(labels)),
                   sha256=looked.sha256, extra=extra)


def shown_as(path: Path, record: ImageRecord) -> str:
    """The picture as its owner knows it: its file, or the address that it was fetched from."""
    own = path.as_posix().endswith(record.file_name) or record.source_url is None
    return str(path) if own else str(record.source_url)


def _same_shape(listed: tuple[int, int], found: tuple[int, int]) -> bool:
    """The same picture at another size: sides in proportion to within a pixel of rounding."""
    return min(listed) > 0 and (
        abs(listed[0] * found[1] / listed[1] - found[0]) <= 1 + found[0] / listed[0]
        and abs(listed[1] * found[0] / listed[0] - found[1]) <= 1 + found[1] / listed[1])


def _inside(xyxy: Xyxy, width: int, height: int) -> tuple[Xyxy, str | None]:
    """The box cut to the picture, and what is wrong with it or None."""
    x0, y0, x1, y1 = xyxy
    shown = f"[{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
    if not all(math.isfinite(value) for value in xyxy):
        return xyxy, f"{shown} has a value that is not a number"
    if x1 <= x0 or y1 <= y0:
        return xyxy, f"{x1 - x0:g} x {y1 - y0:g} pixels is empty or reversed"
    cut = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    wide, high = cut[2] - cut[0], cut[3] - cut[1]
    if wide <= 0 or high <= 0:
        return xyxy, f"{shown} lies outside the {width}x{height} picture"
    if wide * high < MIN_INSIDE * (x1 - x0) * (y1 - y0):
        return xyxy, f"{shown} lies mostly outside the {width}x{height} picture"
    if wide < MIN_SIDE or high < MIN_SIDE:
        return xyxy, f"{wide:g} x {high:g} pixels is too small"
    return cut, None


_PROTECTED = (None, *SPLITS)
"""Splits by how much a picture is to stay in them."""


def _without_copies(items: Sequence[Item], rejects: Rejects,
                    counts: Counter[str]) -> list[Item]:
    """One of each content; where copies disagree on what they show, none.

    Of copies in several of the source's splits, the one that is tested on stays, lest it be
    learnt from; where only another copy is labelled, that one takes its place.
    """
    copies: dict[str | None, list[int]] = defaultdict(list)
    for index, (_, record) in enumerate(items):
        copies[record.sha256].append(index)
    kept = dict(enumerate(items))
    for group in copies.values():
        if len(group) == 1:
            continue
        told = [i for i in group if items[i][1].labels is not None] or group
        if len({items[i][1].known_labels for i in told}) > 1:
            for i in group:
                other = next(items[j][1].file_name for j in told
                             if items[j][1].known_labels != items[i][1].known_labels)
                rejects.add(shown_as(*kept.pop(i)), f"same content as {other}, but labelled "
                                                 "otherwise: keep the right one")
            continue
        best = max(told, key=lambda i: (_PROTECTED.index(items[i][1].split),
                                        len(items[i][1].boxes)))
        for i in group:
            if i != best:
                rejects.add(shown_as(*kept.pop(i)),
                            f"same content as {items[best][1].file_name}")
        split = max((items[i][1].split for i in group), key=_PROTECTED.index)
        counts["divided"] += len({items[i][1].split for i in group} - {None}) > 1
        kept[best] = (items[best][0], replace(items[best][1], split=split))
    return list(kept.values())
