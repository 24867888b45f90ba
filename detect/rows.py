"""Numbers computed once a picture and kept: looked up by the picture's content, memory-mapped.

A store is a folder of three files: ``about.json`` (what was computed, from what), ``keys.txt``
(one SHA-256 a line) and ``rows.f32`` (float32, one row a key). Rows are only ever added; what a
crash cut short is dropped when the store is next written to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.command import progress
from musicon.datasets.files import locked
from musicon.datasets.images import ImageError
from musicon.datasets.records import UserError, write_atomic
from musicon.detect.storage import digest

ABOUT, KEYS, ROWS = "about.json", "keys.txt", "rows.f32"
_KEY_BYTES = 65
"""64 hexadecimal digits and a line feed."""
BATCH = 32
T = TypeVar("T")


class RowStore:
    """Rows of one shape, by SHA-256."""

    def __init__(self, root: Path, about: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        """Open the store of what ``about`` describes; another description has another folder.

        Args:
            root: Folder of all stores.
            about: Plain values that decide what is computed: backbone, weights, transform, ...
            shape: Of one row.
        """
        self.about = {**about, "shape": list(shape)}
        self.shape = shape
        self.folder = root / digest(self.about)[:20]
        self._place: dict[str, int] = {}
        self._read()

    def __len__(self) -> int:
        return len(self._place)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Positions in ``keys`` of those that have no row; of equal keys the first."""
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        return sorted(i for key, i in first.items() if key not in self._place)

    def places(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Row numbers of keys, all of which must be known."""
        return np.array([self._place[key] for key in keys], np.int64)

    def table(self) -> NDArray[np.float32]:
        """All rows (N, *shape), mapped from the disk and not to be changed."""
        if not self._place:
            return np.zeros((0, *self.shape), np.float32)
        return np.memmap(self.folder / ROWS, np.float32, "r", shape=(len(self), *self.shape))

    @contextmanager
    def writing(self) -> Iterator[Callable[[Sequence[str], NDArray[np.float32]], None]]:
        """A function that adds rows; they survive a crash once it returns.

        Raises:
            UserError: Another process is adding rows.
        """
        with locked(self.folder / "lock", UserError(
                f"{self.folder}: another run is computing these features; wait for it, or give "
                "another folder with --set features=FOLDER")):
            write_atomic(self.folder / ABOUT, json.dumps(self.about, indent=1))
            self._read()
            with (self.folder / ROWS).open("ab") as rows, (self.folder / KEYS).open("ab") as keys:
                rows.truncate(len(self) * self._row_bytes)
                keys.truncate(len(self) * _KEY_BYTES)

                def add(names: Sequence[str], values: NDArray[np.float32]) -> None:
                    # Rows first: a key without a row would be a lie, a row without a key is waste.
                    for stream, data in ((rows, np.ascontiguousarray(values, "<f4").tobytes()),
                                         (keys, "".join(f"{n}\n" for n in names).encode())):
                        stream.write(data)
                        stream.flush()
                        os.fsync(stream.fileno())
                    self._place.update(zip(names, range(len(self), len(self) + len(names)),
                                           strict=True))

                yield add

    @property
    def _row_bytes(self) -> int:
        return 4 * int(np.prod(self.shape))

    def _read(self) -> None:
        keys, rows = self.folder / KEYS, self.folder / ROWS
        if not (keys.is_file() and rows.is_file()):
            return
        whole = min(keys.stat().st_size // _KEY_BYTES, rows.stat().st_size // self._row_bytes)
        names = keys.read_bytes()[:whole * _KEY_BYTES].decode("ascii").split("\n")[:whole]
        self._place = {name: i for i, name in enumerate(names)}


def fill(store: RowStore, keys: Sequence[str], files: Sequence[Path], read: Callable[[Path], T],
         compute: Callable[[list[T]], NDArray[np.float32]], *, desc: str, workers: int = 2,
         quiet: bool = False) -> int:
    """Compute the rows that are not there yet: one pass over their files.

    Args:
        store: Takes the rows.
        keys: SHA-256 of each picture.
        files: The pictures.
        read: Decodes one; runs in threads.
        compute: What was read of some pictures -> their rows.
        desc: Of the progress bar.
        workers: Threads.
        quiet: No bar.

    Returns:
        How many were computed.

    Raises:
        UserError: A picture that cannot be read, or another run that fills the store.
    """
    todo = store.missing(keys)
    if not todo:
        return 0
    batches = range(0, len(todo), BATCH)
    with store.writing() as add, ThreadPoolExecutor(workers, "pictures") as pool:
        for start in progress(batches, len(batches), desc, quiet):
            part = todo[start:start + BATCH]
            try:
                rows = compute(list(pool.map(read, [files[i] for i in part])))
            except ImageError as error:
                raise UserError(f"{error}; put it right, or prepare the data again with python "
                                "tools/prepare_data.py") from None
            add([keys[i] for i in part], rows)
    return len(todo)
