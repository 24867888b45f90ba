"""What is torchvision's alone: its own losses, and which settings its families have no use for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.config import ClassifierConfig, ConfigError, DetectorConfig

FAMILIES = ("fasterrcnn", "retinanet", "fcos", "ssdlite")
CLASSIFIER = ClassifierConfig(backbone="mobilenetv3_small_050", weights="none", image_size=64)


def make(family: str, *, agnostic: bool = False, classes: int = 3) -> detectors.Detector:
    torch.manual_seed(0)
    cfg = DetectorConfig(family=family, image_size=128, fpn_channels=32,  # type: ignore[arg-type]
                         anchor_sizes=(16, 32, 64, 100),
                         class_agnostic=agnostic)
    return detectors.build(cfg, classes, classifiers.build(CLASSIFIER, classes))


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    torch.manual_seed(1)
    images = [torch.rand(3, 100, 128), torch.rand(3, 128, 90)]
    images[0][:, 20:60, 30:80] = torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    targets = [{"boxes": torch.tensor([[30.0, 20.0, 80.0, 60.0]]), "labels": torch.tensor([2])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    return images, targets


def test_losses_are_torchvisions_own() -> None:
    model = make("retinanet")
    images, targets = batch()
    model.train()  # type: ignore[attr-defined]
    ours = model.losses(images, targets)
    from_zero = [{**t, "labels": t["labels"] - 1} for t in targets]
    theirs = model.network(images, from_zero)  # type: ignore[attr-defined]
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}


def test_unknown_engine_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="torchvision"):
        detectors.build(DetectorConfig(engine="caffe"), 2, classifiers.build(CLASSIFIER, 2))


@pytest.mark.parametrize("family", [*FAMILIES, "fasterrcnn_resnet50_fpn_v2"])
def test_settings_without_use_change_nothing_and_are_told(family: str) -> None:
    """Those told leave every tensor's shape and every anchor as they were; the others don't."""
    plain = {"engine": "torchvision", "family": family, "weights": "none", "image_size": 128}
    given = {"anchor_sizes": (20.0, 40.0, 80.0, 100.0), "aspect_ratios": (0.5, 2.0),
             "fpn_channels": 64}
    base = DetectorConfig.model_validate({**plain, "anchor_sizes": (24.0, 48.0, 96.0, 128.0)})
    told = detectors.unused_settings(DetectorConfig.model_validate({**plain, **given}))
    assert detectors.unused_settings(DetectorConfig.model_validate(plain)) == []
    for name, value in given.items():
        changed = base.model_copy(update={name: value})
        assert (looks(changed) == looks(base)) == (name in told), name


def looks(cfg: DetectorConfig) -> tuple[object, ...]:
    """Shapes of all tensors, and the anchors of an image."""
    torch.manual_seed(0)
    model: Any = detectors.build(cfg, 2, classifiers.build(CLASSIFIER, 2))
    network = model.eval().network
    boxes: list[Tensor] = []
    generator = (network.rpn if hasattr(network, "rpn") else network).anchor_generator
    generator.register_forward_hook(lambda _, __, anchors: boxes.extend(anchors))
    with torch.no_grad():
        model.detect([torch.zeros(3, 128, 128)])
    return (*(tuple(v.shape) for v in model.state_dict().values()),
            *(tuple(map(tuple, b.round(decimals=2).tolist())) for b in boxes))
