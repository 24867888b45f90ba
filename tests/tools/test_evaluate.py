"""``tools/evaluate.py`` as it is called, with a real model folder, and with what can be wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colour_model import CATEGORIES, pictures

from musicon.datasets import command
from musicon.datasets.records import Manifest
from musicon.detect import classifier, detectors
from musicon.detect.checkpoints import save_model
from musicon.detect.config import Config

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"
Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Run:
    spec = importlib.util.spec_from_file_location("evaluate_tool", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*arguments: object) -> int:
        return command.run(tool.main, tool.parser(), [str(a) for a in arguments])

    return call


@pytest.fixture
def data(tmp_path: Path) -> Manifest:
    made = pictures(tmp_path / "data")
    made.write(tmp_path / "data")
    return made


@pytest.fixture
def results(tmp_path: Path, data: Manifest) -> Path:
    """Picture 4 (test split) with a false alarm, 1 to 3 with their lutes found."""
    rows = [{"image_id": i, "category_id": 1, "bbox": [75, 60, 150, 150], "score": 0.9}
            for i in (1, 3)]
    rows.append({"image_id": 4, "category_id": 2, "bbox": [5, 5, 90, 90], "score": 0.8})
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows))
    return file


def test_ready_predictions_in_a_process_of_its_own(
        tmp_path: Path, data: Manifest, results: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, str(TOOL), "--data", str(tmp_path / "data"),
                           "--predictions", str(results), "--split", "val", "--out", str(out),
                           "--require", "recall=0.5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "AP50" in done.stdout and "report.html" in done.stdout
    assert "calibration error of the 2 boxes shown" in done.stdout
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert written["found"] == {"hits": 2, "false_alarms": 0, "misses": 2, "precision": 1.0,
                                "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert written["coverage"]["images"] == 3
    assert {p.name for p in out.iterdir()} == {
        "metrics.json", "report.html", "rejects.jsonl", "precision_recall.png", "class_ap.png",
        "confusion.png", "reliability.png"}


def test_predictions_that_were_cut_say_so(
        tmp_path: Path, data: Manifest, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    said = replace(data, info={"threshold": 0.4}, images=tuple(
        replace(record, boxes=tuple(replace(box, score=0.9) for box in record.boxes))
        for record in data.images))
    said.write(tmp_path / "data" / "detections.json")
    common = ("--data", tmp_path / "data", "--split", "all", "--out", tmp_path / "out")
    assert run(*common, "--predictions", tmp_path / "data" / "detections.json") == 0
    assert "cut at a score of 0.40" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert written["lowest_score"] == 0.4


def test_a_model_folder(tmp_path: Path, data: Manifest, run: Run,
                        capsys: pytest.CaptureFixture[str]) -> None:
    config = Config.model_validate({
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 32},
        "detector": {"family": "fcos", "image_size": 128, "max_detections": 5}})
    torch.manual_seed(0)
    net = classifier.build(config.classifier, 2)
    save_model(tmp_path / "run" / "model", classifier=net,
               detector=detectors.build(config.detector, 2, net), config=config,
               categories=CATEGORIES, metrics={}, lineage={"stage": "cytomine"})
    out = tmp_path / "out"
    assert run("--data", tmp_path / "data", "--model", tmp_path / "run", "--split", "all", "--out",
               out, "--pictures", 2) == 0
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert written["threshold"] == config.fusion.threshold
    assert written["crops"]["count"] == 4 and written["pictures"]["count"] == 1
    assert "whole pictures" in (out / "report.html").read_text(encoding="utf-8")
    predictions = Manifest.read(out / "predictions.json")
    assert len(predictions) == 4 and all(b.score is not None for r in predictions.images
                                         for b in r.boxes)
    # What was written scores the same again, by the other way in.
    first = capsys.readouterr().out.splitlines()[1:5]
    assert run("--data", tmp_path / "data", "--predictions", out / "predictions.json", "--split",
               "all", "--out", tmp_path / "again") == 0
    assert capsys.readouterr().out.splitlines()[1:5] == first
    # Tiles add boxes that the look at the whole picture hasn't.
    assert run("--data", tmp_path / "data", "--model", tmp_path / "run", "--split", "all", "--out",
               tmp_path / "tiles", "--zoom", 2, "--quiet") == 0
    facts = json.loads((tmp_path / "tiles" / "metrics.json").read_text(encoding="utf-8"))["facts"]
    assert facts["further looks"] == "zoom 2" and "further looks" not in written["facts"]
    tiles = Manifest.read(tmp_path / "tiles" / "predictions.json")
    assert sum(len(r.boxes) for r in tiles.images) > sum(len(r.boxes) for r in predictions.images)


def test_bars_that_are_missed_and_reached(
        tmp_path: Path, data: Manifest, results: Path, run: Run,
        capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--data", tmp_path / "data", "--predictions", results, "--out", tmp_path / "out",
              "--quiet")
    assert run(*common, "--split", "val", "--require", "ap50=0.9") == 1
    assert "ap50 is 0." in capsys.readouterr().err
    assert run(*common, "--split", "val", "--require", "agnostic_ap50=0.4") == 0
    assert run(*common, "--split", "all", "--require", "false_alarms=0.5") == 1
    assert run(*common, "--split", "all", "--require", "false_alarms=1") == 0
    assert run(*common, "--split", "val", "--require", "ece_shown=0.11") == 0
    assert run(*common, "--split", "val", "--require", "ece_shown=0.09") == 1
    assert "ece_shown is 0.1000; at most 0.09" in capsys.readouterr().err
    assert run(*common, "--split", "all", "--require", "crop_top1=0.1") == 1
    assert "could not be measured" in capsys.readouterr().err


def test_unreadable_pictures_are_listed(tmp_path: Path, data: Manifest, results: Path, run: Run,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "1.png").write_bytes(b"")
    assert run("--data", tmp_path / "data", "--predictions", results, "--split", "val", "--out",
               tmp_path / "out") == 1
    assert "1.png" in (tmp_path / "out" / "rejects.jsonl").read_text(encoding="utf-8")
    assert "rejects.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (("--data", "missing"), "no such manifest"),
    (("--data", "data", "--split", "train"), "there are 3 val, 2 test: give one with --split"),
    (("--data", "data", "--predictions", "missing.json"), "tools/infer.py"),
    (("--data", "data", "--require", "ap50"), "NAME=NUMBER"),
    (("--data", "data", "--require", "map=0.3"), "no figure 'map'; there are ap,"),
    (("--data", "data", "--threshold", "fitted"), "--split val"),
    (("--data", "data", "--threshold", "1.5"), "is not a number from 0 to 1"),
    (("--data", "data", "--model", "nowhere"), "nowhere"),
    (("--data", "data", "--out", "results.json/x"), "results.json"),
])
def test_wrong_arguments_end_with_one_sentence_and_nothing_written(
        tmp_path: Path, data: Manifest, results: Path, run: Run, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    if not {"--predictions", "--model"} & set(arguments):
        arguments += ("--predictions", str(results))
    before = sorted(tmp_path.iterdir())
    try:
        code = run(*arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    error = capsys.readouterr().err
    assert code == 2
    assert words in error and "Traceback" not in error
    assert sorted(tmp_path.iterdir()) == before


def test_manifest_that_only_names_images_without_a_model_is_no_use(
        tmp_path: Path, data: Manifest, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = (tmp_path / "data" / "manifest.json").read_text(encoding="utf-8")
    document = json.loads(text)
    document["annotations"] = []
    for row in document["images"]:
        row["labels"] = None
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    assert run("--data", tmp_path / "data", "--split", "all", "--predictions", tmp_path) == 2
    assert "no boxes and no single known instrument" in capsys.readouterr().err


def test_boxes_outside_the_picture_are_refused(
        tmp_path: Path, data: Manifest, results: Path, run: Run,
        capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((tmp_path / "data" / "manifest.json").read_text(encoding="utf-8"))
    document["annotations"][0]["bbox"] = [500, 100, 400, 50]
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    assert run("--data", tmp_path / "data", "--predictions", results) == 2
    assert "1.png" in capsys.readouterr().err
