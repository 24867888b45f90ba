"""What every detection engine promises, asked of each in the same way.

A network of detectron2 is asked where the library is installed, or where ``MUSICON_DETECTRON2``
names a checkout of it; elsewhere its tests are skipped and say why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from musicon.datasets.records import Category
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.backbones import Pyramid
from musicon.detect.checkpoints import load_model, save_model
from musicon.detect.config import Config, load

SIDE = 128
CATEGORIES = (Category(1, "harp"), Category(2, "lute"), Category(3, "viol"))
TINY_YAML = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  PIXEL_STD: [57.4, 57.1, 58.4]
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, NORM: BN, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [100], [128]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], PRE_NMS_TOPK_TRAIN: 200, POST_NMS_TOPK_TRAIN: 100,
        PRE_NMS_TOPK_TEST: 200, POST_NMS_TOPK_TEST: 50}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], BATCH_SIZE_PER_IMAGE: 32}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 64, POOLER_RESOLUTION: 5}
"""


@dataclass(frozen=True)
class Engine:
    """A network to ask: an engine's family, or a file of detectron2's."""

    engine: str
    family: str
    file: str = ""
    losses: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"{self.engine}-{'file' if self.file else self.family}"

    def config(self, folder: Path, agnostic: bool = False) -> Config:
        changes = [f"detector.{key}={value}" for key, value in {
            "engine": self.engine, "family": self.family, "image_size": SIDE, "fpn_channels": 32,
            "anchor_sizes": [16, 32, 64, 100], "class_agnostic": agnostic, "weights": "none",
        }.items()]
        if self.file:
            (folder / "tiny.yaml").write_text(self.file)
            changes.append(f"detector.config={folder / 'tiny.yaml'}")
        config = load(None, ["classifier.backbone=mobilenetv3_small_050", "device=cpu",
                             "classifier.weights=none", "classifier.image_size=64", *changes])
        return config.model_copy(update={"detector": detectors.resolved(config.detector)})


RPN = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
ENGINES = [
    Engine("torchvision", "fasterrcnn", losses=frozenset(
        {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"})),
    Engine("torchvision", "retinanet", losses=frozenset({"classification", "bbox_regression"})),
    Engine("torchvision", "fcos", losses=frozenset(
        {"classification", "bbox_regression", "bbox_ctrness"})),
    Engine("torchvision", "ssdlite", losses=frozenset({"classification", "bbox_regression"})),
    Engine("yolox", "yolox_nano", losses=frozenset(
        {"loss_box_reg", "loss_objectness", "loss_classifier"})),
    Engine("detectron2", "fasterrcnn", losses=frozenset(RPN)),
    Engine("detectron2", "retinanet", losses=frozenset({"loss_cls", "loss_box_reg"})),
    Engine("detectron2", "fasterrcnn", TINY_YAML, frozenset(RPN)),
]


@pytest.fixture(params=ENGINES, ids=str)
def engine(request: pytest.FixtureRequest, need_engine: Callable[[str], None]) -> Engine:
    found: Engine = request.param
    need_engine(found.engine)
    return found


def make(engine: Engine, folder: Path, agnostic: bool = False) -> Any:
    config = engine.config(folder, agnostic)
    torch.manual_seed(0)
    classifier = classifiers.build(config.classifier, len(CATEGORIES))
    return detectors.build(config.detector, len(CATEGORIES), classifier)


def batch(device: str = "cpu") -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A red rectangle in noise, larger than the network's images, and noise without any."""
    torch.manual_seed(1)
    images = [torch.rand(3, 150, 192), torch.rand(3, 128, 90)]
    images[0][:, 30:90, 45:120] = torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    targets = [{"boxes": torch.tensor([[45.0, 30.0, 120.0, 90.0]]), "labels": torch.tensor([2])},
               nothing()]
    return ([image.to(device) for image in images],
            [{k: v.to(device) for k, v in target.items()} for target in targets])


def nothing() -> dict[str, Tensor]:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def fit(model: Any, steps: int, device: str = "cpu", first: int = 0, rate: float = 2e-3,
        ) -> list[float]:
    """Summed losses of so many steps of AdamW, the chance of each its own."""
    images, targets = batch(device)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=rate)
    model.train()
    history = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 5.0)
        optimizer.step()
        history.append(float(loss.detach()))
    model.eval()
    return history


@torch.no_grad()
def found(model: Any, images: list[Tensor]) -> list[dict[str, Tensor]]:
    rows: list[dict[str, Tensor]] = model.eval().detect(images)
    return rows


@pytest.mark.parametrize("agnostic", [False, True])
def test_shapes_and_box_convention(engine: Engine, agnostic: bool, tmp_path: Path) -> None:
    model = make(engine, tmp_path, agnostic)
    images, targets = batch()
    before = [(t["boxes"].clone(), t["labels"].clone()) for t in targets]
    losses = model.train().losses(images, targets)
    assert set(losses) == engine.losses
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(torch.equal(t["boxes"], boxes) and torch.equal(t["labels"], labels)
               for t, (boxes, labels) in zip(targets, before, strict=True))
    images.append(torch.rand(3, 40, 300))
    rows = found(model, images)
    assert len(rows) == 3
    for image, row in zip(images, rows, strict=True):
        height, width = image.shape[-2:]
        count = len(row["scores"])
        assert count <= 50 and row["boxes"].shape == (count, 4) and row["labels"].shape == (count,)
        assert (row["boxes"] >= 0).all() and (row["boxes"][:, 2:] >= row["boxes"][:, :2]).all()
        assert (row["boxes"][:, 0::2] <= width + 1e-3).all()
        assert (row["boxes"][:, 1::2] <= height + 1e-3).all()
        assert (row["scores"].diff() <= 0).all() and row["labels"].dtype == torch.int64
        assert set(row["labels"].tolist()) <= ({1} if agnostic else {1, 2, 3})
    assert model.detect([]) == []


def test_losses_fall_and_the_box_is_found(engine: Engine, tmp_path: Path) -> None:
    """The box by Faster R-CNN alone: the others take longer to learn one from random weights."""
    model, finds = make(engine, tmp_path), engine.family == "fasterrcnn"
    history = fit(model, 36 if finds else 12)
    assert np.mean(history[-4:]) < 0.8 * np.mean(history[:4])
    if finds:
        images, targets = batch()
        row = found(model, images)[0]
        assert row["labels"][0] == 2
        assert box_iou(row["boxes"][:1], targets[0]["boxes"]).item() > 0.5


def test_a_model_folder_gives_equal_predictions(engine: Engine, tmp_path: Path) -> None:
    """Also where the file of detectron2's that the network came from is gone."""
    config = engine.config(tmp_path)
    torch.manual_seed(0)
    classifier = classifiers.build(config.classifier, len(CATEGORIES))
    model: Any = detectors.build(config.detector, len(CATEGORIES), classifier)
    fit(model, 2)
    save_model(tmp_path / "model", classifier=classifier, detector=model, config=config,
               categories=CATEGORIES, metrics={}, lineage={"stage": "mimo"})
    (tmp_path / "tiny.yaml").unlink(missing_ok=True)
    again = load_model(tmp_path / "model")
    assert again.config == config
    images, _ = batch()
    for one, other in zip(found(model, images), found(again.detector, images), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("boxes", "scores", "labels"))


def test_images_without_anything(engine: Engine, tmp_path: Path) -> None:
    model = make(engine, tmp_path)
    losses = model.train().losses([torch.zeros(3, 100, 128), torch.ones(3, 64, 64)],
                                  [nothing(), nothing()])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        for row in found(model, [torch.zeros(3, 100, 128)]):
            assert row["boxes"].shape == (len(row["scores"]), 4)


def test_what_is_remembered_is_in_the_state(engine: Engine, tmp_path: Path) -> None:
    """A run that was cut off and goes on in a new network sees the losses that it would have."""
    model, other = make(engine, tmp_path), make(engine, tmp_path)
    fit(model, 3)
    other.load_state_dict(model.state_dict())
    assert fit(model, 2, first=3) == fit(other, 2, first=3)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(),
                                                 other.state_dict().values(), strict=True))


def test_head_rows_point_at_class_rows(engine: Engine, tmp_path: Path) -> None:
    model = make(engine, tmp_path)
    state, rows = model.state_dict(), model.head_rows()
    assert rows
    for name, index in rows.items():
        used = index[index >= 0]
        assert index.shape[0] == len(CATEGORIES) + 1
        assert used.numel() == state[name].shape[0], name
        assert len(used.unique()) == len(used) and used.max() < state[name].shape[0], name
    assert make(engine, tmp_path, agnostic=True).head_rows() == {}


def test_a_class_learns_in_its_own_rows(engine: Engine, tmp_path: Path) -> None:
    """Scores of the class of label 2 rise when its rows of the biases do, and no other's."""
    model = make(engine, tmp_path)
    rows = {name: index for name, index in model.head_rows().items() if "bias" in name}
    with torch.no_grad():
        for name, index in rows.items():
            if "bbox_pred" not in name:
                bias = model.get_parameter(name)
                bias[index[2][index[2] >= 0]] += 20
    labels = torch.cat([row["labels"] for row in found(model, batch()[0])])
    assert len(labels) and set(labels.tolist()) == {2}


def test_taps_and_freezing(engine: Engine, tmp_path: Path) -> None:
    model = make(engine, tmp_path)
    taps, seen = model.taps(), {}
    for level, module in taps.items():
        module.register_forward_hook(
            lambda _, inputs, output, level=level: seen.update({level: (inputs, output)}))
    model.train().losses(*batch())
    output = seen["image"][1]
    maps = list(output.values()) if isinstance(output, dict) else list(output)
    assert [SIDE // m.shape[-1] for m in maps][-3:] == [8, 16, 32]
    assert ("instance" in taps) == (engine.family == "fasterrcnn")
    if "instance" in taps:
        inputs, output = seen["instance"]
        assert inputs[0].ndim == 2 and output[0].shape == (len(inputs[0]), len(CATEGORIES) + 1)
    model.freeze(1)
    learns = [p.requires_grad for p in taps["image"].parameters()]
    assert not learns[0] and any(learns)


@pytest.mark.parametrize("engine", [e for e in ENGINES if e.engine != "yolox"], ids=str,
                         indirect=True)
def test_the_backbone_is_the_classifiers_and_keeps_its_statistics(engine: Engine,
                                                                  tmp_path: Path) -> None:
    config = engine.config(tmp_path)
    backbone = "torchvision:resnet18" if engine.file else config.classifier.backbone
    torch.manual_seed(0)
    classifier = classifiers.build(config.classifier.model_copy(update={"backbone": backbone}), 3)
    model: Any = detectors.build(config.detector, 3, classifier)
    images = torch.rand(2, 3, 64, 64)
    body = model.eval().taps()["image"]
    with torch.no_grad():
        maps = body(images.flip(1) if engine.file else images)  # the file's channels are BGR
        maps = list(maps.values()) if isinstance(maps, dict) else list(maps)
        for ours, theirs in zip(maps[-3:], Pyramid(backbone, classifier.network).eval()(images),
                                strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    buffers = {n: b.clone() for n, b in body.named_buffers() if "running" in n}
    assert buffers
    model.train().losses(*batch())
    assert all(torch.equal(b, buffers[n]) for n, b in body.named_buffers() if n in buffers)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_cuda_gives_what_the_cpu_gives(engine: Engine, tmp_path: Path) -> None:
    model = make(engine, tmp_path)
    fit(model, 5)
    images, _ = batch()
    before = found(model, images)
    after = found(model.cuda(), [image.cuda() for image in images])
    for one, other in zip(before, after, strict=True):
        assert other["boxes"].is_cuda
        torch.testing.assert_close(other["scores"][:5].cpu(), one["scores"][:5], rtol=1e-2,
                                   atol=1e-3)
    assert np.isfinite(fit(model, 2, "cuda")).all()
