"""A stage of photos that is adapted to paintings, small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.config import Config, parse
from musicon.detect.training import StageContext

CLASSES = (Category(1, "harp"), Category(2, "lute"))
COLOURS = {1: (190, 60, 20), 2: (20, 60, 190)}


def photo(label: int, seed: int) -> NDArray[np.uint8]:
    """An ellipse of the class's colour on a plain ground."""
    rng = np.random.default_rng(seed)
    image = np.full((90, 120, 3), rng.integers(225, 250), np.uint8)
    cv2.ellipse(image, (60, 45), (int(rng.integers(25, 45)), 20), int(rng.integers(180)), 0, 360,
                COLOURS[label], -1)
    return image


def painting(label: int | None, seed: int) -> NDArray[np.uint8]:
    """Coarse noise, with an ellipse of the class's colour in its middle, or without any."""
    coarse = np.random.default_rng(seed).integers(60, 200, (6, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)
    if label is not None:
        cv2.ellipse(image, (60, 45), (40, 25), seed * 40, 0, 360, COLOURS[label], -1)
    return image


def make_data(root: Path) -> Path:
    """``photos`` (labelled) and ``art`` (1: harp, named; 2: lute, nobody looked; 3, 4: empty;
    5, 6: validation and test; 7: boxed)."""
    for folder in ("photos", "art"):
        (root / folder).mkdir()
    photos = []
    for i in range(1, 13):
        label = 1 + i % 2
        Image.fromarray(photo(label, i)).save(root / "photos" / f"{i}.png")
        photos.append(ImageRecord(i, f"{i}.png", 120, 90, labels=(label,), domain="mimo",
                                  split="train" if i <= 8 else "val"))
    Manifest(root / "photos", CLASSES, tuple(photos)).write(root / "photos")
    labels = {1: (1,), 2: None, 3: (), 4: (), 5: (2,), 6: (2,), 7: (2,)}
    art = []
    for i, known in labels.items():
        shown = {1: 1, 2: 2, 5: 2, 6: 2, 7: 2}.get(i)
        Image.fromarray(painting(shown, i)).save(root / "art" / f"{i}.png")
        boxes = (Box((20, 15, 100, 80), 2),) if i == 7 else ()
        art.append(ImageRecord(i, f"{i}.png", 120, 90, labels=known, boxes=boxes,
                               split={5: "val", 6: "test"}.get(i, "train"), domain="google"))
    Manifest(root / "art", CLASSES, tuple(art)).write(root / "art")
    return root


def settings(root: Path, adaptation: Any = (), **stage: Any) -> Config:
    """Photos with the paintings as grounds and, by ``adaptation``, as targets."""
    fit = {"steps": 3, "batch_size": 4, "augmentation": "light", "evaluate_every": 2,
           "checkpoint_every": 1}
    return parse({
        "output": str(root / "runs"), "device": "cpu",
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 48},
        "detector": {"image_size": 128, "fpn_channels": 32, "class_agnostic": True,
                     "anchor_sizes": [16, 32, 64, 100]},
        "stages": {"mimo": {"manifest": str(root / "photos"), "backgrounds": [str(root / "art")],
                            "composites": {}, "classifier": fit, "detector": fit,
                            "adaptation": adaptation, **stage}}})


def context(config: Config, cache: Path) -> StageContext:
    """The stage's context, on the CPU."""
    return StageContext("mimo", config, CLASSES, cache, torch.device("cpu"), True)


def models(config: Config) -> tuple[Any, Any]:
    """Untrained classifier and detector."""
    torch.manual_seed(0)
    classifier = classifiers.build(config.classifier, len(CLASSES))
    return classifier, detectors.build(config.detector, len(CLASSES), classifier)
