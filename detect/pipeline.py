"""ArtworkDetector: the classifier plus the detector, in one call.

The detector proposes boxes, the staged classifier looks at each crop (it knows "no instrument"
too), the rescorer at what surrounds it (``rescoring.py``), the scores are fused (``fusion.py``) and
duplicates are suppressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.boxes import BoxArray, as_boxes
from musicon.datasets.loading import crop_square, shrink
from musicon.datasets.records import Category, UserError
from musicon.detect.config import Config, FusionConfig
from musicon.detect.detections import Detections, rescale
from musicon.detect.devices import pick_device
from musicon.detect.fusion import (
    PRUNE_SLACK,
    Fused,
    Opinions,
    Proposals,
    evidence,
    fuse,
    suppress,
    within_reach,
)
from musicon.detect.hierarchy import Hierarchy
from musicon.detect.rescoring import SURROUNDINGS, Rescorer
from musicon.detect.tiling import Look, TestTime, joined, looks

Precision = Literal["32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
WORKING_SIDE = 1600
"""Pixels; a longer image is shrunk before anything looks at it, unless tiles need more. No network
here sees more of it, and crops at its edges stay small in memory."""
MIN_SIDE = 0.5
"""Pixels of the given image; a box with a shorter side is a rounding artefact."""
CROPS_AT_ONCE = 128
"""Crops that the classifier sees in one go; bounds the memory of a crowded batch."""


class ModelOutputError(UserError):
    """The model gives numbers that are not finite."""


class ArtworkDetector:
    """Finds and names the instruments in artworks.

    Attributes:
        categories: The instruments, in the order of the classifier's classes 1..L.
        threshold: Fused score below which boxes are not shown.
        config: The settings saved with the weights.
        device: Where the models run.
        rescorer: Has the last word on the scores, if there is one and the settings want it.
    """

    def __init__(self, classifier: Any, detector: Any, config: Config,
                 categories: Sequence[Category], device: str | torch.device = "auto",
                 precision: Precision = "32", test_time: TestTime | None = None,
                 rescorer: Rescorer | None = None) -> None:
        """Take two trained modules (see ``classifier.py`` and ``detectors/``).

        Args:
            classifier: A ``CropClassifier``: ``probabilities(uint8 (N, 3, S, S))`` gives
                (N, L + 1).
            detector: ``detect(list of float (3, H, W) in 0..1) -> list of dict``.
            config: Their settings.
            categories: The L instruments.
            device: ``auto`` (CUDA if there is one, else the CPU), ``cpu``, ``cuda:1``, ``mps``.
            precision: ``bf16`` or ``fp16`` computes in half precision.
            test_time: Further looks at each image; none by default.
            rescorer: Has the last word on the scores; the classifier then also needs
                ``features_and_probabilities``.

        Raises:
            UserError: A device that is not there.
        """
        self.test_time = test_time or TestTime()
        self.device = pick_device(device)
        self.config = config
        self.categories = tuple(categories)
        self.threshold = config.fusion.threshold
        self.precision = precision
        self._classifier: Any = self._placed(classifier)
        self._detector: Any = self._placed(detector)
        self.rescorer = rescorer
        self._ids = np.array([0, *(c.id for c in self.categories)], np.int64)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "auto",
             precision: Precision = "32", test_time: TestTime | None = None) -> ArtworkDetector:
        """Read a run folder or a model folder that training left.

        Raises:
            UserError: Not a usable model folder, or a device that is not there.
        """
        from musicon.detect.checkpoints import load_model

        chosen = pick_device(device)
        model = load_model(folder, chosen)
        return cls(model.classifier, model.detector, model.config, model.categories, chosen,
                   precision, test_time, model.rescorer)

    def fingerprint(self) -> str:
        """Check sum of weights, settings and categories: equal for equal models."""
        digest = hashlib.sha256(self.config.model_dump_json().encode())
        digest.update(repr([(c.id, c.name) for c in self.categories]).encode())
        for module in filter(None, (self._classifier, self._detector, self.rescorer)):
            for name, value in module.state_dict().items():
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def names(self) -> dict[int, str]:
        """Category id -> instrument."""
        return {category.id: category.name for category in self.categories}

    @torch.inference_mode()
    def predict(self, images: Sequence[NDArray[np.uint8]],
                threshold: float | None = None, at_once: int | None = None) -> list[Detections]:
        """Find the instruments of a batch of images.

        All images go through the detector as one batch and all crops through the classifier as
        another, so the caller chooses the batch size.

        Args:
            images: uint8 RGB (H, W, 3), any size, upright.
            threshold: Lowest fused score to keep; None takes the model's own.
            at_once: Looks that the detector sees in one go; None takes as many as the images.

        Returns:
            One ``Detections`` an image, boxes in the pixels of the image as given.

        Raises:
            ValueError: An array that is not an RGB image.
            ModelOutputError: The model gives numbers that are not finite.
        """
        limit = self.threshold if threshold is None else threshold
        return [self.decide(opinions, limit)
                for opinions in self.opinions(images, limit, at_once)]

    @torch.inference_mode()
    def opinions(self, images: Sequence[NDArray[np.uint8]],
                 threshold: float = 0.0, at_once: int | None = None) -> list[Opinions]:
        """What detector and classifier say of each image, for ``decide``.

        Args:
            images: As ``predict``.
            threshold: Boxes that cannot reach this fused score are left out.
            at_once: As ``predict``.

        Raises:
            ValueError: An array that is not an RGB image.
            ModelOutputError: The model gives numbers that are not finite.
        """
        if not images:
            return []
        for image in images:
            _check_image(image)
        seen = [shrink(image, self.working_side) for image in images]
        found = self.propose(seen, at_once)
        held = [self._evidence(proposals) for proposals in found]
        near = [within_reach(p, len(self.categories), self.config.fusion, threshold,
                             self._agnostic) for p in found]
        crops = [self._crops(image, p.boxes[keep].numpy())
                 for image, p, keep in zip(seen, found, near, strict=True)]
        features, said = self._look_at(np.concatenate(crops))
        counts = [len(c) for c in crops]
        opinions = [Opinions(_select(p, keep), h[keep], probabilities, None, _wh(small), _wh(image))
                    for p, keep, h, probabilities, small, image
                    in zip(found, near, held, said.split(counts), seen, images, strict=True)]
        if self.rescorer is None or not self._rescores:
            return opinions
        return self._rescore(self.rescorer, opinions, features.split(counts), seen, threshold)

    def _rescore(self, rescorer: Rescorer, opinions: Sequence[Opinions],
                 features: Sequence[Tensor], seen: Sequence[NDArray[np.uint8]],
                 threshold: float) -> list[Opinions]:
        """The opinions of boxes that reach the threshold yet, with the rescorer's.

        Its score only lowers theirs, so leaving the others out changes no result.
        """
        near = [self._fuse(one).scores >= threshold - PRUNE_SLACK for one in opinions]
        crops = [self._crops(image, one.proposals.boxes[keep].numpy(), SURROUNDINGS)
                 for image, one, keep in zip(seen, opinions, near, strict=True)]
        around, _ = self._look_at(np.concatenate(crops))
        return [replace(one, proposals=_select(one.proposals, keep), held=one.held[keep],
                        probabilities=one.probabilities[keep],
                        rescored=rescorer(torch.cat([inside[keep], outside], dim=1)))
                for one, keep, inside, outside
                in zip(opinions, near, features, around.split([len(c) for c in crops]),
                       strict=True)]

    def decide(self, opinions: Opinions, threshold: float,
               fusion: FusionConfig | None = None) -> Detections:
        """Fuse opinions, name, and suppress duplicates.

        Args:
            opinions: Of one image.
            threshold: Lowest fused score to keep.
            fusion: Another rule than the settings'.
        """
        fusion, proposals = fusion or self.config.fusion, opinions.proposals
        if len(proposals) == 0:
            return Detections.empty(opinions.image_wh)
        fused = self._fuse(opinions, fusion)
        keep = suppress(proposals.boxes, fused.scores, fusion.nms_iou, threshold)
        labels = fused.labels[keep].numpy()
        found = Detections(
            boxes=proposals.boxes[keep].numpy(), scores=fused.scores[keep].numpy(),
            labels=self._ids[labels], detector_scores=proposals.scores[keep].numpy(),
            classifier_scores=fused.classifier_scores[keep].numpy(), image_wh=opinions.seen_wh,
            sure=self._hierarchy.back_off(opinions.probabilities[keep].numpy(), labels,
                                          fusion.sure_share))
        return rescale(found, opinions.image_wh)

    @torch.inference_mode()
    def classify(self, image: NDArray[np.uint8], boxes: object) -> NDArray[np.float32]:
        """What the classifier alone says of given boxes.

        Args:
            image: uint8 RGB (H, W, 3).
            boxes: (N, 4), xyxy pixels; the classifier sees them with the usual margin.

        Returns:
            float32 (N, L + 1) probabilities; column 0 is "no instrument", column k the k-th of
            ``categories``.
        """
        _check_image(image)
        seen = shrink(image, self.working_side)
        scale = np.array([seen.shape[1] / image.shape[1], seen.shape[0] / image.shape[0]] * 2)
        return self._look_at(self._crops(seen, as_boxes(as_boxes(boxes) * scale)))[1].numpy()

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8], boxes: BoxArray) -> NDArray[np.float32]:
        """What a rescorer looks at: float32 (N, 2F), of boxes (N, 4) and of their surroundings.

        The image, uint8 RGB (H, W, 3), is not longer than ``working_side``.
        """
        parts = [self._look_at(self._crops(image, boxes, margin), with_features=True)[0]
                 for margin in (self.config.fusion.crop_margin, SURROUNDINGS)]
        return torch.cat(parts, dim=1).numpy()

    @property
    def working_side(self) -> int:
        """Longer side in pixels of an image as it is looked at; larger ones are shrunk to it."""
        zoom = max(self.test_time.zooms, default=1.0)
        return max(WORKING_SIDE, round(zoom * self.config.detector.image_size))

    @cached_property
    def _hierarchy(self) -> Hierarchy:
        return Hierarchy.of([category.name for category in self.categories])

    @property
    def _agnostic(self) -> bool:
        return self.config.detector.class_agnostic

    @property
    def _rescores(self) -> bool:
        return self.config.fusion.rescore and self.config.fusion.rule != "detector"

    def _evidence(self, proposals: Proposals) -> Tensor:
        return evidence(proposals, len(self.categories), self.config.fusion.disagreement,
                        self._agnostic)

    def _fuse(self, opinions: Opinions, fusion: FusionConfig | None = None) -> Fused:
        return fuse(opinions.held, opinions.proposals, opinions.probabilities,
                    fusion or self.config.fusion, self._agnostic, opinions.rescored)

    @torch.inference_mode()
    def propose(self, images: Sequence[NDArray[np.uint8]],
                at_once: int | None = None) -> list[Proposals]:
        """The detector's boxes in each image, in its pixels, from all looks at it.

        No image is longer than ``working_side``; ``at_once`` is as for ``predict``.
        """
        jobs = [(i, look) for i, image in enumerate(images)
                for look in looks(_wh(image), self.test_time)]
        found: list[list[tuple[Look, Proposals]]] = [[] for _ in images]
        at_once = at_once or len(images)
        for start in range(0, len(jobs), at_once):
            batch = jobs[start:start + at_once]
            small = [shrink(look.cut(images[i]), self.config.detector.image_size)
                     for i, look in batch]
            with self._autocast():
                rows = self._detector.detect([self._tensor(image) for image in small])
            for (i, look), row, seen in zip(batch, rows, small, strict=True):
                found[i].append((look, self._proposals(row, look, _wh(seen))))
        cfg = self.config.detector
        most = cfg.max_detections * (1 + len(self.test_time.zooms))
        return [joined(parts, cfg.nms_iou, most) for parts in found]

    def _proposals(self, row: dict[str, Tensor], look: Look,
                   seen_wh: tuple[int, int]) -> Proposals:
        """One look's boxes in the pixels of the image, without cut and empty ones."""
        boxes = row["boxes"].float().cpu().reshape(-1, 4)
        scores = row["scores"].float().cpu()
        if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
            raise ModelOutputError("the detector gives boxes that are not finite numbers: its "
                                   "weights are broken; train again, or use precision 32")
        placed = look.place(boxes.numpy(), seen_wh)
        keep = torch.from_numpy(look.whole(placed)
                                & ((placed[:, 2:] - placed[:, :2]) >= MIN_SIDE).all(axis=1))
        return Proposals(torch.from_numpy(placed)[keep], scores[keep].clamp(0, 1),
                         row["labels"].cpu()[keep])

    def _crops(self, image: NDArray[np.uint8], boxes: BoxArray,
               margin: float | None = None) -> NDArray[np.uint8]:
        """Square crops (N, S, S, 3) around boxes (N, 4), with the usual margin or another."""
        side = self.config.classifier.image_size
        margin = self.config.fusion.crop_margin if margin is None else margin
        crops = np.empty((len(boxes), side, side, 3), np.uint8)
        for crop, box in zip(crops, boxes, strict=True):
            crop[:] = crop_square(image, box, margin, side)
        return crops

    def _look_at(self, crops: NDArray[np.uint8],
                 with_features: bool = False) -> tuple[Tensor, Tensor]:
        """The classifier on crops (N, S, S, 3): features (N, F), probabilities (N, L + 1).

        Both float32 on the CPU; F is 0 without a rescorer, unless they are asked for.
        """
        width = 0
        if self.rescorer is not None and self._rescores:
            width = self.rescorer.linear.in_features // 2
        if not len(crops):
            return torch.zeros(0, width), torch.zeros(0, len(self.categories) + 1)
        features: list[Tensor] = []
        said: list[Tensor] = []
        for batch in torch.from_numpy(crops).split(CROPS_AT_ONCE):
            seen = batch.to(self.device).permute(0, 3, 1, 2)
            views = [seen, seen.flip(3)] if self.test_time.flip else [seen]
            with self._autocast():
                if with_features or width:
                    answers = [self._classifier.features_and_probabilities(v) for v in views]
                else:
                    answers = [(seen.new_zeros(len(seen), 0), self._classifier.probabilities(v))
                               for v in views]
            for parts, both in zip((features, said), zip(*answers, strict=True), strict=True):
                parts.append(torch.stack([one.float() for one in both]).mean(dim=0).cpu())
        probabilities = torch.cat(said)
        if not torch.isfinite(probabilities).all():
            raise ModelOutputError("the classifier gives probabilities that are not finite "
                                   "numbers: its weights are broken; train again, or use "
                                   "precision 32")
        return torch.cat(features), probabilities

    def _tensor(self, image: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.require(image, np.uint8, ["C", "W"])).to(self.device)
        return pixels.permute(2, 0, 1).float().div(255)

    def _autocast(self) -> AbstractContextManager[Any]:
        half = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=half, enabled=half is not None)

    def _placed(self, module: nn.Module) -> nn.Module:
        module = module.eval().to(self.device)
        if self.device.type == "cuda":
            module = module.to(memory_format=torch.channels_last)
        return module


def _select(proposals: Proposals, keep: Tensor) -> Proposals:
    return Proposals(proposals.boxes[keep], proposals.scores[keep], proposals.labels[keep])


def _wh(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"expected a uint8 RGB image (H, W, 3), found {image.dtype} "
                         f"{image.shape}; read files with musicon.datasets.images.decode")

