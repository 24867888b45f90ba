"""Networks of whole works: a body (backbone, or layers of one's own), a head, a last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.loading import crop_square
from musicon.detect.backbones import build_network, hold_batch_norm, normalisation
from musicon.detect.tasks import TaskError
from musicon.detect.tasks.settings import NetworkConfig

Image = NDArray[np.uint8]
NEIGHBOURS = 5
WORDS = "conv N, dense N, pool, average, flatten, dropout P"


class WorkClassifier(nn.Module):
    """Names the class of a whole picture.

    Attributes:
        image_size: Side of the square that the network sees.
        num_classes: Outputs; there is no negative class.
        temperature: Divides the logits in ``probabilities``; fitted on validation.
        known: (M, D) features of training works, each of length 1; (0, D) before training.
        least_likeness: Likeness to those below which a work is called uncertain.
        least_confidence: Probability of its class below which it is, too. Both are fitted on
            validation.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor
    known: Tensor
    least_likeness: Tensor
    least_confidence: Tensor

    def __init__(self, cfg: NetworkConfig, num_classes: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.image_size = cfg.image_size
        self.num_classes = num_classes
        if cfg.backbone is None:
            self.body: nn.Module = build_layers(cfg.layers)
            mean: tuple[float, ...] = (0.0, 0.0, 0.0)
            std: tuple[float, ...] = (1.0, 1.0, 1.0)
        else:
            network = build_network(cfg.backbone, 0, weights=cfg.weights)
            mean, std = normalisation(network)
            self.body = _Maps(network) if cfg.features == "maps" else network
        self.body.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.feature_shape = self._feature_shape()
        self.head = build_layers((*cfg.head, f"logits {num_classes}"), self.feature_shape)
        for name, value in {
                "temperature": torch.ones(()), "known": torch.zeros(0, self.feature_shape[0]),
                "least_likeness": torch.tensor(-1.0), "least_confidence": torch.zeros(())}.items():
            self.register_buffer(name, value)

    def features(self, images: Tensor) -> Tensor:
        """uint8 or float pictures in 0..255, (N, 3, S, S) -> (N, *feature_shape)."""
        scaled = (images.to(self.mean.dtype) - self.mean) / self.std
        found: Tensor = self.body(scaled.contiguous(memory_format=torch.channels_last))
        return found.contiguous()

    def forward(self, images: Tensor) -> Tensor:
        """Pictures -> logits (N, L)."""
        return cast(Tensor, self.head(self.features(images)))

    def likeness(self, features: Tensor, besides: Tensor | None = None) -> Tensor:
        """How like training works some are, (N,) in -1..1: mean cosine to the five nearest.

        ``besides`` (N, M) marks known works that must not count, such as those by the same hand.

        What a network was not taught comes back with any confidence; distance to what it was
        taught tells it apart (Sun et al., "Out-of-Distribution Detection with Deep Nearest
        Neighbors", 2022).
        """
        if not len(self.known):
            return torch.ones(len(features), device=features.device)
        cosine = direction(features) @ self.known.float().T
        if besides is not None:
            cosine = cosine.masked_fill(besides, -1.0)
        return cosine.topk(min(NEIGHBOURS, len(self.known)), dim=1).values.mean(1)

    def train(self, mode: bool = True) -> WorkClassifier:
        """Training mode; batch normalisation that is frozen, or held, keeps its statistics."""
        super().train(mode)
        if mode:
            hold_batch_norm(self.body, frozen_only=self.cfg.batch_norm == "learnt")
        return self

    def _feature_shape(self) -> tuple[int, ...]:
        with torch.no_grad():
            self.body.eval()
            blank = torch.zeros(1, 3, self.image_size, self.image_size)
            return tuple(self.features(blank).shape[1:])


def direction(features: Tensor) -> Tensor:
    """Features (N, D) or maps (N, D, H, W), averaged, -> (N, D) of length 1."""
    flat = features.float().flatten(2).mean(2) if features.ndim > 2 else features.float()
    return nn.functional.normalize(flat, dim=1)


class _Maps(nn.Module):
    """The last maps of a network, without what pools and classifies them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        part = getattr(network, "features", None)
        if not isinstance(part, nn.Module):
            raise TaskError(f"network.features=maps: {type(network).__name__} does not keep its "
                            "convolutions apart; choose torchvision:vgg16 or another VGG, "
                            "DenseNet, MobileNet or EfficientNet of torchvision, or pooled")
        self.features = part

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) -> maps (N, C, H, W)."""
        return cast(Tensor, self.features(images))


def build_layers(words: Sequence[str], shape: tuple[int, ...] = (3, 0, 0)) -> nn.Sequential:
    """A sequence of layers from words such as ``conv 32``.

    Args:
        words: See ``WORDS``. ``logits N`` is a dense layer without ReLU. A dense layer after maps
            flattens them first.
        shape: Of one input: (C, H, W), of which H and W matter only where they are flattened, or
            (C,).

    Raises:
        TaskError: A word that is no layer, or a layer that has no place there.
    """
    layers: list[nn.Module] = []
    for word in words:
        name, _, text = word.strip().partition(" ")
        try:
            made, shape = _layer(name, float(text or 0), shape)
        except (ValueError, KeyError):
            raise TaskError(f"layer {word!r}: not a layer that fits there (its input is "
                            f"{' x '.join(map(str, shape))}); write {WORDS}") from None
        layers += made
    return nn.Sequential(*layers)


def _layer(name: str, number: float,
           shape: tuple[int, ...]) -> tuple[list[nn.Module], tuple[int, ...]]:
    size = int(number)
    maps = len(shape) == 3
    if name == "dropout" and 0 < number < 1:
        return [nn.Dropout(number)], shape
    if name == "conv" and maps and size > 0:
        return ([nn.Conv2d(shape[0], size, 3), nn.ReLU(inplace=True)],
                (size, shape[1] - 2, shape[2] - 2))
    if name == "pool" and maps:
        return [nn.MaxPool2d(2)], (shape[0], shape[1] // 2, shape[2] // 2)
    if name == "average" and maps:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()], (shape[0],)
    if name == "flatten" and maps:
        return [nn.Flatten()], (int(np.prod(shape)),)
    if name in ("dense", "logits") and size > 0:
        flat: list[nn.Module] = [nn.Flatten()] if maps else []
        end: list[nn.Module] = [nn.ReLU(inplace=True)] if name == "dense" else []
        return [*flat, nn.Linear(int(np.prod(shape)), size), *end], (size,)
    raise ValueError(name)


def square(image: Image, view: str, size: int) -> Image:
    """A picture (H, W, 3) as the network sees it, (size, size, 3); see ``NetworkConfig.view``."""
    height, width = image.shape[:2]
    if view == "pad":
        return crop_square(image, np.array([0, 0, width, height]), 0.0, size)
    if view == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top:top + side, left:left + side]
    shrinks = min(image.shape[:2]) > size
    return cv2.resize(image, (size, size),
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def views(image: Image, cfg: NetworkConfig, count: int) -> Image:
    """``count`` versions of a picture (count, S, S, 3): the whole, mirrored, then parts.

    The parts are squares of 60 % of the shorter side, spread along the picture, every second one
    mirrored: always the same for the same picture.
    """
    made = [square(image, cfg.view, cfg.image_size)]
    height, width = image.shape[:2]
    side = max(1, round(0.6 * min(height, width)))
    for i in range(1, count):
        if i == 1:
            part = image
        else:
            # Golden-ratio steps cover both directions evenly, however many parts there are.
            y, x = (0.618034 * i) % 1, (0.754878 * i) % 1
            top, left = round(y * (height - side)), round(x * (width - side))
            part = image[top:top + side, left:left + side]
        seen = square(part, cfg.view if i == 1 else "squash", cfg.image_size)
        made.append(seen[:, ::-1] if i % 2 else seen)
    return np.stack(made)


def to_tensor(pictures: Image) -> Tensor:
    """Pictures uint8 (N, S, S, 3) -> tensor (N, 3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def count_parameters(module: nn.Module, *, learning: bool = False) -> int:
    """Weights and biases of a module; with ``learning`` those that are not frozen."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)
