"""The detector's task: composed scenes, boxed artworks, and works that hold no instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets import boxes as box_tools
from musicon.datasets.loading import resize_longer
from musicon.datasets.transforms import Augmentation
from musicon.detect.config import CompositesConfig, FitConfig
from musicon.detect.material import PHOTO_DOMAIN, Item, collect, own_first, with_boxes
from musicon.detect.pseudo import HardNegatives, pseudo_boxed
from musicon.detect.sampling import spread
from musicon.detect.training import StageContext, parameter_groups

Image = NDArray[np.uint8]
VALIDATION_SCENES = 60
"""Composed scenes scored during training."""
MIN_SEEN = 0.5
"""Share of a box that a random window must hold for the box to stay."""


@dataclass(frozen=True)
class BoxedImage:
    """An example: uint8 RGB (H, W, 3), boxes float32 (N, 4) in its pixels, labels int64 (N,).

    ``unasked``, float32 (M, 4), are places where a find counts neither way.
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    unasked: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))


class DetectorTask:
    """Learns to box instruments.

    An item is an image boxed by a person or by the parent stage, or (the last two) "a composed
    scene" and "an instrument-free image".
    """

    name = "detector"

    def __init__(self, model: nn.Module, ctx: StageContext) -> None:
        self.model = model
        self.fit = ctx.stage.detector
        self.side = ctx.config.detector.image_size
        self.composites = ctx.stage.composites
        self.material = collect(ctx, "train")
        self.validation = collect(ctx, "val")
        self.augment = Augmentation(self.fit.augmentation, self.fit.light_share)
        self.items = (*self.material.boxed, *pseudo_boxed(self.material, ctx))
        self.alarms = HardNegatives(self.material, ctx, self.fit.mined_share)
        self.rehearsal_share = ctx.stage.rehearsal_share
        self._pools = [pool for rehearsed in (False, True) if (pool := [
            i for i, item in enumerate(self.items) if item.rehearsed == rehearsed])]
        self._held_out: list[BoxedImage] | None = None
        model.freeze(self.fit.freeze)  # type: ignore[operator]

    def __len__(self) -> int:
        return len(self.items) + 2

    @property
    def can_compose(self) -> bool:
        """Whether scenes are composed."""
        return self.composites is not None and bool(self.material.photos)

    @property
    def missing(self) -> str | None:
        """What to say where no example would show an instrument; None where some do."""
        if self.items or self.can_compose:
            return None
        return (f"no picture is boxed, a parent stage boxed none of {len(self.material.labelled)} "
                f"labelled ones, and there are no photos (of domain {PHOTO_DOMAIN!r}) or no "
                "'composites' to compose scenes from")

    def start(self) -> None:
        """Nothing to prepare."""

    def draw(self, rng: np.random.Generator) -> int:
        """A negative by its share, else a composite by its share, else a boxed image.

        Of boxed images, the stage's own and those of earlier stages take turns by
        ``rehearsal_share``, so that a few boxed artworks don't drown in many photos.
        """
        if rng.random() < self.fit.negative_share and self.material.negatives:
            return len(self.items) + 1
        share = self.composites.share if self.composites is not None else 0.0
        if self.can_compose and (not self.items or rng.random() < share):
            return len(self.items)
        if not self._pools:
            return len(self.items) + 1
        rehearses = len(self._pools) == 2 and rng.random() < self.rehearsal_share
        return int(rng.choice(self._pools[int(rehearses)]))

    def example(self, index: int, rng: np.random.Generator) -> BoxedImage:
        """An augmented image with its boxes, longer side at most ``detector.image_size``."""
        if index == len(self.items) and self.composites is not None:
            found = self._scene(self.composites, rng)
        elif index == len(self.items) + 1:
            found = BoxedImage(self._empty(rng), np.zeros((0, 4), np.float32),
                               np.zeros(0, np.int64))
        else:
            item = self.items[index]
            look = self.material.look(item, rng)
            found = self._window(replace(item, path=look.path, boxes=item.boxes * look.zoom), rng)
        if rng.random() < 0.5:
            found = mirror(found)
        return BoxedImage(self.augment(found.image, rng), found.boxes, found.labels)

    def collate(self, examples: Sequence[BoxedImage]) -> list[dict[str, Tensor]]:
        """A dictionary an image: ``image`` uint8 (3, H, W), ``boxes`` (N, 4), ``labels`` (N,)."""
        return [{"image": torch.from_numpy(np.ascontiguousarray(e.image)).permute(2, 0, 1),
                 "boxes": torch.from_numpy(e.boxes), "labels": torch.from_numpy(e.labels)}
                for e in examples]

    def describe(self, index: int) -> str:
        """The image file of an item."""
        if index < len(self.items):
            return str(self.items[index].path)
        return "composed scene" if index == len(self.items) else "instrument-free image"

    def losses(self, model: nn.Module, batch: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The engine's own losses."""
        images = [row["image"].float() / 255 for row in batch]
        targets = [{"boxes": row["boxes"], "labels": row["labels"]} for row in batch]
        losses: dict[str, Tensor] = model.losses(images, targets)  # type: ignore[operator]
        return losses

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Class-agnostic AP50 on boxed validation images and composed ones; ``score``: the same."""
        if self._held_out is None:
            self._held_out = self._validation_images()
        device = next(model.parameters()).device
        found = []
        for example in self._held_out:
            image = torch.from_numpy(example.image).permute(2, 0, 1).to(device).float() / 255
            found.append({k: v.cpu().numpy() for k, v in model.detect([image])[0].items()})  # type: ignore[operator]
        ap50 = agnostic_ap50(self._held_out, found)
        return {"ap50_agnostic": ap50, "score": ap50}

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """The backbone at its share of the learning rate, everything else at the full one."""
        backbone = self.model.taps()["image"]  # type: ignore[operator]
        own = {id(parameter) for parameter in backbone.parameters()}
        names = {name for name, value in self.model.named_parameters() if id(value) in own}
        return parameter_groups(self.model, fit, pretrained=names.__contains__)

    def preview(self, rng: np.random.Generator, count: int) -> list[Image]:
        """Augmented examples with their boxes drawn."""
        from musicon.detect.draw import draw_boxes

        examples = [self.example(self.draw(rng), rng) for _ in range(count)]
        return [draw_boxes(e.image, e.boxes, [""] * len(e.boxes)) for e in examples]

    def _scene(self, composites: CompositesConfig, rng: np.random.Generator) -> BoxedImage:
        """A composed scene, or, by the bank's probability, a part of one that was styled whole."""
        styled = self.material.scenes
        if styled and rng.random() < self.material.styled_share:
            return self._window(styled[int(rng.integers(len(styled)))], rng)
        scene = self.material.scene(rng, self.side, composites)
        return BoxedImage(scene.image, scene.boxes, scene.labels)

    def _empty(self, rng: np.random.Generator) -> Image:
        """A part of an instrument-free image.

        ``mined_share`` of them, where there are any, hold what the parent took for an instrument.
        """
        alarms = self.alarms.draw(rng)
        if alarms is not None:
            return self._window(with_boxes(alarms.item, alarms.boxes[:1], 0), rng).image
        return self.material.ground(rng, self.side)

    def _window(self, item: Item, rng: np.random.Generator) -> BoxedImage:
        """A random window of a boxed image that keeps at least one of its boxes."""
        image, scale = self.material.store.get(item.path)
        boxes = item.boxes * scale
        height, width = image.shape[:2]
        for _ in range(8):
            w, h = width * rng.uniform(0.45, 1), height * rng.uniform(0.45, 1)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            window = np.array([x, y, x + w, y + h], np.float32).round()
            seen = box_tools.intersection(boxes, window)[:, 0] / box_tools.area(boxes).clip(1e-6)
            if (seen >= MIN_SEEN).any() and not ((seen > 0.1) & (seen < MIN_SEEN)).any():
                break
        else:
            window = np.array([0, 0, width, height], np.float32)
            seen = np.ones(len(boxes), np.float32)
        x0, y0, x1, y1 = (int(v) for v in window)
        part = image[y0:y1, x0:x1]
        kept = box_tools.clip(boxes[seen >= MIN_SEEN] - np.tile(window[:2], 2), x1 - x0, y1 - y0)
        side = round(self.side * rng.uniform(0.75, 1.0))
        resized = resize_longer(part, side)
        return BoxedImage(resized, kept * (side / max(part.shape[:2])),
                          item.box_labels[seen >= MIN_SEEN])

    def _validation_images(self) -> list[BoxedImage]:
        """Boxed and instrument-free validation images; composed scenes where few are boxed."""
        material, rng = self.validation, np.random.default_rng(0)
        images = []
        for item in (*material.boxed, *own_first(material.negatives, len(material.boxed) + 20)):
            image, scale = material.store.get(item.path)
            resized = resize_longer(image, self.side)
            factor = scale * max(resized.shape[:2]) / max(image.shape[:2])
            images.append(BoxedImage(resized, item.boxes * factor, item.box_labels,
                                     item.unasked * factor))
        if self.composites is not None and material.photos and len(material.boxed) < 40:
            for _ in range(VALIDATION_SCENES):
                scene = material.scene(rng, self.side, self.composites)
                images.append(BoxedImage(scene.image, scene.boxes, scene.labels))
        return images


def sample_boxes(ctx: StageContext, count: int = 200) -> NDArray[np.float32]:
    """Boxes (N, 4) as the network will see them, to fit anchors to.

    Of the stage's boxed images, and of composed scenes in their share.
    """
    material, side, rng = collect(ctx, "train"), ctx.config.detector.image_size, \
        np.random.default_rng(0)
    found = [np.zeros((0, 4), np.float32)]
    for item in spread(material.boxed, count):
        image, scale = material.store.get(item.path)
        found.append(item.boxes * (scale * side / max(image.shape[:2])))
    if ctx.stage.composites is not None and material.photos:
        for _ in range(round(count * ctx.stage.composites.share) // 2):
            found.append(material.scene(rng, side, ctx.stage.composites).boxes)
    return np.concatenate(found)


def mirror(example: BoxedImage) -> BoxedImage:
    """Left and right exchanged; twice gives the same."""
    width = example.image.shape[1]
    boxes = example.boxes.copy()
    boxes[:, [0, 2]] = width - example.boxes[:, [2, 0]]
    return BoxedImage(np.ascontiguousarray(example.image[:, ::-1]), boxes, example.labels)


def agnostic_ap50(truths: Sequence[BoxedImage], found: Sequence[dict[str, Any]]) -> float:
    """Class-agnostic AP at IoU .5, by the COCO evaluator; 0 where there is nothing to find.

    Finds in ``unasked`` places count neither way.
    """
    from musicon.detect.coco_scoring import coco_scores

    images: list[dict[str, Any]] = []
    gt: list[dict[str, Any]] = []
    dt: list[dict[str, Any]] = []
    for i, (truth, result) in enumerate(zip(truths, found, strict=True), start=1):
        height, width = truth.image.shape[:2]
        images.append({"id": i, "width": width, "height": height})
        for row, box in enumerate((*truth.boxes, *truth.unasked)):
            xywh = list(box_tools.xyxy_to_xywh(box))
            gt.append({"id": len(gt) + 1, "image_id": i, "category_id": 1, "bbox": xywh,
                       "area": xywh[2] * xywh[3], "iscrowd": int(row >= len(truth.boxes))})
        for box, score in zip(result["boxes"], result["scores"], strict=True):
            dt.append({"image_id": i, "category_id": 1, "score": float(score),
                       "bbox": list(box_tools.xyxy_to_xywh(box))})
    if all(row["iscrowd"] for row in gt):
        return 0.0
    return coco_scores(images, gt, dt, [1]).average_precision(iou=0.5) or 0.0
