"""tools/explain.py: whole pictures, found boxes and given ones, and what can go wrong."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from finder import CATEGORIES, tiny_model
from PIL import Image

from musicon.datasets import command
from musicon.datasets.loading import crop_square, square_around
from musicon.detect.checkpoints import load_model
from musicon.detect.explain import Explainer, ExplainOptions, Part, output_of
from musicon.detect.explanation_pictures import overlay
from musicon.detect.explanations.tracing import ExplanationError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "explain.py"


def explain(*arguments: object) -> int:
    spec = importlib.util.spec_from_file_location("tool_explain", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return command.run(module.main, module.parser(), [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("run"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, (width, height) in {"a.png": (90, 60), "b/ä $1$ (2).jpg": (40, 70)}.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3)).astype(np.uint8)).save(path)
    return tmp_path / "images"


def test_pictures_heat_index_and_page_are_written(images: Path, model: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    methods = ("visualbackprop", "gradcam", "integrated-gradients")
    assert explain("--images", images, "--model", model, "--out", out, "--threshold", 0,
                   "--method", *methods, "feature-maps", "--layers", 1, 2) == 0
    assert "2 images explained, 0 files left out" in capsys.readouterr().out
    document = json.loads((out / "explanations.json").read_text())
    assert document["methods"] == list(methods)
    page = (out / "index.html").read_text()
    for row in document["images"]:
        size = Image.open(out / row["file"]).size
        assert [part["kind"] for part in row["parts"]][:2] == ["picture", "detected"]
        assert row["parts"][0]["box"] == [0, 0, *size]
        assert list(row["heat"]) == list(methods)
        for heat in row["heat"].values():
            grey = Image.open(out / heat)
            assert (grey.mode, grey.size) == ("L", size)
        first = np.asarray(Image.open(out / row["heat"]["visualbackprop"]))
        assert first.max() > 200 and first.min() < 50
        picture, maps = row["pictures"]
        assert maps.startswith(f"feature_maps/{row['parts'][0]['instrument']}/")
        for file in (picture, maps):
            assert Image.open(out / file).size > (300, 200)
        assert row["name"] in page
    assert page.count("<img") == 4


def test_only_a_given_box_is_explained_in_pixels_of_the_original(images: Path, model: Path,
                                                                 tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert explain("--images", images / "a.png", "--model", model, "--out", out, "--class", "Geige",
                   "--box", 10, 20, 50, 40, "--quiet") == 0
    row, = json.loads((out / "explanations.json").read_text())["images"]
    part, = row["parts"]
    assert (part["kind"], part["box"], part["instrument"]) == ("given", [10, 20, 50, 40], "violin")
    heat = np.asarray(Image.open(out / row["heat"]["visualbackprop"]))
    # The classifier sees the box's longer side, 40, with a tenth (crop_margin) around it.
    margin = load_model(model, "cpu").config.fusion.crop_margin
    left, top, right, bottom = square_around(np.array([10, 20, 50, 40], np.float32), margin)
    assert heat[top:bottom, left:right].max() > 200
    outside = heat.copy()
    outside[max(top, 0):bottom, max(left, 0):right] = 0
    assert not outside.any()


def test_heat_lies_over_what_the_classifier_saw_of_the_picture() -> None:
    """A square that reaches beyond the picture: its heat is cut, not squeezed."""
    image = np.zeros((40, 60, 3), np.uint8)
    box = np.array([0, 0, 60, 40], np.float32)
    square = square_around(box, 0)
    assert square == (0, -10, 60, 50)
    ramp = np.repeat(np.linspace(0, 1, 61, dtype=np.float32)[1:, None], 60, axis=1)
    part = Part("picture", box, square, crop_square(image, box, 0, 60), 1, "lute", 1.0, 0.0,
                heats={"m": ramp})
    heat, place = part.over("m", image)
    assert place == (0, 0, 60, 40)
    np.testing.assert_allclose(heat, ramp[10:50], atol=1e-6)


def test_the_square_is_what_a_crop_shows() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (50, 80, 3)).astype(np.uint8)
    left, top, right, bottom = square_around(np.array([20.0, 10.0, 40.0, 26.0]), 0.1)
    assert (left, top, right, bottom) == (18, 6, 42, 30)
    np.testing.assert_array_equal(crop_square(image, np.array([20.0, 10.0, 40.0, 26.0]), 0.1, 24),
                                  image[top:bottom, left:right])


def test_found_boxes_are_the_detectors_own(model: Path) -> None:
    rng = np.random.default_rng(2)
    image = cv2.resize(rng.integers(0, 255, (9, 12, 3)).astype(np.uint8), (240, 180))
    explainer = Explainer(load_model(model, "cpu"), ExplainOptions(on=["detected"], threshold=0.0))
    found = explainer.detector.predict([image], 0.0)[0]
    parts = explainer.explain(image)
    assert 0 < len(parts) <= len(found)
    names = {category.id: category.name for category in CATEGORIES}
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part.box, found.boxes[i])
        assert part.name == names[int(found.labels[i])]
        assert part.score == pytest.approx(float(found.scores[i]))
        assert part.probability == pytest.approx(float(found.classifier_scores[i]), abs=1e-4)


def test_classes_by_their_names_in_many_languages() -> None:
    assert [output_of(name, CATEGORIES) for name in ("lute", " Violin ", "Laute", "harpe")] == [
        1, 2, 1, 3]
    with pytest.raises(ExplanationError, match="knows lute, violin, harp"):
        output_of("kazoo", CATEGORIES)


@pytest.mark.parametrize(("words", "sentence"), [
    (["--class", "kazoo"], "it knows lute, violin, harp"),
    (["--box", "10", "20", "5", "40"], "--box 10 20 5 40: not a box"),
    (["--box", "10", "20", "nan", "40"], "not a box"),
    (["--method", "feature-maps", "--layers", "99"], "--layers 99: this network has"),
    (["--device", "cuda:77"], "cuda:77"),
    (["--box", "1000", "1000", "1100", "1100"], "lies outside this picture of 90 x 60 pixels"),
])
def test_what_cannot_be_explained_is_one_sentence(words: list[str], sentence: str, images: Path,
                                                  model: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--images", images, "--model", model, "--out", tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1


def test_unreadable_files_are_listed_and_the_rest_explained(images: Path, model: Path,
                                                            tmp_path: Path) -> None:
    (images / "broken.jpg").write_bytes(b"no picture")
    long = images / f"{'ü' * 125}.png"
    (images / "a.png").rename(long)
    out = tmp_path / "out"
    assert explain("--images", images, "--model", model, "--out", out, "--on", "picture",
                   "--quiet") == 1
    rejected = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [Path(row["file"]).name for row in rejected] == ["broken.jpg"]
    rows = json.loads((out / "explanations.json").read_text())["images"]
    assert {row["name"] for row in rows} == {long.name, "b/ä $1$ (2).jpg"}
    assert all((out / heat).is_file() for row in rows for heat in row["heat"].values())


def test_without_captum_its_methods_say_how_to_get_it(images: Path, model: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    words = ["--images", images, "--model", model, "--out", tmp_path / "out", "--on", "picture"]
    assert explain(*words, "--method", "gradcam") == 2
    assert "pip install -e '.[explain]'" in capsys.readouterr().err
    assert explain(*words, "--method", "visualbackprop") == 0


def test_an_overlay_is_grey_where_cold_and_bright_where_hot() -> None:
    image = np.full((2, 2, 3), (200, 40, 40), np.uint8)
    shown = overlay(image, np.array([[0, 1], [0.5, 0]], np.float32)).astype(int)
    assert np.ptp(shown[0, 0]) == 0 and np.ptp(shown[1, 1]) == 0
    assert shown[0, 1].sum() > shown[1, 0].sum() > shown[0, 0].sum()
