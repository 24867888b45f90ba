"""Which rule makes one score of the detector's and the classifier's, and what scores mean.

Both models look once; every rule is then tried on the same opinions, so that detector alone,
classifier alone and products of the two can be compared.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from musicon.datasets.command import progress
from musicon.datasets.images import decode_reduced
from musicon.datasets.records import Category, Manifest
from musicon.detect.calibration import fit_scaling
from musicon.detect.config import FusionConfig
from musicon.detect.detections import Detections, rescale
from musicon.detect.evaluation import DetectionMetrics, evaluate
from musicon.detect.fusion import Opinions, calibrated
from musicon.detect.matching import pool, quiet_threshold
from musicon.detect.pipeline import ArtworkDetector

log = logging.getLogger(__name__)

WEIGHTS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Of the classifier in a product."""
MARGIN = 0.005
"""Another rule must be better by so much than the usual one: validation sets are small."""
AT_ONCE = 8


@dataclass(frozen=True)
class Tried:
    """One rule and what it comes to on validation."""

    fusion: FusionConfig
    metrics: DetectionMetrics
    found: Mapping[int, Detections]

    @property
    def quality(self) -> float:
        """Mean of AP50 whatever the name and AP50 by name, in 0..1."""
        return ((self.metrics.agnostic_ap50 or 0.0) + max(0.0, self.metrics.coco["AP50"])) / 2

    def row(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``."""
        weight = {"classifier_weight": self.fusion.classifier_weight} \
            if self.fusion.rule == "product" else {}
        metrics = self.metrics
        return {"rule": self.fusion.rule, **weight, "agnostic_ap50": metrics.agnostic_ap50,
                "ap50": metrics.coco["AP50"], "f1": metrics.found.f1,
                "naming_accuracy": metrics.naming_accuracy,
                "false_alarms": metrics.false_alarms_per_negative,
                "ece": metrics.calibration.error, "threshold": metrics.threshold}


def candidates(written: FusionConfig) -> list[FusionConfig]:
    """The rule that is written (for ``auto`` the product with its weight), then the others."""
    usual = written.model_copy(update={"rule": "product"}) if written.rule == "auto" else written
    others: list[dict[str, Any]] = [
        {"rule": "detector"}, {"rule": "classifier"},
        *({"rule": "product", "classifier_weight": weight} for weight in WEIGHTS)]
    rules = [usual, *(usual.model_copy(update=other) for other in others)]
    return [rule for i, rule in enumerate(rules) if rule not in rules[:i]]


def search(finder: ArtworkDetector, validation: Manifest, *,
           quiet: bool = False) -> dict[int, Opinions]:
    """Image id -> what both models say of a validation image, however unlikely.

    Raises:
        ImageError: A picture that cannot be read.
    """
    opinions: dict[int, Opinions] = {}
    records = progress(iter(validation.images), total=len(validation), desc="validating",
                       quiet=quiet)
    while batch := list(islice(records, AT_ONCE)):
        images = [decode_reduced(validation.path(record), finder.working_side)[0]
                  for record in batch]
        opinions |= dict(zip((r.id for r in batch), finder.opinions(images), strict=True))
    return opinions


def rescoring_helps(finder: ArtworkDetector, opinions: Mapping[int, Opinions],
                    validation: Manifest) -> bool:
    """Whether class-agnostic AP50 is no worse with the rescorer than without it.

    Composed scenes don't count: the rescorer learns from real pictures alone, and holds a cut-out
    for what it is. Where no real image is boxed nothing speaks for it.
    """
    real = replace(validation, images=tuple(
        record for record in validation.images
        if not any(box.origin == "composite" for box in record.boxes)))
    if not any(record.boxes for record in real.images):
        return False
    rule = [candidates(finder.config.fusion)[0]]
    plain = {i: replace(said, rescored=None) for i, said in opinions.items()}
    with_it, without = (try_rules(finder, looks, real, rule)[0].metrics.agnostic_ap50
                        for looks in (opinions, plain))
    log.info("class-agnostic AP50 on %d real validation images: %.3f rescored, %.3f not",
             len(real), with_it or 0, without or 0)
    return (with_it or 0) >= (without or 0)


def try_rules(finder: ArtworkDetector, opinions: Mapping[int, Opinions], validation: Manifest,
              rules: Sequence[FusionConfig]) -> list[Tried]:
    """Score every rule on the same opinions of validation images."""
    sizes = {record.id: (record.width, record.height) for record in validation.images}
    tried = []
    for fusion in rules:
        found = {i: rescale(finder.decide(opinions[i], 0.0, fusion), size)
                 for i, size in sizes.items()}
        metrics = evaluate(validation, found, model_categories=finder.categories)
        tried.append(Tried(fusion, metrics, found))
    return tried


def choose(tried: Sequence[Tried]) -> Tried:
    """The best rule; the first unless another is better by more than chance may do."""
    usual = tried[0]
    best = max(tried, key=lambda one: one.quality)
    return best if best.quality > usual.quality + MARGIN else usual


def calibrate(fusion: FusionConfig, found: Mapping[int, Detections], validation: Manifest,
              categories: Sequence[Category]) -> FusionConfig:
    """Make a rule's scores probabilities, on validation.

    Args:
        fusion: The rule, not calibrated yet.
        found: What it finds in the images, however low the score.
        validation: Boxed images, and some without an instrument.
        categories: The model's.
    """
    boxes = pool(evaluate(validation, found, model_categories=categories).matched)
    slope, shift = fit_scaling(boxes.scores, boxes.hits)
    return fusion.model_copy(update={"slope": slope, "shift": shift})


def set_threshold(fusion: FusionConfig, found: Mapping[int, Detections], validation: Manifest,
                  categories: Sequence[Category],
                  least: float = 0.0) -> tuple[FusionConfig, DetectionMetrics]:
    """The threshold of a calibrated rule, on validation, and its figures there.

    It is the one with the best F1 of those that leave instrument-free works in peace
    (``quiet_threshold``) and are not under ``least``. The other arguments are ``calibrate``'s.
    """
    shown = {i: replace(said, scores=calibrated(torch.from_numpy(said.scores), fusion).numpy())
             for i, said in found.items()}
    metrics = evaluate(validation, shown, model_categories=categories)
    least = max(least, quiet_threshold(metrics.matched))
    if least > metrics.threshold:
        metrics = replace(evaluate(validation, shown, model_categories=categories,
                                   threshold=least), threshold_chosen_here=True)
        return fusion.model_copy(update={"threshold": metrics.threshold}), metrics
    down = math.floor(metrics.threshold * 1e6) / 1e6  # up would lose a box that lies on it
    return fusion.model_copy(update={"threshold": down}), metrics
