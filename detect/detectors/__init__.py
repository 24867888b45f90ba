"""Detector engines: one file each, found by name, with ``build(cfg, num_classes, classifier)``."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Protocol

from torch import Tensor, nn

from musicon.datasets.addresses import FetchError
from musicon.detect.classifier import CropClassifier
from musicon.detect.config import ConfigError, DetectorConfig

ENGINES = {"torchvision": "torchvision_rcnn", "detectron2": "detectron2_rcnn",
           "yolox": "yolox"}
"""Engine name -> module of this package."""


class Detector(Protocol):
    """What every engine's module offers, beside being a ``torch.nn.Module``."""

    num_classes: int
    class_agnostic: bool

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Training losses.

        Args:
            images: Each (3, H, W), RGB in 0..1, of any size.
            targets: For each, ``boxes`` float32 (N, 4) xyxy in its pixels and ``labels`` int64
                (N,) from 1; N may be 0.
        """
        ...

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """For each image: ``boxes`` (N, 4) in its pixels, ``scores`` (N,) falling, ``labels``."""
        ...

    def taps(self) -> dict[str, nn.Module]:
        """Modules that adaptation looks into, by forward hooks.

        ``image``: gives maps (N, C, H, W) of strides up to 32, finest first, as a list or a
        mapping. ``instance``, where there are proposals: turns their features (N, C) into class
        logits (N, K), or into a tuple that begins with them.
        """
        ...


def build(cfg: DetectorConfig, num_classes: int, classifier: CropClassifier) -> Detector:
    """The detector of a configuration, on the weights of the staged classifier's backbone."""
    detector: Detector = _engine(cfg).build(cfg, num_classes, classifier)
    return detector


def resolved(cfg: DetectorConfig) -> DetectorConfig:
    """The settings with the engine's own files read into them: a model folder then needs no others.

    To be asked before training, since it finds out whether the engine is there, and which it is.

    Raises:
        ConfigError: A file or a setting that the engine cannot use.
        ImportError: The engine's library is missing; the message says what to do.
    """
    if cfg.engine == "auto":
        cfg = cfg.model_copy(update=_chosen(cfg))
    found: DetectorConfig = _engine(cfg).resolved(cfg)
    return found


def _chosen(cfg: DetectorConfig) -> dict[str, str]:
    """Engine and family for ``auto``: YOLOX where its weights are at hand, else Faster R-CNN."""
    from musicon.detect.detectors import yolox

    if "family" in cfg.model_fields_set:
        return {"engine": "yolox" if cfg.family in yolox.SIZES else "torchvision"}
    if cfg.weights == "auto":
        try:
            yolox.fetched(yolox.SMALLEST)
        except FetchError as error:
            warnings.warn(f"the weights of {yolox.SMALLEST} could not be had ({error}): Faster "
                          "R-CNN is trained instead, which needs many more boxes for the same. "
                          "Give the file with --set detector.weights=FILE", stacklevel=3)
            return {"engine": "torchvision"}
    return {"engine": "torchvision" if cfg.weights == "none" else "yolox",
            "family": cfg.family if cfg.weights == "none" else yolox.SMALLEST}


def unused(cfg: DetectorConfig) -> tuple[str, ...]:
    """Names of the settings that this engine's family, or file, has no use for."""
    names: tuple[str, ...] = _engine(cfg).unused(cfg)
    return names


def unused_settings(cfg: DetectorConfig) -> list[str]:
    """Those of ``unused`` that were given: to be told before training."""
    default = DetectorConfig()
    return [name for name in unused(cfg) if getattr(cfg, name) != getattr(default, name)]


def _engine(cfg: DetectorConfig) -> Any:
    if cfg.engine not in ENGINES:
        raise ConfigError(f"detector.engine={cfg.engine!r} is not known; "
                          f"write one of: {', '.join(ENGINES)}")
    return importlib.import_module(f"musicon.detect.detectors.{ENGINES[cfg.engine]}")
