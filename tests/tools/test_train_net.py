"""``tools/train_net.py`` as it is called: three stages, kills, repetitions, wrong arguments."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from musicon.datasets import command
from musicon.datasets.records import Manifest, UserError
from musicon.detect.checkpoints import load_model
from musicon.detect.crops import ClassifierTask
from musicon.detect.detectors.task import DetectorTask

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("mimo", "google", "cytomine")
Run = Callable[..., int]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run() -> Run:
    train_net = tool("train_net")
    return lambda *arguments: command.run(train_net.main, train_net.parser(),
                                          [str(a) for a in arguments])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the program that is killed: other numbers of threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty generated pictures and settings that train on them for a few steps."""
    folder = tmp_path_factory.mktemp("train")
    data = folder / "data"
    subprocess.run([sys.executable, str(ROOT / "tools" / "prepare_data.py"), "atelier", "--size",
                    "60", "--workers", "1", "--quiet", "--out", str(data)], check=True,
                   stdout=subprocess.DEVNULL)
    classifier = {"steps": 4, "batch_size": 4, "evaluate_every": 2, "checkpoint_every": 2}
    detector = {"steps": 3, "batch_size": 2, "evaluate_every": 3, "checkpoint_every": 1,
                "augmentation": "light"}
    both = {"classifier": classifier, "detector": detector}
    stages = {
        "mimo": {"manifest": f"{data}/mimo", "backgrounds": [f"{data}/cytomine"],
                 "composites": {"share": 1.0}, **both},
        "google": {"parent": "mimo", "manifest": f"{data}/google",
                   "pseudo_boxes": {"min_score": 0.01}, **both},
        "cytomine": {"parent": "google", "manifest": f"{data}/cytomine", **both},
    }
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({
        "classifier": {"image_size": 48}, "stages": stages, "output": str(folder / "runs"),
        "detector": {"family": "fasterrcnn", "image_size": 128, "fpn_channels": 32,
                     "anchor_sizes": [16, 32, 64, 128], "max_detections": 5}}))
    return file


@pytest.fixture(scope="module")
def runs(settings: Path, run: Run) -> Path:
    """The run folder of all three stages, trained without a stop."""
    assert run("--stage", "all", "--config", settings, "--quiet") == 0
    return settings.parent / "runs"


def weights(runs: Path, stage: str) -> bytes:
    return (runs / stage / "model" / "weights.safetensors").read_bytes()


def figures(runs: Path, stage: str) -> dict[str, Any]:
    """Those of training, gate, fusion and validation, without the time that it took."""
    found: dict[str, Any] = json.loads((runs / stage / "model" / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name != "seconds"}


def test_each_stage_starts_from_the_last(runs: Path) -> None:
    parent = None
    for i, stage in enumerate(STAGES):
        model = load_model(runs / stage)
        lineage = model.lineage
        assert lineage["stage"] == stage
        assert lineage["ancestors"] == list(STAGES[:i])
        assert (lineage["parent"] or {}).get("stage") == parent
        assert lineage["versions"]["torch"] == torch.__version__.split("+")[0]
        assert len(lineage["data"]["manifest"]["sha256"]) == 64
        assert lineage["source"] == "atelier"
        assert {"steps", "best_step", "score"} <= model.metrics["fits"]["detector"].keys()
        for name in ("classifier.csv", "detector.csv", "classifier.png", "detector-examples.png"):
            assert (runs / stage / "logs" / name).stat().st_size > 100
        parent = stage


def test_the_threshold_is_set_where_boxes_allow_it(runs: Path) -> None:
    composed = load_model(runs / "mimo").metrics["validation"]
    assert composed["coverage"]["boxes"] > 0
    assert load_model(runs / "google").metrics["validation"] is None
    last = load_model(runs / "cytomine")
    validation = last.metrics["validation"]
    assert validation["threshold_chosen_here"]
    assert last.config.fusion.threshold == pytest.approx(validation["threshold"], abs=1e-4)


def test_what_is_done_is_not_repeated(runs: Path, settings: Path, run: Run,
                                      capsys: pytest.CaptureFixture[str],
                                      caplog: pytest.LogCaptureFixture) -> None:
    before = {stage: weights(runs, stage) for stage in STAGES}
    stamp = (runs / "mimo" / "model" / "weights.safetensors").stat().st_mtime_ns
    assert run("--stage", "all", "--config", settings) == 0
    assert caplog.text.count("done before with the same settings and data") == 3
    assert "next: python tools/evaluate.py --model" in capsys.readouterr().out
    assert (runs / "mimo" / "model" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert {stage: weights(runs, stage) for stage in STAGES} == before


def test_other_fusion_keeps_what_was_learnt(runs: Path, settings: Path, run: Run, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str],
                                            caplog: pytest.LogCaptureFixture) -> None:
    before = weights(runs, "cytomine")
    again = shutil.copytree(runs, tmp_path / "runs")  # the other tests' stays as it is
    program = ("--stage", "cytomine", "--config", settings, "--output", again)
    assert run(*program, "--set", "fusion.rule=detector") == 0
    assert "fusion.rule: product -> detector); training again" in caplog.text
    assert weights(again, "cytomine") == before
    assert load_model(again / "cytomine").config.fusion.rule == "detector"
    assert run(*program, "--set", "fusion.rule=auto") == 0
    chosen = load_model(again / "cytomine")
    tried = {row["rule"] for row in chosen.metrics["fusion"]}
    assert tried == {"detector", "classifier", "product"} and chosen.config.fusion.rule in tried
    assert weights(again, "cytomine") == before
    assert "detector 3/3" not in capsys.readouterr().out


def test_kill_9_and_ctrl_c_change_no_byte(runs: Path, settings: Path, run: Run,
                                          tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--stage", "all", "--config",
               str(settings), "--output", str(tmp_path)]
    rows, rounds = 0, [signal.SIGKILL, signal.SIGINT]
    targets = sorted(random.Random(time.time_ns()).sample(range(1, 13), 2))
    for target, number in zip(targets, rounds, strict=True):
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)
        while process.poll() is None and rows < target:
            time.sleep(0.01)
            rows = sum(max(0, file.read_bytes().count(b"\n") - 1)
                       for file in tmp_path.glob("*/logs/*.csv"))
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), output
    assert "run the same command again to go on" in output
    assert run(*program[2:], "--quiet") == 0
    for stage in STAGES:
        assert weights(tmp_path, stage) == weights(runs, stage), f"{stage}, stopped at {targets}"
        assert figures(tmp_path, stage) == figures(runs, stage), f"{stage}, stopped at {targets}"


def test_a_temperature_that_rounds_otherwise_stops_no_detector(
        settings: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command_line = ("--stage", "mimo", "--config", settings, "--output", tmp_path, "--quiet")
    learn, steps = DetectorTask.losses, iter(range(1))

    def disk_is_gone(*arguments: Any) -> dict[str, torch.Tensor]:
        if next(steps, None) is None:
            raise UserError("the disk is gone")
        return learn(*arguments)

    def set_to(value: float) -> Callable[[ClassifierTask], float]:
        return lambda task: float(task.model.temperature.data.fill_(value))

    with monkeypatch.context() as changed:
        changed.setattr(DetectorTask, "losses", disk_is_gone)
        changed.setattr(ClassifierTask, "calibrate", set_to(1.5))
        assert run(*command_line) == 2
    # Another processor, or a GPU, rounds otherwise.
    monkeypatch.setattr(ClassifierTask, "calibrate", set_to(1.500001))
    assert run(*command_line) == 0


def test_classes_may_differ_between_stages(runs: Path, settings: Path, run: Run, tmp_path: Path,
                                           caplog: pytest.LogCaptureFixture) -> None:
    data = settings.parent / "data"
    document = json.loads((data / "cytomine" / "manifest.json").read_text())
    last = document["categories"][-1]
    last["name"] = "theorbo"
    document["categories"].reverse()
    folder = tmp_path / "data"
    folder.mkdir()
    for row in document["images"]:
        row["file_name"] = os.path.relpath(data / "cytomine" / row["file_name"], folder)
    names = {c["id"]: c["name"] for c in document["categories"]}
    (folder / "manifest.json").write_text(json.dumps(document))
    common = ["--stage", "cytomine", "--config", settings, "--set",
              f"stages.cytomine.manifest={folder}", "--set", "stages.cytomine.detector.steps=0",
              "--set", "stages.cytomine.classifier.steps=0"]
    assert run(*common, "--output", _with_parents(runs, tmp_path / "own")) == 0
    assert "9 classes carried over; new: theorbo; no longer known:" in caplog.text
    own = load_model(tmp_path / "own" / "cytomine")
    assert [c.name for c in own.categories] == [names[i] for i in sorted(names)]
    assert run(*common, "--set", "stages.cytomine.keep_classes=true", "--output",
               _with_parents(runs, tmp_path / "kept")) == 0
    kept = load_model(tmp_path / "kept" / "cytomine")
    parent = load_model(runs / "google")
    assert len(kept.categories) == 11
    crops = torch.rand(2, 3, 48, 48) * 255
    old, new = parent.classifier(crops), kept.classifier(crops)
    for i, category in enumerate(parent.categories, start=1):
        j = [c.name for c in kept.categories].index(category.name) + 1
        torch.testing.assert_close(new[:, j], old[:, i])


def _with_parents(runs: Path, output: Path) -> Path:
    output.mkdir()
    (output / "google").symlink_to(runs / "google")
    return output


def test_another_backbone_is_trained_and_searched_with(settings: Path, run: Run,
                                                       tmp_path: Path) -> None:
    assert run("--stage", "mimo", "--config", settings, "--output", tmp_path, "--quiet",
               "--set", "classifier.backbone=torchvision:mobilenet_v3_small",
               "--set", "classifier.weights=none", "--set", "stages.mimo.classifier.steps=2",
               "--set", "stages.mimo.detector.steps=2") == 0
    infer = tool("infer")
    images = settings.parent / "data" / "cytomine" / "images"
    assert command.run(infer.main, infer.parser(), [
        "--images", str(images), "--model", str(tmp_path), "--out", str(tmp_path / "found"),
        "--limit", "2", "--device", "cpu", "--no-review", "--quiet"]) == 0
    assert len(Manifest.read(tmp_path / "found" / "detections.json").images) == 2


def test_settings_that_change_nothing_are_told(settings: Path, run: Run, tmp_path: Path,
                                               caplog: pytest.LogCaptureFixture) -> None:
    # The data are looked at, and the settings; then the stage that is not there ends it.
    assert run("--stage", "google", "--config", settings, "--output", tmp_path, "--set",
               "detector.family=fcos") == 2
    assert "detector.anchor_sizes changes nothing: the detector family fcos" in caplog.text
    assert "fpn_channels" not in caplog.text


@pytest.mark.parametrize("arguments, parts", [
    (["--stage", "google"], ["stage google starts from stage mimo", "has no model in",
                             "train_net.py --stage mimo --config"]),
    (["--stage", "mimo", "--set", "stages.mimo.manifest=nowhere/mimo"],
     ["nowhere/mimo", "prepare_data.py folder FOLDER_OF_PHOTOS --domain mimo --out nowhere/mimo",
      "prepare_data.py atelier --out nowhere"]),
    (["--stage", "mimo", "--set", "stages.mimo.backgrounds=[nowhere/else.json]"],
     ["stages.mimo.backgrounds.0", "--class negative"]),
    (["--stage", "mimoo"], ["--stage mimoo", "mimo, google, cytomine, all"]),
    (["--stage", "mimo", "--set", "classifier.backbon=x"], ["did you mean classifier.backbone?"]),
    (["--stage", "mimo", "--set", "device=cuda:9"], ["cuda:9", "cpu"]),
    (["--stage", "mimo", "--set", "precision=16-mixed", "--set", "device=cpu"],
     ["precision=bf16-mixed"]),
    (["--stage", "mimo", "--config", "nowhere.yaml"], ["nowhere.yaml: no such settings file"]),
])
def test_one_sentence_says_what_to_do(settings: Path, run: Run, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str],
                                      arguments: list[str], parts: list[str]) -> None:
    config = [] if "--config" in arguments else ["--config", str(settings)]
    assert run(*arguments, *config, "--output", tmp_path / "runs") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err
    assert not (tmp_path / "runs").exists()


def test_a_parent_of_another_shape_is_refused(runs: Path, settings: Path, run: Run,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--stage", "google", "--config", settings, "--set", "detector.fpn_channels=16") == 2
    error = capsys.readouterr().err
    assert "detector.fpn_channels: 32 -> 16" in error
    assert "--set detector.fpn_channels=16" in error


def test_images_that_are_gone_are_told_before_training(
        settings: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(settings.parent / "data" / "mimo" / "manifest.json", tmp_path)
    assert run("--stage", "mimo", "--config", settings, "--set",
               f"stages.mimo.manifest={tmp_path}", "--output", tmp_path / "runs") == 2
    number = len(Manifest.read(tmp_path))
    assert f"{number} of its {number} images are not there, such as" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "mimo" / "model").exists()


def test_a_split_without_images_is_refused(settings: Path, run: Run, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    made = Manifest.read(settings.parent / "data" / "mimo").select(split=["train", "test"])
    document = made.to_coco()
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert run("--stage", "mimo", "--config", settings, "--set",
               f"stages.mimo.manifest={tmp_path}", "--output", tmp_path / "runs") == 2
    assert "no image is in the split 'val'" in capsys.readouterr().err


def test_two_trainings_in_one_folder_are_refused(settings: Path, run: Run, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    (tmp_path / "mimo").mkdir()
    with (tmp_path / "mimo" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("--stage", "mimo", "--config", settings, "--output", tmp_path) == 2
    assert "another training is writing here" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "trains"), [
    (("--stage", "mimo"), "musicon.detect.stages.train"),
    (("--task", "movement"), "musicon.detect.tasks.running.train")])
def test_a_fresh_run_that_is_stopped_says_how_to_go_on(
        what: tuple[str, str], trains: str, run: Run, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trains, stopped)
    assert run(*what) == 130
    assert "--fresh" not in capsys.readouterr().out
    assert run(*what, "--fresh") == 130
    assert "leave out --fresh to go on" in capsys.readouterr().out
