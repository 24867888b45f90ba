"""A model whose answers are known: red shapes are lutes, green ones harps, on a grey ground."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect.config import Config
from musicon.detect.pipeline import ArtworkDetector

CATEGORIES = (Category(1, "lute"), Category(2, "harp"))
RED, GREEN, GREY = (200, 20, 20), (20, 200, 20), (128, 128, 128)


class ColourDetector(nn.Module):
    """Proposes the bounds of the red and of the green pixels."""

    num_classes = 2

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        out = []
        for image in images:
            boxes, labels = [], []
            for channel, label in ((0, 1), (1, 2)):
                rows, columns = torch.where(image[channel] - image[1 - channel] > 0.3)
                if len(rows):
                    boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    labels.append(label)
            out.append({"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                        "scores": torch.full((len(labels),), 0.9),
                        "labels": torch.tensor(labels, dtype=torch.int64)})
        return out


class ColourClassifier(nn.Module):
    """Probabilities of (none, lute, harp) from the mean colour of a crop."""

    def probabilities(self, crops: Tensor) -> Tensor:
        mean = crops.float().mean(dim=(2, 3)) / 255
        none = torch.full_like(mean[:, 0], 0.4)
        return (20 * torch.stack([none, mean[:, 0], mean[:, 1]], dim=1)).softmax(dim=1)


def detector(categories: tuple[Category, ...] = CATEGORIES) -> ArtworkDetector:
    return ArtworkDetector(ColourClassifier(), ColourDetector(), Config(), categories, "cpu")


def pictures(folder: Path, *, side: int = 300) -> Manifest:
    """Five pictures: a lute, a harp, both, neither, and a harp that is labelled but not boxed."""
    rows = []
    layouts = ([(RED, 1)], [(GREEN, 2)], [(RED, 1), (GREEN, 2)], [], [(GREEN, 2)])
    folder.mkdir(parents=True, exist_ok=True)
    for number, shapes in enumerate(layouts, start=1):
        image = np.full((side, 2 * side, 3), GREY, np.uint8)
        boxes = []
        for place, (colour, label) in enumerate(shapes):
            x0, y0 = side * place + side // 4, side // 5
            x1, y1 = x0 + side // 2, y0 + side // 2
            image[y0:y1, x0:x1] = colour
            boxes.append(Box((x0, y0, x1, y1), label))
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
        boxed = number < 5
        rows.append(ImageRecord(
            number, f"{number}.png", 2 * side, side, tuple(boxes) if boxed else (),
            labels=tuple(label for _, label in shapes), split="val" if number < 4 else "test",
            attributes={"movement": "Colour field"}))
    return Manifest(folder, CATEGORIES, tuple(rows))
