"""What a long inference has done so far, so that it can go on after kill -9.

``OUT/.progress/`` holds ``run.json`` (the model and settings that made the results),
``images.json`` (the folder whose images they are of) and ``done.jsonl``: one line a batch, written
and fsynced when the batch is wholly done. A line that a crash cut short is dropped, so that the
batches that follow are the same as in a run that was never stopped.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.files import lock
from musicon.datasets.records import UserError, write_atomic

FOLDER = ".progress"
RUN_NAME = "run.json"
DONE_NAME = "done.jsonl"
IMAGES_NAME = "images.json"
CHANGES = {"model": "another model", "threshold": "another threshold",
           "precision": "another precision", "looks": "another --zoom or --flip",
           "attributes": "other --attributes", "format": "another version of musicon"}
"""What a person is told where a key of ``run.json`` is not the same."""
Row = dict[str, Any]


class ProgressLog:
    """Rows of finished images, found again by file; a context manager that holds a lock.

    Memory: two numbers an image, whatever the rows hold.
    """

    def __init__(self, out: Path, files: Sequence[str], stamps: NDArray[np.int64],
                 key: Mapping[str, Any]) -> None:
        """Prepare; nothing is read or written before ``with``.

        Args:
            out: The results' folder.
            files: Sorted, unique paths of the images.
            stamps: int64 (N, 2), size in bytes and modification time in ns of each.
            key: Model and settings; results under another key are worth nothing here.
        """
        self.out = out
        self.files = files
        self.stamps = stamps
        self.key = dict(key)
        self.started_anew: str | None = None
        """Why earlier results were not used; None when they were, or when there were none."""
        self._place = np.full((len(files), 2), -1, np.int64)
        self._last: tuple[int, list[Row]] = (-1, [])

    def __enter__(self) -> ProgressLog:
        folder = self.out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(folder / "lock", "w")
        if not lock(self._lock):
            self._lock.close()
            raise UserError(f"{self.out}: another run is writing its results here; wait for it, "
                            "or give another folder with --out")
        self._start(folder)
        self._stream = open(folder / DONE_NAME, "r+b")
        self._end = self._load()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stream.close()
        self._lock.close()

    def is_done(self, index: int) -> bool:
        """Whether the image at ``index`` of ``files`` was finished, and is unchanged since."""
        return bool(self._place[index, 0] >= 0)

    def forget(self, index: int) -> None:
        """Have an image done again (its picture is missing, or another's)."""
        self._place[index] = -1

    def append(self, rows: Sequence[Row], indices: Sequence[int]) -> None:
        """Add a finished batch; it survives a crash once this returns."""
        stamped = [row | {"file": self.files[i], "bytes": int(self.stamps[i, 0]),
                          "mtime_ns": int(self.stamps[i, 1])}
                   for row, i in zip(rows, indices, strict=True)]
        line = json.dumps(stamped).encode("ascii") + b"\n"
        self._stream.seek(self._end)
        self._stream.write(line)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        for position, index in enumerate(indices):
            self._place[index] = (self._end, position)
        self._end += len(line)

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(index, row) of every finished image, in the order of ``files``."""
        for index in range(len(self.files)):
            offset, position = (int(v) for v in self._place[index])
            if offset < 0:
                continue
            if offset != self._last[0]:
                self._stream.seek(offset)
                self._last = offset, json.loads(self._stream.readline())
            yield index, self._last[1][position]

    def take_over(self, root: str) -> str | None:
        """Note that the results are of the images in ``root``; the folder before, if another."""
        file = self.out / FOLDER / IMAGES_NAME
        try:
            before: str | None = json.loads(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            before = None
        if before == root:
            return None
        write_atomic(file, json.dumps(root))
        return before

    def _start(self, folder: Path) -> None:
        """Keep the results there are if model and settings are the same, else begin."""
        run, done = folder / RUN_NAME, folder / DONE_NAME
        try:
            before = json.loads(run.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before == self.key and done.exists():
            return
        if before is not None and done.exists() and done.stat().st_size:
            changed = sorted(k for k in {*self.key, *before} if self.key.get(k) != before.get(k))
            self.started_anew = " and ".join(CHANGES.get(k, f"another {k}") for k in changed)
        done.unlink(missing_ok=True)
        write_atomic(run, json.dumps(self.key, indent=1))
        done.touch()

    def _load(self) -> int:
        """Find the finished images again; returns where the next line goes."""
        end = 0
        for line in self._stream:
            rows = _parse(line)
            if rows is None:
                break
            for position, row in enumerate(rows):
                index = bisect_left(self.files, row["file"])
                if (index < len(self.files) and self.files[index] == row["file"]
                        and tuple(self.stamps[index]) == (row["bytes"], row["mtime_ns"])):
                    self._place[index] = (end, position)
            end += len(line)
        self._stream.truncate(end)
        return end


def _parse(line: bytes) -> list[Row] | None:
    """The rows of a line; None for one that a crash cut short."""
    if not line.endswith(b"\n"):
        return None
    try:
        rows: list[Row] = json.loads(line)
    except ValueError:
        return None
    return rows
