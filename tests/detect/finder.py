"""A detector and a classifier whose right answers are known by hand, and tiny real ones.

``ColourFinder`` and ``ColourNamer`` keep the contracts of an engine and of ``CropClassifier``;
they find pure red, green and blue rectangles, so that every box of a test can be worked out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.records import Category
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.checkpoints import save_model
from musicon.detect.config import Config
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.tiling import TestTime

CATEGORIES = (Category(3, "lute"), Category(5, "violin"), Category(9, "harp"))
COLOURS = {3: (255, 0, 0), 5: (0, 255, 0), 9: (0, 0, 255)}
"""Category id -> the colour that its rectangles have."""


class ColourFinder(nn.Module):
    """Boxes the pixels that are nearly pure red, green or blue."""

    def __init__(self, score: float = 0.9) -> None:
        super().__init__()
        self.score = score
        self.weight = nn.Parameter(torch.tensor([score]))

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> dict[str, Tensor]:
        boxes, labels = [], []
        for channel in range(3):
            others = [c for c in range(3) if c != channel]
            rows, columns = torch.nonzero(
                (image[channel] > 0.5) & (image[others].amax(0) < 0.5), as_tuple=True)
            if len(rows):
                boxes.append([float(columns.min()), float(rows.min()),
                              float(columns.max()) + 1, float(rows.max()) + 1])
                labels.append(channel + 1)
        return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels).long(),
                "scores": torch.full((len(boxes),), self.score)}


class ColourNamer(nn.Module):
    """Probability 0.8 for the strongest colour of a crop's middle, the rest for "none"."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def probabilities(self, crops: Tensor) -> Tensor:
        middle = crops.shape[-1] // 2
        best = crops[:, :, middle, middle].argmax(dim=1) + 1
        table = torch.zeros(len(crops), 4)
        table[:, 0] = 0.2
        table[torch.arange(len(crops)), best] = 0.8
        return table


def settings(**fusion: Any) -> Config:
    """Small sizes; everything else as it comes."""
    return Config.model_validate({
        "classifier": {"backbone": "mobilenetv3_small_050", "weights": "none", "image_size": 32},
        "detector": {"image_size": 128, "fpn_channels": 16, "max_detections": 6,
                     "anchor_sizes": [16, 32, 64]},
        "fusion": {"threshold": 0.1, **fusion}})


def colour_detector(test_time: TestTime | None = None, **fusion: Any) -> ArtworkDetector:
    """An ArtworkDetector that finds coloured rectangles."""
    return ArtworkDetector(ColourNamer(), ColourFinder(), settings(**fusion), CATEGORIES, "cpu",
                           test_time=test_time)


def picture(width: int, height: int, **boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A grey picture with boxes ``red``, ``green``, ``blue`` (xyxy)."""
    image = np.full((height, width, 3), 220, np.uint8)
    for name, (x0, y0, x1, y1) in boxes.items():
        image[y0:y1, x0:x1] = {"red": COLOURS[3], "green": COLOURS[5], "blue": COLOURS[9]}[name]
    return image


def tiny_model(folder: Path, seed: int = 0, threshold: float = 0.05) -> Path:
    """A model folder of real, small, untrained networks."""
    torch.manual_seed(seed)
    config = settings(threshold=threshold)
    classifier = classifiers.build(config.classifier, len(CATEGORIES))
    detector: Any = detectors.build(config.detector, len(CATEGORIES), classifier)
    save_model(folder / "model", classifier=classifier, detector=detector, config=config,
               categories=CATEGORIES, metrics={}, lineage={"stage": "cytomine"})
    return folder
