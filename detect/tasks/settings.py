"""Settings of a task: its data and split, its network, and how long each part learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from musicon.detect.config import FitConfig, RunSettings, Settings


class SplitConfig(Settings):
    """How works are dealt into train, val and test."""

    given: bool = False
    """Keep the manifest's own splits; by default works are dealt anew for each task and seed."""
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Of train, val and test."""
    apart: tuple[str, ...] | Literal["task"] = "task"
    """Attributes whose works stay on one side; ``task`` takes those that the task names, and []
    divides all works alike."""
    near_duplicates: bool = True
    """Keep pictures of the same work on one side."""

    @field_validator("shares")
    @classmethod
    def _whole(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares[:2]) <= 0 or shares[2] < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError("write shares of train, val and test that sum to 1, the first two "
                             "above 0, such as [0.7, 0.1, 0.2]")
        return shares


class NetworkConfig(Settings):
    """From a picture to the logits: a backbone (or layers of one's own), then a head."""

    backbone: str | None = "tf_efficientnet_lite0"
    """A timm model, or ``torchvision:NAME``; null where ``layers`` take its place."""
    weights: str = "auto"
    """``auto`` (download, else the installed package, else a random start with a warning),
    ``none``, or a file."""
    layers: tuple[str, ...] = ()
    """Such as ``conv 32``, ``pool``, ``dropout 0.25``: 3 x 3 convolutions without padding, each
    with ReLU, and 2 x 2 max-pooling."""
    features: Literal["pooled", "maps"] = "pooled"
    """What the backbone hands to the head: one vector, or its last maps."""
    head: tuple[str, ...] = ()
    """Before the last layer: ``flatten``, ``average``, ``dense 128`` (ReLU), ``dropout 0.5``."""
    image_size: int = Field(224, ge=32, le=1024)
    view: Literal["squash", "crop", "pad"] = "squash"
    """How a picture becomes a square: whole, its sides stretched; its middle; or whole, with its
    border's pixels continued."""
    batch_norm: Literal["held", "learnt"] = "held"

    @model_validator(mode="after")
    def _one_of_both(self) -> NetworkConfig:
        if (self.backbone is None) == (not self.layers):
            raise ValueError("network: give either a backbone or layers (and backbone: null)")
        return self


OF_STAGES = ("negative_share", "mined_share", "light_share")
"""Settings of a fit that a task has no use for."""


class LearnConfig(FitConfig):
    """One run of the training loop for a task."""

    steps: int = Field(0, ge=0)
    epochs: int | None = Field(None, ge=1)
    """Takes the place of ``steps``: so often as many examples as there are training pictures."""
    balance: Literal["sampling", "loss", "none"] = "sampling"
    augmentation: Literal["none", "light", "strong"] = "light"
    """Of colours and surface."""
    flip: bool = True
    rotate: float = Field(0.0, ge=0, le=180)
    """Greatest angle in degrees."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Greatest share of a picture's sides that is cut off."""
    mined_share: float = Field(0.5, exclude=True)
    """Of stages alone, and younger than tasks: saved settings and fingerprints do without it."""

    @model_validator(mode="after")
    def _nothing_of_stages(self) -> LearnConfig:
        idle = [name for name in OF_STAGES
                if getattr(self, name) != type(self).model_fields[name].default]
        if idle:
            raise ValueError(f"a task has no use for {', '.join(idle)}; leave it out")
        return self


class TaskConfig(RunSettings):
    """Everything that training a task needs; the task itself is named on the command line."""

    name: str
    """Of the run; its results go to ``runs/tasks/NAME``."""
    data: Path
    """Manifest file or folder of works with attributes."""
    classes: dict[str, tuple[str, ...]] = {}
    """Name -> the data's names for it; other works are left out. {} takes all classes as they
    are. A list of names will do where each is the data's own."""
    min_works: int = Field(4, ge=1)
    """Classes with fewer works are left out."""
    split: SplitConfig = SplitConfig()
    network: NetworkConfig = NetworkConfig()
    features: Path = Path("data/features")
    """Where features are kept from run to run, for all tasks."""
    views: int = Field(1, ge=1, le=32)
    """Versions of a picture whose features are kept: the whole, then parts and mirrored parts."""
    head: LearnConfig = LearnConfig()
    """Learns on kept features; the backbone stays as it is."""
    whole: LearnConfig = LearnConfig()
    """Learns on pictures, head and backbone alike, after ``head``."""
    keep: float = Field(0.9, gt=0, lt=1)
    """Share of works by other hands that are given a class; what is as little like the training
    works as the rest is called uncertain."""
    output: Path | None = None
    """Folder of the results, where ``runs/tasks/NAME`` won't do."""

    @field_validator("classes", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """``[Cubism, Rococo]`` is short for each under its own name."""
        if isinstance(value, (list, tuple)):
            return {str(name): (str(name),) for name in value}
        if isinstance(value, dict):
            return {k: (v,) if isinstance(v, str) else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _something_to_do(self) -> TaskConfig:
        if not (self.learns(self.head) or self.learns(self.whole) or self.head.probe_examples):
            raise ValueError("head, whole: nothing to learn; set head.steps or whole.epochs")
        if (self.learns(self.head) or self.head.probe_examples) and self.network.backbone is None:
            raise ValueError("head: layers of one's own have no features to keep; train them with "
                             "whole.steps or whole.epochs")
        return self

    @staticmethod
    def learns(part: LearnConfig) -> bool:
        """Whether a part has any step."""
        return bool(part.steps or part.epochs)

    @property
    def folder(self) -> Path:
        """Where the run leaves everything."""
        return self.output or Path("runs/tasks") / self.name
