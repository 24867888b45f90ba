"""Domain-adversarial training: features that do not tell a painting from a photo.

A discriminator learns to tell the domains apart from a model's features; its gradient is reversed
before it reaches the features (Ganin et al., "Domain-Adversarial Training of Neural Networks",
JMLR 2016). In the detector it looks at every cell of the feature map and at every proposal (Chen
et al., "Domain Adaptive Faster R-CNN for Object Detection in the Wild", CVPR 2018). The
class-conditional variant looks at the outer product of class probabilities and features, so that
lutes are aligned with lutes (Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS
2018), and sharpens the classifier's opinion of the target pictures with a weighted entropy loss.

The source is whatever the stage learns from: photos, but also cut-outs pasted into paintings and
instrument-free paintings, where it has them. The detector's source proposals are those that its
head learns from, true boxes among them, the target's a sample of all: no truth is known there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from musicon.datasets.records import UserError
from musicon.datasets.transforms import Augmentation
from musicon.detect.adaptation.base import Image, Method, Part, Tally
from musicon.detect.adaptation.targets import Targets
from musicon.detect.config import AdaptationConfig

BOTTLENECK = 128
"""Features that a discriminator keeps, before the outer product where there is one."""
HIDDEN = 256
PROBE_SIDE = 128
"""Pixels of the blank image by which the sizes of an engine's features are found."""

Level = Literal["image", "instance"]


class Settings(AdaptationConfig):
    """Settings of the method."""

    name: Literal["adversarial"] = "adversarial"
    strength: float = Field(1.0, ge=0)
    """λ0 of the classifier: the reversed gradient's share at the end of the run."""
    detector_strength: float = Field(0.1, ge=0)
    """The same of the detector."""
    gamma: float = Field(10.0, gt=0)
    """How fast the share rises: λ = λ0 (2 / (1 + exp(-gamma q)) - 1), q the progress in 0..1."""
    conditional: bool = True
    """Look at the outer product of class probabilities and features, not at features alone."""
    entropy: float = Field(0.1, ge=0)
    """Weight of the entropy loss on target pictures, rising as the share does; classifier only."""
    levels: tuple[Level, ...] = Field(("image", "instance"), min_length=1)
    """What the detector is aligned by: cells of the feature map, proposals, or both."""


def build(cfg: Settings, part: Part, targets: Targets, network: nn.Module) -> Adversarial:
    """The method for one model.

    Raises:
        UserError: The engine has none of the levels asked for.
    """
    return Adversarial(cfg, part, targets, network)


class Reverse(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``-strength``."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        """Features of any shape -> the same."""
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The reversed gradient; the strength has none."""
        return -ctx.strength * gradient, None


def schedule(share: float, strength: float, gamma: float) -> float:
    """λ at the share q of the run: 0 at its start, nearly ``strength`` at its end."""
    return strength * (2 / (1 + math.exp(-gamma * share)) - 1)


class Discriminator(nn.Module):
    """Tells source (1) from target (0) by features (N, C) and, if given, probabilities (N, K)."""

    def __init__(self, features: int, classes: int | None = None) -> None:
        super().__init__()
        self.reduce = nn.Linear(features, BOTTLENECK)
        self.judge = nn.Sequential(nn.ReLU(), nn.Linear(BOTTLENECK * (classes or 1), HIDDEN),
                                   nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, features: Tensor, probabilities: Tensor | None = None) -> Tensor:
        """Logits (N,) of "source"."""
        seen = self.reduce(features)
        if probabilities is not None:
            seen = (probabilities[:, :, None] * seen[:, None]).flatten(1)
        logits: Tensor = self.judge(seen)[:, 0]
        return logits


def weighted_entropy(logits: Tensor) -> Tensor:
    """Mean entropy of softmax(logits (N, K)) in nats, sure rows counting more.

    The weight of a row is 1 + exp(-entropy) (Long et al. 2018), itself without gradient.
    """
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    weight = 1 + torch.exp(-entropy.detach())
    return (weight * entropy).sum() / weight.sum()


class Adversarial(Method):
    """See the module's text."""

    def __init__(self, cfg: Settings, part: Part, targets: Targets,
                 network: nn.Module) -> None:
        self.cfg, self.part, self.targets = cfg, part, targets
        self.augment = Augmentation(part.fit.augmentation, part.fit.light_share)
        self.is_classifier = part.name == "classifier"
        self.strength = cfg.strength if self.is_classifier else cfg.detector_strength
        self.share = 0.0
        self.source: dict[str, Any] = {}
        self.module: nn.ModuleDict = self._discriminators(network)

    def example(self, rng: np.random.Generator) -> Image:
        """A window as the network takes it, its colours then changed as those of the source are.

        Otherwise they would tell the domains apart, and so would another order: noise that is
        shrunk with the window averages out.
        """
        window = self.targets.look(self.targets.draw(rng), rng)
        return self.augment(self.part.fitted(window), rng)

    def collate(self, examples: Sequence[Image]) -> Any:
        """As the model takes them."""
        return self.part.stack(examples)

    def begin(self, share: float, average: Any) -> None:
        """Note how far the run is."""
        self.share = share

    @contextmanager
    def watching(self, network: Any) -> Iterator[dict[str, Any]]:
        """Keep what the taps see of the forward pass inside."""
        seen: dict[str, Any] = {}
        hooks = [module.register_forward_hook(
            lambda _, inputs, output, level=level: seen.update({level: (inputs, output)}))
            for level, module in self.part.taps(network).items()
            if self.is_classifier or level in self.cfg.levels]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()
        self.source = {level: self._rows(level, *values) for level, values in seen.items()}

    def losses(self, network: Any, batch: Any) -> dict[str, Tensor]:
        """A loss a level, and the entropy."""
        source, terms = self.source, {}
        logits = None
        with self.watching(network):
            logits = self.part.forward(network, batch)
        target, self.source = self.source, {}
        reversal = schedule(self.share, self.strength, self.cfg.gamma)
        for level in source:
            terms[f"domain_{level}"] = self._domain_loss(level, source[level], target[level],
                                                         reversal)
        if self.is_classifier and self.cfg.entropy:
            weight = schedule(self.share, self.cfg.entropy, self.cfg.gamma)
            terms["entropy"] = weight * weighted_entropy(logits.float())
        return terms

    def _domain_loss(self, level: str, source: tuple[Tensor, Tensor | None],
                     target: tuple[Tensor, Tensor | None], reversal: float) -> Tensor:
        """Binary cross-entropy, both domains weighing the same."""
        loss: Any = 0.0
        for truth, (features, probabilities) in ((1.0, source), (0.0, target)):
            logits = self.module[level](Reverse.apply(features, reversal), probabilities).float()
            loss = loss + 0.5 * nn.functional.binary_cross_entropy_with_logits(
                logits, torch.full_like(logits, truth))
            tally: Any = self.module["tally"]
            tally.add(f"domain_accuracy_{level}", (logits > 0) == bool(truth))
        return loss

    def _discriminators(self, network: nn.Module) -> nn.ModuleDict:
        """One for each level that the model has; their sizes are seen on blank pictures.

        Two, as batch normalisation can't be trained on a single cell.
        """
        blank = self.part.fitted(np.zeros((PROBE_SIDE, PROBE_SIDE, 3), np.uint8))
        trial = copy.deepcopy(network).train()
        with torch.random.fork_rng(devices=[]), torch.no_grad(), self.watching(trial):
            self.part.forward(trial, self.part.stack([blank, blank]))
        seen, self.source = self.source, {}
        if not seen:
            raise UserError(f"adversarial: levels {', '.join(self.cfg.levels)}: this family of "
                            "detectors has none of them; write levels: [image]")
        found = {level: Discriminator(features.shape[1], None if p is None else p.shape[1])
                 for level, (features, p) in seen.items()}
        tally = Tally(*(f"domain_accuracy_{level}" for level in seen))
        return nn.ModuleDict({**found, "tally": tally})

    def _rows(self, level: str, inputs: Any, output: Any) -> tuple[Tensor, Tensor | None]:
        """Features (N, C) of cells or instances and, if conditional, their probabilities (N, K)."""
        if level == "image":
            maps = list(output.values()) if isinstance(output, Mapping) else list(output)
            stride16 = maps[max(len(maps) - 2, 0)]  # as Chen et al.; the only one of some networks
            return stride16.permute(0, 2, 3, 1).flatten(0, 2), None
        logits = output[0] if isinstance(output, tuple) else output
        probabilities = logits.detach().float().softmax(1) if self.cfg.conditional else None
        return inputs[0].flatten(1), probabilities
