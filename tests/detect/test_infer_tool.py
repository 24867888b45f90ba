"""tools/infer.py: exit codes, messages, and the review that may be missing."""

from __future__ import annotations

import importlib.util
import json
import resource
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from finder import tiny_model
from PIL import Image

from musicon.datasets import command
from musicon.datasets.records import Manifest
from musicon.detect.model_files import LINEAGE, WEIGHTS
from musicon.detect.summary import hint

TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def infer(*arguments: object) -> int:
    module = tool("infer")
    return command.run(module.main, module.parser(), [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("run"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b/ä (1).png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 90, 3)).astype(np.uint8)).save(path)
    return tmp_path / "images"


def test_a_folder_is_searched_with_exit_code_0(images: Path, model: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert infer("--images", images, "--model", model, "--out", out, "--no-review",
                 "--threshold", 0) == 0
    said = capsys.readouterr().out
    manifest = Manifest.read(out / "detections.json")
    boxes = sum(len(record.boxes) for record in manifest.images)
    assert f"2 images, 2 with instruments, {boxes:,} boxes" in said
    assert "images/s" in said and str(out / "annotated") in said
    assert (out / "annotated" / "b" / "ä (1).png.jpg").is_file()
    assert infer("--images", images, "--model", model, "--out", out, "--no-review",
                 "--threshold", 0, "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_what_a_lower_threshold_would_do_is_told_where_none_is_given(
        images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for given in ((), ("--threshold", 0.2)):
        infer("--images", images, "--model", model, "--out", tmp_path / "out", "--no-review",
              *given)
        told.append("finds more, and more that is none" in capsys.readouterr().out)
    assert told == [True, False]
    assert hint(0.75).endswith("--threshold 0.25 finds more, and more that is none")


def test_a_model_of_drawn_sample_pictures_says_so(images: Path, model: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for source in ("folder", "atelier"):
        copy = shutil.copytree(model, tmp_path / source) / "model" / LINEAGE
        copy.write_text(json.dumps({**json.loads(copy.read_text()), "source": source}))
        infer("--images", images, "--model", tmp_path / source, "--out", tmp_path / "out",
              "--no-review")
        told.append("drawn sample pictures only" in capsys.readouterr().out)
    assert told == [False, True]


def test_rejects_give_exit_code_1(images: Path, model: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    (images / "broken.jpg").write_bytes(b"<html>not found</html>")
    assert infer("--images", images, "--model", model, "--out", tmp_path / "out", "--no-review",
                 "--no-annotated") == 1
    said = capsys.readouterr().out
    assert "1 file could not be read" in said and "rejects.jsonl" in said
    assert not (tmp_path / "out" / "annotated").exists()


def test_a_folder_that_may_not_be_read_gives_exit_code_1(
        images: Path, model: Path, tmp_path: Path, permissions_count: None,
        capsys: pytest.CaptureFixture[str]) -> None:
    (images / "b").chmod(0)
    arguments = ["--model", model, "--out", tmp_path / "out", "--no-review", "--no-annotated"]
    assert infer("--images", images, *arguments) == 1
    assert "1 x no permission to read this folder" in capsys.readouterr().out
    assert infer("--images", images / "b", *arguments) == 2
    assert capsys.readouterr().err == (f"error: {images / 'b'}: no permission to read this folder; "
                                       "change its permissions\n")
    (images / "b").chmod(0o755)


def test_default_model_and_results_folder(images: Path, model: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert infer("--images", images, "--no-review") == 2
    said = capsys.readouterr().err
    assert "train_net.py" in said and "make demo" in said and said.count("\n") == 1
    shutil.copytree(model / "model", tmp_path / "runs" / "demo" / "cytomine" / "model")
    assert infer("--images", images, "--no-review", "--limit", 1) == 0
    assert len(Manifest.read(tmp_path / "results" / "images" / "detections.json").images) == 1


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--images", "{tmp}/missing"], "no such file or folder"),
    (["--images", "{tmp}/empty"], "no images in"),
    (["--images", "{images}", "--model", "{tmp}/missing"], "no such folder"),
    (["--images", "{images}", "--model", "{tmp}/broken"], "weights"),
    (["--images", "{images}", "--device", "cuda:77"], "write auto or cpu"),
    (["--images", "{images}", "--out", "{tmp}/file/out"], "{tmp}/file"),
    (["--images", "{tmp}/bad"], "none of the 1 files could be read"),
])
def test_bad_input_is_one_sentence_and_exit_code_2(
        arguments: list[str], expected: str, images: Path, model: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"")
    (tmp_path / "file").write_text("in the way")
    shutil.copytree(model, tmp_path / "broken")
    weights = tmp_path / "broken" / "model" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    filled = [a.format(tmp=tmp_path, images=images) for a in arguments]
    for option, value in (("--model", model), ("--out", tmp_path / "out")):
        if option not in filled:
            filled += [option, str(value)]
    assert infer(*filled, "--no-review", "--quiet") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert expected.format(tmp=tmp_path) in said
    assert not (tmp_path / "out" / "detections.json").exists()


@pytest.mark.parametrize(("out", "expected"), [
    ("file", "file: not a folder"),
    ("file/below", "file: not a folder"),
    ("folder/annotated-is-a-file", "annotated: not a folder"),
    ("folder/json-is-a-folder", "detections.json: a folder, where a file"),
    ("/sys/musicon", "musicon: "),
])
def test_a_place_that_cannot_be_written_to_is_told_before_the_model_is_loaded(
        out: str, expected: str, images: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder" / "json-is-a-folder" / "detections.json").mkdir(parents=True)
    (tmp_path / "folder" / "annotated-is-a-file").mkdir()
    (tmp_path / "folder" / "annotated-is-a-file" / "annotated").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    if out.startswith("/sys") and not Path("/sys").is_dir():
        pytest.skip("no folder here that nobody may write to")
    assert infer("--images", images, "--model", tmp_path / "missing", "--out", tmp_path / out) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and expected in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_told_before_the_model_is_loaded(
        images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on file size stands in for a full disk: both fail in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code = infer("--images", images, "--model", tmp_path / "missing", "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and f"{tmp_path / 'out'}: the file grew" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [["--threshold", "1.5"], ["--batch-size", "0"],
                                   ["--workers", "x"], ["--precision", "8"], ["--images"]])
def test_wrong_arguments_are_refused(wrong: list[str], images: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        infer("--images", images, *wrong)
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_without_a_database_everything_is_written_all_the_same(
        images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://127.0.0.1:9")  # nobody listens there
    out = tmp_path / "out"
    assert infer("--images", images, "--model", model, "--out", out) == 0
    said = capsys.readouterr().out
    assert "review:   not loaded (" in said
    assert f"python tools/review.py --predictions {out / 'detections.json'}" in said
    assert len(Manifest.read(out / "detections.json").images) == 2
