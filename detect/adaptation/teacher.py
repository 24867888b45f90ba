"""A mean teacher: the model's own running average labels unlabelled paintings for it.

The teacher, the moving average of the weights that the training loop keeps, sees a picture as it
is (the weak view); what it is sure of, the model learns from a strongly changed view of the same
picture (Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017; Sohn et al.,
"FixMatch", NeurIPS 2020; Liu et al., "Unbiased Teacher for Semi-Supervised Object Detection", ICLR
2021). How sure is sure is learnt class by class, so that classes which are never named with much
confidence in paintings still take part (cf. Zou et al., "Unsupervised Domain Adaptation for
Semantic Segmentation via Class-Balanced Self-Training", ECCV 2018). Labels that are known of a
picture rule all others out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from musicon.datasets.transforms import Augmentation
from musicon.detect.adaptation.base import Image, Method, Part, Tally
from musicon.detect.adaptation.targets import Targets
from musicon.detect.classifier import NEGATIVE
from musicon.detect.config import AdaptationConfig
from musicon.detect.pseudo import LEAST_SIDE

PLACES = ("reg", "loc")
"""Parts of the names of losses about where a box ends, of which a teacher's score says nothing
(Liu et al. 2021, section 3.3)."""


class Settings(AdaptationConfig):
    """Settings of the method."""

    learns_from_average: ClassVar[bool] = True

    name: Literal["teacher"] = "teacher"
    weight: float = Field(1.0, gt=0)
    """Of the loss on pseudo-labels."""
    burn_in: float = Field(0.3, ge=0, lt=1)
    """Share of the run in which the teacher only follows, until it knows something."""
    least_confidence: float = Field(0.5, ge=0, le=1)
    """No class's threshold falls below this."""
    most_confidence: float = Field(0.95, ge=0, le=1)
    """No class's threshold rises above this; all start here."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Of the running mean confidence of a class, which is its threshold."""

    @model_validator(mode="after")
    def _rising(self) -> Settings:
        if self.least_confidence > self.most_confidence:
            raise ValueError("least_confidence is above most_confidence; exchange them")
        return self


def build(cfg: Settings, part: Part, targets: Targets, network: nn.Module) -> Teacher:
    """The method for one model."""
    return Teacher(cfg, part, targets)


@dataclass(frozen=True)
class Views:
    """Two looks at one window of a target picture, and the classes that may be in it.

    Attributes:
        weak: As the network takes it, nearly as it is.
        strong: The same window, changed much.
        allowed: bool (L + 1,); all where nobody looked.
    """

    weak: Image
    strong: Image
    allowed: NDArray[np.bool_]


class Confidence(nn.Module):
    """How sure the teacher must be of each class: its running mean confidence, within bounds."""

    means: Tensor

    def __init__(self, num_classes: int, cfg: Settings) -> None:
        super().__init__()
        self.low, self.high, self.momentum = (cfg.least_confidence, cfg.most_confidence,
                                              cfg.momentum)
        self.register_buffer("means", torch.full((num_classes + 1,), self.high))

    @property
    def thresholds(self) -> Tensor:
        """(L + 1,), index 0 the negative class."""
        return self.means.clamp(self.low, self.high)

    @torch.no_grad()
    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Take in confidences (N,) of opinions (N,)."""
        counts = torch.bincount(labels, minlength=len(self.means))
        sums = torch.zeros_like(self.means).index_add_(0, labels, scores.to(self.means))
        seen = counts > 0
        self.means[seen] = (self.momentum * self.means[seen]
                            + (1 - self.momentum) * sums[seen] / counts[seen])


class Teacher(Method):
    """See the module's text."""

    def __init__(self, cfg: Settings, part: Part, targets: Targets) -> None:
        self.cfg, self.part, self.targets = cfg, part, targets
        self.strong = Augmentation("strong")
        self.share = 0.0
        self.average: Any = None
        self.confidence = Confidence(part.num_classes, cfg)
        self.tally = Tally("pseudo_labelled")
        self.module = nn.ModuleList([self.confidence, self.tally])

    def example(self, rng: np.random.Generator) -> Views:
        """Two views of one window."""
        window = self.targets.draw(rng)
        allowed = np.ones(self.part.num_classes + 1, bool)
        if window.target.labels is not None:
            allowed[:] = False
            allowed[[NEGATIVE, *window.target.labels]] = True
        changed = self.strong(self.part.fitted(self.targets.look(window, rng)), rng)
        return Views(self.part.fitted(self.targets.plain(window)), changed, allowed)

    def collate(self, examples: Sequence[Views]) -> tuple[Any, Any, Tensor]:
        """Weak views, strong views, allowed (N, L + 1)."""
        return (self.part.stack([e.weak for e in examples]),
                self.part.stack([e.strong for e in examples]),
                torch.from_numpy(np.stack([e.allowed for e in examples])))

    def begin(self, share: float, average: Any) -> None:
        """Note how far the run is, and the teacher."""
        self.share, self.average = share, average

    def losses(self, network: Any, batch: tuple[Any, Any, Tensor]) -> dict[str, Tensor]:
        """The loss on what the teacher is sure of; nothing during the burn-in."""
        if self.share <= self.cfg.burn_in:
            return {}
        weak, strong, allowed = batch
        if self.part.name == "classifier":
            return self._name(network, weak, strong, allowed)
        return self._find(network, weak, strong, allowed)

    def _name(self, network: Any, weak: Tensor, strong: Tensor,
              allowed: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the strong views, over all of them."""
        with torch.no_grad():
            said = self.average(weak).float().softmax(1) * allowed
            scores, labels = (said / said.sum(1, keepdim=True).clamp(1e-6)).max(1)
            sure = scores >= self.confidence.thresholds[labels]
            self.confidence.update(scores, labels)
            self.tally.add("pseudo_labelled", sure)
        loss = nn.functional.cross_entropy(network(strong), labels, reduction="none")
        return {"pseudo_label": self.cfg.weight * (loss * sure).mean()}

    def _find(self, network: Any, weak: list[Tensor], strong: list[Tensor],
              allowed: Tensor) -> dict[str, Tensor]:
        """The engine's losses on the strong views of images in which something is sure.

        An image without a sure box teaches nothing, unless it is known to hold no instrument.
        """
        with torch.no_grad():
            found = self.average.detect([image.float() / 255 for image in weak])
        images, targets = [], []
        for row, image, may in zip(found, strong, allowed, strict=True):
            boxes, sure = self._sure(row, may, network.class_agnostic)
            self.tally.add("pseudo_labelled", sure.any()[None])
            if sure.any() or not may[1:].any():
                images.append(image.float() / 255)
                targets.append({"boxes": boxes[sure], "labels": row["labels"][sure]})
        if not images:
            return {}
        share = self.cfg.weight * len(images) / len(strong)
        return {f"pseudo_{name}": share * loss
                for name, loss in network.losses(images, targets).items()
                if not any(place in name for place in PLACES)}

    def _sure(self, row: dict[str, Tensor], may: Tensor, agnostic: bool) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) that the teacher found, and which (N,) it is sure of."""
        scores, labels = row["scores"].float(), row["labels"]
        boxes = row["boxes"].float()
        right = may[1:].any().expand(len(labels)) if agnostic else may[labels]
        whole = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(dim=1)
        candidates = right & whole & (scores >= self.confidence.low)
        sure = candidates & (scores >= self.confidence.thresholds[labels])
        self.confidence.update(scores[candidates], labels[candidates])
        return boxes, sure
