"""Is a picture a painting, a photo, a product photo or a drawing?

A linear layer on the features of EfficientNet-Lite0 (ImageNet weights, installed, no network). It
was fitted by tools/fit_picture_kinds.py; docs/data.md says on what, and how often it is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets import lite
from musicon.datasets.images import RgbArray

PAINTING, PHOTO, PRODUCT, DRAWING = "painting", "photo", "product", "drawing"
KINDS = (PAINTING, PHOTO, PRODUCT, DRAWING)
HEAD_FILE = Path(__file__).parent / "tables" / "picture_kinds.npz"
BATCH = 16
_SIDE = 224


@dataclass(frozen=True)
class Kind:
    """What a picture is.

    Attributes:
        name: Of ``KINDS``: ``painting`` where that is likelier than all others together, else
            the likeliest other one.
        doubt: Probability that it is no painting.
    """

    name: str
    doubt: float


def judge(images: Sequence[RgbArray]) -> list[Kind]:
    """What each picture (H, W, 3) is."""
    if not images:
        return []
    weight, bias = _head()
    scores = features(images) @ weight.T + bias
    likely = np.exp(scores - scores.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    found = []
    for row in likely:
        doubt = float(1 - row[0])
        name = PAINTING if doubt <= 0.5 else KINDS[1 + int(row[1:].argmax())]
        found.append(Kind(name, doubt))
    return found


def features(images: Sequence[RgbArray]) -> NDArray[np.float32]:
    """Features (N, 1280) of pictures, squeezed into squares."""
    import torch

    network, mean, std = _network()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            some = [cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
                    for image in images[start:start + BATCH]]
            batch = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float() / 255
            rows.append(network.forward_features((batch - mean) / std).mean((2, 3)).numpy())
    found: NDArray[np.float32] = np.concatenate(rows)
    return found


def fit(examples: Mapping[str, Sequence[RgbArray]], strength: float = 0.003) -> None:
    """Fit the linear layer to example pictures of each kind, and write it in place of the other.

    Args:
        examples: Kind -> pictures.
        strength: Of the fit, against being simple (C of a logistic regression).
    """
    from sklearn.linear_model import LogisticRegression

    table = np.concatenate([features(examples[kind]) for kind in KINDS])
    answers = np.repeat(np.arange(len(KINDS)), [len(examples[kind]) for kind in KINDS])
    mean, deviation = table.mean(0), table.std(0) + 1e-6
    model = LogisticRegression(C=strength, max_iter=5000, class_weight="balanced")
    model.fit((table - mean) / deviation, answers)
    weight = model.coef_ / deviation
    np.savez_compressed(HEAD_FILE, weight=weight.astype(np.float16),
                        bias=(model.intercept_ - weight @ mean).astype(np.float32))
    _head.cache_clear()


@cache
def _head() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with np.load(HEAD_FILE, allow_pickle=False) as file:
        return file["weight"].astype(np.float32), file["bias"]


@cache
def _network() -> tuple[Any, Any, Any]:
    """The network without its last layer, and the means and deviations that it expects."""
    import timm
    import torch

    network = timm.create_model(lite.SMALLEST, num_classes=0).eval()
    lite.load_in_order(network, lite.weight_file(lite.SMALLEST))
    cfg: Any = network.pretrained_cfg
    return (network, torch.tensor(cfg["mean"])[:, None, None],
            torch.tensor(cfg["std"])[:, None, None])
