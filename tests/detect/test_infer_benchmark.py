"""The benchmark of an inference: a scan is searched whole, with its tiles, in its own process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from finder import tiny_model
from PIL import Image

from musicon.datasets import memory
from musicon.datasets.records import Manifest
from musicon.detect.benchmarks import infer
from musicon.detect.inference import InferenceOptions
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.tiling import TestTime


def test_a_scan_is_made_searched_and_measured(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(picture)
    held = np.ones(2 << 30, np.uint8)  # by this process, which is not the one to be measured
    assert memory.peak() > 2 << 30
    model = tiny_model(tmp_path / "run")
    peak, seconds = infer.measure_scan(
        model, str(picture), 120,
        InferenceOptions(threshold=0.0, annotated=False, quiet=True), "cpu", tmp_path,
        TestTime(zooms=(2.0,)))
    del held
    with Image.open(tmp_path / "scan" / "scan.tif") as scan:
        assert scan.size == (120, 120)
        shown = np.asarray(scan)
    assert (shown[60:90, 50:100] == pixels).all()
    (found,) = Manifest.read(tmp_path / "out-scan" / "detections.json").images
    with_tiles = ArtworkDetector.load(model, test_time=TestTime(zooms=(2.0,)))
    boxes = {tuple(np.round(box.xyxy)) for box in found.boxes}
    assert boxes == {tuple(box) for box in with_tiles.predict([shown], 0.0)[0].boxes.round()}
    assert boxes != {tuple(box) for box in
                     ArtworkDetector.load(model).predict([shown], 0.0)[0].boxes.round()}
    assert 50 << 20 < peak < 2 << 30 and seconds > 0
    assert infer._report_scan(120, peak, seconds)
    assert not infer._report_scan(120, infer.SCAN_BAR + 1, seconds)
    assert "bar: 4,096, MISSED" in capsys.readouterr().out
