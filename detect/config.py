"""Typed settings: YAML in, an unknown key is an error, every default lives here once.

A configuration holds the two models (``classifier``, ``detector``) and the stages that train
them. The resolved configuration is saved beside the weights and builds the same models again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from musicon.datasets.records import UserError

STAGE_ORDER = ("mimo", "google", "cytomine")


class ConfigError(UserError):
    """Settings that cannot be used; the message names the key and what to write instead."""


class Settings(BaseModel):
    """Base of all settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassifierConfig(Settings):
    """The crop classifier: a backbone and a head of L instruments + 1 negative class."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model name, or ``torchvision:NAME`` for one of torchvision's."""
    weights: str = "auto"
    """``auto`` (download, else the installed package, else a random start with a warning),
    ``none``, or a file."""
    image_size: int = Field(160, ge=32, le=1024)
    """Side of the square crop that the network sees, in pixels."""
    dropout: float = Field(0.2, ge=0, lt=1)
    negative_class: bool = True


class DetectorConfig(Settings):
    """The box proposer."""

    engine: str = "torchvision"
    """File of ``detect/detectors``: ``torchvision`` or ``detectron2``."""
    family: Literal["fasterrcnn", "retinanet", "fcos", "ssdlite"] = "fasterrcnn"
    image_size: int = Field(384, ge=128, le=2048)
    """The longer side of the image as the network sees it, in pixels."""
    fpn_channels: int = Field(96, ge=16)
    anchor_sizes: tuple[float, ...] = (24, 48, 96, 160, 256)
    """Square root of anchor areas in pixels at ``image_size``, small to large."""
    aspect_ratios: tuple[float, ...] = (0.4, 1.0, 2.5)
    """Height over width."""
    max_detections: int = Field(50, ge=1)
    nms_iou: float = Field(0.5, gt=0, le=1)
    class_agnostic: bool = False
    """Teach "instrument" alone and leave the name to the classifier."""


class FusionConfig(Settings):
    """How the detector's and the classifier's scores become one."""

    rule: Literal["product", "detector", "classifier"] = "product"
    classifier_weight: float = Field(0.5, ge=0, le=1)
    """Exponent w in detector**(1 - w) * classifier**w."""
    crop_margin: float = Field(0.1, ge=0, le=1)
    """Share of a box's side added around it before the classifier sees it."""
    nms_iou: float = Field(0.5, gt=0, le=1)
    threshold: float = Field(0.3, ge=0, le=1)
    """Boxes under this fused score are not shown; training sets it on validation."""


class FitConfig(Settings):
    """One run of the training loop."""

    steps: int = Field(500, ge=0)
    batch_size: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    backbone_scale: float = Field(0.3, ge=0)
    """Learning rate of pretrained layers, as a share of ``learning_rate``."""
    freeze: int = Field(0, ge=0)
    """How many of the backbone's first stages stay as they are."""
    weight_decay: float = Field(0.02, ge=0)
    warmup_steps: int = Field(50, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    clip_norm: float = Field(5.0, gt=0)
    ema_decay: float | None = Field(0.99, gt=0, lt=1)
    evaluate_every: int = Field(200, ge=1)
    patience: int | None = Field(None, ge=1)
    """Evaluations without a better score before the run stops early."""
    checkpoint_every: int = Field(100, ge=1)
    balance: Literal["sampling", "loss", "none"] = "sampling"
    augmentation: Literal["none", "light", "strong"] = "strong"


class CompositesConfig(Settings):
    """Cut-outs pasted into paintings."""

    share: float = Field(1.0, ge=0, le=1)
    """Share of the detector's training images that are composites."""
    max_objects: int = Field(3, ge=1)
    scale: tuple[float, float] = (0.12, 0.8)
    """Longer side of a pasted cut-out, as shares of the scene's shorter side."""
    harmonise: float = Field(0.7, ge=0, le=1)
    """Chance that a cut-out takes on the colours of where it is pasted."""


class PseudoBoxConfig(Settings):
    """Boxes proposed by the parent on images whose label is known."""

    min_score: float = Field(0.3, ge=0, le=1)
    max_per_image: int = Field(2, ge=1)


class StageConfig(Settings):
    """What a stage starts from, what it reads, and for how long."""

    parent: str | None = None
    manifest: Path
    """Manifest file or folder of the stage's own images."""
    backgrounds: tuple[Path, ...] = ()
    """Manifests whose instrument-free images give negatives and grounds for composites."""
    cutouts: tuple[Path, ...] = ()
    """Manifests of single instruments that composites are cut from, beside ``manifest``."""
    rehearsal: tuple[Path, ...] = ()
    """Manifests of earlier stages mixed in, so that they are not forgotten."""
    rehearsal_share: float = Field(0.3, ge=0, lt=1)
    composites: CompositesConfig | None = None
    pseudo_boxes: PseudoBoxConfig | None = None
    classifier: FitConfig = FitConfig()
    detector: FitConfig = FitConfig(batch_size=4)


class Config(Settings):
    """Everything a run of ``train_net.py`` needs."""

    name: str = "musicon"
    seed: int = 0
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    devices: int = Field(1, ge=1)
    num_workers: int = Field(0, ge=0)
    output: Path = Path("runs")
    classifier: ClassifierConfig = ClassifierConfig()
    detector: DetectorConfig = DetectorConfig()
    fusion: FusionConfig = FusionConfig()
    stages: dict[str, StageConfig] = {}

    @model_validator(mode="before")
    @classmethod
    def _engine_by_name(cls, values: Any) -> Any:
        """``detector=detectron2`` is short for ``detector.engine=detectron2``."""
        if isinstance(values, Mapping) and isinstance(values.get("detector"), str):
            return {**values, "detector": {"engine": values["detector"]}}
        return values
