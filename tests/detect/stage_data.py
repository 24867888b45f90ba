"""What tests of a stage's examples share: photos and paintings, settings, a parent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.config import Config, parse
from musicon.detect.training import StageContext

CLASSES = (Category(1, "harp"), Category(2, "lute"))


def photo(colour: tuple[int, int, int]) -> np.ndarray:
    image = np.full((90, 120, 3), 235, np.uint8)
    cv2.ellipse(image, (60, 45), (35, 20), 20, 0, 360, colour, -1)
    return image


def painting(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def make_data(root: Path) -> Path:
    """Photos of two classes; paintings: boxed, named only, empty and unlabelled."""
    for folder in ("photos", "art"):
        (root / folder).mkdir()
    photos = []
    for i in range(1, 9):
        Image.fromarray(photo((150, 60, 20) if i % 2 else (20, 60, 150))).save(
            root / "photos" / f"{i}.png")
        photos.append(ImageRecord(i, f"{i}.png", 120, 90, labels=(1 + (i + 1) % 2,),
                                  split="train" if i <= 6 else "val", domain="mimo"))
    Manifest(root / "photos", CLASSES, tuple(photos)).write(root / "photos")
    art = []
    for i in range(1, 11):
        Image.fromarray(painting(i)).save(root / "art" / f"{i}.png")
        known = {1: {"boxes": (Box((20, 30, 90, 100), 1),)}, 2: {"labels": (2,)},
                 3: {"labels": None}}.get(i, {})
        art.append(ImageRecord(i, f"{i}.png", 160, 120, split="val" if i > 8 else "train",
                               domain="cytomine", **known))  # type: ignore[arg-type]
    Manifest(root / "art", CLASSES, tuple(art)).write(root / "art")
    return root


def settings(root: Path, **stage: object) -> Config:
    fit = {"steps": 2, "batch_size": 4, "augmentation": "light"}
    return parse({
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 48},
        "detector": {"image_size": 128, "fpn_channels": 32, "class_agnostic": True,
                     "anchor_sizes": [16, 32, 64, 100]},
        "stages": {"cytomine": {"manifest": str(root / "art"),
                                "rehearsal": [str(root / "photos")], "composites": {},
                                "classifier": fit, "detector": fit, **stage}}})


def context(config: Config, cache: Path, parent: LoadedModel | None = None) -> StageContext:
    return StageContext("cytomine", config, CLASSES, cache, torch.device("cpu"), True, parent)


class Oracle(torch.nn.Module):
    """Stands for a parent: proposes three boxes, and knows a harp at the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asked = 0

    def detect(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.asked += 1
        height, width = images[0].shape[-2:]
        shares = torch.tensor([[0.0, 0.0, 0.3, 0.3], [0.4, 0.4, 0.9, 0.9], [0.42, 0.4, 0.9, 0.88]])
        return [{"boxes": shares * torch.tensor([width, height, width, height]),
                 "scores": torch.tensor([0.9, 0.8, 0.7]), "labels": torch.ones(3).long()}]

    def classify(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return np.array([[0.9, 0.05, 0.05], [0.1, 0.3, 0.6], [0.1, 0.3, 0.6]], np.float32)
