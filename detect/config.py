"""Typed settings: YAML in, an unknown key is an error, every default lives here once.

A configuration holds the two models (``classifier``, ``detector``) and the stages that train
them. The resolved configuration is saved beside the weights and builds the same models again.
``settings`` reads and checks the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from musicon.detect.settings import (
    STAGE_ORDER,
    ConfigError,
    S,
    Settings,
    by_path,
    checked,
    differences,
    dump,
    fault,
    load_as,
    nearest,
)

__all__ = ["STAGE_ORDER", "AdaptationConfig", "BankConfig", "ClassifierConfig",
           "CompositesConfig", "Config", "ConfigError", "DetectorConfig", "FitConfig",
           "FusionConfig", "PseudoBoxConfig", "RunSettings", "S", "Settings", "StageConfig",
           "differences", "dump", "fault", "load", "load_as", "parse"]


class RunSettings(Settings):
    """Where and how anything is trained."""

    seed: int = Field(0, ge=0)
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    devices: int = 1
    """Of each process: several GPUs take as many processes, which ``torchrun`` starts."""
    num_workers: int = Field(0, ge=0)

    @field_validator("devices")
    @classmethod
    def _one_a_process(cls, devices: int) -> int:
        if devices != 1:
            raise ValueError("a process uses one device; start one for each: torchrun "
                             f"--nproc-per-node {max(2, devices)} tools/train_net.py ...")
        return devices


class ClassifierConfig(Settings):
    """The crop classifier: a backbone and a head of L instruments + 1 negative class."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model name, or ``torchvision:NAME`` for one of torchvision's."""
    weights: str = "auto"
    """``auto`` (download, else the installed package, else a random start with a warning),
    ``none``, or a file."""
    image_size: int = Field(224, ge=32, le=1024)
    """Side of the square crop that the network sees, in pixels."""
    dropout: float = Field(0.2, ge=0, lt=1)
    batch_norm: Literal["held", "learnt"] = "held"
    """Whether batch normalisation keeps its pretrained statistics, which generalise better from
    photos to paintings. Learn them where the weights start at random."""


class DetectorConfig(Settings):
    """The box proposer."""

    engine: str = "torchvision"
    """Which of ``detect/detectors``: ``torchvision``, ``yolox``, ``detectron2``; or ``auto``:
    ``yolox`` where its weights can be had, else ``torchvision``."""
    config: Path | dict[str, Any] | None = None
    """A YAML or LazyConfig file of detectron2's, which then says what the network is; the saved
    settings hold what was in it."""
    family: Literal["fasterrcnn", "retinanet", "fcos", "ssdlite", "fasterrcnn_resnet50_fpn_v2",
                    "yolox_nano", "yolox_tiny", "yolox_s", "yolox_m", "yolox_l"] = "fasterrcnn"
    """``yolox_nano`` where the engine is ``yolox`` and none is given."""
    weights: str = "auto"
    """``auto`` fetches COCO weights for ``fasterrcnn_resnet50_fpn_v2`` and ``yolox`` where there is
    a network, and of detectron2 what ``config`` names; ``none``; or a file: of YOLOX's in ONNX, of
    detectron2's in its own form (or an address)."""
    image_size: int = Field(384, ge=128, le=2048)
    """The longer side of the image as the network sees it, in pixels."""
    fpn_channels: int = Field(96, ge=16)
    anchor_sizes: tuple[float, ...] | Literal["auto"] = "auto"
    """Square root of anchor areas in pixels at ``image_size``, small to large. ``auto`` takes
    them and ``aspect_ratios`` from the first stage's boxes; the saved settings hold the numbers."""
    aspect_ratios: tuple[float, ...] = (0.4, 1.0, 2.5)
    """Height over width."""
    max_detections: int = Field(50, ge=1)
    nms_iou: float = Field(0.5, gt=0, le=1)
    class_agnostic: bool = False
    """Teach "instrument" alone and leave the name to the classifier."""

    @model_validator(mode="before")
    @classmethod
    def _family_of_the_engine(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("engine") == "yolox":
            return {"family": "yolox_nano", **values}
        return values

    @field_validator("anchor_sizes", "aspect_ratios")
    @classmethod
    def _above_zero(cls, values: Any) -> Any:
        if values != "auto" and not (values and min(values) > 0):
            raise ValueError("write one or more numbers above 0, such as [24, 64, 128]")
        return values


class FusionConfig(Settings):
    """How the detector's and the classifier's scores become one."""

    rule: Literal["auto", "product", "detector", "classifier"] = "product"
    """``auto``: the best of the others on validation; the saved settings hold which."""
    classifier_weight: float = Field(0.5, ge=0, le=1)
    """Exponent w in detector**(1 - w) * classifier**w; chosen too where ``rule`` is ``auto``."""
    disagreement: float = Field(0.25, ge=0, le=1)
    """Share of the detector's score kept for a name that it did not propose."""
    crop_margin: float = Field(0.1, ge=0, le=1)
    """Share of a box's side added around it before the classifier sees it."""
    nms_iou: float = Field(0.5, gt=0, le=1)
    rescore: bool = True
    """Whether a model on the classifier's features, fitted to the detector's own boxes at the
    stage's end, tells instruments from false alarms; needs boxed images, and some without."""
    slope: float = Field(1.0, gt=0)
    """With ``shift``, what makes the fused score a probability: its log-odds times ``slope`` plus
    ``shift``. Training sets both on validation."""
    shift: float = 0.0
    threshold: float = Field(0.3, ge=0, le=1)
    """Boxes under this fused score are not shown; training sets it on validation."""
    sure_share: float = Field(0.5, ge=0, le=1)
    """Share of the probability of all instruments that a name must hold to be sure; else it backs
    off to its family, and where that is not sure either, to "musical instrument"."""

    def describe(self) -> str:
        """The rule in words."""
        return {"detector": "the detector's score alone",
                "classifier": "the classifier's score alone"}.get(
            self.rule, f"fusion with weight {self.classifier_weight:g} for the classifier")


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
    probe_examples: int = Field(0, ge=0)
    """Examples on which the classifier's last layer is fitted before the first step."""
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
    negative_share: float = Field(0.15, ge=0, lt=1)
    """Share of instrument-free examples."""
    mined_share: float = Field(0.5, ge=0, le=1)
    """Share of those that show what the parent stage took for an instrument."""
    augmentation: Literal["none", "light", "strong"] = "strong"
    light_share: float = Field(0.0, ge=0, le=1)
    """Share of the examples that get the augmentation ``light`` instead."""


class CompositesConfig(Settings):
    """Cut-outs pasted into paintings."""

    share: float = Field(1.0, ge=0, le=1)
    """Share of the detector's training images that are composites."""
    crop_share: float = Field(0.5, ge=0, le=1)
    """Share of the classifier's photos that are pasted into a painting."""
    max_objects: int = Field(3, ge=1)
    distractors: float = Field(0.5, ge=0, le=1)
    """Pasted things that are no instrument, for each cut-out."""
    repaint: float = Field(0.5, ge=0, le=1)
    """Chance that a cut-out gets another colour and surface than the scene."""
    scale: tuple[float, float] = (0.15, 1.4)
    """Longer side of a pasted cut-out, as shares of the scene's shorter side."""
    harmonise: float = Field(0.7, ge=0, le=1)
    """Chance that a cut-out takes on the colours of where it is pasted."""

    @field_validator("scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("write the smaller share first, both above 0, such as [0.15, 1.4]")
        return scale


class PseudoBoxConfig(Settings):
    """Boxes proposed by the parent on images whose label is known."""

    min_score: float = Field(0.3, ge=0, le=1)
    max_per_image: int = Field(2, ge=1)


class BankConfig(Settings):
    """Styled pictures, made before training by ``build_bank.py make``, among the clean ones."""

    path: Path
    """The bank's manifest or folder."""
    probability: float = Field(0.5, gt=0, lt=1)
    """Chance that a styled picture takes the place of the clean one; never always."""


class AdaptationConfig(Settings):
    """What the settings of every adaptation method have; each method adds its own."""

    learns_from_average: ClassVar[bool] = False
    """Whether the method needs the average of a model's weights (``ema_decay``)."""

    name: str
    """Which of ``detect/adaptation``: ``adversarial``, ``teacher``."""
    targets: tuple[Path, ...] = Field(min_length=1)
    """Manifests of the target domain; only images of their training split are looked at."""
    use_labels: bool = True
    """Whether image-level labels, where known, say what a target picture can show."""
    optional: bool = False
    """Go without the method, and say so, where its targets are not there."""
    models: tuple[Literal["classifier", "detector"], ...] = Field(("classifier", "detector"),
                                                                  min_length=1)
    """Which of the stage's models are adapted."""
    window: float = Field(0.6, gt=0, le=1)
    """Least share of a target picture's sides that a random window of it has."""
    bank: BankConfig | None = None
    """A style bank of the targets, whose styled versions are strong views of them."""

    @field_validator("bank", mode="before")
    @classmethod
    def _bank_by_path(cls, value: Any) -> Any:
        return by_path(value)

    def manifests(self) -> Iterator[tuple[str, Path]]:
        """What the method reads, each with the setting that names it."""
        yield from ((f"targets.{i}", path) for i, path in enumerate(self.targets))
        if self.bank is not None:
            yield "bank", self.bank.path


class StageConfig(Settings):
    """What a stage starts from, what it reads, and for how long."""

    parent: str | None = None
    """Stage whose model this one starts from."""
    manifest: Path
    """Manifest file or folder of the stage's own images."""
    keep_classes: bool = False
    """Know the classes of the parent, and of ``rehearsal``, that ``manifest`` does not have."""
    backgrounds: tuple[Path, ...] = ()
    """Manifests whose instrument-free images give negatives and grounds for composites."""
    cutouts: tuple[Path, ...] = ()
    """Manifests of single instruments that composites are cut from, beside ``manifest``."""
    rehearsal: tuple[Path, ...] = ()
    """Manifests of earlier stages mixed in, so that they are not forgotten."""
    rehearsal_share: float = Field(0.3, ge=0, lt=1)
    composites: CompositesConfig | None = None
    pseudo_boxes: PseudoBoxConfig | None = None
    bank: BankConfig | None = None
    adaptation: tuple[SerializeAsAny[AdaptationConfig], ...] = ()
    """Methods that learn from unlabelled pictures of the target domain."""
    classifier: FitConfig = FitConfig()
    detector: FitConfig = FitConfig(batch_size=4)

    @field_validator("bank", mode="before")
    @classmethod
    def _bank_by_path(cls, value: Any) -> Any:
        return by_path(value)

    @field_validator("adaptation", mode="before")
    @classmethod
    def _methods_by_name(cls, value: Any) -> Any:
        """One method needs no list."""
        from musicon.detect import adaptation  # its settings are built on this module

        given = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        methods = tuple(adaptation.settings(one) for one in given)
        asked = [(method.name, model) for method in methods for model in method.models]
        twice = next((one for i, one in enumerate(asked) if one in asked[:i]), None)
        if twice is not None:
            raise ValueError("{} is given twice for the {}; give all its targets in one".format(
                *twice))
        return methods

    @model_validator(mode="after")
    def _averages_are_kept(self) -> StageConfig:
        for method in self.adaptation:
            for model in method.models:
                fit: FitConfig = getattr(self, model)
                if method.learns_from_average and fit.steps and fit.ema_decay is None:
                    raise ValueError(f"adaptation {method.name}: the {model} keeps no average of "
                                     f"its weights to learn from; write {model}.ema_decay: 0.99, "
                                     f"or leave the {model} out of the method's models")
        return self


class Config(RunSettings):
    """Everything that training the stages needs."""

    name: str = "musicon"
    """What ``lineage.json`` calls the run."""
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

    @model_validator(mode="after")
    def _parents_exist(self) -> Config:
        for name, stage in self.stages.items():
            seen, parent = [name], stage.parent
            while parent is not None:
                if parent not in self.stages:
                    raise ValueError(f"stages.{seen[-1]}.parent: no stage is named {parent!r}; "
                                     f"{nearest(parent, list(self.stages))}")
                if parent in seen:
                    raise ValueError(f"stages.{name}.parent: the stages go in a circle: "
                                     + " <- ".join([*seen, parent]))
                seen.append(parent)
                parent = self.stages[parent].parent
        return self

    def stage_names(self) -> tuple[str, ...]:
        """The stages in training order: parents first, else as ``STAGE_ORDER`` has them."""
        def depth(name: str) -> int:
            parent = self.stages[name].parent
            return 0 if parent is None else 1 + depth(parent)

        rank = {name: i for i, name in enumerate((*STAGE_ORDER, *self.stages))}
        return tuple(sorted(self.stages, key=lambda name: (depth(name), rank[name])))


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply ``a.b=value`` overrides, and check everything.

    Relative paths in the file mean what they mean on the command line: relative to the
    current working directory, not to the file.

    Args:
        path: YAML file; ``None`` starts from the defaults.
        overrides: Such as ``stages.mimo.classifier.steps=100``; values are YAML, so that
            ``detector.anchor_sizes=[32, 64]`` is a list and ``null`` is none.

    Raises:
        ConfigError: Naming the key, what is wrong, and the nearest key that exists.
    """
    return load_as(Config, path, overrides)


def parse(document: Mapping[str, Any], source: str = "settings") -> Config:
    """Check a parsed document; ``source`` names it in errors.

    Raises:
        ConfigError: Naming every key that is unknown or has an unusable value.
    """
    return checked(Config, document, source)
