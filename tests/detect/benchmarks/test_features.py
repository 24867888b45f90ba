"""``benchmark.py features``: what it times is what it says."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musicon.datasets.records import ImageRecord, Manifest
from musicon.detect.benchmarks import features


def test_kept_features_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, images = np.random.default_rng(0), []
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)).save(
            tmp_path / f"{i}.png")
        images.append(ImageRecord(i, f"{i}.png", 40, 30, labels=None, sha256=f"{i:064}",
                                  attributes={"movement": "abc"[i % 3], "painter": f"p{i}"}))
    Manifest(tmp_path, (), tuple(images)).write(tmp_path)
    settings = tmp_path / "settings.yaml"
    settings.write_text("name: t\ndata: x\nviews: 2\nnetwork: {backbone: tf_efficientnet_lite0, "
                        "weights: none, image_size: 64}\nhead: {steps: 5}\n")
    parser = argparse.ArgumentParser()
    features.add_arguments(parser)
    arguments = ["--data", str(tmp_path), "--config", str(settings), "--images", "300",
                 "--sample", "24"]
    assert features.run(parser.parse_args(arguments)) in (0, 1)
    said = capsys.readouterr().out
    assert "300 works, 2 views of each kept" in said and "second run: " in said
    settings.write_text("name: t\ndata: x\nnetwork: {backbone: null, layers: [conv 2]}\n"
                        "whole: {steps: 1}\n")
    with pytest.raises(features.UserError, match="no features are kept"):
        features.run(parser.parse_args(arguments))
