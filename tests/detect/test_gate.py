"""A stage that training made worse on validation keeps its parent's weights, and says so."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from musicon.datasets.records import Category, ImageRecord, Manifest
from musicon.detect.checkpoints import load_model
from musicon.detect.config import CompositesConfig, Config, parse
from musicon.detect.resume import FitResult
from musicon.detect.stage_checks import StageError
from musicon.detect.stages import Carryover, Stage, train

CLASSES = (Category(1, "harp"), Category(2, "lute"))
COLOURS = ((190, 60, 20), (20, 60, 190))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that tell two classes by colour; in ``wrong`` the training labels are exchanged."""
    root = tmp_path_factory.mktemp("gate")
    for name in ("right", "wrong"):
        (root / name).mkdir()
        records = []
        for i in range(1, 25):
            image = np.full((48, 48, 3), 235, np.uint8)
            cv2.circle(image, (24, 24), 12 + i % 7, COLOURS[i % 2], -1)
            Image.fromarray(image).save(root / name / f"{i}.png")
            split = "train" if i <= 16 else "val"
            swapped = name == "wrong" and split == "train"
            records.append(ImageRecord(i, f"{i}.png", 48, 48, labels=(1 + (i + swapped) % 2,),
                                       domain="mimo", split=split))
        info = {"source": "folder" if name == "right" else "atelier"}
        Manifest(root / name, CLASSES, tuple(records), info).write(root / name)
    return root


def settings(photos: Path, output: Path, second: str, **changes: Any) -> Config:
    fit = {"steps": 4, "batch_size": 8, "augmentation": "none", "negative_share": 0.0,
           "label_smoothing": 0.0, "evaluate_every": 4, "probe_examples": 64, "ema_decay": None,
           "learning_rate": 1e-6}
    still = {"steps": 0}
    return parse({
        "output": str(output), "device": "cpu",
        "fusion": {"slope": 2.0, "shift": -1.0, "threshold": 0.4},
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 32},
        "detector": {"image_size": 128, "fpn_channels": 16, "anchor_sizes": [16, 32, 64, 100]},
        "stages": {"mimo": {"manifest": str(photos / "right"), "classifier": fit,
                            "detector": still},
                   "google": {"parent": "mimo", "manifest": str(photos / second),
                              "detector": still, "classifier": {**fit, **changes}}}})


def test_the_parent_is_kept_where_training_did_harm(
        photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="musicon"):
        first, second = train(settings(photos, tmp_path, "wrong"), ["mimo", "google"], quiet=True)
    assert first.metrics["gate"] == {}  # nothing to compare with
    gate = second.metrics["gate"]["classifier"]
    assert gate["kept"] == "parent" and gate["trained"] < gate["parent"]
    assert second.metrics["fits"]["classifier"]["score"] == gate["parent"]
    assert second.metrics["fits"]["classifier"]["best_step"] == 0
    parent, child = load_model(first.folder), load_model(second.folder)
    for name, value in parent.classifier.state_dict().items():
        if name != "temperature":
            assert torch.equal(value, child.classifier.state_dict()[name]), name
    assert json.loads((second.folder / "metrics.json").read_text())["gate"]["classifier"] == gate
    lineage = json.loads((second.folder / "lineage.json").read_text())
    assert lineage["kept_from_parent"] == ["classifier"]
    assert (parent.lineage["source"], lineage["source"]) == ("folder", None)  # not drawn only
    assert "the parent's weights are kept" in caplog.text


def test_a_harmless_stage_ships_what_it_learnt(photos: Path, tmp_path: Path) -> None:
    config = settings(photos, tmp_path, "right", probe_examples=0)
    first, second = train(config, ["mimo", "google"], quiet=True)
    gate = second.metrics["gate"]["classifier"]
    assert gate["kept"] == "trained" and gate["trained"] >= gate["parent"]
    child = load_model(second.folder)
    assert child.lineage["kept_from_parent"] == [] and child.lineage["source"] == "folder"
    fusion = child.config.fusion  # nothing is boxed here, so it stays as it is written
    assert (fusion.slope, fusion.shift, fusion.threshold) == (2.0, -1.0, 0.4)
    before = load_model(first.folder).classifier.state_dict()
    assert any(not torch.equal(before[name], value)
               for name, value in child.classifier.state_dict().items() if name != "temperature")


def test_where_validation_shows_nothing_it_is_told() -> None:
    said: list[str] = []
    stage: Any = SimpleNamespace(name="google", gates={}, say=said.append)
    task: Any = SimpleNamespace(name="detector")
    result = FitResult(steps=2, best_step=2, metrics={"score": 0.0}, seconds=1.0)
    assert Stage.gate(stage, task, result, Carryover({}, {"score": 0.0})) is result
    assert stage.gates["detector"]["kept"] == "trained"
    assert said == ["stage google: detector: validation cannot tell it from the parent's: neither "
                    "finds anything there"]


def test_a_detector_that_has_not_learnt_gets_no_threshold(
        photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = settings(photos, tmp_path, "right")
    boxable = {"composites": CompositesConfig(), "backgrounds": (photos / "right",)}
    stages = {name: stage.model_copy(update=boxable) for name, stage in config.stages.items()}
    names = ["mimo", "google"]  # a child's detector knows no more than its parent's
    with caplog.at_level(logging.INFO, logger="musicon"):
        results = train(config.model_copy(update={"stages": stages}), names, quiet=True)
    for name, done in zip(names, results, strict=True):
        assert (f"stage {name}: the detector has not learnt anything, so the threshold stays 0.4"
                in caplog.text)
        assert done.metrics["validation"] is None and done.metrics["threshold"] == 0.4
        assert load_model(done.folder).rescorer is None


def test_settings_that_nothing_is_trained_by_are_written_when_they_change(
        photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = settings(photos, tmp_path, "right")
    train(config, ["mimo"], quiet=True)
    weights = (tmp_path / "mimo" / "model" / "weights.safetensors").read_bytes()
    fusion = config.fusion.model_copy(update={"threshold": 0.7, "sure_share": 0.9})
    changed = config.model_copy(update={"fusion": fusion})
    with caplog.at_level(logging.INFO, logger="musicon"):
        done, = train(changed, ["mimo"], quiet=True)
    kept = load_model(done.folder).config.fusion
    assert done.repeated and (kept.threshold, kept.sure_share) == (0.7, 0.9)
    assert "fusion.sure_share" in caplog.text and "fusion.threshold" in caplog.text
    assert (tmp_path / "mimo" / "model" / "weights.safetensors").read_bytes() == weights
    again, = train(changed, ["mimo"], quiet=True)
    assert not again.repeated


@pytest.mark.parametrize("part", ["classifier", "detector"])
def test_a_stage_whose_examples_would_all_be_empty_is_refused(
        photos: Path, tmp_path: Path, part: str) -> None:
    """Pictures that nobody boxed, for the classifier of two instruments each."""
    named = Manifest.read(photos / "right")
    records = [ImageRecord(r.id, f"../right/{r.file_name}", 48, 48, domain="google", split=r.split,
                           labels=r.labels if part == "detector" else (1, 2))
               for r in named.images]
    folder = photos / f"named-{part}"
    folder.mkdir()
    Manifest(folder, CLASSES, tuple(records)).write(folder)
    config = settings(photos, tmp_path / "run", "right")
    mimo, still = config.stages["mimo"], config.stages["mimo"].detector
    fits = {part: mimo.classifier, "detector" if part == "classifier" else "classifier": still}
    config = config.model_copy(update={"stages": {"mimo": mimo.model_copy(update={
        **fits, "manifest": folder})}})
    with pytest.raises(StageError, match=f"mimo: its {part} has nothing to learn from: .* add such "
                       f"data, or write stages.mimo.{part}.steps=0, which trains none"):
        train(config, ["mimo"], quiet=True)
