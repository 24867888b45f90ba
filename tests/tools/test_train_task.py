"""Whole works from folders to labels, as the tools are called: prepare, train."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from musicon.datasets import command
from musicon.datasets.records import Manifest
from musicon.detect.checkpoints import ModelFolderError, find_newest, load_model
from musicon.detect.tasks import UNCERTAIN
from musicon.detect.tasks.models import TaskModel, find

ROOT = Path(__file__).resolve().parents[2]
MOVEMENTS = ("Kubismus", "印象派", "Pop Art")
Run = Callable[..., int]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_of_tasks", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> int:
    module = tool(name)
    return command.run(module.main, module.parser(), [str(a) for a in arguments])


def paint(movement: int, rng: np.random.Generator, side: int = 48) -> Image.Image:
    """Stripes whose direction and colour tell the movement."""
    y, x = np.mgrid[0:side, 0:side]
    wave = np.sin((x, y, x + y)[movement] / 3 + rng.uniform(0, 6))
    colour = np.eye(3)[movement] + rng.uniform(0, 0.3, 3)
    picture = 128 + 90 * wave[..., None] * colour + rng.normal(0, 12, (side, side, 3))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three movements by four painters each, whose files have the same names."""
    folder, rng = tmp_path_factory.mktemp("task"), np.random.default_rng(0)
    for i, movement in enumerate(MOVEMENTS):
        for painter in "ABCD":
            for number in range(4):
                file = folder / "pictures" / movement / f"{movement[:1]}{painter}" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                paint(i, rng).save(file)
    assert run("prepare_data", "folder", folder / "pictures", "--attribute", "movement,painter",
               "--out", folder / "data", "--quiet") == 0
    return folder


def settings(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(f"name: small\ndata: {folder / 'data'}\nfeatures: {folder / 'features'}\n"
                    f"seed: 1\nsplit: {{shares: [0.5, 0.25, 0.25], near_duplicates: false}}\n"
                    f"{text}", encoding="utf-8")
    return file


CNN = """
network: {backbone: null, layers: [conv 8, pool, conv 8, pool], head: [flatten, dense 16],
          image_size: 32, batch_norm: learnt}
whole: {epochs: 150, batch_size: 16, learning_rate: 0.005, augmentation: none, flip: false,
        evaluate_every: 60, ema_decay: null}
"""
FEATURES = """
network: {backbone: tf_efficientnet_lite0, weights: none, image_size: 32}
views: 3
head: {probe_examples: 1000, steps: 8, batch_size: 8, evaluate_every: 4}
whole: {steps: 3, batch_size: 4, evaluate_every: 3, freeze: 5, rotate: 10, zoom: 0.1}
"""


@pytest.fixture(scope="module")
def cnn(data: Path) -> Path:
    assert run("train_net", "--task", "movement", "--config", settings(data, CNN), "--output",
               data / "runs" / "cnn", "--quiet") == 0
    return data / "runs" / "cnn"


def test_folders_of_any_language_become_attributes(data: Path) -> None:
    manifest = Manifest.read(data / "data")
    assert len(manifest) == 48 and not manifest.categories
    assert {r.attributes["movement"] for r in manifest.images} == set(MOVEMENTS)
    assert {r.attributes["painter"] for r in manifest.images if "印" in r.file_name} == {
        "印A", "印B", "印C", "印D"}
    names = {r.file_name for r in manifest.images}
    assert "images/Kubismus/KA_0.png" in names and "images/Kubismus/KB_0.png" in names
    assert all(r.labels is None for r in manifest.images), "nobody looked for instruments"


def test_a_network_learns_the_movements(cnn: Path) -> None:
    metrics = json.loads((cnn / "model" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["accuracy"] > 0.8 and metrics["test"]["works"] == 12
    assert set(metrics["test"]["classes"]) == set(MOVEMENTS)
    for name in ("logs/whole.csv", "logs/whole.png", "logs/whole-examples.png", "splits.json"):
        assert (cnn / name).is_file(), name
    splits = json.loads((cnn / "splits.json").read_text(encoding="utf-8"))["works"]
    painters: dict[str, set[str]] = {}
    for row in splits:
        painters.setdefault(row["file"].rsplit("_", 1)[0], set()).add(row["split"])
    assert all(len(found) == 1 for found in painters.values())


def test_what_only_stages_use_is_no_reason_to_train_again(cnn: Path) -> None:
    lineage = json.loads((cnn / "model" / "lineage.json").read_text(encoding="utf-8"))
    assert "mined_share" not in lineage["fingerprint"]["whole"]  # earlier runs don't know it


def test_the_model_labels_pictures_and_doubts_what_is_below_its_thresholds(cnn: Path) -> None:
    model = TaskModel.load(cnn, "cpu")
    rng = np.random.default_rng(5)
    said = model.label([np.array(paint(i % 3, rng)) for i in range(12)])
    right = [next(iter(answer.probabilities)) == MOVEMENTS[i % 3] for i, answer in enumerate(said)]
    assert sum(right) >= 10
    assert all(a.name in (UNCERTAIN, next(iter(a.probabilities))) for a in said)
    assert all(list(a.probabilities.values()) == sorted(a.probabilities.values(), reverse=True)
               for a in said)
    assert 0 < model.network.least_likeness < 1 and 0 < model.network.least_confidence < 1
    pictures = [np.array(paint(i % 3, rng)) for i in range(4)]
    for likeness, confidence, doubted in ((-1, 0, 0), (1.01, 0, 4), (-1, 1.01, 4)):
        model.network.least_likeness.fill_(likeness)
        model.network.least_confidence.fill_(confidence)
        assert sum(answer.name == UNCERTAIN for answer in model.label(pictures)) == doubted
    assert model.label([]) == []


def test_a_model_of_works_is_none_of_instruments(cnn: Path) -> None:
    assert find("movement", cnn.parent) == cnn / "model"
    with pytest.raises(ModelFolderError, match=r"tells a work's movement.*--attributes movement="):
        load_model(cnn)
    with pytest.raises(ModelFolderError, match="no trained model"):
        find_newest(cnn.parent)
    with pytest.raises(ModelFolderError, match="no trained model of the painter"):
        find("painter", cnn.parent)


def test_head_then_pictures_and_again(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    command_line = ("train_net", "--task", "movement", "--config", settings(data, FEATURES),
                    "--output", data / "runs" / "features")
    assert run(*command_line) == 0
    assert "features of 48 works: 48 computed, 0 kept from before" in caplog.text
    before = TaskModel.load(data / "runs" / "features")
    state = {name: value.clone() for name, value in before.network.state_dict().items()}
    assert run(*command_line) == 0
    assert "done before" in caplog.text
    caplog.clear()
    assert run(*command_line, "--fresh") == 0
    assert "0 computed, 48 kept from before" in caplog.text
    again = TaskModel.load(data / "runs" / "features").network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    fits = before.metrics["fits"]
    assert set(fits) == {"head", "whole"} and fits["head"]["steps"] == 8


def test_works_are_labelled_in_every_result(cnn: Path, data: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    rng, images = np.random.default_rng(3), tmp_path / "images"
    images.mkdir()
    for i in range(3):
        paint(i, rng).save(images / f"{i}.png")
    (images / "broken.png").write_bytes(b"none")
    wanted = ("infer", "--no-boxes", "--no-review", "--attributes", f"movement={cnn}")
    assert run(*wanted, "--images", images, "--out", tmp_path / "out") == 1
    assert "movement: " in capsys.readouterr().out
    manifest = Manifest.read(tmp_path / "out" / "detections.json")
    model = TaskModel.load(cnn, "cpu")
    for record in manifest.images:
        said = model.label([np.array(Image.open(manifest.path(record)).convert("RGB"))])[0]
        assert record.attributes == {"movement": said.name}
        assert record.extra["attribute_scores"] == {"movement": dict(said.probabilities)}
    with (tmp_path / "out" / "detections.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["movement"] for row in rows] == [r.attributes["movement"] for r in manifest.images]
    assert all(0 < float(row["movement_probability"]) <= 1 for row in rows)
    assert run(*wanted, "--images", images / "0.png", "--out", tmp_path / "one") == 0
    said_of_one = capsys.readouterr().out
    assert all(name in said_of_one for name in MOVEMENTS) and "%" in said_of_one


def test_an_evaluation_has_figures_plots_pictures_and_one_page(
        cnn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "evaluation"
    assert run("evaluate", "--model", cnn, "--out", out, "--require", "accuracy=0.5") == 0
    assert "report: " in capsys.readouterr().out
    trained = json.loads((cnn / "model" / "metrics.json").read_text(encoding="utf-8"))
    document = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    for split in ("train", "val", "test"):
        again = document["splits"][split]
        assert again["confusion"] == trained[split]["confusion"], "the same works as in training"
        assert again["accuracy"] == trained[split]["accuracy"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 3 and "http" not in page
    assert all(name in page for name in (*MOVEMENTS, "Which movement is it?"))
    for name in ("confusion.png", "reliability.png", "curves_whole.png"):
        assert Image.open(out / name).width > 300
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    scalar = board.Scalars("movement/test/accuracy")[0].value
    assert scalar == pytest.approx(trained["test"]["accuracy"])
    assert "movement/confusion" in board.Tags()["images"]


def test_an_evaluation_on_other_works(cnn: Path, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(8)
    for i, name in enumerate(("KUBISMUS", "印象派", "unknown")):
        for number in range(3):
            file = tmp_path / "pictures" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            paint(i, rng).save(file)
    data = tmp_path / "data"
    assert run("prepare_data", "folder", tmp_path / "pictures", "--attribute", "movement", "--out",
               data, "--quiet") == 0
    wanted = ("evaluate", "--model", cnn, "--data", data, "--out", tmp_path / "out")
    assert run(*wanted, "--split", "all", "--require", "accuracy=1.01") == 1
    assert "bar missed: accuracy" in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert document["splits"]["all"]["works"] == 6
    assert "3 pictures were left out: the model was not taught their movement." in document["notes"]
    shutil.rmtree(data / "images")
    assert run(*wanted) == 2
    assert "images are not there" in capsys.readouterr().err
    assert run(*wanted[:-2], "--require", "ap50=1") == 2


@pytest.mark.parametrize(("wanted", "sentence"), [
    ("painter", "no trained model of the painter"), ("year", "there are: medium, movement"),
    ("painter={cnn}", "tells the movement"), ("", "say what to look for instead"),
    ("movement={cnn},movement={cnn}", "each attribute once")])
def test_attributes_that_cannot_be_told(cnn: Path, data: Path, tmp_path: Path, wanted: str,
                                        sentence: str, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("infer", "--images", data / "pictures", "--no-boxes", "--no-review", "--out", "out",
               "--attributes", wanted.format(cnn=cnn)) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("--task", "year"), "there are: medium, movement, painter"),
    (("--task", "medium"), "0 classes of medium"),
    (("--task", "movement", "--set", "netwrk.image_size=3"), "did you mean network"),
    (("--task", "movement", "--set", "network.head=[dens 3]"), "layer 'dens 3'"),
    (("--task", "movement", "--set", "data=nowhere"), "--attribute movement --out nowhere"),
    (("--task", "movement", "--set", "whole.epochs=null"), "nothing to learn"),
    (("--task", "movement", "--set", "whole.negative_share=0.3"),
     "whole: a task has no use for negative_share"),
])
def test_what_a_person_can_mend(data: Path, tmp_path: Path, arguments: tuple[str, ...],
                                sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train_net", *arguments[:2], "--config", settings(data, CNN), *arguments[2:],
               "--output", tmp_path / "out") == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
