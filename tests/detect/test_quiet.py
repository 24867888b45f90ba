"""The stage's own empty works raise the threshold, each searched by who has not learnt from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from musicon.datasets.boxes import as_boxes
from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect.config import Config, FusionConfig
from musicon.detect.detections import Detections
from musicon.detect.quiet import LEAST_WORKS, quiet_on_own_works
from musicon.detect.training import StageContext

CLASSES = (Category(1, "lute"),)


class Shades:
    """Stands for a model: finds one box, whose score is the picture's grey value in hundredths."""

    def __init__(self) -> None:
        self.working_side, self.categories = 64, CLASSES
        self.rescorer: Any = "the usual"
        self.asked: list[tuple[int, Any]] = []

    def opinions(self, images: Sequence[NDArray[np.uint8]]) -> list[int]:
        self.asked.append((int(images[0][0, 0, 0]), self.rescorer))
        return [int(images[0][0, 0, 0])]

    def decide(self, opinions: int, threshold: float, fusion: FusionConfig) -> Detections:
        score = np.array([opinions / 100], np.float32)
        return Detections(as_boxes([[1, 1, 9, 9]]), score, np.ones(1, np.int64), score, score,
                          (20, 20))


class Told:
    """Stands for examples: a rescorer is the images that it has not seen."""

    def fit(self, without: Collection[Path] = ()) -> Collection[Path]:
        return without


def stage(folder: Path, works: int) -> StageContext:
    """So many empty works with the grey values 1, 2, ...; and pictures that don't count."""
    records = [ImageRecord(i, f"{i}.png", 20, 20, split="train") for i in range(1, works + 1)]
    records += [ImageRecord(91, "91.png", 20, 20, split="train", domain="mimo"),
                ImageRecord(92, "92.png", 20, 20, (Box((1, 1, 9, 9), 1),), split="train"),
                ImageRecord(93, "93.png", 20, 20, split="test"),
                ImageRecord(94, "94.png", 20, 20, labels=None, split="train")]
    for record in records:
        Image.new("RGB", (20, 20), (record.id,) * 3).save(folder / record.file_name)
    Manifest(folder, CLASSES, tuple(records)).write(folder)
    config = Config.model_validate({"stages": {"cytomine": {"manifest": folder}}})
    return StageContext("cytomine", config, CLASSES, folder, torch.device("cpu"), True, None)


def test_no_more_than_surely_one_of_ten_works_shows_a_box(tmp_path: Path) -> None:
    finder = Shades()
    least = quiet_on_own_works(finder, FusionConfig(), Told(), stage(tmp_path, 50))  # type: ignore[arg-type]
    assert 0.49 < least <= 0.5  # of 50, one may show a box
    assert finder.rescorer == "the usual"
    assert sorted(shade for shade, _ in finder.asked) == list(range(1, 51))
    assert all(tmp_path / f"{shade}.png" in unseen for shade, unseen in finder.asked)
    assert {len(unseen) for _, unseen in finder.asked} == {10}


@pytest.mark.parametrize("works", [LEAST_WORKS - 1, LEAST_WORKS])
def test_of_too_few_works_nothing_is_sure(works: int, tmp_path: Path) -> None:
    finder = Shades()
    least = quiet_on_own_works(finder, FusionConfig(), None, stage(tmp_path, works))  # type: ignore[arg-type]
    assert bool(least) == bool(finder.asked) == (works == LEAST_WORKS)
    assert all(rescorer is None for _, rescorer in finder.asked)


def test_pictures_of_one_group_are_unseen_together(tmp_path: Path) -> None:
    ctx, finder = stage(tmp_path, 50), Shades()
    manifest = Manifest.read(tmp_path)
    of_group = {1: "a", 2: "a", 3: "b", 4: "b", 5: "b", 92: "b"}  # 92 is boxed
    replace(manifest, images=tuple(replace(record, group=of_group.get(record.id))
                                   for record in manifest.images)).write(tmp_path)
    quiet_on_own_works(finder, FusionConfig(), Told(), ctx)  # type: ignore[arg-type]
    unseen = dict(finder.asked)
    for shade, group in of_group.items():
        others = {tmp_path / f"{i}.png" for i, other in of_group.items() if other == group}
        assert shade == 92 or others <= set(unseen[shade])
    assert all(tmp_path / f"{shade}.png" in files for shade, files in unseen.items())


def test_a_rescorer_that_cannot_be_fitted_without_some_works_asks_for_nothing(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Scores that the rescorer never lowered would ask for too much."""
    class TooFew:
        def fit(self, without: Collection[Path] = ()) -> Collection[Path] | None:
            return None if tmp_path / "1.png" in without else without

    finder = Shades()
    with caplog.at_level("INFO", logger="musicon"):
        least = quiet_on_own_works(finder, FusionConfig(), TooFew(), stage(tmp_path, 50))  # type: ignore[arg-type]
    assert least == 0 and not finder.asked and finder.rescorer == "the usual"
    assert "too few boxes to judge its own works" in caplog.text
