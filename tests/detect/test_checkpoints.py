"""Model folders and checkpoints: whole or not at all, and refused with a reason."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric import Fabric

from musicon.datasets.files import sha256
from musicon.datasets.records import Category
from musicon.detect import classifier as classifiers
from musicon.detect import detectors, storage
from musicon.detect.checkpoints import (
    FORMAT,
    ModelFolderError,
    find_newest,
    load_model,
    model_folder,
    save_model,
)
from musicon.detect.config import Config, load
from musicon.detect.logs import RunFolder
from musicon.detect.model_files import MODEL_FILES, sweep
from musicon.detect.resume import Keeper, Progress
from musicon.detect.storage import (
    CheckpointError,
    digest,
    read_checkpoint,
    read_tensors,
    state_hash,
    write_checkpoint,
    write_tensors,
)

CATEGORIES = (Category(1, "lute", "strings", mimo="3394"), Category(2, "harp", "strings"))
SETTINGS = ["classifier.weights=none", "classifier.image_size=32", "detector.family=ssdlite",
            "detector.image_size=128", "fusion.threshold=0.123"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    folder = tmp_path_factory.mktemp("run") / "mimo" / "model"
    write_model(folder, load(None, SETTINGS))
    return folder


def write_model(folder: Path, config: Config, **lineage: object) -> None:
    torch.manual_seed(0)
    classifier = classifiers.build(config.classifier, 2)
    detector = detectors.build(config.detector, 2, classifier)
    save_model(folder, classifier=classifier, detector=detector,  # type: ignore[arg-type]
               config=config, categories=CATEGORIES, metrics={"threshold": 0.123},
               lineage={"stage": "mimo", "ancestors": [], **lineage})


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The model folder, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_a_model_folder_gives_back_the_same_model(trained: Path) -> None:
    model = load_model(trained)
    assert model.categories == CATEGORIES
    assert model.config == load(None, SETTINGS)
    assert model.stage == "mimo"
    assert model.lineage["format"] == FORMAT
    assert not model.classifier.training
    assert not model.detector.training
    image = torch.rand(3, 100, 80)
    again = load_model(trained.parent)
    crops = torch.rand(2, 3, 32, 32) * 255
    torch.testing.assert_close(model.classifier(crops), again.classifier(crops))
    for a, b in zip(model.detector.detect([image])[0].values(),
                    again.detector.detect([image])[0].values(), strict=True):
        torch.testing.assert_close(a, b)
    assert sorted(p.name for p in trained.iterdir()) == sorted(MODEL_FILES)


def test_a_model_folder_cannot_have_a_file_run(copied: Path) -> None:
    """detectron2 runs a configuration file when it reads it; a folder may come from anybody."""
    program, ran = copied / "network.py", copied / "ran"
    program.write_text(f"open({str(ran)!r}, 'w').close()")
    settings = yaml.safe_load((copied / "config.yaml").read_text())
    settings["detector"] |= {"engine": "detectron2", "config": str(program)}
    (copied / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ModelFolderError, match=r"detector\.config names a file .* --stage mimo"):
        load_model(copied)
    assert not ran.exists()


def test_the_same_weights_are_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model", load(None, SETTINGS))
    assert sha256(tmp_path / "model" / "weights.safetensors") == sha256(
        trained / "weights.safetensors")
    assert not list(tmp_path.glob(".*"))


def test_writing_over_a_model_replaces_it_whole(copied: Path) -> None:
    (copied / "left-over").write_text("")
    write_model(copied, load(None, [*SETTINGS, "fusion.threshold=0.9"]))
    assert load_model(copied).config.fusion.threshold == 0.9
    assert not (copied / "left-over").exists()
    assert [p.name for p in copied.parent.iterdir()] == ["model"]


KILL = """
import os, sys
from pathlib import Path
whole = os.rename, os.replace
def kill_before(name, function):
    def call(old, new, **options):
        # The second renaming of a folder: the old one is away, the new one not yet in.
        if Path(new) == Path(sys.argv[1]) and Path(old).is_dir():
            os._exit(9)
        return function(old, new, **options)
    setattr(os, name, call)
kill_before("rename", os.rename)
kill_before("replace", os.replace)
sys.path.insert(0, sys.argv[2])
from test_checkpoints import SETTINGS, load, write_model
write_model(Path(sys.argv[1]), load(None, [*SETTINGS, "fusion.threshold=0.9"]))
"""


@pytest.fixture(scope="module")
def killed_run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage's folder whose model was being replaced when its process died."""
    stage = tmp_path_factory.mktemp("killed") / "mimo"
    shutil.copytree(trained, stage / "model")
    done = subprocess.run([sys.executable, "-c", KILL, str(stage / "model"),
                           str(Path(__file__).parent)], check=False)
    assert done.returncode == 9 and not (stage / "model").exists()
    return stage


@pytest.mark.parametrize("find", [
    lambda stage: load_model(stage).folder, lambda stage: load_model(stage / "model").folder,
    lambda stage: model_folder(stage.parent), lambda stage: find_newest(stage.parent)])
def test_a_kill_while_a_model_is_replaced_leaves_the_old_one(
        killed_run: Path, tmp_path: Path, find: Callable[[Path], Path]) -> None:
    stage = Path(shutil.copytree(killed_run, tmp_path / "runs" / "mimo"))
    assert find(stage) == stage / "model"
    assert load_model(stage / "model").config.fusion.threshold == 0.123


def test_training_on_after_such_a_kill_tidies_up(killed_run: Path, tmp_path: Path) -> None:
    stage = Path(shutil.copytree(killed_run, tmp_path / "mimo"))
    sweep(stage)
    assert [path.name for path in stage.iterdir()] == ["model"]
    assert load_model(stage).config.fusion.threshold == 0.123
    shutil.copytree(killed_run, tmp_path / "again")
    write_model(tmp_path / "again" / "model", load(None, [*SETTINGS, "fusion.threshold=0.9"]))
    assert load_model(tmp_path / "again").config.fusion.threshold == 0.9


def test_a_reader_in_that_moment_does_not_stop_the_writer(
        copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename
    seen: list[str] = []

    def read_first(old: Path, new: Path) -> None:
        if Path(new) == copied and not seen and not copied.exists():
            seen.append("")
            assert load_model(copied).config.fusion.threshold == 0.123
        rename(old, new)

    monkeypatch.setattr(os, "rename", read_first)
    write_model(copied, load(None, [*SETTINGS, "fusion.threshold=0.9"]))
    assert seen and load_model(copied).config.fusion.threshold == 0.9
    assert [path.name for path in copied.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelFolderError, match=name.replace(".", r"\.")):
        load_model(copied)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_damaged_file_is_named(copied: Path, name: str) -> None:
    file = copied / name
    file.write_bytes(file.read_bytes()[:20] + b"\xff{[")
    with pytest.raises(ModelFolderError, match=name.replace(".", r"\.")) as caught:
        load_model(copied)
    assert str(copied) in str(caught.value)


@pytest.mark.parametrize("name", ["lineage.json", "metrics.json", "categories.json"])
def test_a_file_of_another_shape_is_named(copied: Path, name: str) -> None:
    (copied / name).write_text("[7]")
    with pytest.raises(ModelFolderError, match=name.replace(".", r"\.") + r".*train_net\.py"):
        load_model(copied)


def test_silent_damage_to_weights_is_found(copied: Path) -> None:
    file = copied / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"weights are damaged; copy the folder again"):
        load_model(copied)


def test_weights_that_are_no_numbers_are_refused(copied: Path) -> None:
    file = copied / "weights.safetensors"
    state = read_tensors(file)
    next(value for value in state.values() if value.ndim == 4)[0, 0, 0, 0] = float("nan")
    write_tensors(file, state)
    lineage = json.loads((copied / "lineage.json").read_text())
    del lineage["weights_sha256"]  # as in folders of before it was noted
    (copied / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(ModelFolderError, match="weights are damaged"):
        load_model(copied)


def test_another_version_is_refused(copied: Path) -> None:
    lineage = json.loads((copied / "lineage.json").read_text())
    lineage["format"], lineage["versions"] = FORMAT + 1, {"musicon": "9.1"}
    (copied / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(ModelFolderError, match=r"format 2.*reads format 1.*musicon 9\.1.*"
                                               r"train_net\.py --stage mimo"):
        load_model(copied)


def test_weights_of_another_model_are_refused(copied: Path) -> None:
    text = (copied / "categories.json").read_text()
    (copied / "categories.json").write_text(
        text.replace("]", ', {"id": 3, "name": "drum", "supercategory": "percussion"}]'))
    with pytest.raises(ModelFolderError, match=r"do not fit the classifier .*size mismatch"):
        load_model(copied)


def test_settings_of_another_version_are_refused(copied: Path) -> None:
    with (copied / "config.yaml").open("a") as stream:
        stream.write("colour: red\n")
    with pytest.raises(ModelFolderError, match=r"colour: unknown setting.*another version"):
        load_model(copied)


def test_no_model_says_how_to_get_one(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelFolderError, match=r"train_net\.py --stage all.*--model"):
            load_model(path)
    with pytest.raises(ModelFolderError, match=r"no trained model.*train_net\.py"):
        find_newest(tmp_path)


def test_the_newest_model_is_found(trained: Path, tmp_path: Path) -> None:
    now = time.time()
    for stage, age in (("mimo", 0.0), ("google", 0.0), ("cytomine", 500.0)):
        folder = tmp_path / "runs" / stage / "model"
        shutil.copytree(trained, folder)
        lineage = json.loads((folder / "lineage.json").read_text())
        lineage["ancestors"] = ["mimo"] if stage == "google" else []
        (folder / "lineage.json").write_text(json.dumps(lineage))
        os.utime(folder / "weights.safetensors", (now - age, now - age))
    assert find_newest(tmp_path / "runs").parent.name == "google"
    assert model_folder(tmp_path / "runs").parent.name == "google"
    assert model_folder(tmp_path / "runs" / "cytomine").parent.name == "cytomine"
    assert model_folder(tmp_path / "runs" / "cytomine" / "model").parent.name == "cytomine"


def test_tensors_round_trip(tmp_path: Path) -> None:
    state = {"a": torch.randn(2, 3).T, "b": torch.tensor(3), "c": torch.zeros(0, 4)}
    write_tensors(tmp_path / "x.safetensors", state)
    found = read_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], value) for name, value in state.items())
    with pytest.raises(CheckpointError, match="--fresh"):
        read_tensors(tmp_path / "y.safetensors")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "x.ckpt"
    write_checkpoint(file, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        write_checkpoint(file, {"step": 2, "bad": lambda: 0})
    assert read_checkpoint(file)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("write", [write_checkpoint, write_tensors])
def test_a_full_disk_is_told_as_such(tmp_path: Path,
                                     write: Callable[[Path, dict[str, Any]], None]) -> None:
    """A limit on file size stands in for a full disk: both fail in the middle of a write."""
    file = tmp_path / "x.ckpt"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"x\.ckpt") as caught:
            write(file, {"format": torch.tensor(FORMAT), "x": torch.zeros(500_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(file)
    assert not list(tmp_path.iterdir())


class Harmful:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"format": storage.FORMAT, "x": Harmful(tmp_path / "made")}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "made").exists()


def test_checkpoints_have_a_version_of_their_own(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FORMAT", FORMAT + 1)  # not that of model folders
    keeper = Keeper("toy", RunFolder(tmp_path), Fabric(accelerator="cpu", devices=1), {})
    keeper.progress()
    keeper.finish(Progress(step=7))
    assert keeper.progress().step == 7


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"format": storage.FORMAT + 1}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="another version"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_sweeping_takes_only_what_is_half_written(tmp_path: Path) -> None:
    (tmp_path / ".model.abc.part").mkdir()
    (tmp_path / ".x.ckpt.abc.part").write_text("")
    (tmp_path / "x.ckpt").write_text("")
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


def test_hashes_see_every_change() -> None:
    base = {"a": torch.zeros(2, 2), "n": torch.tensor(1)}
    others = [{"a": torch.zeros(4), "n": torch.tensor(1)}, {"b": torch.zeros(2, 2)},
              {"a": torch.full((2, 2), 1e-30), "n": torch.tensor(1)},
              {"a": torch.zeros(2, 2, dtype=torch.float64), "n": torch.tensor(1)}]
    hashes = {state_hash(state) for state in (base, *others)}
    assert len(hashes) == 5
    assert state_hash(dict(base)) in hashes
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
