"""A run that takes stages over from another ends with the bytes of one that trains them itself."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from musicon.datasets.records import Category, ImageRecord, Manifest, UserError
from musicon.detect import adaptation, stages
from musicon.detect.benchmarks.reuse import take_over
from musicon.detect.checkpoints import load_model
from musicon.detect.config import Config, parse
from musicon.detect.stages import train
from musicon.detect.storage import read_checkpoint, write_checkpoint

STAGES = ("mimo", "google")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes, and a finished run, ``lender``."""
    root = tmp_path_factory.mktemp("reuse")
    records = []
    for i in range(1, 13):
        image = np.full((48, 48, 3), 235, np.uint8)
        cv2.circle(image, (24, 24), 12 + i % 7, (190, 60, 20) if i % 2 else (20, 60, 190), -1)
        Image.fromarray(image).save(root / f"{i}.png")
        records.append(ImageRecord(i, f"{i}.png", 48, 48, labels=(1 + i % 2,), domain="mimo",
                                   split="train" if i <= 8 else "val"))
    Manifest(root, (Category(1, "harp"), Category(2, "lute")), tuple(records)).write(root)
    train(settings(root, root / "lender"), STAGES, quiet=True)
    return root


def settings(root: Path, output: Path, seed: int = 0, share: float = 0.5,
             **google: object) -> Config:
    fit = {"steps": 2, "batch_size": 4, "augmentation": "light", "evaluate_every": 2}
    still = {**fit, "steps": 0}
    return parse({
        "output": str(output), "device": "cpu", "seed": seed, "fusion": {"disagreement": share},
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 32},
        "detector": {"image_size": 128, "fpn_channels": 16, "anchor_sizes": [16, 32, 64, 100]},
        "stages": {"mimo": {"manifest": str(root), "classifier": fit, "detector": still},
                   "google": {"parent": "mimo", "manifest": str(root),
                              "classifier": {**fit, **google}, "detector": still}}})


def model(output: Path, stage: str, name: str) -> bytes:
    return (output / stage / "model" / name).read_bytes()


@pytest.mark.parametrize(("changes", "taken"), [
    ({}, STAGES), ({"share": 0.2}, STAGES), ({"learning_rate": 0.01}, STAGES[:1]),
    ({"seed": 1}, ())])
def test_what_is_alike_is_taken_over_and_the_rest_trained(
        root: Path, tmp_path: Path, changes: dict, taken: tuple[str, ...]) -> None:
    took, alone = (settings(root, tmp_path / name, **changes) for name in ("took", "alone"))
    take_over(took, STAGES, [root / "nowhere", root / "lender"])
    assert tuple(s for s in STAGES if (took.output / s).exists()) == taken
    for config in (took, alone):
        train(config, STAGES, quiet=True)
    for stage in STAGES:
        for name in ("weights.safetensors", "categories.json"):
            assert model(took.output, stage, name) == model(alone.output, stage, name), stage
    assert all(model(took.output, stage, "weights.safetensors")
               == model(root / "lender", stage, "weights.safetensors") for stage in taken)


def test_the_run_that_fits_best_lends_and_one_that_has_begun_takes_nothing(
        root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = settings(root, tmp_path / "near", share=0.2)
    shutil.copytree(root / "lender", near.output)
    train(near, STAGES, quiet=True)  # another rule of fusion, so other settings
    config = settings(root, tmp_path / "run", share=0.2)
    caplog.clear()  # an earlier test may have left the log of the training above switched on
    with caplog.at_level("INFO", logger="musicon"):
        take_over(config, STAGES, [root / "lender", near.output])
    assert [record.getMessage() for record in caplog.records] == [
        f"stage {stage}: taken over from {near.output}" for stage in STAGES]
    begun = settings(root, tmp_path / "begun")
    (begun.output / "mimo").mkdir(parents=True)
    take_over(begun, STAGES, [root / "lender"])
    assert not any((begun.output / "mimo").iterdir()) and not (begun.output / "google").exists()


def test_an_unfinished_stage_and_a_broken_copy_lend_nothing(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(root / "lender", broken)
    (broken / "mimo" / "model" / "weights.safetensors").unlink()
    config = settings(root, tmp_path / "run")
    take_over(config, STAGES, [broken])
    assert not config.output.exists()
    (tmp_path / "run").mkdir()
    left = tmp_path / "run" / ".mimo.part"  # of a copy that was cut off
    left.mkdir()
    (left / "rest").touch()
    take_over(config, STAGES, [root / "lender"])
    assert not left.exists() and not (config.output / "mimo" / "rest").exists()
    assert (config.output / "google" / "model" / "weights.safetensors").is_file()


def test_what_a_stage_starts_from_is_taken_as_it_is_or_not_at_all(
        root: Path, tmp_path: Path) -> None:
    other = settings(root, tmp_path / "other", share=0.2)
    take_over(other, ["google"], [root / "lender"])
    before = (other.output / "mimo" / "model" / "config.yaml").read_bytes()
    done, = train(other, ["google"], quiet=True)
    assert (other.output / "mimo" / "model" / "config.yaml").read_bytes() == before
    assert load_model(done.folder).config.fusion.disagreement == 0.2
    assert model(other.output, "google", "weights.safetensors") \
        == model(root / "lender", "google", "weights.safetensors")
    longer = settings(root, tmp_path / "longer")
    mimo = longer.stages["mimo"]
    changed = mimo.model_copy(update={"detector": mimo.detector.model_copy(update={"steps": 1})})
    take_over(longer.model_copy(update={"stages": {**longer.stages, "mimo": changed}}),
              ["google"], [root / "lender"])
    assert not longer.output.exists()


def test_what_lenders_cannot_give(root: Path, tmp_path: Path) -> None:
    other = settings(root, tmp_path / "sure")
    other = other.model_copy(update={"fusion": other.fusion.model_copy(update={
        "sure_share": 0.9})})  # part of no fingerprint: nothing is trained or tuned by it
    take_over(other, STAGES, [root / "lender"])
    assert not (other.output / "mimo").exists()
    lender = tmp_path / "lender"
    shutil.copytree(root / "lender", lender)
    state = read_checkpoint(lender / "mimo" / "checkpoints" / "classifier.ckpt")
    state["progress"]["finished"] = False  # it is being trained again, with other settings
    state["fingerprint"]["seed"] = 7
    write_checkpoint(lender / "mimo" / "checkpoints" / "classifier.ckpt", state)
    config = settings(root, tmp_path / "run", share=0.2)
    take_over(config, STAGES, [lender])
    train(config, STAGES, quiet=True)
    assert model(config.output, "mimo", "weights.safetensors") \
        == model(root / "lender", "mimo", "weights.safetensors")
    mimo = config.stages["mimo"]
    longer = mimo.model_copy(update={"classifier": mimo.classifier.model_copy(
        update={"steps": 3})})
    changed = config.model_copy(update={"stages": {**config.stages, "mimo": longer}})
    with pytest.raises(UserError, match="remove .*run"):
        take_over(changed, ["google"], [lender])
    gone = mimo.model_copy(update={"manifest": tmp_path / "nowhere"})
    nothing = config.model_copy(update={"output": tmp_path / "nothing",
                                        "stages": {**config.stages, "mimo": gone}})
    take_over(nothing, STAGES, [lender])  # no error: training says better what is missing
    assert not nothing.output.exists()


def test_a_method_that_is_left_out_for_want_of_paintings_keeps_nothing_from_being_taken(
        root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path / "run")
    method = {"name": "teacher", "targets": [str(root / "nowhere")], "optional": True}
    stages = {name: stage.model_copy(update={"adaptation": (adaptation.settings(method),)})
              for name, stage in config.stages.items()}
    take_over(config.model_copy(update={"stages": stages}), STAGES, [root / "lender"])
    assert all((config.output / stage).exists() for stage in STAGES)


def test_a_stages_time_is_all_that_it_took(root: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    tune = stages.tune

    def slow(*given: Any) -> Any:
        time.sleep(2)
        return tune(*given)

    monkeypatch.setattr(stages, "tune", slow)
    started = time.monotonic()
    result, = train(settings(root, tmp_path), STAGES[:1], quiet=True)
    assert 2 < result.seconds < time.monotonic() - started
    again, = train(settings(root, tmp_path), STAGES[:1], quiet=True)
    assert again.seconds == result.seconds
