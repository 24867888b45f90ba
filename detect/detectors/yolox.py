"""YOLOX behind this project's calls: a small one-step detector with weights learnt on COCO.

It brings its own backbone, so that a detector knows what things look like before it sees the first
instrument: what costs most to learn from few boxed artworks. Weights are read from the ONNX files
of its publishers (Apache-2.0).
"""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from musicon.datasets.fetching import Fetcher, FetchError, Manners
from musicon.detect.backbones import hold_batch_norm
from musicon.detect.classifier import CropClassifier
from musicon.detect.config import ConfigError, DetectorConfig
from musicon.detect.detectors import yolox_weights
from musicon.detect.detectors.yolox_loss import losses
from musicon.detect.detectors.yolox_network import SIZES, STRIDES, Yolox
from musicon.detect.heads import rows_by_class

log = logging.getLogger(__name__)

RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
SMALLEST = "yolox_nano"
SCORE_THRESHOLD = 0.005
PADDING = 114.0
"""Grey beside a picture that is not square, as the weights know it."""


class YoloxDetector(nn.Module):
    """A network of the YOLOX family behind ``losses`` and ``detect``.

    Attributes:
        num_classes: Instruments of the stage.
        class_agnostic: One class, "instrument", is learnt; every box then has label 1.
    """

    held: Tensor

    def __init__(self, cfg: DetectorConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = cfg.class_agnostic
        self.network = Yolox(SIZES[cfg.family], 1 if cfg.class_agnostic else num_classes)
        self.side = cfg.image_size
        self.most, self.nms_iou = cfg.max_detections, cfg.nms_iou
        self.register_buffer("held", torch.tensor(False))

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See ``musicon.detect.detectors.Detector``."""
        batch, scales = self._batch(images)
        rows = []
        for target, scale in zip(targets, scales, strict=True):
            labels = target["labels"] - 1
            rows.append({"boxes": target["boxes"] * scale,
                         "labels": torch.zeros_like(labels) if self.class_agnostic else labels})
        return losses(self.network(batch), batch, rows)

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """See ``musicon.detect.detectors.Detector``."""
        if not images:
            return []
        batch, scales = self._batch(images)
        return [self._boxes(row, scale, image.shape[-2:])
                for row, scale, image in zip(self.network(batch).float(), scales, images,
                                             strict=True)]

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """``losses`` where there are targets, else ``detect`` (so that DDP can wrap it)."""
        return self.detect(images) if targets is None else self.losses(images, targets)

    def train(self, mode: bool = True) -> YoloxDetector:
        """Training mode, in which a pretrained network keeps its statistics: batches are small."""
        super().train(mode)
        if self.held:
            hold_batch_norm(self.network)
        return self

    def freeze(self, stages: int) -> None:
        """Stop the backbone's first ``stages`` stages (the stem is the first) from learning."""
        for part in list(self.network.backbone.children())[:stages]:
            part.requires_grad_(False)

    def taps(self) -> dict[str, nn.Module]:
        """See ``musicon.detect.detectors.Detector``."""
        return {"image": self.network.backbone}

    def head_rows(self) -> dict[str, Tensor]:
        """Which rows of which parameters belong to which class, for adapting the head."""
        if self.class_agnostic:
            return {}
        rows = rows_by_class(self.num_classes, 1, background=False)
        return {f"network.heads.{level}.class_scores.{part}": rows
                for level in range(len(STRIDES)) for part in ("weight", "bias")}

    def start(self, weights: str, family: str) -> None:
        """Put in the weights to start from: a file's, or (``auto``) the publishers'."""
        if weights == "none":
            return
        try:
            file = fetched(family) if weights == "auto" else Path(weights)
        except FetchError as error:
            warnings.warn(f"the detector's weights could not be had ({error}); it starts from "
                          "random ones. Give the file with --set detector.weights=FILE",
                          stacklevel=2)
            return
        yolox_weights.load(self.network, file)
        self.held.fill_(True)
        log.info("the detector starts from %s", file)

    def _batch(self, images: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Images (N, 3, S, S), BGR in 0..255, and factors (4,) of their boxes.

        S is ``image_size``, rounded up to a multiple of 32. Always square, so that what is found in
        an image doesn't depend on its neighbours.
        """
        side = -(-self.side // STRIDES[-1]) * STRIDES[-1]
        batch = images[0].new_full((len(images), 3, side, side), PADDING)
        scales = []
        for place, image in zip(batch, images, strict=True):
            height, width = image.shape[-2:]
            scale = self.side / max(height, width)
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            pixels = nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)
            place[:, :size[0], :size[1]] = pixels[0].flip(0) * 255
            scales.append(image.new_tensor([size[1] / width, size[0] / height] * 2))
        # On a CPU training takes four fifths of the time that it takes in the default layout.
        return batch.contiguous(memory_format=torch.channels_last), scales

    def _boxes(self, found: Tensor, scale: Tensor, size: torch.Size) -> dict[str, Tensor]:
        """What is kept of an image's cells (A, 4 + 1 + C)."""
        scores = found[:, 4:5].sigmoid() * found[:, 5:].sigmoid()
        cell, label = (scores > SCORE_THRESHOLD).nonzero().unbind(1)
        scores, boxes = scores[cell, label], clip_boxes_to_image(found[cell, :4] / scale, size)
        kept = batched_nms(boxes, scores, label, self.nms_iou)[:self.most]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": label[kept] + 1}


def unused(cfg: DetectorConfig) -> tuple[str, ...]:
    """Names of the settings that this engine has no use for."""
    return ("config", "fpn_channels", "anchor_sizes", "aspect_ratios")


def resolved(cfg: DetectorConfig) -> DetectorConfig:
    """The settings as they are, checked.

    Raises:
        ConfigError: A network of another engine, or no such file.
    """
    if cfg.family not in SIZES:
        raise ConfigError(f"detector.family={cfg.family} is not one of yolox's; write one of: "
                          + ", ".join(SIZES))
    if cfg.weights not in ("auto", "none") and not Path(cfg.weights).is_file():
        raise ConfigError(f"detector.weights={cfg.weights}: no such file; write the ONNX file of "
                          f"{cfg.family} (from {RELEASE}/{cfg.family}.onnx), auto or none")
    return cfg


def build(cfg: DetectorConfig, num_classes: int, classifier: CropClassifier) -> YoloxDetector:
    """The detector of a configuration, with the weights that it is to start from.

    Args:
        cfg: Family, size, weights.
        num_classes: Instruments, without background.
        classifier: Not used: the network has a backbone of its own.

    Raises:
        ConfigError: As ``resolved``.
        BackboneError: An unusable weight file.
    """
    cfg = resolved(cfg)
    detector = YoloxDetector(cfg, num_classes)
    detector.start(cfg.weights, cfg.family)
    return detector


def fetched(family: str) -> Path:
    """The publishers' weights, fetched once and kept where torch keeps its own.

    Raises:
        FetchError: They cannot be had.
    """
    manners = Manners(tries=2, timeout=20.0, max_age=math.inf, refetch=True)
    with Fetcher(Path(torch.hub.get_dir()) / "musicon", manners) as fetcher:
        return fetcher.get(f"{RELEASE}/{family}.onnx").path
