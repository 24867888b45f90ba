"""What the tests of sources share: small pictures, and one way to read a source."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musicon.datasets.records import Rejects
from musicon.datasets.sources import base
from musicon.datasets.sources.base import SourceData

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """``draw("violin/a.jpg", width, height)`` writes a picture of its own below ``tmp_path``."""
    made: list[Path] = []

    def picture(name: str, width: int = 40, height: int = 30, seed: int | None = None) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(made) if seed is None else seed)
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(file, "PNG" if file.suffix == ".png" else "JPEG")
        made.append(file)
        return file

    return picture


@pytest.fixture
def read_source() -> Reader:
    """``read_source("coco", path, "--only", "lute")`` -> what the source read, and its rejects."""

    def read(name: str, *arguments: object) -> tuple[SourceData, Rejects]:
        module = base.load(name)
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        rejects = Rejects()
        data = module.read(parser.parse_args([str(a) for a in arguments]), rejects)
        return data, rejects

    return read
