"""benchmark.py engines: that it measures what it says."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musicon.datasets.records import Box, Category, ImageRecord, Manifest, UserError
from musicon.detect.benchmarks import engines


def options(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    engines.add_arguments(parser)
    return parser.parse_args([str(a) for a in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Image.fromarray(np.full((100, 200, 3), 90, np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(np.full((50, 50, 3), 90, np.uint8)).save(tmp_path / "2.png")
    Manifest(tmp_path, (Category(1, "lute"),), (
        ImageRecord(1, "2.png", 50, 50),
        ImageRecord(2, "1.png", 200, 100, (Box((20, 10, 120, 90), 1),)))).write(tmp_path)
    return tmp_path


def test_boxed_pictures_shrink_with_their_boxes(data: Path) -> None:
    images, targets = engines.boxed(data, 100, 4)
    assert [tuple(image.shape) for image in images] == [(3, 50, 100)]
    torch.testing.assert_close(targets[0]["boxes"], torch.tensor([[10.0, 5.0, 60.0, 45.0]]))


def test_without_boxes_it_says_what_to_give(data: Path) -> None:
    Manifest(data, (Category(1, "lute"),), (ImageRecord(1, "2.png", 50, 50),)).write(data)
    with pytest.raises(UserError, match="--data"):
        engines.boxed(data, 100, 4)


@pytest.mark.parametrize("name", ["torchvision:fasterrcnn", "yolox:yolox_nano"])
def test_a_network_is_measured(name: str, data: Path) -> None:
    given = options("--data", data, "--image-size", 128, "--rounds", 1,
                    "--backbone", "mobilenetv3_small_050")
    started = time.perf_counter()
    found = engines.measure(name, given, *engines.boxed(data, 128, 4))
    assert 0 < found.image < found.step < time.perf_counter() - started
    assert found.parameters > 5e5 and found.peak > 1e8 and not found.fault


def test_odd_names(data: Path) -> None:
    with pytest.raises(UserError, match="ENGINE:FAMILY"):
        engines.run(options("--data", data, "--networks", "yolox"))
    with pytest.raises(UserError, match="yolox_nano, yolox_tiny"):
        engines.measure("yolox:fcos", options("--data", data), [], [])
