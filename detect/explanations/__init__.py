"""Methods that say what a network looked at: one file each, found by name, with ``heat``."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from musicon.detect.classifier import CropClassifier
from musicon.detect.explanations.tracing import ExplanationError

METHODS = {"visualbackprop": "visual_backprop", "gradcam": "grad_cam",
           "integrated-gradients": "integrated_gradients"}
"""Method name -> module of this package.

Each has ``heat(network, images, classes)``, images (N, 3, S, S) and outputs (N,) to explain ->
maps (N, S, S) in 0..1, and ``CLASSES_DIFFER``: whether they depend on ``classes``.
"""
TITLES = {"visualbackprop": "VisualBackProp", "gradcam": "Grad-CAM",
          "integrated-gradients": "integrated gradients"}
NEEDS_CAPTUM = frozenset({"gradcam", "integrated-gradients"})


def heat(method: str, classifier: CropClassifier, crops: Tensor, classes: Tensor) -> Tensor:
    """Heat maps (N, S, S), float32 in 0..1 on the CPU, of crops uint8 (N, 3, S, S).

    Args:
        method: One of ``METHODS``.
        classifier: In eval mode.
        crops: RGB.
        classes: int64 (N,), outputs of the classifier: 0 is "no instrument", k the k-th.

    Raises:
        ExplanationError: Unknown method, or a network that it cannot explain.
        ImportError: A library that the method needs is not installed.
    """
    module = method_module(method)
    device = classifier.mean.device
    found: Tensor = module.heat(classifier, crops.to(device).float(), classes.to(device))
    return found.to("cpu", torch.float32)


def method_module(method: str) -> ModuleType:
    """The module of a method.

    Raises:
        ExplanationError: There is no such method.
    """
    if method not in METHODS:
        raise ExplanationError(f"method {method!r} is not known; write one of: "
                               f"{', '.join(METHODS)}")
    return importlib.import_module(f"musicon.detect.explanations.{METHODS[method]}")


def require_captum() -> None:
    """Say how to get Captum before anything takes time.

    Raises:
        ImportError: It is not installed.
    """
    if importlib.util.find_spec("captum") is None:
        raise ImportError("gradcam and integrated-gradients need the package captum; type: "
                          "pip install -e '.[explain]', or choose --method visualbackprop")
