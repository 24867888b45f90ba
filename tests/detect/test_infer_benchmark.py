"""The benchmark of an inference: a scan is searched whole, with its tiles, in its own process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from finder import tiny_model
from PIL import Image

from musicon.detect.benchmarks import infer
from musicon.detect.inference import InferenceOptions
from musicon.detect.tiling import TestTime


def test_a_scan_is_made_searched_and_measured(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(picture)
    peak, seconds = infer.measure_scan(
        tiny_model(tmp_path / "run"), str(picture), 120,
        InferenceOptions(threshold=0.0, annotated=False, quiet=True), "cpu", tmp_path,
        TestTime(zooms=(2.0,)))
    with Image.open(tmp_path / "scan" / "scan.tif") as scan:
        assert scan.size == (120, 120)
        assert (np.asarray(scan)[60:90, 50:100] == pixels).all()
    assert (tmp_path / "out-scan" / "detections.json").is_file()
    assert 50 << 20 < peak < infer.SCAN_BAR and seconds > 0
    assert infer._report_scan(120, peak, seconds)
    assert not infer._report_scan(120, infer.SCAN_BAR + 1, seconds)
    assert "bar: 4,096, MISSED" in capsys.readouterr().out
