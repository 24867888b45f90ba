"""Rows kept by content: computed once, found again, safe from kills and from each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from musicon.datasets.images import decode_reduced
from musicon.datasets.records import UserError
from musicon.detect.rows import KEYS, ROWS, RowStore, fill

ABOUT = {"features": "mean colour"}


def key(i: int) -> str:
    return f"{i:064x}"


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{i}.png" for i in range(70)]
    for i, file in enumerate(files):
        Image.new("RGB", (4, 4), (i, 2 * i, 3 * i)).save(file)
    return files


def means(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)


def run(store: RowStore, numbers: list[int], pictures: list[Path]) -> int:
    return fill(store, [key(i) for i in numbers], [pictures[i] for i in numbers],
                lambda path: decode_reduced(path, 4)[0], means, desc="")


def test_rows_are_computed_once_and_found_by_content(tmp_path: Path,
                                                     pictures: list[Path]) -> None:
    store = RowStore(tmp_path / "s", ABOUT, (3,))
    assert store.table().shape == (0, 3)
    assert run(store, [*range(40), 3, 3], pictures) == 40
    assert run(store, list(range(70)), pictures) == 30
    again = RowStore(tmp_path / "s", ABOUT, (3,))
    assert run(again, list(range(70)), pictures) == 0
    numbers = [69, 0, 12]
    rows = again.table()[again.places([key(i) for i in numbers])]
    assert rows.tolist() == [[i, 2 * i, 3 * i] for i in numbers]
    assert isinstance(again.table(), np.memmap)
    assert len(RowStore(tmp_path / "s", {"features": "other"}, (3,))) == 0


@pytest.mark.parametrize(("file", "bytes_lost"), [(ROWS, 5), (KEYS, 7), (ROWS, 40), (KEYS, 200)])
def test_what_a_crash_cut_short_is_computed_again(tmp_path: Path, pictures: list[Path], file: str,
                                                  bytes_lost: int) -> None:
    store = RowStore(tmp_path / "s", ABOUT, (3,))
    run(store, list(range(20)), pictures)
    broken = store.folder / file
    broken.write_bytes(broken.read_bytes()[:-bytes_lost])
    again = RowStore(tmp_path / "s", ABOUT, (3,))
    kept = len(again)
    assert 0 < kept < 20
    assert run(again, list(range(30)), pictures) == 30 - kept
    last = RowStore(tmp_path / "s", ABOUT, (3,))
    rows = last.table()[last.places([key(i) for i in range(30)])]
    assert rows.tolist() == [[i, 2 * i, 3 * i] for i in range(30)]


def test_two_runs_do_not_write_at_once(tmp_path: Path, pictures: list[Path]) -> None:
    store = RowStore(tmp_path / "s", ABOUT, (3,))
    with store.writing(), pytest.raises(UserError, match="another run"):
        run(RowStore(tmp_path / "s", ABOUT, (3,)), [1], pictures)


def test_a_picture_that_cannot_be_read_stops_it(tmp_path: Path, pictures: list[Path]) -> None:
    pictures[2].write_bytes(b"no picture")
    store = RowStore(tmp_path / "s", ABOUT, (3,))
    with pytest.raises(UserError, match=r"2\.png.*prepare the data again"):
        run(store, [1, 2], pictures)
    assert len(RowStore(tmp_path / "s", ABOUT, (3,))) == 0
