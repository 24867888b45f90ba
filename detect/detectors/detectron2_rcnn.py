"""detectron2's Faster R-CNN and RetinaNet behind this project's calls, by its public API.

detectron2 has no wheels. It is found installed, or as a source checkout that ``MUSICON_DETECTRON2``
names; its standard models need no compilation. Data, transforms, box form and training loop are
this project's; of detectron2 come the network, its losses and its configuration files. Without a
file the network is the staged classifier's backbone under detectron2's FPN and heads, as small as
``torchvision_rcnn``'s.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from musicon.datasets.records import UserError
from musicon.detect.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneError,
    Pyramid,
    copy_weights,
    freeze_stages,
    hold_batch_norm,
)
from musicon.detect.classifier import CropClassifier
from musicon.detect.config import ConfigError, DetectorConfig
from musicon.detect.detectors.anchors import one_a_level
from musicon.detect.detectors.detectron2_files import adapted, import_library, read_file, says
from musicon.detect.detectors.zoo_weights import detectron2_names, read_zoo
from musicon.detect.heads import rows_by_anchor, rows_by_class

log = logging.getLogger(__name__)

FAMILIES = {"fasterrcnn": "GeneralizedRCNN", "retinanet": "RetinaNet"}
STAGED = "staged_fpn"
"""Name by which a YAML file may ask for the staged classifier's backbone
(``MODEL.BACKBONE.NAME``); its levels are p3 to p6."""
MAPS, LEVELS = ["res3", "res4", "res5"], ["p3", "p4", "p5", "p6"]
SCORE_THRESHOLD = 0.02
TRIAL = "resnet18"
"""In the place of the classifier's backbone, which nobody knows yet, when a file is tried."""
ENOUGH = 0.9
"""Share of a backbone's tensors that must fit for it to count as the classifier's own."""


class Detectron2Detector(nn.Module):
    """A detectron2 network behind ``losses`` and ``detect``.

    Attributes:
        num_classes: Instruments of the stage.
        class_agnostic: One class, "instrument", is learnt; every box then has label 1.
    """

    def __init__(self, network: nn.Module, cfg: DetectorConfig, num_classes: int,
                 boxes_shared: bool) -> None:
        """Take a network; ``boxes_shared``: its box regression knows no classes."""
        super().__init__()
        self.network = network
        self._boxes_shared = boxes_shared
        self.side = cfg.image_size
        self.num_classes = num_classes
        self.class_agnostic = cfg.class_agnostic
        self._bgr = getattr(network, "input_format", "BGR") != "RGB"

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See ``musicon.detect.detectors.Detector``."""
        from detectron2.structures import Boxes, Instances
        from detectron2.utils.events import EventStorage

        batch = []
        for image, target in zip(images, targets, strict=True):
            row = self._row(image)
            height, width = row["image"].shape[-2:]
            scale = target["boxes"].new_tensor([width / image.shape[-1],
                                                height / image.shape[-2]] * 2)
            labels = target["labels"] - 1  # detectron2's background is the last class
            row["instances"] = Instances(
                (height, width), gt_boxes=Boxes(target["boxes"] * scale),
                gt_classes=torch.zeros_like(labels) if self.class_agnostic else labels)
            batch.append(row)
        with EventStorage():  # its networks write figures of their own there
            losses: dict[str, Tensor] = self.network(batch)
        return losses

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """See ``musicon.detect.detectors.Detector``."""
        if not images:
            return []
        found = [row["instances"] for row in self.network([self._row(image) for image in images])]
        return [{"boxes": row.pred_boxes.tensor, "scores": row.scores,
                 "labels": row.pred_classes + 1} for row in found]

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """``losses`` where there are targets, else ``detect`` (so that DDP can wrap it)."""
        return self.detect(images) if targets is None else self.losses(images, targets)

    def train(self, mode: bool = True) -> Detectron2Detector:
        """Training mode, in which the backbone keeps its running statistics: batches are small."""
        super().train(mode)
        hold_batch_norm(self._backbone)
        return self

    def freeze(self, stages: int) -> None:
        """Stop the backbone's first ``stages`` stages (the stem is the first) from learning."""
        pyramid = getattr(self._backbone, "pyramid", None)
        if pyramid is not None:
            freeze_stages(pyramid.body, stages)
        else:
            for part in list(self._backbone.children())[:stages]:
                part.requires_grad_(False)

    def taps(self) -> dict[str, nn.Module]:
        """See ``musicon.detect.detectors.Detector``."""
        heads: Any = getattr(self.network, "roi_heads", None)
        return {"image": self._backbone} | (
            {} if heads is None else {"instance": heads.box_predictor})

    def head_rows(self) -> dict[str, Tensor]:
        """Which rows of which parameters belong to which class, for adapting the head."""
        network: Any = self.network
        if self.class_agnostic:
            return {}
        if not hasattr(network, "roi_heads"):
            shape = network.head.cls_score.weight.shape
            rows = rows_by_anchor(self.num_classes, shape[0] // self.num_classes, background=False)
            return {f"network.head.cls_score.{part}": rows for part in ("weight", "bias")}
        last = torch.tensor([[self.num_classes]])
        scores = torch.cat([last, torch.arange(self.num_classes)[:, None]])
        found = {"cls_score": scores}
        if not self._boxes_shared:
            found["bbox_pred"] = rows_by_class(self.num_classes, 4, background=False)
        return {f"network.roi_heads.box_predictor.{layer}.{part}": rows
                for layer, rows in found.items() for part in ("weight", "bias")}

    def start(self, cfg: DetectorConfig, given: Mapping[str, Any],
              classifier: CropClassifier) -> None:
        """Put in the weights to start from, and the normalisation that goes with them.

        Those of a file or an address that the settings name; else the classifier's, where they
        fit; else, with ``auto``, those that detectron2's file names; else random ones.
        """
        network: Any = self.network
        if cfg.weights not in ("auto", "none"):
            self._load(cfg.weights)
            return
        if self._take(classifier, told=cfg.weights == "auto"):
            mean, std = classifier.mean.flatten() / 255, classifier.std.flatten() / 255
        else:
            address = _address(given)
            if cfg.weights == "auto" and address:
                try:
                    self._load(address)
                except Exception as error:  # noqa: BLE001 (offline shows itself in many ways)
                    warnings.warn(f"the detector's weights {address} could not be had ({error}); "
                                  "it starts from random ones. Give a file with --set "
                                  "detector.weights=FILE", stacklevel=2)
                else:
                    return
            if (network.pixel_std != 1).any():
                return
            # The zoo's weights hold the deviation; random ones diverge on pixels of 0 to 255.
            mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        for buffer, values in ((network.pixel_mean, mean), (network.pixel_std, std)):
            buffer.copy_((values.flip(0) if self._bgr else values)[:, None, None] * 255)

    def _take(self, classifier: CropClassifier, told: bool) -> bool:
        """Copy the classifier's backbone if nearly all of it fits, and tell what was copied.

        Where a model's own weights come after it, nobody need be ``told``.
        """
        state = classifier.network.state_dict()
        offered = {f"backbone.bottom_up.pyramid.body.{name}": v for name, v in state.items()}
        for name, value in detectron2_names(state, flipped=self._bgr).items():
            for place in ("backbone.bottom_up", "backbone", "roi_heads"):
                offered[f"{place}.{name}"] = value
        own = self.network.state_dict()
        fits = {k: v for k, v in offered.items() if k in own and own[k].shape == v.shape}
        wanted = len(self._backbone.state_dict())
        enough = len(fits) >= ENOUGH * wanted
        if told:
            log.info("detectron2: %d of the backbone's %d tensors fit those of the classifier's "
                     "%s: %s", len(fits), wanted, classifier.backbone_name,
                     "taken over" if enough else "nothing is taken over")
        if enough:
            copy_weights(fits, self.network)
        return enough

    def _load(self, address: str) -> None:
        """Read weights from a file, or from where detectron2's own loader finds them.

        Raises:
            BackboneError: Not a weight file, or one of another network.
        """
        from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
        from detectron2.utils.file_io import PathManager

        held = read_zoo(Path(PathManager.get_local_path(address)))
        state, own = held.state, self.network.state_dict()
        if held.by_suffix:
            state = align_and_update_state_dicts(own, state, held.author == "Caffe2")
        copied = copy_weights(state, self.network)
        if not copied:
            raise BackboneError(f"{address}: none of its tensors fits this network; give the file "
                                "of detectron2's that it was trained with as detector.config")
        log.info("detectron2: %d of the detector's %d tensors from %s", copied, len(own), address)

    @property
    def _backbone(self) -> nn.Module:
        """The part that a classifier can give: the network below the FPN, where there is one."""
        backbone: Any = self.network.backbone
        own: nn.Module = getattr(backbone, "bottom_up", backbone)
        return own

    def _row(self, image: Tensor) -> dict[str, Any]:
        """An image (3, H, W), RGB in 0..1, as detectron2 takes it, longer side ``image_size``."""
        height, width = image.shape[-2:]
        scale = self.side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pixels = nn.functional.interpolate(image[None], size, mode="bilinear")[0] * 255
        return {"image": pixels.flip(0) if self._bgr else pixels, "height": height, "width": width}


def unused(cfg: DetectorConfig) -> tuple[str, ...]:
    """Names of the settings that a file takes the place of."""
    return () if cfg.config is None else ("family", "fpn_channels", "anchor_sizes", "aspect_ratios")


def resolved(cfg: DetectorConfig) -> DetectorConfig:
    """The settings with what is in the file in the place of its path.

    Raises:
        ConfigError: A file or a setting that cannot be used.
        ImportError: detectron2 is not there; two lines say what to do.
    """
    import_library()
    if cfg.config is None and cfg.family not in FAMILIES:
        raise ConfigError(f"detector.family={cfg.family} is not one of detectron2's here; write "
                          f"{' or '.join(FAMILIES)}, or give one of its files as detector.config")
    if cfg.weights not in ("auto", "none") and "://" not in cfg.weights \
            and not Path(cfg.weights).is_file():
        raise ConfigError(f"detector.weights={cfg.weights}: no such file; write a file, an address "
                          "such as detectron2://COCO-Detection/..., auto or none")
    if not isinstance(cfg.config, Path):
        return cfg
    cfg = cfg.model_copy(update={"config": read_file(cfg.config)})
    _network(cfg, cfg.config, 1, TRIAL)  # better refused now than after the classifier's training
    return cfg


def build(cfg: DetectorConfig, num_classes: int, classifier: CropClassifier) -> Detectron2Detector:
    """The detector of a configuration, with the weights that it is to start from.

    Args:
        cfg: A file's contents, or family, sizes and anchors.
        num_classes: Instruments, without background.
        classifier: The staged classifier, whose backbone weights are copied where they fit.

    Raises:
        ConfigError: Settings that detectron2 cannot build, or a network that isn't a detector.
        ImportError: detectron2 is not there; two lines say what to do.
    """
    cfg = resolved(cfg)
    given: Any = cfg.config or _preset(cfg)
    network = _network(cfg, given, 1 if cfg.class_agnostic else num_classes,
                       classifier.backbone_name)
    detector = Detectron2Detector(network, cfg, num_classes,
                                  boxes_shared=says(given, "cls_agnostic_bbox_reg"))
    detector.start(cfg, given, classifier)
    return detector


def _network(cfg: DetectorConfig, given: Any, outputs: int, backbone: str) -> nn.Module:
    """A network of random weights.

    Raises:
        ConfigError: One that detectron2 cannot build, or that isn't a detector of one step.
    """
    make = _from_lazy if "model" in given else _from_yaml
    try:
        network = make(given, outputs, backbone)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 (its builders assert, look up and import)
        raise ConfigError(f"detector.config: detectron2 cannot build this network "
                          f"({type(error).__name__}: {' '.join(str(error).split())})") from None
    _prepare(network, cfg)
    return network


def _preset(cfg: DetectorConfig) -> dict[str, Any]:
    """A network as narrow as ``torchvision_rcnn``'s, in detectron2's words."""
    return {"MODEL": {
        "META_ARCHITECTURE": FAMILIES[cfg.family], "BACKBONE": {"NAME": STAGED},
        "FPN": {"OUT_CHANNELS": cfg.fpn_channels},
        "ANCHOR_GENERATOR": {"SIZES": one_a_level(cfg, len(LEVELS)),
                             "ASPECT_RATIOS": [list(cfg.aspect_ratios)]},
        "RPN": {"IN_FEATURES": LEVELS, "PRE_NMS_TOPK_TRAIN": 600, "POST_NMS_TOPK_TRAIN": 300,
                "PRE_NMS_TOPK_TEST": 400, "POST_NMS_TOPK_TEST": 150},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": LEVELS[:3],
                      "BATCH_SIZE_PER_IMAGE": 96, "POSITIVE_FRACTION": 0.33},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "FC_DIM": 256,
                         "POOLER_RESOLUTION": 7, "POOLER_SAMPLING_RATIO": 2},
        "RETINANET": {"IN_FEATURES": LEVELS, "TOPK_CANDIDATES_TEST": 300,
                      "NORM": "" if cfg.fpn_channels % 32 else "GN"}}}


def _from_yaml(given: Mapping[str, Any], outputs: int, backbone: str) -> nn.Module:
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import build_model

    _register_staged()
    settings = get_cfg()
    settings.MODEL.STAGED = CfgNode({"BACKBONE": backbone})
    settings.merge_from_other_cfg(CfgNode(copy.deepcopy(dict(given))))
    model = settings.MODEL
    model.DEVICE, model.MASK_ON, model.KEYPOINT_ON = "cpu", False, False
    model.BACKBONE.FREEZE_AT = 0  # a stage's settings say what is frozen
    model.ROI_HEADS.NUM_CLASSES = model.RETINANET.NUM_CLASSES = outputs
    if model.BACKBONE.NAME == STAGED:
        settings.INPUT.FORMAT = "RGB"
    network: nn.Module = build_model(settings)
    return network


def _from_lazy(given: Mapping[str, Any], outputs: int, backbone: str) -> nn.Module:
    from detectron2.config import instantiate

    network: nn.Module = instantiate(adapted(given["model"], outputs))
    return network


def _prepare(network: Any, cfg: DetectorConfig) -> None:
    """Check what was built, set its limits, and make all that it remembers part of its state.

    Raises:
        ConfigError: Not a network that finds boxes in one go.
    """
    from detectron2.modeling import GeneralizedRCNN
    from detectron2.modeling.meta_arch.dense_detector import DenseDetector

    predictor: Any = getattr(getattr(network, "roi_heads", None), "box_predictor", None)
    if type(network) is GeneralizedRCNN and network.proposal_generator is not None \
            and hasattr(predictor, "cls_score"):
        predictor.test_score_thresh, predictor.test_nms_thresh = SCORE_THRESHOLD, cfg.nms_iou
        predictor.test_topk_per_image = cfg.max_detections
    elif isinstance(network, DenseDetector):
        network.test_score_thresh, network.test_nms_thresh = SCORE_THRESHOLD, cfg.nms_iou
        network.max_detections_per_image = cfg.max_detections
        # A running mean that its loss is divided by: else a run that was cut off ends otherwise.
        first = 300.0 if hasattr(network.head, "ctrness") else 100.0
        network.register_buffer("loss_normalizer", torch.tensor(first))
    else:
        raise ConfigError(f"detector.config: {type(network).__name__} is not supported here; give "
                          "a file of a Faster R-CNN or a RetinaNet, as in configs/COCO-Detection")
    for name in ("pixel_mean", "pixel_std"):
        network.register_buffer(name, getattr(network, name), persistent=True)


def _address(given: Mapping[str, Any]) -> str:
    """Where a file says that weights are to be had; empty where it says nothing."""
    return str(given.get("init_checkpoint") or given.get("MODEL", {}).get("WEIGHTS") or "")


def _register_staged() -> None:
    """Make the staged backbone known to detectron2, once."""
    from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    if STAGED in BACKBONE_REGISTRY:
        return

    class StagedBackbone(Backbone):
        """A ``Pyramid`` in detectron2's terms."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.pyramid = Pyramid(name)
            self._out_features = MAPS
            self._out_feature_strides = dict(zip(MAPS, Pyramid.strides, strict=True))
            self._out_feature_channels = dict(zip(MAPS, self.pyramid.channels, strict=True))

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            """Images (N, 3, H, W) -> maps at strides 8, 16 and 32."""
            images = images.contiguous(memory_format=torch.channels_last)  # as torchvision_rcnn
            return dict(zip(MAPS, self.pyramid(images), strict=True))

    def staged_fpn(settings: Any, input_shape: Any) -> nn.Module:
        fpn: nn.Module = FPN(StagedBackbone(settings.MODEL.STAGED.BACKBONE), MAPS,
                             settings.MODEL.FPN.OUT_CHANNELS, settings.MODEL.FPN.NORM,
                             LastLevelMaxPool(), settings.MODEL.FPN.FUSE_TYPE)
        return fpn

    BACKBONE_REGISTRY.register(staged_fpn)
