"""Near-duplicates: the same picture again, in another size, file, colouring or slight crop.

A picture's fingerprint is its grey thumbnail of 16 x 16 pixels, without mean and contrast; two
pictures are compared by correlation. On 860 paintings (docs/style-bank.md) no two different ones
reach 0.91, while copies that were scaled, compressed, recoloured or brightened stay above 0.95.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.images import ImageError, decode_reduced

SIDE = 16
CORRELATION = 0.92
"""From this on, two pictures are taken for one."""
CROPS = (0.0, 0.03, 0.06)
"""Shares cut off each side: a copy is often a little narrower, or has a frame."""
FLAT = 2.0
"""Grey levels of contrast below which a thumbnail shows nothing that could be compared."""
_DECODED = 256
_BLOCK = 1 << 25

Fingerprint = NDArray[np.float32]
T = TypeVar("T")


def fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Thumbnails (crops, 256) of an RGB image (H, W, 3), each of length 1; 0 where it is flat."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    found = np.zeros((len(CROPS), SIDE * SIDE), np.float32)
    for number, share in enumerate(CROPS):
        top, left = int(height * share), int(width * share)
        part = grey[top:height - top, left:width - left]
        small = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        small -= small.mean()
        if small.std() > FLAT:
            found[number] = small.ravel() / np.linalg.norm(small)
    return found


def fingerprints(files: Sequence[Path], workers: int = 2) -> Iterable[Fingerprint | ImageError]:
    """Fingerprints of files in their order; what cannot be decoded gives its error."""
    return each_file(fingerprint, files, _DECODED, workers)


def each_file(look: Callable[[NDArray[np.uint8]], T], files: Sequence[Path], side: int,
              workers: int) -> Iterator[T | ImageError]:
    """What ``look`` makes of each picture, decoded to ``side``; or why it cannot be decoded."""
    def one(file: Path) -> T | ImageError:
        try:
            return look(decode_reduced(file, side)[0])
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, files)


def nearest_copies(prints: Sequence[Fingerprint],
                   others: Sequence[Fingerprint]) -> list[int | None]:
    """For each picture the position of a near-duplicate among others, or None.

    The whole of one picture is compared with every crop of the other, also mirrored.
    """
    if not prints or not others:
        return [None] * len(prints)
    found: list[int | None] = []
    for _, best in likeness(np.stack(prints), np.stack(others)):
        at = best.argmax(1)
        found += [int(i) if best[row, i] >= CORRELATION else None for row, i in enumerate(at)]
    return found


def copy_groups(prints: Sequence[Fingerprint]) -> list[int]:
    """For each picture the position of the first one that it is a near-duplicate of, or its own.

    Copies of copies count as one: whoever shares a number belongs together.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not prints:
        return []
    stack = np.stack(prints)
    pairs = [np.argwhere(best >= CORRELATION) + (start, 0)
             for start, best in likeness(stack, stack)]
    row, column = np.concatenate(pairs).T
    graph = coo_matrix((np.ones(len(row)), (row, column)), shape=(len(stack), len(stack)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return [int(i) for i in first[component]]


def likeness(mine: NDArray[np.float32],
             theirs: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first row, correlations (rows, others)), a block of rows at a time."""
    count = len(theirs)
    mirrored = theirs.reshape(*theirs.shape[:2], SIDE, SIDE)[..., ::-1].reshape(theirs.shape)
    step = max(1, _BLOCK // (count * 4 * len(CROPS)))
    for start in range(0, len(mine), step):
        part = mine[start:start + step]
        best = np.full((len(part), count), -1.0, np.float32)
        for reference in (theirs, mirrored):
            for crop in range(len(CROPS)):
                np.maximum(best, part[:, 0] @ reference[:, crop].T, out=best)
                np.maximum(best, part[:, crop] @ reference[:, 0].T, out=best)
        yield start, best
