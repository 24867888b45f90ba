"""Pictures for the networks: held once, cut where they should be."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musicon.datasets import loading
from musicon.datasets.images import ImageError
from musicon.datasets.loading import (
    ENTRY_BYTES,
    ImageStore,
    Recent,
    crop_square,
    resize_longer,
    shrink,
)


def test_store_reduces_holds_and_forgets(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((60, 120, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    store = ImageStore(max_side=60, max_bytes=2 * (30 * 60 * 3 + ENTRY_BYTES))
    first, scale = store.get(tmp_path / "0.png")
    assert first.shape == (30, 60, 3) and scale == 0.5
    assert store.get(tmp_path / "0.png")[0] is first
    store.get(tmp_path / "1.png")
    store.get(tmp_path / "2.png")
    assert store.get(tmp_path / "0.png")[0] is not first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


@pytest.mark.parametrize("processes", [1, 4])
def test_memory_is_bounded_however_many_files(processes: int) -> None:
    """100,000 files of 10 kB, of which a megabyte may be held; every tenth value is empty."""
    recent: Recent[bytes | None] = Recent(1_000_000, lambda value: len(value or b""))
    limit = 1_000_000 // processes
    paths = [Path(str(i)) for i in range(100_000)]
    hash(tuple(paths))  # which each path remembers
    loading.share_memory(processes)
    tracemalloc.start()
    try:
        for i, path in enumerate(paths):
            recent.get(path, lambda i=i: None if i % 10 == 0 else bytes(10_000))  # type: ignore[misc]
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        loading.share_memory(1)
    assert 0.5 * limit < held <= peak < limit + 100_000


def test_a_copy_for_another_process_is_empty(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((600, 800, 3), np.uint8)).save(tmp_path / "a.png")
    store = ImageStore(max_side=800)
    image, _ = store.get(tmp_path / "a.png")
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).get(tmp_path / "a.png")[0], image)


def test_store_never_swaps_an_unreadable_image(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    with pytest.raises(ImageError):
        ImageStore(64).get(tmp_path / "bad.jpg")


def test_crop_square_by_hand() -> None:
    image = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30, 1).repeat(3, axis=2)
    crop = crop_square(image, np.array([4, 2, 14, 10]), 0.0, 10)
    assert np.array_equal(crop, image[1:11, 4:14])


def test_crop_square_repeats_the_edge_outside() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 0] = 200
    crop = crop_square(image, np.array([-10, 0, 0, 10]), 0.0, 10)
    assert (crop == 200).all()
    with pytest.raises(ValueError, match="outside"):
        crop_square(image, np.array([40, 40, 60, 60]), 0.0, 10)


def test_resize_longer() -> None:
    assert resize_longer(np.zeros((100, 50, 3), np.uint8), 40).shape == (40, 20, 3)
    assert resize_longer(np.zeros((5, 1000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_shrink() -> None:
    image = np.zeros((10, 3200, 3), np.uint8)
    assert shrink(image, 1600).shape == (5, 1600, 3)
    assert shrink(image[:, :1000], 1600).shape == (10, 1000, 3)
    assert shrink(np.zeros((1, 9000, 3), np.uint8), 100).shape == (1, 100, 3)
