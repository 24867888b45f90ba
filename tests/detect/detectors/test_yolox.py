"""YOLOX: its losses by hand, its network against OpenCV's run of the published file."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, complete_box_iou_loss

from musicon.detect import detectors
from musicon.detect.backbones import BackboneError
from musicon.detect.config import ConfigError, DetectorConfig
from musicon.detect.detectors import yolox, yolox_weights
from musicon.detect.detectors.yolox_loss import assign, losses, pair_iou
from musicon.detect.detectors.yolox_network import SIZES, STRIDES, Yolox, cells

SIDE = 64
IMAGES = torch.zeros(1, 3, SIDE, SIDE)
BOXES = torch.tensor([[8.0, 8.0, 40.0, 24.0], [30.0, 30.0, 62.0, 62.0]])
LABELS = torch.tensor([1, 0])


def answers(boxes: Tensor, labels: Tensor, sure: float) -> Tensor:
    """What a network says (A, 4 + 1 + 2) whose every cell boxes what lies nearest to it."""
    corners, strides = cells(IMAGES)
    middles = (corners + 0.5) * strides
    nearest = torch.cdist(middles, (boxes[:, :2] + boxes[:, 2:]) / 2).argmin(1)
    logits = torch.nn.functional.one_hot(labels[nearest], 2) * 2 * sure - sure
    return torch.cat([boxes[nearest], torch.full((len(middles), 1), sure), logits], 1)


def rand_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * SIDE / 2
    return torch.cat([corner, corner + torch.rand(count, 2) * SIDE / 2 + 1], 1)


def test_iou_is_torchvisions() -> None:
    torch.manual_seed(0)
    first, second = rand_boxes(50), rand_boxes(50)
    torch.testing.assert_close(pair_iou(first, second), box_iou(first, second).diagonal())
    assert pair_iou(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0]


def test_cells_lie_on_their_levels() -> None:
    corners, strides = cells(torch.zeros(1, 3, 32, 64))
    assert strides.flatten().int().bincount()[list(STRIDES)].tolist() == [32, 8, 2]
    assert (corners * strides).amax(0).tolist() == [56, 24]


@pytest.mark.parametrize("seed", range(20))
def test_assignment(seed: int) -> None:
    """Cells near a box's middle, each once; as many a box as its best IoUs add up to, or fewer."""
    torch.manual_seed(seed)
    boxes, labels = rand_boxes(4), torch.randint(0, 2, (4,))
    corners, strides = cells(IMAGES)
    middles = (corners + 0.5) * strides
    found = torch.cat([rand_boxes(len(middles)), torch.randn(len(middles), 3)], 1)
    chosen, truth, iou = assign(found, middles, strides, boxes, labels)
    assert len(chosen.unique()) == len(chosen) > 0
    centres = (boxes[truth, :2] + boxes[truth, 2:]) / 2
    assert ((middles[chosen] - centres).abs() < 1.5 * strides[chosen]).all()
    torch.testing.assert_close(iou, box_iou(boxes, found[:, :4])[truth, chosen])
    assert truth.bincount().max() <= 10


def test_a_box_takes_the_cells_that_box_it_best() -> None:
    """One box, cells of which three box it exactly: three are taken, those."""
    corners, strides = cells(IMAGES)
    middles = (corners + 0.5) * strides
    found = torch.zeros(len(middles), 7)
    found[:, :4] = torch.tensor([50.0, 2.0, 60.0, 6.0])
    near = ((middles - torch.tensor([24.0, 16.0])).norm(dim=1) < 10).nonzero()[:3, 0]
    found[near, :4] = BOXES[0]
    chosen, truth, iou = assign(found, middles, strides, BOXES[:1], LABELS[:1])
    assert sorted(chosen.tolist()) == sorted(near.tolist())
    assert truth.tolist() == [0] * 3 and iou.tolist() == [1] * 3


def test_losses_of_right_and_wrong_answers() -> None:
    target = [{"boxes": BOXES, "labels": LABELS}]
    right = losses(answers(BOXES, LABELS, 12.0)[None], IMAGES, target)
    assert right["loss_box_reg"] < 1e-4 and right["loss_classifier"] < 1e-3
    moved = losses(answers(BOXES + 6, LABELS, 12.0)[None], IMAGES, target)
    renamed = losses(answers(BOXES, 1 - LABELS, 12.0)[None], IMAGES, target)
    assert moved["loss_box_reg"] > 0.5 and renamed["loss_classifier"] > 5
    iou = box_iou(BOXES, BOXES + 6).diagonal()
    assert 5 * (1 - iou.max() ** 2) - 1e-4 <= moved["loss_box_reg"] <= 5 * (1 - iou.min() ** 2)


def test_a_lone_image_without_boxes_teaches_objectness_alone() -> None:
    found = answers(BOXES, LABELS, 2.0)[None].requires_grad_()
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    row = losses(found, IMAGES, nothing)
    assert row["loss_box_reg"] == 0 and row["loss_classifier"] == 0
    expected = len(found[0]) * torch.nn.functional.softplus(torch.tensor(2.0))
    torch.testing.assert_close(row["loss_objectness"], expected)
    torch.stack(list(row.values())).sum().backward()
    assert found.grad is not None and (found.grad[..., :4] == 0).all()


def test_descending_the_box_loss_moves_a_box_onto_its_truth() -> None:
    """Judged by another overlap, torchvision's complete IoU."""
    boxes = (BOXES + torch.tensor([5.0, -3.0, -2.0, 4.0])).requires_grad_()
    before = complete_box_iou_loss(boxes, BOXES).sum()
    for _ in range(400):
        loss = (1 - pair_iou(boxes, BOXES).square()).sum()
        (gradient,) = torch.autograd.grad(loss, boxes)
        with torch.no_grad():
            boxes -= 5 * gradient
    assert complete_box_iou_loss(boxes, BOXES).sum() < 0.2 * before


def config(**changes: Any) -> DetectorConfig:
    return DetectorConfig(engine="yolox", **{"image_size": 128, "weights": "none", **changes})


def test_its_smallest_network_is_the_usual_one() -> None:
    assert config().family == "yolox_nano"
    assert config(family="yolox_tiny").family == "yolox_tiny"


@pytest.mark.parametrize(("family", "parameters"), [
    ("yolox_nano", 0.91), ("yolox_tiny", 5.06), ("yolox_s", 9.0), ("yolox_m", 25.3),
    ("yolox_l", 54.2)])
def test_sizes_are_the_published_ones(family: str, parameters: float) -> None:
    """Millions, as the publishers' tables of models list them."""
    with torch.device("meta"):
        network = Yolox(SIZES[family], 80)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, abs=0.05)


@pytest.mark.parametrize(("changes", "words"), [
    ({"family": "fcos"}, "yolox_nano, yolox_tiny"),
    ({"weights": "no/such.onnx"}, "yolox_nano.onnx"),
])
def test_settings_of_others(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        detectors.resolved(config(**changes))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "odd.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(BackboneError, match="not a readable ONNX file"):
        detectors.build(config(weights=str(file)), 3, None)  # type: ignore[arg-type]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and publishers whose door is shut."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(yolox, "RELEASE", "http://127.0.0.1:9")


@pytest.mark.usefixtures("offline")
def test_without_a_network_it_starts_at_random() -> None:
    with pytest.warns(UserWarning, match="detector.weights=FILE"):
        model: Any = detectors.build(config(weights="auto"), 3, None)  # type: ignore[arg-type]
    assert not model.held


def test_every_layer_sees_the_fast_layout() -> None:
    model: Any = detectors.build(config(weights="none"), 3, None)  # type: ignore[arg-type]
    slow: list[str] = []

    def look(name: str) -> Any:
        def hook(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not inputs[0].is_contiguous(memory_format=torch.channels_last):
                slow.append(name)
        return hook

    for name, module in model.network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(look(name))
    truth = {"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}
    model.train().losses([torch.rand(3, 60, 80)], [truth])
    assert slow == []


@pytest.mark.usefixtures("offline")
def test_the_engine_is_chosen_by_what_can_be_had(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.touch()
    with pytest.warns(UserWarning, match="Faster R-CNN is trained instead"):
        found = detectors.resolved(DetectorConfig(engine="auto"))
    assert (found.engine, found.family) == ("torchvision", "fasterrcnn")
    found = detectors.resolved(DetectorConfig(engine="auto", weights=str(file)))
    assert (found.engine, found.family) == ("yolox", "yolox_nano")
    found = detectors.resolved(DetectorConfig(engine="auto", family="yolox_s", weights="none"))
    assert (found.engine, found.family) == ("yolox", "yolox_s")
    found = detectors.resolved(DetectorConfig(engine="auto", weights="none"))
    assert (found.engine, found.family) == ("torchvision", "fasterrcnn")


@pytest.fixture
def published(real_fixture: Path) -> Path:
    return real_fixture / "weights" / "yolox_nano_coco.onnx"


@pytest.mark.real
def test_the_network_says_what_opencv_reads_from_the_file(published: Path) -> None:
    net = cv2.dnn.readNetFromONNX(str(published))
    network = Yolox(SIZES["yolox_nano"], 80)
    yolox_weights.load(network, published)
    for level, head in enumerate(network.heads):
        weight, bias = net.getLayer(
            net.getLayerId(f"onnx_node!/head/cls_preds.{level}/Conv")).blobs
        head.load_state_dict({**head.state_dict(), "class_scores.weight": torch.tensor(weight),
                              "class_scores.bias": torch.tensor(bias).flatten()})
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    net.setInput(images)
    raw = torch.from_numpy(net.forward()[0])
    corners, strides = cells(torch.from_numpy(images))
    middle, half = (raw[:, :2] + corners) * strides, raw[:, 2:4].exp() * strides / 2
    with torch.no_grad():
        ours = network.eval()(torch.from_numpy(images))[0]
    torch.testing.assert_close(ours[:, :4], torch.cat([middle - half, middle + half], 1),
                               rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(ours[:, 4:].sigmoid(), raw[:, 4:], rtol=1e-4, atol=1e-5)


@pytest.mark.real
def test_published_weights_are_kept_and_their_statistics_too(
        published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched once; what a stage goes on from keeps its neutral statistics in training."""
    shutil.copy(published, tmp_path / "yolox_nano.onnx")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(
            SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(yolox, "RELEASE", f"http://127.0.0.1:{server.server_port}")
        assert detectors.resolved(DetectorConfig(engine="auto")).engine == "yolox"
        server.shutdown()
    model: Any = detectors.build(config(weights="auto"), 3, None)  # type: ignore[arg-type]
    later: Any = detectors.build(config(), 3, None)  # type: ignore[arg-type]
    later.load_state_dict(model.state_dict())
    target = {"boxes": torch.tensor([[20.0, 20.0, 90.0, 70.0]]), "labels": torch.tensor([2])}
    later.train().losses([torch.rand(3, 100, 120)], [target])
    assert later.held
    assert all((b == (1 if name.endswith("running_var") else 0)).all()
               for name, b in later.named_buffers() if "running" in name)


@pytest.mark.real
def test_a_file_of_another_size(published: Path) -> None:
    with pytest.raises(BackboneError, match="network that detector.family names"):
        detectors.build(config(family="yolox_tiny", weights=str(published)), 3,
                        None)  # type: ignore[arg-type]
