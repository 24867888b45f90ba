"""torchvision's detectors on the staged backbone: Faster R-CNN with FPN, and its peers.

``fasterrcnn``, ``retinanet``, ``fcos`` and ``ssdlite`` are torchvision's own classes with heads
narrow enough for a CPU; ``fasterrcnn_resnet50_fpn_v2`` is torchvision's builder unchanged.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from musicon.detect.backbones import Pyramid, copy_weights, freeze_stages, hold_batch_norm
from musicon.detect.classifier import CropClassifier
from musicon.detect.config import ConfigError, DetectorConfig
from musicon.detect.detectors.anchors import one_a_level
from musicon.detect.heads import rows_by_anchor, rows_by_class

ROI_SIZE = 7
BOX_FEATURES = 256
SIGMOID_FAMILIES = ("retinanet", "fcos")
_ANCHORS = ("anchor_sizes", "aspect_ratios")
UNUSED = {"fcos": _ANCHORS, "ssdlite": (*_ANCHORS, "fpn_channels"),
          "fasterrcnn_resnet50_fpn_v2": (*_ANCHORS, "fpn_channels")}
"""Settings that a family has no use for: its anchors or channels are its own."""


class PyramidFpn(nn.Module):
    """A backbone's maps at strides 8, 16, 32, merged top-down, with one more level at 64."""

    def __init__(self, pyramid: Pyramid, channels: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.fpn = FeaturePyramidNetwork(list(pyramid.channels), channels)
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (N, 3, H, W) -> four maps of ``out_channels`` at strides 8, 16, 32, 64."""
        maps = OrderedDict((str(i), m) for i, m in enumerate(self.pyramid(_fast_layout(images))))
        merged = self.fpn(maps)
        merged["pool"] = nn.functional.max_pool2d(merged["2"], 1, stride=2)
        return merged


class PyramidSsd(nn.Module):
    """A backbone's maps at strides 16 and 32 and three smaller ones, as SSDLite reads them."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels = [pyramid.channels[1], pyramid.channels[2], 256, 128, 128]
        steps = zip(self.out_channels[1:], self.out_channels[2:], strict=False)
        self.extra = nn.ModuleList(_reducing_block(i, o) for i, o in steps)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (N, 3, H, W) -> five maps at strides 16, 32, 64, 128, 256."""
        maps = self.pyramid(_fast_layout(images))[1:]
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), m) for i, m in enumerate(maps))


def _fast_layout(images: Tensor) -> Tensor:
    """Channels last: twice as fast for depthwise convolutions, on CPU and CUDA alike."""
    return images.contiguous(memory_format=torch.channels_last)


def _reducing_block(inputs: int, outputs: int) -> nn.Sequential:
    """1x1, depthwise 3x3 of stride 2, 1x1: half the side (SSDLite's extra layers)."""
    middle = outputs // 2
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6(),
        nn.Conv2d(middle, middle, 3, 2, 1, groups=middle, bias=False), nn.BatchNorm2d(middle),
        nn.ReLU6(),
        nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6(),
    )


class TorchvisionDetector(nn.Module):
    """A torchvision detector behind this project's two calls, ``losses`` and ``detect``.

    Attributes:
        num_classes: Instruments of the stage.
        class_agnostic: One class, "instrument", is learnt; every box then has label 1.
    """

    def __init__(self, network: nn.Module, cfg: DetectorConfig, num_classes: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.family = cfg.family
        self.num_classes = num_classes
        self.class_agnostic = cfg.class_agnostic
        # Sigmoid heads have no background class: their labels count from 0.
        self._label_offset = int(cfg.family in SIGMOID_FAMILIES)

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See ``musicon.detect.detectors.Detector``."""
        if self.class_agnostic:
            targets = [{**t, "labels": torch.ones_like(t["labels"])} for t in targets]
        targets = [{**t, "labels": t["labels"] - self._label_offset} for t in targets]
        losses: dict[str, Tensor] = self.network(images, targets)
        return losses

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """See ``musicon.detect.detectors.Detector``."""
        if not images:
            return []
        found: list[dict[str, Tensor]] = self.network(images)
        return [{**row, "labels": row["labels"] + self._label_offset} for row in found]

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """``losses`` where there are targets, else ``detect`` (so that DDP can wrap it)."""
        return self.detect(images) if targets is None else self.losses(images, targets)

    def train(self, mode: bool = True) -> TorchvisionDetector:
        """Training mode, in which the backbone keeps its running statistics: batches are small."""
        super().train(mode)
        hold_batch_norm(self._backbone)
        return self

    def freeze(self, stages: int) -> None:
        """Stop the backbone's first ``stages`` stages from learning."""
        backbone = self._backbone
        freeze_stages(backbone.body if isinstance(backbone, Pyramid) else backbone, stages)

    @property
    def _backbone(self) -> nn.Module:
        """The part that came from the classifier."""
        backbone: Any = self.network.backbone
        own: nn.Module = backbone.pyramid if hasattr(backbone, "pyramid") else backbone.body
        return own

    def taps(self) -> dict[str, nn.Module]:
        """See ``musicon.detect.detectors.Detector``."""
        roi_heads: Any = getattr(self.network, "roi_heads", None)
        return {"image": self._backbone} | (
            {} if roi_heads is None else {"instance": roi_heads.box_predictor})

    def head_rows(self) -> dict[str, Tensor]:
        """Which rows of which parameters belong to which class, for adapting the head."""
        if self.class_agnostic:
            return {}
        if self.family.startswith("fasterrcnn"):
            predictor = "network.roi_heads.box_predictor"
            scores = rows_by_class(self.num_classes, 1, background=True)
            boxes = rows_by_class(self.num_classes, 4, background=True)
            return {f"{predictor}.cls_score.weight": scores, f"{predictor}.cls_score.bias": scores,
                    f"{predictor}.bbox_pred.weight": boxes, f"{predictor}.bbox_pred.bias": boxes}
        if self.family == "ssdlite":
            return self._ssd_rows()
        head = "network.head.classification_head.cls_logits"
        generator: Any = self.network.anchor_generator
        rows = rows_by_anchor(self.num_classes, generator.num_anchors_per_location()[0],
                              background=False)
        return {f"{head}.weight": rows, f"{head}.bias": rows}

    def _ssd_rows(self) -> dict[str, Tensor]:
        generator: Any = self.network.anchor_generator
        anchors = generator.num_anchors_per_location()
        rows = {}
        for level, count in enumerate(anchors):
            name = f"network.head.classification_head.module_list.{level}.1"
            for part in ("weight", "bias"):
                rows[f"{name}.{part}"] = rows_by_anchor(self.num_classes, count, background=True)
        return rows


def unused(cfg: DetectorConfig) -> tuple[str, ...]:
    """Names of the settings that the family has no use for."""
    return UNUSED.get(cfg.family, ())


def resolved(cfg: DetectorConfig) -> DetectorConfig:
    """The settings as they are: this engine reads no files.

    Raises:
        ConfigError: A setting of another engine.
    """
    if cfg.config is not None or cfg.weights not in ("auto", "none"):
        raise ConfigError("detector.config is for detectron2, and a file as detector.weights for "
                          "detectron2 or yolox; add detector.engine=detectron2 (or yolox), or "
                          "leave them out")
    return cfg


def build(cfg: DetectorConfig, num_classes: int, classifier: CropClassifier) -> TorchvisionDetector:
    """The detector of a configuration, on a copy of the classifier's backbone.

    Args:
        cfg: Family, sizes, anchors.
        num_classes: Instruments, without background.
        classifier: The staged classifier, whose backbone weights are copied.
    """
    outputs = (1 if cfg.class_agnostic else num_classes) + (cfg.family not in SIGMOID_FAMILIES)
    common = {
        "min_size": cfg.image_size, "max_size": cfg.image_size,
        "image_mean": [v / 255 for v in classifier.mean.flatten().tolist()],
        "image_std": [v / 255 for v in classifier.std.flatten().tolist()],
    }
    if cfg.family == "fasterrcnn_resnet50_fpn_v2":
        network = _resnet50_fpn_v2(cfg, outputs, classifier, common)
    else:
        pyramid = Pyramid(classifier.backbone_name, classifier.network)
        makers = {"fasterrcnn": _faster_rcnn, "retinanet": _retinanet, "fcos": _fcos,
                  "ssdlite": _ssdlite}
        network = makers[cfg.family](cfg, outputs, pyramid, common)
    return TorchvisionDetector(network, cfg, num_classes)


def _faster_rcnn(cfg: DetectorConfig, outputs: int, pyramid: Pyramid,
                 common: dict[str, Any]) -> nn.Module:
    backbone = PyramidFpn(pyramid, cfg.fpn_channels)
    anchors = _anchors(cfg, levels=4)
    return FasterRCNN(
        backbone, num_classes=None, rpn_anchor_generator=anchors,
        rpn_head=RPNHead(cfg.fpn_channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], ROI_SIZE, sampling_ratio=2),
        box_head=TwoMLPHead(cfg.fpn_channels * ROI_SIZE**2, BOX_FEATURES),
        box_predictor=FastRCNNPredictor(BOX_FEATURES, outputs),
        rpn_pre_nms_top_n_train=600, rpn_post_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=400, rpn_post_nms_top_n_test=150,
        box_batch_size_per_image=96, box_positive_fraction=0.33,
        box_score_thresh=0.02, box_nms_thresh=cfg.nms_iou,
        box_detections_per_img=cfg.max_detections, **common,
    )


def _anchors(cfg: DetectorConfig, levels: int) -> AnchorGenerator:
    """Anchors for an RPN, whose head needs the same number of anchors at every level."""
    sizes = tuple(tuple(pair) for pair in one_a_level(cfg, levels))
    return AnchorGenerator(sizes, (tuple(cfg.aspect_ratios),) * levels)


def _retinanet(cfg: DetectorConfig, outputs: int, pyramid: Pyramid,
               common: dict[str, Any]) -> nn.Module:
    backbone = PyramidFpn(pyramid, cfg.fpn_channels)
    anchors = _anchors(cfg, levels=4)
    head = RetinaNetHead(cfg.fpn_channels, anchors.num_anchors_per_location()[0], outputs,
                         norm_layer=partial(nn.GroupNorm, 16))
    return RetinaNet(backbone, num_classes=None, anchor_generator=anchors, head=head,
                     score_thresh=0.02, nms_thresh=cfg.nms_iou, topk_candidates=300,
                     detections_per_img=cfg.max_detections, **common)


def _fcos(cfg: DetectorConfig, outputs: int, pyramid: Pyramid,
          common: dict[str, Any]) -> nn.Module:
    backbone = PyramidFpn(pyramid, cfg.fpn_channels)
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4)
    head = FCOSHead(cfg.fpn_channels, 1, outputs, num_convs=2)
    return FCOS(backbone, num_classes=None, anchor_generator=anchors, head=head,
                score_thresh=0.02, nms_thresh=cfg.nms_iou, topk_candidates=300,
                detections_per_img=cfg.max_detections, **common)


def _ssdlite(cfg: DetectorConfig, outputs: int, pyramid: Pyramid,
             common: dict[str, Any]) -> nn.Module:
    backbone = PyramidSsd(pyramid)
    anchors = DefaultBoxGenerator([[2, 3]] * 5, min_ratio=0.1, max_ratio=0.9)
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    head = SSDLiteHead(backbone.out_channels, anchors.num_anchors_per_location(), outputs, norm)
    size = (cfg.image_size, cfg.image_size)
    options = {k: v for k, v in common.items() if k not in ("min_size", "max_size")}
    return SSD(backbone, anchors, size, None, head=head, score_thresh=0.02,
               nms_thresh=cfg.nms_iou, detections_per_img=cfg.max_detections,
               topk_candidates=300, **options)


def _resnet50_fpn_v2(cfg: DetectorConfig, outputs: int, classifier: CropClassifier,
                     common: dict[str, Any]) -> nn.Module:
    """Torchvision's Faster R-CNN v2 with COCO weights where they can be fetched."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

    options = {**common, "box_score_thresh": 0.02, "box_nms_thresh": cfg.nms_iou,
               "box_detections_per_img": cfg.max_detections}
    try:
        network = fasterrcnn_resnet50_fpn_v2(weights="DEFAULT" if cfg.weights == "auto" else None,
                                             weights_backbone=None, **options)
    except Exception as error:  # noqa: BLE001 (offline shows itself in many ways)
        warnings.warn(f"no COCO weights for the detector could be fetched ({error}); its heads "
                      "start from random weights", stacklevel=2)
        network = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **options)
    inputs = network.roi_heads.box_predictor.cls_score.in_features
    network.roi_heads.box_predictor = FastRCNNPredictor(inputs, outputs)
    if classifier.backbone_name.endswith("resnet50"):
        copy_weights(classifier.network.state_dict(), network.backbone.body)
    return network
