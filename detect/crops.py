"""The classifier's task: crops of photos, of pasted cut-outs, of paintings, and of nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets import boxes as box_tools
from musicon.datasets.composites import compose
from musicon.datasets.loading import crop_square
from musicon.datasets.transforms import Augmentation
from musicon.detect.backbones import freeze_stages, last_linear
from musicon.detect.calibration import fit_temperature
from musicon.detect.classifier import NEGATIVE, CropClassifier
from musicon.detect.config import FitConfig
from musicon.detect.material import Item, Material, collect, random_window
from musicon.detect.pseudo import HardNegatives, pseudo_boxed
from musicon.detect.sampling import spread
from musicon.detect.training import StageContext, parameter_groups

Image = NDArray[np.uint8]
Crop = tuple[Image, int]
Positive = tuple[Item, NDArray[np.float32] | None, int]
"""An image, a box in pixels of the original or None for the whole image, and the label."""
PROBE_BATCH = 64
MAX_VALIDATION_CROPS = 400
"""Crops of each kind that are scored during training."""


class ClassifierTask:
    """Learns to name a crop, or to say that it shows no instrument.

    An item is a photo, a labelled image, one box of an image, or (the last item) "an
    instrument-free crop". Classes are drawn evenly when ``balance`` is ``sampling``.
    """

    name = "classifier"

    def __init__(self, model: CropClassifier, ctx: StageContext) -> None:
        self.model = model
        self.fit = ctx.stage.classifier
        self.seed = ctx.config.seed
        self.rehearsal_share = ctx.stage.rehearsal_share
        self.composites = ctx.stage.composites
        self.material = collect(ctx, "train")
        self.validation = collect(ctx, "val")
        self.augment = Augmentation(self.fit.augmentation, self.fit.light_share)
        self.items = [*_box_items(self.material),
                      *_boxes_of(pseudo_boxed(self.material, ctx))]
        self._scene_boxes: dict[int, list[tuple[Item, NDArray[np.float32]]]] = {}
        for item in self.material.scenes:
            for box, label in zip(item.boxes, item.box_labels, strict=True):
                self._scene_boxes.setdefault(int(label), []).append((item, box))
        self.alarms = HardNegatives(self.material, ctx, self.fit.mined_share)
        self.labels = np.array([label for _, _, label in self.items], np.int64)
        self._pools = [pool for rehearsed in (False, True)
                       if (pool := _by_label(self.items, rehearsed))]
        self._held_out: dict[str, list[Crop]] | None = None
        freeze_stages(model.network, self.fit.freeze)

    def __len__(self) -> int:
        return len(self.items) + 1

    @property
    def missing(self) -> str | None:
        """What to say where no example would show an instrument; None where some do."""
        if self.items:
            return None
        return "no picture has a box, or a label of one instrument alone"

    def start(self) -> None:
        """Fit the last layer on fixed features before anything else learns.

        Fine-tuning from a random last layer distorts pretrained features and generalises worse
        outside the training domain (Kumar et al. 2022, "linear probing then fine-tuning").
        """
        if self.fit.probe_examples:
            self._probe(self.fit.probe_examples)

    def draw(self, rng: np.random.Generator) -> int:
        """A negative by its share, else a class evenly (or by its frequency), then an item.

        The stage's own images and those of earlier stages take turns by ``rehearsal_share``.
        """
        if rng.random() < self.fit.negative_share or not self.items:
            return len(self.items)
        if self.fit.balance != "sampling":
            return int(rng.integers(len(self.items)))
        by_label = self._pools[0]
        if len(self._pools) == 2 and rng.random() < self.rehearsal_share:
            by_label = self._pools[1]
        label = int(rng.choice(list(by_label)))
        return int(rng.choice(by_label[label]))

    def example(self, index: int, rng: np.random.Generator) -> Crop:
        """An augmented crop, uint8 RGB (S, S, 3), and its label (0 is "none")."""
        if index == len(self.items):
            crop, label = self._negative(self.material, rng), NEGATIVE
        else:
            item, box, label = self.items[index]
            crop = self._positive(self.material, item, box, label, rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return self.augment(np.ascontiguousarray(crop), rng), label

    def collate(self, examples: Sequence[Crop]) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, S, S) and labels int64 (N,)."""
        images = torch.from_numpy(np.stack([crop for crop, _ in examples])).permute(0, 3, 1, 2)
        return images.contiguous(), torch.tensor([label for _, label in examples])

    def describe(self, index: int) -> str:
        """The image file of an item."""
        if index == len(self.items):
            return "instrument-free crop"
        return str(self.items[index][0].path)

    def losses(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy, weighted by inverse class frequency when ``balance`` is ``loss``."""
        images, labels = batch
        weight = self._class_weight(labels.device) if self.fit.balance == "loss" else None
        loss = nn.functional.cross_entropy(model(images), labels, weight=weight,
                                           label_smoothing=self.fit.label_smoothing)
        return {"cross_entropy": loss}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Top-1 by kind of held-out crop, and their mean as ``score``."""
        if self._held_out is None:
            self._held_out = self._held_out_crops()
        figures: dict[str, float] = {}
        for kind, crops in self._held_out.items():
            if crops:
                probabilities = model.classify_crops([crop for crop, _ in crops])  # type: ignore[operator]
                truth = np.array([label for _, label in crops])
                figures[f"top1_{kind}"] = float((probabilities.argmax(1) == truth).mean())
        figures["score"] = float(np.mean(list(figures.values()))) if figures else 0.0
        return figures

    @torch.no_grad()
    def calibrate(self) -> float:
        """Set the model's temperature on the held-out crops, and return it.

        Clean photos are easier than anything in a painting: they count only where nothing else
        shows an instrument. Without any instrument the temperature stays.
        """
        if self._held_out is None:
            self._held_out = self._held_out_crops()
        crops = [crop for kind in _KINDS[1:] for crop in self._held_out[kind]]
        if all(label == NEGATIVE for _, label in crops):
            crops = [*self._held_out["photos"], *crops]
        if any(label != NEGATIVE for _, label in crops):
            images, labels = self.collate(crops)
            device = self.model.temperature.device
            logits = torch.cat([self.model(batch.to(device)).cpu()
                                for batch in images.split(PROBE_BATCH)])
            self.model.temperature.fill_(fit_temperature(logits, labels))
        return float(self.model.temperature)

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """The new last layer at the full learning rate, the backbone at its share."""
        head, _ = last_linear(self.model.network)
        return parameter_groups(self.model, fit,
                                pretrained=lambda name: not name.startswith(f"network.{head}"))

    def preview(self, rng: np.random.Generator, count: int) -> list[Image]:
        """Augmented crops as the network sees them."""
        return [self.example(self.draw(rng), rng)[0] for _ in range(count)]

    @torch.no_grad()
    def _probe(self, count: int) -> None:
        rng = np.random.default_rng(self.seed)
        device = next(self.model.parameters()).device
        _, head = last_linear(self.model.network)
        seen: list[Tensor] = []
        self.model.eval()
        labels = []
        for _ in range(-(-count // PROBE_BATCH)):
            images, batch_labels = self.collate(
                [self.example(self.draw(rng), rng) for _ in range(PROBE_BATCH)])
            seen.append(self.model.features_and_probabilities(images.to(device))[0])
            labels.append(batch_labels)
        weight, bias = fit_linear(torch.cat(seen), torch.cat(labels).to(device), head)
        head.weight.copy_(weight)
        head.bias.copy_(bias)

    def _positive(self, material: Material, item: Item, box: NDArray[np.float32] | None,
                  label: int, rng: np.random.Generator) -> Image:
        size = self.model.image_size
        look = material.look(item, rng)
        image, scale = material.store.get(look.path)
        if box is not None:
            return crop_square(image, _jitter(box * (look.zoom * scale), rng, 0.12),
                               rng.uniform(0, 0.2), size)
        if item.photo and rng.random() < self._paste_share():
            pasted = self._in_scene(material, label, rng)
            if pasted is None:
                pasted = self._pasted(material, item, look, rng)
            if pasted is not None:
                return pasted
        window = random_window(image, rng, 0.6)
        height, width = window.shape[:2]
        return crop_square(window, np.array([0, 0, width, height]), 0.0, size)

    def _in_scene(self, material: Material, label: int, rng: np.random.Generator) -> Image | None:
        """By the bank's probability, an instrument of the class in one of the bank's scenes."""
        found = self._scene_boxes.get(label)
        if not found or rng.random() >= material.styled_share:
            return None
        item, box = found[int(rng.integers(len(found)))]
        image, scale = material.store.get(item.path)
        return crop_square(image, _jitter(box * scale, rng, 0.1), rng.uniform(0, 0.2),
                           self.model.image_size)

    def _pasted(self, material: Material, item: Item, look: Item,
                rng: np.random.Generator) -> Image | None:
        """The photo's cut-out in a window of a painting; None where it can't be cut out."""
        cutout = material.cut(item, look)
        if cutout is None:
            return None
        size = self.model.image_size
        ground = material.ground(rng, round(size * rng.uniform(1.2, 2.2)))
        scene = compose(ground, [cutout], rng, scale=(0.45, 0.95))
        if not len(scene.boxes):
            return None
        box = _jitter(scene.boxes[0], rng, 0.1)
        return crop_square(scene.image, box, rng.uniform(0, 0.2), size)

    def _negative(self, material: Material, rng: np.random.Generator) -> Image:
        """A square of a painting that holds no instrument, or that misses those there are.

        ``mined_share`` of them, where there are any, are what the parent took for an instrument.
        """
        size = self.model.image_size
        alarms = self.alarms.draw(rng) if material is self.material else None
        if alarms is not None:
            image, scale = material.store.get(alarms.item.path)
            box = alarms.boxes[int(rng.integers(len(alarms.boxes)))] * scale
            return crop_square(image, _jitter(box, rng, 0.1), rng.uniform(0, 0.2), size)
        if material.boxed and rng.random() < 0.3:
            item = material.boxed[int(rng.integers(len(material.boxed)))]
            image, scale = material.store.get(item.path)
            for _ in range(10):
                box = _random_square(image, rng)
                if misses(box, np.concatenate([item.boxes, item.unasked]) * scale):
                    return crop_square(image, box, 0.0, size)
        ground = material.ground(rng, 512)
        return crop_square(ground, _random_square(ground, rng), 0.0, size)

    def _paste_share(self) -> float:
        return 0.0 if self.composites is None else self.composites.crop_share

    def _class_weight(self, device: torch.device) -> Tensor:
        counts = np.bincount(self.labels, minlength=self.model.num_classes + 1).astype(np.float32)
        counts[NEGATIVE] = max(1.0, self.fit.negative_share * counts.sum())
        weight = np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0)
        return torch.tensor(weight / weight[counts > 0].mean(), device=device)

    def _held_out_crops(self) -> dict[str, list[Crop]]:
        """Fixed crops of the validation split: photos, pasted, labelled, boxed, negatives."""
        material, rng = self.validation, np.random.default_rng(0)
        size = self.model.image_size
        crops: dict[str, list[Crop]] = {kind: [] for kind in _KINDS}
        for item, box, label in spread(_box_items(material), MAX_VALIDATION_CROPS):
            image, scale = material.store.get(item.path)
            if box is not None:
                crops["boxed"].append((crop_square(image, box * scale, 0.1, size), label))
                continue
            whole = np.array([0, 0, image.shape[1], image.shape[0]])
            kind = "photos" if item.photo else "labelled"
            crops[kind].append((crop_square(image, whole, 0.0, size), label))
            pasted = self._pasted(material, item, item, rng) if kind == "photos" else None
            if pasted is not None and material.negatives:
                crops["pasted"].append((pasted, label))
        if material.negatives:
            crops["negatives"] = [(self._negative(material, rng), NEGATIVE) for _ in range(100)]
        return crops


def misses(square: NDArray[np.floating], boxes: NDArray[np.floating]) -> bool:
    """Whether a square shows next to nothing of any box (N, 4): neither a part nor the whole.

    The overlap is measured against the smaller of the two (Szymkiewicz-Simpson), since a small
    square inside a large instrument has a low IoU with it, and so has a large square around a
    small one.
    """
    smaller = np.minimum(box_tools.area(boxes), box_tools.area(square)).clip(1e-6)
    return bool((box_tools.intersection(boxes, square)[:, 0] / smaller < 0.05).all())


def fit_linear(features: Tensor, labels: Tensor, head: nn.Linear, *, steps: int = 60,
               decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Logistic regression on fixed features, starting from a layer's own weights.

    Args:
        features: (N, C).
        labels: int64 (N,) in 0..K-1; a class without examples keeps its weights' scale only.
        head: Linear layer of C inputs and K outputs; not changed.
        steps: Iterations of L-BFGS.
        decay: Weight of the squared norm of the weights (on standardised features).

    Returns:
        Weight (K, C) and bias (K,) for features as given.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-4
    standard = (features - mean) / deviation
    weight = torch.zeros_like(head.weight, dtype=torch.float32).requires_grad_()
    bias = torch.zeros(len(head.weight), device=features.device).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(standard @ weight.T + bias, labels)
        loss = loss + decay * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scaled = weight.detach() / deviation
    return scaled, bias.detach() - scaled @ mean


_KINDS = ("photos", "pasted", "labelled", "boxed", "negatives")


def _box_items(material: Material) -> list[Positive]:
    """Every positive of a stage that needs no guess."""
    whole: list[Positive] = [(item, None, item.labels[0])
                             for item in (*material.photos, *material.labelled)
                             if len(item.labels) == 1]
    return [*whole, *_boxes_of(material.boxed)]


def _by_label(items: Sequence[Positive], rehearsed: bool) -> dict[int, list[int]]:
    """Label -> positions of the items that are (not) from an earlier stage."""
    found: dict[int, list[int]] = {}
    for position, (item, _, label) in enumerate(items):
        if item.rehearsed == rehearsed:
            found.setdefault(label, []).append(position)
    return dict(sorted(found.items()))


def _boxes_of(items: Sequence[Item]) -> list[Positive]:
    return [(item, box, int(label)) for item in items
            for box, label in zip(item.boxes, item.box_labels, strict=True)]


def _jitter(box: NDArray[np.floating], rng: np.random.Generator,
            share: float) -> NDArray[np.float32]:
    """A box whose sides are each moved by up to ``share`` of its size."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    move = rng.uniform(-share, share, 4) * (w, h, w, h)
    return (np.asarray(box) + move).astype(np.float32)


def _random_square(image: Image, rng: np.random.Generator) -> NDArray[np.float32]:
    """A square of 10 to 100 % of the image's shorter side, inside the image."""
    height, width = image.shape[:2]
    side = min(height, width) * np.exp(rng.uniform(np.log(0.1), 0))
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    return np.array([x, y, x + side, y + side], np.float32)
