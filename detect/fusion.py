"""How the detector's and the crop classifier's opinions of a box become one score and one name.

The detector says where an instrument is and, unless it is class-agnostic, which one. The
classifier says what a crop shows, or that it shows none (class 0). For a box i and a class k

    fused[i, k] = evidence[i, k] ** (1 - w) * probability[i, k] ** w

where ``evidence`` is what the detector holds for k at that place (``evidence`` below). The box
takes the class of its highest fused value. Its score says whether there is an instrument, however
unsure its name: the same product with 1 - probability[i, 0] in place of the class's probability,
times what the rescorer (``rescoring.py``) says where the model has one, calibrated so that of all
boxes with a score of 0.7 seven in ten are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from musicon.detect.calibration import LEAST
from musicon.detect.config import FusionConfig

PRUNE_SLACK = 1e-4
"""Room left for rounding when boxes that cannot reach the threshold are set aside early."""


@dataclass(frozen=True)
class Proposals:
    """Boxes of one image as the detector gave them.

    Attributes:
        boxes: float32 (N, 4), xyxy pixels.
        scores: float32 (N,), in [0, 1].
        labels: int64 (N,), from 1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Opinions:
    """What the two models say of one image, before it is made one.

    Attributes:
        proposals: N boxes in the pixels of the image as it was seen.
        held: float32 (N, L), the detector's evidence.
        probabilities: float32 (N, L + 1), the classifier's.
        rescored: float32 (N,), the rescorer's; None without one.
        seen_wh: Size of the image as it was seen.
        image_wh: Size of the image as given.
    """

    proposals: Proposals
    held: Tensor
    probabilities: Tensor
    rescored: Tensor | None
    seen_wh: tuple[int, int]
    image_wh: tuple[int, int]


@dataclass(frozen=True)
class Fused:
    """One score and one class a box.

    Attributes:
        scores: float32 (N,), fused, in [0, 1].
        labels: int64 (N,), from 1.
        classifier_scores: float32 (N,), the classifier's probability of ``labels``.
    """

    scores: Tensor
    labels: Tensor
    classifier_scores: Tensor


def evidence(proposals: Proposals, num_classes: int, disagreement: float,
             class_agnostic: bool) -> Tensor:
    """What the detector holds for each class at each box.

    A box speaks for its own class with its score, and for the classes of the boxes that
    overlap it with their scores times the overlap (IoU): a detector often gives one instrument
    under two names. For every other class it keeps the share ``disagreement`` of its best
    score, so that a sure classifier can correct the name. A class-agnostic detector speaks for
    all classes alike.

    Args:
        proposals: N boxes of one image.
        num_classes: L, number of instruments.
        disagreement: Share in [0, 1] of the score that a class nobody proposed keeps.
        class_agnostic: Whether the labels say nothing.

    Returns:
        float32 (N, L), in [0, 1].
    """
    if class_agnostic or len(proposals) == 0:
        return proposals.scores[:, None].expand(-1, num_classes)
    votes = proposals.scores.new_zeros(len(proposals), num_classes)
    votes[torch.arange(len(proposals)), proposals.labels - 1] = proposals.scores
    overlap = box_iou(proposals.boxes, proposals.boxes).fill_diagonal_(1.0)
    held = (overlap[:, :, None] * votes[None]).amax(dim=1)
    return torch.maximum(held, disagreement * held.amax(dim=1, keepdim=True))


def within_reach(proposals: Proposals, num_classes: int, config: FusionConfig, threshold: float,
                 class_agnostic: bool) -> Tensor:
    """Which boxes can still reach the threshold if the classifier is sure: bool (N,).

    The others need no look by the classifier. Exact: leaving them out changes no result, as a
    box under the threshold cannot suppress one above it.
    """
    if config.rule == "classifier" or len(proposals) == 0:
        return torch.ones(len(proposals), dtype=torch.bool)
    best = proposals.scores
    if config.rule != "detector":
        held = evidence(proposals, num_classes, config.disagreement, class_agnostic)
        best = held.amax(dim=1) ** (1 - config.classifier_weight)
    return calibrated(best, config) >= threshold - PRUNE_SLACK


def fuse(held: Tensor, proposals: Proposals, probabilities: Tensor, config: FusionConfig,
         class_agnostic: bool, rescored: Tensor | None = None) -> Fused:
    """Detector's evidence and classifier's probabilities -> one score and one class a box.

    Args:
        held: float32 (N, L), from ``evidence``.
        proposals: The N boxes.
        probabilities: float32 (N, L + 1), column 0 the negative class.
        config: Rule and exponent. With rule ``detector`` the scores are the detector's and so
            are the names (the classifier names the boxes of a class-agnostic one); with rule
            ``classifier`` both are the classifier's.
        class_agnostic: Whether the detector's labels say nothing.
        rescored: float32 (N,) in [0, 1], the rescorer's; rule ``detector`` does not use it.
    """
    instruments = probabilities[:, 1:]
    if config.rule == "detector":
        labels = instruments.argmax(dim=1) + 1 if class_agnostic else proposals.labels
        scores = proposals.scores
    else:
        weight = 1.0 if config.rule == "classifier" else config.classifier_weight
        labels = (held ** (1 - weight) * instruments ** weight).argmax(dim=1) + 1
        present = 1 - probabilities[:, 0]
        scores = held.amax(dim=1) ** (1 - weight) * present ** weight
        if rescored is not None:
            scores = scores * rescored
    named = instruments.gather(1, labels[:, None] - 1)[:, 0]
    return Fused(calibrated(scores, config), labels, named)


def calibrated(scores: Tensor, config: FusionConfig) -> Tensor:
    """Scores in [0, 1] as probabilities (Platt scaling of their log-odds); their order stays."""
    if config.slope == 1 and config.shift == 0:
        return scores
    return torch.sigmoid(config.slope * torch.logit(scores, LEAST) + config.shift)


def suppress(boxes: Tensor, scores: Tensor, iou: float, threshold: float) -> Tensor:
    """Indices of the boxes that stay, best first: over the threshold, no duplicates.

    Two boxes that overlap by more than ``iou`` are one instrument, whatever their names.
    """
    above = torch.nonzero(scores >= threshold)[:, 0]
    return above[nms(boxes[above], scores[above], iou)]
