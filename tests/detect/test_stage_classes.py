"""Which instruments a stage knows: its data's, its parent's, and those of what it rehearses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musicon.datasets.records import Category, ImageRecord, Manifest
from musicon.detect.checkpoints import load_model
from musicon.detect.config import Config, parse
from musicon.detect.stages import stage_categories, train


def names(categories: Any) -> list[str]:
    return [category.name for category in categories]


def test_kept_classes_come_after_the_datas_own_each_once() -> None:
    own = [Category(7, "organ"), Category(2, "harp")]
    parent = (Category(1, "harp"), Category(2, "lute"))
    rehearsed = [Category(1, "lute"), Category(2, "drum")]
    found = stage_categories(own, [parent, rehearsed])
    assert names(found) == ["harp", "organ", "lute", "drum"]
    assert [category.id for category in found] == [2, 7, 8, 9]
    assert names(stage_categories(own, [])) == ["harp", "organ"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``harps``: photos of harps; ``others``: of lutes, and of a drum in validation alone."""
    root = tmp_path_factory.mktemp("classes")
    for name, classes in (("harps", (Category(1, "harp"),)),
                          ("others", (Category(1, "lute"), Category(2, "drum")))):
        (root / name).mkdir()
        records = []
        for i in range(1, 9):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
            split, label = ("train", 1) if i <= 6 else ("val", len(classes))
            records.append(ImageRecord(i, f"{i}.png", 40, 40, labels=(label,), domain="mimo",
                                       split=split))
        Manifest(root / name, classes, tuple(records)).write(root / name)
    return root


def settings(data: Path, output: Path, keep: bool) -> Config:
    fit = {"steps": 1, "batch_size": 2, "ema_decay": None}
    return parse({
        "output": str(output), "device": "cpu",
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 32},
        "detector": {"image_size": 128, "fpn_channels": 16, "anchor_sizes": [16, 32, 64, 100]},
        "stages": {"mimo": {"manifest": str(data / "harps"), "rehearsal": [str(data / "others")],
                            "keep_classes": keep, "classifier": fit, "detector": {"steps": 0}}}})


@pytest.mark.parametrize(("keep", "known", "photos"), [
    (True, ["harp", "lute"], 12), (False, ["harp"], 6)])
def test_a_stage_without_a_parent_learns_what_it_rehearses(
        data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: bool,
        known: list[str], photos: int) -> None:
    with caplog.at_level(logging.INFO, logger="musicon"):
        (result,) = train(settings(data, tmp_path, keep), ["mimo"], quiet=True)
    assert names(load_model(result.folder).categories) == known
    assert f"mimo, train: {photos} photos" in caplog.text
