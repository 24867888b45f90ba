"""Painted textures as data sets, and the tool that makes banks of them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from musicon.datasets import command
from musicon.datasets.files import sha256
from musicon.datasets.records import ImageRecord, Manifest

SMALL = ("--encoder", "random", "--depth", "relu2_1", "--side", 32, "--quiet")
ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_bank(*arguments: object) -> int:
    module = tool("build_bank")
    return command.run(module.main, module.parser(), [str(a) for a in arguments])


def painted(kind: int, number: int, size: tuple[int, int] = (72, 60)) -> np.ndarray:
    """A texture of one of four kinds: stripes, blots, dots or flat, in colours of its own."""
    rng = np.random.default_rng([kind, number])
    width, height = size
    image = np.full((height, width, 3), (200, 180, 140), np.uint8)
    colour = ((20, 40, 150), (160, 20, 30), (10, 120, 50), (190, 170, 130))[kind]
    offset = int(rng.integers(8))
    if kind == 0:
        for x in range(-offset, width, 8):
            image[:, max(0, x):max(0, x + 4)] = colour
    elif kind in (1, 2):
        for _ in range(60):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(image, centre, 8 if kind == 1 else 2, colour, -1)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def manifest(folder: Path, pictures: dict[str, np.ndarray], **each: Any) -> Manifest:
    """A data set of pictures, in the training split unless told otherwise."""
    records = []
    for number, (name, image) in enumerate(pictures.items(), 1):
        save(folder / name, image)
        records.append(replace(
            ImageRecord(number, name, image.shape[1], image.shape[0], split="train",
                        attributes={"kind": name[0]}, sha256=sha256(folder / name)), **each))
    made = Manifest(folder, (), tuple(records))
    made.write(folder)
    return made
