"""What the parent stage sees: its pseudo-boxes, and its false alarms, which both models learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stage_data import CLASSES, Oracle, context, make_data, settings

from musicon.datasets.records import ImageRecord, Manifest
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.detectors.task import DetectorTask
from musicon.detect.material import Item, collect
from musicon.detect.pseudo import FalseAlarms, HardNegatives, chances, pseudo_boxed, relevance


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("material"))


def test_pseudo_boxes_follow_the_label(data: Path, tmp_path: Path) -> None:
    config = settings(data, pseudo_boxes={"min_score": 0.4, "max_per_image": 2})
    oracle = Oracle()
    parent = LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path)
    ctx = context(config, tmp_path, parent)
    boxed = pseudo_boxed(collect(ctx, "train"), ctx)
    assert len(boxed) == 1
    assert boxed[0].boxes == pytest.approx(np.array([[64, 48, 144, 108]]), abs=0.5)
    assert boxed[0].box_labels.tolist() == [2]
    (tmp_path / "pseudo_boxes.json").unlink()
    assert pseudo_boxed(collect(ctx, "train"), context(settings(data), tmp_path, parent)) == []


def test_relevance_rules_the_other_instruments_out(data: Path) -> None:
    parent = LoadedModel(None, None, settings(data), CLASSES, {}, {}, data)
    probabilities = np.array([[0.2, 0.7, 0.1]], np.float32)
    assert relevance(probabilities, "lute", parent) == pytest.approx([0.1 / 0.3])
    assert relevance(probabilities, "saxophone", parent) == pytest.approx([0.8])


def test_the_parents_false_alarms_are_kept_apart_and_cached(data: Path, tmp_path: Path) -> None:
    config = settings(data)
    oracle = Oracle()
    ctx = context(config, tmp_path, LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path))
    material = collect(ctx, "train")
    found = HardNegatives(material, ctx)
    assert [image.item.path for image in found.images] == [
        item.path for item in material.negatives]
    # The third proposal is the second one again.
    assert all(len(image.boxes) == len(image.scores) == 2 for image in found.images)
    assert found.images[0].boxes[1] == pytest.approx([64, 48, 144, 108], abs=0.5)
    again = HardNegatives(material, context(config, tmp_path))
    assert not again  # no parent
    kept = HardNegatives(material, replace(ctx, parent=LoadedModel(
        None, None, config, CLASSES, {}, {}, tmp_path)))  # type: ignore[arg-type]
    assert [image.scores for image in kept.images] == [image.scores for image in found.images]


def test_own_and_strong_false_alarms_are_drawn_most() -> None:
    def image(score: float, rehearsed: bool) -> FalseAlarms:
        item = Item(Path("a.png"), (), np.zeros((0, 4), np.float32), np.zeros(0, np.int64),
                    rehearsed=rehearsed)
        return FalseAlarms(item, np.array([[0, 0, 9, 9]], np.float32), [score])

    own, others = [image(0.2, False), image(0.6, False)], [image(0.1, True)] * 4
    assert chances([*own, *others], 0.2) == pytest.approx([0.2, 0.6, 0.05, 0.05, 0.05, 0.05])
    assert chances(own, 0.2) == pytest.approx([0.25, 0.75])
    assert chances(others, 0.0) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_detector_sees_what_the_parent_took_for_an_instrument(share: float,
                                                                  tmp_path: Path) -> None:
    work = np.full((240, 240, 3), 255, np.uint8)
    work[:72, :72] = 0  # the strongest proposal of the parent
    Image.fromarray(work).save(tmp_path / "1.png")
    Manifest(tmp_path, CLASSES, (ImageRecord(1, "1.png", 240, 240, labels=(),
                                             split="train"),)).write(tmp_path)
    fit = {"steps": 1, "augmentation": "none", "mined_share": share}
    config = settings(tmp_path, manifest=str(tmp_path), rehearsal=[], detector=fit)
    oracle = Oracle()
    parent = LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path)
    classifier = classifiers.build(config.classifier, 2)
    task = DetectorTask(detectors.build(config.detector, 2, classifier),  # type: ignore[arg-type]
                        context(config, tmp_path, parent))
    rng = np.random.default_rng(0)
    examples = [task.example(len(task) - 1, rng) for _ in range(30)]
    assert not any(len(example.boxes) for example in examples)
    dark = [(example.image < 128).mean() for example in examples]
    assert (min(dark) > 0.04) == bool(share)
