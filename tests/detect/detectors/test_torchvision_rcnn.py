"""Every torchvision family, through the same contract; losses against torchvision's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

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


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_contract(family: str, agnostic: bool) -> None:
    model = make(family, agnostic=agnostic)
    images, targets = batch()
    before = [t["labels"].clone() for t in targets]
    model.train()  # type: ignore[attr-defined]
    first = model.losses(images, targets)
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in first.values())
    assert all(torch.equal(t["labels"], b) for t, b in zip(targets, before, strict=True))
    sum(first.values()).backward()  # type: ignore[union-attr]
    model.eval()  # type: ignore[attr-defined]
    with torch.no_grad():
        found = model.detect([*images, torch.rand(3, 40, 300)])
    assert len(found) == 3
    for image, row in zip([*images, torch.rand(3, 40, 300)], found, strict=True):
        height, width = image.shape[-2:]
        assert row["boxes"].shape == (len(row["scores"]), 4)
        assert (row["boxes"][:, 0::2] <= width + 1e-3).all()
        assert (row["boxes"][:, 1::2] <= height + 1e-3).all()
        assert (row["scores"].diff() <= 0).all()
        assert set(row["labels"].tolist()) <= ({1} if agnostic else {1, 2, 3})
    assert model.detect([]) == []


def test_losses_fall_and_the_box_is_found() -> None:
    model = make("fasterrcnn", agnostic=True)
    images, targets = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)  # type: ignore[attr-defined]
    model.train()  # type: ignore[attr-defined]
    history = []
    for step in range(40):
        torch.manual_seed(step)
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert np.mean(history[-5:]) < 0.5 * np.mean(history[:3])
    model.eval()  # type: ignore[attr-defined]
    with torch.no_grad():
        found = model.detect(images[:1])[0]
    assert box_iou(found["boxes"][:1], targets[0]["boxes"]).item() > 0.5


def test_losses_are_torchvisions_own() -> None:
    model = make("retinanet")
    images, targets = batch()
    model.train()  # type: ignore[attr-defined]
    ours = model.losses(images, targets)
    from_zero = [{**t, "labels": t["labels"] - 1} for t in targets]
    theirs = model.network(images, from_zero)  # type: ignore[attr-defined]
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_head_rows_point_at_class_rows(family: str) -> None:
    model = make(family)
    state = model.state_dict()  # type: ignore[attr-defined]
    rows = model.head_rows()  # type: ignore[attr-defined]
    assert rows
    for name, index in rows.items():
        used = index[index >= 0]
        assert index.shape[0] == 4
        assert used.numel() == state[name].shape[0], name
        assert len(used.unique()) == len(used) and used.max() < state[name].shape[0], name
    assert make(family, agnostic=True).head_rows() == {}  # type: ignore[attr-defined]


def test_the_backbone_is_the_classifiers_and_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    classifier = classifiers.build(CLASSIFIER, 3)
    model = detectors.build(DetectorConfig(image_size=128, fpn_channels=32,
                                          anchor_sizes=(16, 32, 64, 100)), 3, classifier)
    theirs = dict(classifier.network.named_parameters())
    body = model.network.backbone.pyramid.body  # type: ignore[attr-defined]
    shared = [name for name, p in body.named_parameters() if name in theirs]
    assert len(shared) > 50
    assert all(torch.equal(dict(body.named_parameters())[n], theirs[n]) for n in shared)
    buffers = {n: b.clone() for n, b in body.named_buffers() if "running" in n}
    model.train()  # type: ignore[attr-defined]
    model.losses(*batch())
    assert all(torch.equal(b, buffers[n]) for n, b in body.named_buffers() if n in buffers)


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
