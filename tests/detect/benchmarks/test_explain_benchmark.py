"""benchmark.py explain: where instruments are known to be, and the tables that come of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from musicon.datasets.records import Box, Category, ImageRecord, Manifest, UserError
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.benchmarks import explain
from musicon.detect.checkpoints import save_model
from musicon.detect.config import Config

MODEL = (Category(1, "harp"), Category(2, "lute"))
DATA = (Category(3, "Laute"), Category(7, "kazoo"), Category(8, "harp"))
"""Another order, another language, and one that the model doesn't know."""


@pytest.fixture
def artworks(tmp_path: Path) -> Manifest:
    rng = np.random.default_rng(0)
    rows = []
    for number, (boxes, split) in enumerate(
            [((Box((10, 20, 60, 90), 3), Box((100, 30, 120, 60), 3), Box((0, 0, 9, 9), 7)), "test"),
             ((Box((5, 5, 50, 50), 8),), "test"), ((Box((5, 5, 50, 50), 8),), "train"),
             ((Box((5, 5, 50, 50), 7),), "test"), ((), "test")]):
        image = rng.integers(0, 255, (100, 150, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        rows.append(ImageRecord(number + 1, f"{number}.png", 150, 100, boxes, split=split))
    manifest = Manifest(tmp_path, DATA, tuple(rows))
    manifest.write(tmp_path / "manifest.json")
    return manifest


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number, split in enumerate(("test", "test", "train")):
        image = np.full((120, 90, 3), 240, np.uint8)
        cv2.ellipse(image, (40 + number, 55), (22, 35), 10, 0, 360, (30, 60, 120), -1)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        rows.append(ImageRecord(number + 1, f"{number}.png", 90, 120, labels=(3,), split=split))
    manifest = Manifest(folder, DATA, tuple(rows))
    manifest.write(folder / "manifest.json")
    return manifest


def test_boxed_cases_are_the_test_splits_of_classes_that_both_know(artworks: Manifest) -> None:
    cases = explain.boxed_cases(artworks, MODEL, limit=9, seed=0)
    assert sorted(case.output for case in cases) == [1, 2]
    lutes = next(case for case in cases if case.output == 2)
    assert lutes.image.shape == (100, 150, 3)
    assert lutes.instrument.sum() == 50 * 70 + 20 * 30
    assert lutes.instrument[20:90, 10:60].all() and not lutes.instrument[0:9, 0:9].any()
    np.testing.assert_array_equal(lutes.box, [10, 20, 60, 90])
    assert len(explain.boxed_cases(artworks, MODEL, limit=1, seed=0)) == 1
    with pytest.raises(UserError, match="no picture of an instrument that the model knows"):
        explain.boxed_cases(artworks, (Category(1, "organ"),), limit=9, seed=0)


def test_photos_show_where_the_instrument_and_the_panel_are(photos: Manifest) -> None:
    cases = explain.photo_cases(photos, MODEL, limit=9, seed=0)
    assert [case.output for case in cases] == [2, 2]
    ellipse = np.zeros((120, 90), np.uint8)
    cv2.ellipse(ellipse, (40, 55), (22, 35), 10, 0, 360, 1, -1)
    assert max(float((case.instrument & (ellipse > 0)).sum() / (case.instrument | (ellipse > 0))
                     .sum()) for case in cases) > 0.93
    framed = explain.with_panel(cases[0])
    assert framed.image.shape == (139, 90, 3) and framed.panel is not None
    np.testing.assert_array_equal(framed.image[:120], cases[0].image)
    assert not framed.panel[:120].any() and not (framed.panel & framed.instrument).any()
    assert {tuple(colour) for colour in framed.image[framed.panel]} == set(explain.PATCHES)
    np.testing.assert_allclose(framed.image[120:][~framed.panel[120:]], 240, atol=2)


def test_means_leave_out_what_could_not_be_measured() -> None:
    rows = [{"m": {"share": 0.2}}, {"m": {"share": 0.6}}, {"m": {"share": float("nan")}}]
    average, error = explain._over_cases(rows)["m"]["share"]
    assert average == pytest.approx(0.4) and error == pytest.approx(0.2)


def test_what_could_not_be_measured_is_null_in_json() -> None:
    document = {"scores": {"m": {"share": [0.5, float("nan")]}}, "cases": {"art": 1}}
    assert explain._without_nan(document) == {
        "scores": {"m": {"share": [0.5, None]}}, "cases": {"art": 1}}


def test_tables_curves_and_figures_are_written(artworks: Manifest, photos: Manifest,
                                               tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    config = Config.model_validate({
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 64},
        "detector": {"family": "ssdlite", "image_size": 128, "anchor_sizes": [32]}})
    classifier = classifiers.build(config.classifier, 2)
    save_model(tmp_path / "run" / "model", classifier=classifier, config=config, categories=MODEL,
               detector=detectors.build(config.detector, 2, classifier), metrics={},
               lineage={"stage": "cytomine"})
    parser = argparse.ArgumentParser()
    explain.add_arguments(parser)
    out = tmp_path / "out"
    words = ["--model", str(tmp_path / "run"), "--out", str(out), "--device", "cpu", "--quiet"]
    with pytest.raises(UserError, match="--artworks, --photos or both"):
        explain.run(parser.parse_args(words))
    assert explain.run(parser.parse_args(
        [*words, "--artworks", str(artworks.root), "--photos", str(photos.root)])) == 0
    said = capsys.readouterr().out
    text = (out / "explain.json").read_text()
    assert "NaN" not in text  # which no JSON reader but Python's takes
    document = json.loads(text)
    assert document["cases"] == {"artworks": 2, "photos": 2}
    for name in ("artworks", "photos"):
        for method in ("visualbackprop", "gradcam", "integrated-gradients", "centre"):
            assert set(document["scores"][name][method]) == set(explain.SCORES)
            shares = document["shares"][name][method]
            for view in ("whole", "crop"):
                whole = [shares[f"{view} {place}"][0] for place in explain.PLACES]
                assert whole == [None] * len(whole) or sum(whole) == pytest.approx(1, abs=1e-5)
            assert len(document["curves"][name][method]["deletion"]) == 17
    area = document["scores"]["artworks"]["area"]["share"][0]
    assert area == pytest.approx((50 * 70 + 20 * 30 + 45 * 45) / 2 / 15000)
    # Whatever the method, all pixels deleted or inserted leave the same picture.
    ends = {round(document["curves"]["photos"][m]["insertion"][-1], 6)
            for m in document["curves"]["photos"]}
    assert len(ends) == 1
    assert "| photos (2) | centre point |" in (out / "explain.md").read_text()
    assert (out / "explain.png").stat().st_size > 10_000 and "centre point" in said
