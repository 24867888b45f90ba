"""Pictures as points of style space: their scaled Gram matrices, computed when they are needed.

Pictures are brought to one size, as the style loss compares images with equally many positions:
the shorter side is scaled, the middle square is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets.images import decode_reduced
from musicon.styletransfer.encoder import Encoder
from musicon.styletransfer.gram import flatten, grams
from musicon.styletransfer.sketch import Floats, Indices

LONGEST = 4
"""Pictures are decoded at up to this many times the square's side."""


def middle_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of an RGB image (H, W, 3), its shorter side scaled to ``side``: (S, S, 3)."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, size, interpolation=method)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return scaled[top:top + side, left:left + side]


class GramVectors:
    """The vectors of a list of pictures; those asked for are kept on disk, as long as it has room.

    Attributes:
        dimension: D, numbers in one vector.
        computed: Pictures encoded so far.
    """

    def __init__(self, files: Sequence[Path], encoder: Encoder, *, side: int = 256,
                 weights: Mapping[str, float] | None = None, store: Path | None = None,
                 room: int = 0, workers: int = 2) -> None:
        """Prepare; nothing is read yet.

        Args:
            files: Pictures that can be decoded.
            encoder: On the device that it is to run on.
            side: Pixels of the square that pictures are brought to.
            weights: Layer -> weight in the style loss; None weighs all alike.
            store: File for vectors, made anew; None keeps none.
            room: Bytes that it may take.
            workers: Threads that decode.
        """
        self.files, self.encoder, self.side, self.weights = files, encoder, side, weights
        self.workers, self.computed = workers, 0
        self.device = next(encoder.parameters()).device
        self.batch = 1 if self.device.type == "cpu" else 32
        layers = weights or encoder.channels
        self.dimension = sum(encoder.channels[layer] * (encoder.channels[layer] + 1) // 2
                             for layer in layers)
        self._slots: dict[int, int] = {}
        self._held: np.memmap | None = None
        count = min(len(files), room // (4 * self.dimension))
        if store is not None and count:
            store.parent.mkdir(parents=True, exist_ok=True)
            self._held = np.memmap(store, np.float32, "w+", shape=(count, self.dimension))

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, rows: Indices) -> Floats:
        """Vectors (n, D) of some pictures; what is not kept is computed (and kept).

        When the room is used up, the vector that was kept first makes way.
        """
        found = np.empty((len(rows), self.dimension), np.float32)
        missing = []
        for at, row in enumerate(rows.tolist()):
            slot = self._slots.get(row)
            if slot is None or self._held is None:
                missing.append(at)
            else:
                found[at] = self._held[slot]
        for at, vector in zip(missing, self._encoded([self.files[rows[i]] for i in missing]),
                              strict=True):
            found[at] = vector
            self._keep(int(rows[at]), vector)
        return found

    def all(self, start: int = 0, chunk: int = 64) -> Iterator[tuple[Indices, Floats]]:
        """(positions, vectors) of all pictures from ``start`` on, in chunks."""
        for first in range(start, len(self), chunk):
            rows = np.arange(first, min(first + chunk, len(self)))
            yield rows, self(rows)

    def _keep(self, row: int, vector: Floats) -> None:
        if self._held is None or row in self._slots:
            return
        slot = len(self._slots)
        if slot >= len(self._held):
            slot = self._slots.pop(next(iter(self._slots)))
        self._held[slot] = vector
        self._slots[row] = slot

    def _encoded(self, files: Sequence[Path]) -> Iterator[Floats]:
        with ThreadPoolExecutor(self.workers) as pool:
            squares = pool.map(self._square, files)
            for first in range(0, len(files), self.batch):
                part = [next(squares) for _ in files[first:first + self.batch]]
                images = torch.from_numpy(np.stack(part)).to(self.device)
                with torch.no_grad():
                    features = self.encoder(images.permute(0, 3, 1, 2).float() / 255)
                    vectors = flatten(grams({k: v.float() for k, v in features.items()}),
                                      self.weights)
                self.computed += len(part)
                yield from vectors.cpu().numpy()

    def _square(self, file: Path) -> NDArray[np.uint8]:
        return middle_square(decode_reduced(file, LONGEST * self.side)[0], self.side)


def free_bytes(folder: Path) -> int:
    """Free room on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
