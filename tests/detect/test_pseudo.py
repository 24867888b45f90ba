"""What the parent stage sees: its pseudo-boxes, and its false alarms, which both models learn."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stage_data import CLASSES, Oracle, context, make_data, settings

from musicon.datasets.loading import ImageStore
from musicon.datasets.records import ImageRecord, Manifest
from musicon.detect import classifier as classifiers
from musicon.detect import detectors, pseudo
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.crops import ClassifierTask
from musicon.detect.detectors.task import DetectorTask
from musicon.detect.material import Item, collect
from musicon.detect.pseudo import (
    FalseAlarms,
    HardNegatives,
    _search,
    chances,
    pseudo_boxed,
    relevance,
)


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


def test_boxes_without_a_side_are_left_out(data: Path, tmp_path: Path) -> None:
    class Flat(Oracle):
        def detect(self, images: list) -> list[dict]:
            found = super().detect(images)
            for row in found:
                row["boxes"][1:, 2] = row["boxes"][1:, 0] + torch.tensor([0.0, 1.5])
            return found

    config = settings(data, pseudo_boxes={"min_score": 0.4, "max_per_image": 2})
    flat = Flat()
    parent = LoadedModel(flat, flat, config, CLASSES, {}, {}, tmp_path)
    boxes, scores = _search(data / "art" / "2.png", parent, ImageStore(512))
    assert scores == pytest.approx([0.9, 0.7])
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("every", [-1, 1000])
def test_what_was_seen_before_a_run_was_cut_off_is_kept(
        data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    config, file = settings(data, pseudo_boxes={"min_score": 0.4}), tmp_path / "false_alarms.json"
    found_there: list[int] = []

    class CutOff(Oracle):
        def detect(self, images: list) -> list[dict]:
            found_there.append(len(json.loads(file.read_text())) if file.exists() else 0)
            if len(found_there) == 3:
                raise KeyboardInterrupt
            return super().detect(images)

    oracle = CutOff()
    ctx = context(config, tmp_path, LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path))
    material = collect(ctx, "train")
    material = replace(material, negatives=material.negatives * 2)
    monkeypatch.setattr(pseudo, "KEPT_EVERY", every)
    with pytest.raises(KeyboardInterrupt):
        HardNegatives(material, ctx, 0.5)
    assert found_there == ([0, 1, 2] if every < 0 else [0, 0, 0])  # what a kill would leave
    assert len(json.loads(file.read_text())) == 2


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
    assert not HardNegatives(material, ctx, share=0).images
    assert oracle.asked == 0  # what nobody wants is not looked for
    found = HardNegatives(material, ctx, share=0.5)
    assert [image.item.path for image in found.images] == [
        item.path for item in material.negatives]
    # The third proposal is the second one again.
    assert all(len(image.boxes) == len(image.scores) == 2 for image in found.images)
    assert found.images[0].boxes[1] == pytest.approx([64, 48, 144, 108], abs=0.5)
    assert not HardNegatives(material, context(config, tmp_path), share=0.5).images  # no parent
    kept = HardNegatives(material, replace(ctx, parent=LoadedModel(
        None, None, config, CLASSES, {}, {}, tmp_path)), share=0.5)
    assert [image.scores for image in kept.images] == [image.scores for image in found.images]


def test_what_was_seen_of_data_that_moved_is_seen_again(data: Path, tmp_path: Path) -> None:
    def seen(place: Path) -> tuple[int, int]:
        config, oracle = settings(place, pseudo_boxes={"min_score": 0.4}), Oracle()
        parent = LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path)
        ctx = context(config, tmp_path / "cache", parent)
        material = collect(ctx, "train")
        return len(pseudo_boxed(material, ctx)), len(HardNegatives(material, ctx, 0.5).images)

    before = seen(data)
    assert min(before) > 0
    assert seen(Path(shutil.copytree(data, tmp_path / "moved"))) == before


def test_false_alarms_are_drawn_by_their_share(data: Path, tmp_path: Path) -> None:
    config = settings(data)
    oracle = Oracle()
    ctx = context(config, tmp_path, LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path))
    alarms, rng = HardNegatives(collect(ctx, "train"), ctx, share=0.25), np.random.default_rng(0)
    drawn = [alarms.draw(rng) for _ in range(2000)]
    assert np.mean([one is not None for one in drawn]) == pytest.approx(0.25, abs=0.03)
    assert len({one.item.path for one in drawn if one is not None}) == len(alarms.images)


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
def test_both_models_see_what_the_parent_took_for_an_instrument(share: float,
                                                                tmp_path: Path) -> None:
    work = np.full((240, 240, 3), 255, np.uint8)
    work[:72, :72] = 0  # the strongest proposal of the parent; the other begins at 96, 96
    Image.fromarray(work).save(tmp_path / "1.png")
    Manifest(tmp_path, CLASSES, (ImageRecord(1, "1.png", 240, 240, labels=(),
                                             split="train"),)).write(tmp_path)
    fit = {"steps": 1, "augmentation": "none", "mined_share": share}
    config = settings(tmp_path, manifest=str(tmp_path), rehearsal=[], detector=fit, classifier=fit)
    oracle = Oracle()
    ctx = context(config, tmp_path, LoadedModel(oracle, oracle, config, CLASSES, {}, {}, tmp_path))
    classifier = classifiers.build(config.classifier, 2)
    rng = np.random.default_rng(0)
    task = DetectorTask(detectors.build(config.detector, 2, classifier), ctx)  # type: ignore[arg-type]
    examples = [task.example(len(task) - 1, rng) for _ in range(30)]
    assert not any(len(example.boxes) for example in examples)
    dark = [(example.image < 128).mean() for example in examples]
    assert (min(dark) > 0.04) == bool(share)
    crops = ClassifierTask(classifier, ctx)
    drawn = [crops.example(len(crops) - 1, rng) for _ in range(30)]
    assert {label for _, label in drawn} == {0}
    # A crop of either proposal: mostly dark, or light throughout.
    shares = np.array([(crop < 128).mean() for crop, _ in drawn])
    assert bool(((shares > 0.5) | (shares < 0.05)).all() and 5 < (shares > 0.5).sum() < 25
                ) == bool(share)
