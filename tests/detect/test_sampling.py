"""What is drawn, by whatever process: even shares, and the same batches from loader processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric import Fabric
from test_material import CLASSES, context, data, settings

from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.crops import ClassifierTask
from musicon.detect.detectors.task import DetectorTask
from musicon.detect.sampling import loader, spread

__all__ = ["data"]


@pytest.fixture
def spawning() -> Iterator[None]:
    """Start processes anew, as macOS and Windows do, instead of copying this one."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("spawning")
@pytest.mark.parametrize("part", ["classifier", "detector"])
def test_loader_processes_give_the_same_batches(part: str, data: Path, tmp_path: Path) -> None:
    config = settings(data)
    ctx = context(config, tmp_path)
    classifier = classifiers.build(config.classifier, len(CLASSES))
    detector: Any = detectors.build(config.detector, len(CLASSES), classifier)
    task = ClassifierTask(classifier, ctx) if part == "classifier" else DetectorTask(detector, ctx)
    cfg = getattr(config.stages["cytomine"], part).model_copy(update={"steps": 3})
    fabric = Fabric(accelerator="cpu", devices=1)
    alone, together = (list(loader(task, cfg, 7, 0, fabric, num_workers=n)) for n in (0, 2))
    assert len(alone) == len(together) == 3
    for (items, batch), (other_items, other) in zip(alone, together, strict=True):
        assert items == other_items
        torch.testing.assert_close(batch, other, rtol=0, atol=0)


@given(st.integers(0, 300), st.integers(0, 300))
def test_spread_takes_evenly(size: int, count: int) -> None:
    found = spread(range(size), count)
    assert len(found) == min(size, count)
    gaps = {b - a for a, b in zip(found, found[1:], strict=False)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


def test_spread_by_hand() -> None:
    assert spread("abcdefg", 3) == ["a", "c", "e"]
    assert spread([1, 2], 3) == [1, 2]
    assert spread([], 3) == []
