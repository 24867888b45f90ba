"""The crop classifier: which instrument a crop shows, or none."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.loading import crop_square
from musicon.detect.backbones import build_network, hold_batch_norm, last_linear, normalisation
from musicon.detect.config import ClassifierConfig
from musicon.detect.heads import rows_by_class

NEGATIVE = 0
"""Index of the logit that says "no instrument"."""


class CropClassifier(nn.Module):
    """A backbone with L + 1 outputs: 0 is the negative class, k the k-th instrument.

    Attributes:
        image_size: Side of the crops in pixels.
        num_classes: L, without the negative class.
        temperature: Divides the logits in ``probabilities``; fitted on validation, 1 otherwise.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, cfg: ClassifierConfig, num_classes: int) -> None:
        super().__init__()
        self.backbone_name = cfg.backbone
        self.image_size = cfg.image_size
        self.num_classes = num_classes
        self.batch_norm_held = cfg.batch_norm == "held"
        self.network = build_network(cfg.backbone, num_classes + 1, weights=cfg.weights,
                                     dropout=cfg.dropout)
        # Twice as fast as the default layout for depthwise convolutions, on CPU and CUDA alike.
        self.network.to(memory_format=torch.channels_last)
        mean, std = normalisation(self.network)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 or float crops in 0..255, (N, 3, S, S) -> logits (N, L + 1)."""
        images = (crops.to(self.mean.dtype) - self.mean) / self.std
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits.logits if hasattr(logits, "logits") else logits

    def probabilities(self, crops: Tensor) -> Tensor:
        """Calibrated class probabilities (N, L + 1)."""
        return (self(crops).float() / self.temperature).softmax(dim=1)

    def features_and_probabilities(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the last layer, (N, F), and what ``probabilities`` gives."""
        seen: list[Tensor] = []
        caller = get_ident()

        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if get_ident() == caller:  # another thread may look at its own crops meanwhile
                seen.append(inputs[0].float())

        _, head = last_linear(self.network)
        hook = head.register_forward_pre_hook(keep)
        try:
            probabilities = self.probabilities(crops)
        finally:
            hook.remove()
        return seen[0], probabilities

    @torch.inference_mode()
    def classify(self, image: NDArray[np.uint8], boxes: NDArray[np.float32], *,
                 margin: float = 0.1, batch_size: int = 64) -> NDArray[np.float32]:
        """Probabilities (N, L + 1) of the crops of one RGB image (H, W, 3) at ``boxes`` (N, 4)."""
        return self.classify_crops([crop_square(image, box, margin, self.image_size)
                                    for box in boxes], batch_size=batch_size)

    @torch.inference_mode()
    def classify_crops(self, crops: Sequence[NDArray[np.uint8]], *,
                       batch_size: int = 64) -> NDArray[np.float32]:
        """Probabilities (N, L + 1) of RGB crops of shape (S, S, 3); N may be 0."""
        parts = []
        for start in range(0, len(crops), batch_size):
            stack = torch.from_numpy(np.stack(crops[start:start + batch_size]))
            parts.append(self.probabilities(stack.permute(0, 3, 1, 2).to(self.mean.device)).cpu())
        if not parts:
            return np.zeros((0, self.num_classes + 1), np.float32)
        return torch.cat(parts).numpy()

    def train(self, mode: bool = True) -> CropClassifier:
        """Training mode; layers that are frozen, or held, keep their batch statistics."""
        super().train(mode)
        if mode:
            hold_batch_norm(self.network, frozen_only=not self.batch_norm_held)
        return self

    def head_rows(self) -> dict[str, Tensor]:
        """Which rows of which parameters belong to which class, for adapting the head."""
        name, _ = last_linear(self.network)
        rows = rows_by_class(self.num_classes, 1, background=True)
        return {f"network.{name}.weight": rows, f"network.{name}.bias": rows}


def build(cfg: ClassifierConfig, num_classes: int) -> CropClassifier:
    """The classifier of a configuration."""
    return CropClassifier(cfg, num_classes)
