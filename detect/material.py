"""What a stage can learn from: its images sorted by what is known of each.

``photos`` show one instrument on its own and can be cut out; ``labelled`` images are known to hold
an instrument somewhere; ``boxed`` images say where; ``negatives`` hold none and are the grounds
that cut-outs are pasted into. A style bank adds ``styled`` pictures of these, and whole ``scenes``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.composites import Cutout, Scene, compose, cut_out, distractor
from musicon.datasets.files import sha256
from musicon.datasets.foreground import find_foreground
from musicon.datasets.images import probe
from musicon.datasets.loading import ImageStore, Recent, resize_longer, shrink
from musicon.datasets.records import Box, ImageRecord, Manifest, UserError
from musicon.datasets.transforms import Augmentation
from musicon.detect.config import BankConfig, CompositesConfig, Config
from musicon.detect.pipeline import WORKING_SIDE
from musicon.detect.sampling import spread
from musicon.detect.training import StageContext

log = logging.getLogger(__name__)

SMALLEST_HELD = 512
"""Longer side, in pixels, that images are held in memory with, and cut-outs, at the least."""
PHOTO_DOMAIN = "mimo"
CUTOUT_BYTES = 1_000_000_000
"""Memory for cut-outs, those not used for longest given up first."""
TRIES = 30
"""Photos looked at before giving up on finding one that can be cut out."""


@dataclass(frozen=True, eq=False)
class Item:
    """One image and what is known of it.

    Attributes:
        path: The file.
        labels: Labels (from 1) known to be in the image, or () for none.
        boxes: float32 (N, 4) in pixels of the original.
        box_labels: int64 (N,), from 1.
        unasked: float32 (M, 4), boxes around crowds and of classes that the stage does not know:
            neither to be found nor a false alarm.
        photo: One instrument on its own, which may be cut out.
        rehearsed: Not the stage's own: from an earlier stage, or a background.
        zoom: Pixels of this picture for one of the picture that it is a styled version of.
    """

    path: Path
    labels: tuple[int, ...]
    boxes: NDArray[np.float32]
    box_labels: NDArray[np.int64]
    unasked: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    photo: bool = False
    rehearsed: bool = False
    zoom: float = 1.0


@dataclass(frozen=True)
class Material:
    """A stage's images of one split, sorted by use; see the module's text.

    ``cutout_side`` is the longer side, in pixels, of photos that are cut out; smaller ones stay.
    """

    photos: tuple[Item, ...]
    labelled: tuple[Item, ...]
    boxed: tuple[Item, ...]
    negatives: tuple[Item, ...]
    store: ImageStore
    cutout_side: int
    styled: Mapping[Path, tuple[Item, ...]] = field(default_factory=dict)
    scenes: tuple[Item, ...] = ()
    styled_share: float = 0.0

    def summary(self) -> str:
        """How many of each, in words."""
        styled = sum(len(versions) for versions in self.styled.values())
        bank = f", a bank of {styled} styled images and {len(self.scenes)} scenes" \
            if styled or self.scenes else ""
        return (f"{len(self.photos)} photos, {len(self.labelled)} labelled images, "
                f"{len(self.boxed)} boxed images, {len(self.negatives)} without instrument{bank}")

    def look(self, item: Item, rng: np.random.Generator) -> Item:
        """The item, or, by the bank's probability, one of its styled versions."""
        versions = self.styled.get(item.path)
        if not versions or rng.random() >= self.styled_share:
            return item
        return versions[int(rng.integers(len(versions)))]

    def cutout(self, rng: np.random.Generator, label: int | None = None) -> Cutout | None:
        """A cut-out of one class, or of a class drawn at random; None when there is none.

        Photos without a plain ground can't be cut out: another one is drawn.
        """
        for _ in range(TRIES if self._by_label else 0):
            wanted = label if label is not None else int(rng.choice(list(self._by_label)))
            items = self._by_label.get(wanted)
            if not items:
                return None
            item = items[int(rng.integers(len(items)))]
            found = self.cut(item, self.look(item, rng))
            if found is not None:
                return found
        return None

    @cached_property
    def _cut(self) -> Recent[Cutout | None]:
        return Recent(CUTOUT_BYTES, _size)

    @cached_property
    def _by_label(self) -> dict[int, list[Item]]:
        by_label: dict[int, list[Item]] = {}
        for item in sorted(self.photos, key=lambda item: item.labels[0]):
            by_label.setdefault(item.labels[0], []).append(item)
        return by_label

    def cut(self, item: Item, look: Item | None = None) -> Cutout | None:
        """The instrument of a photo without its ground; None where the ground isn't plain.

        The outline is the photo's, the colours are those of ``look``, a styled version of it.
        """
        look = look or item
        return self._cut.get(look.path, lambda: self._cut_out(item, look))

    def _cut_out(self, item: Item, look: Item) -> Cutout | None:
        image = shrink(self.store.get(item.path)[0], self.cutout_side)
        foreground = find_foreground(image)
        if foreground is None:
            return None
        mask = foreground.mask
        if look is not item:
            image = shrink(self.store.get(look.path)[0], self.cutout_side)
            mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return cut_out(image, mask, item.labels[0])

    def ground(self, rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
        """A random window of an instrument-free image, its longer side ``side`` pixels.

        Without such images, a field of one colour with some noise.
        """
        if not self.negatives:
            plain = np.full((side, side, 3), rng.integers(40, 220, 3), np.float32)
            return (plain + rng.normal(0, 12, plain.shape)).clip(0, 255).astype(np.uint8)
        item = self.negatives[int(rng.integers(len(self.negatives)))]
        image, _ = self.store.get(item.path)
        return resize_longer(random_window(image, rng, 0.5), side)

    def scene(self, rng: np.random.Generator, side: int, settings: CompositesConfig) -> Scene:
        """A composed scene, longer side ``side`` pixels.

        It holds 1 to ``max_objects`` cut-outs, of which some are repainted on their own, and up to
        as many distractors.
        """
        count = int(rng.integers(1, settings.max_objects + 1))
        cutouts = [self._repaint(c, rng, settings.repaint)
                   for c in (self.cutout(rng) for _ in range(count)) if c is not None]
        for _ in range(int(rng.binomial(count, settings.distractors))):
            other = self._repaint(distractor(self.ground(rng, side), rng), rng, settings.repaint)
            cutouts.insert(int(rng.integers(len(cutouts) + 1)), other)
        return compose(self.ground(rng, side), cutouts, rng, scale=settings.scale,
                       harmonise=settings.harmonise)

    def _repaint(self, cutout: Cutout, rng: np.random.Generator, chance: float) -> Cutout:
        if rng.random() >= chance:
            return cutout
        colours = self._augment(np.ascontiguousarray(cutout.rgba[..., :3]), rng)
        return Cutout(np.dstack([colours, cutout.rgba[..., 3]]), cutout.label)

    @cached_property
    def _augment(self) -> Augmentation:
        return Augmentation("strong")


def _size(cutout: Cutout | None) -> int:
    return 0 if cutout is None else cutout.rgba.nbytes


def random_window(image: NDArray[np.uint8], rng: np.random.Generator,
                  least: float) -> NDArray[np.uint8]:
    """A random part of an image (H, W, 3), each side at least the share ``least`` of the whole."""
    height, width = image.shape[:2]
    h = max(1, round(height * rng.uniform(least, 1)))
    w = max(1, round(width * rng.uniform(least, 1)))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return image[top:top + h, left:left + w]


def collect(ctx: StageContext, split: str) -> Material:
    """Sort a stage's images of one split by use.

    The stage's own manifest counts in full; ``rehearsal`` brings earlier stages' images back,
    ``cutouts`` only photos, ``backgrounds`` only instrument-free images. Images that nobody
    labelled, or only as showing several instruments, and images and boxes whose class the stage
    does not know, are counted in the log and left out, and so are boxes around crowds.
    """
    stage = ctx.stage
    photos: list[Item] = []
    labelled: list[Item] = []
    boxed: list[Item] = []
    negatives: list[Item] = []
    left_out: Counter[str] = Counter()
    for path in (stage.manifest, *stage.rehearsal):
        rehearsed = path is not stage.manifest
        for found, record in _items(ctx, Manifest.read(path), split, left_out):
            item = replace(found, rehearsed=rehearsed)
            if record.is_negative:
                negatives.append(item)
            elif len(item.boxes):
                boxed.append(item)
            elif len(item.labels) != 1 or len(item.unasked):
                left_out["images of several instruments, none of them boxed"] += 1
            elif record.domain == PHOTO_DOMAIN:
                photos.append(replace(item, photo=True))
            else:
                labelled.append(item)
    for path in stage.cutouts:
        photos += [replace(item, photo=True)
                   for item, _ in _items(ctx, Manifest.read(path), split, left_out)
                   if len(item.labels) == 1]
    for path in stage.backgrounds:
        negatives += [replace(item, rehearsed=True)
                      for item, record in _items(ctx, Manifest.read(path), split, left_out)
                      if record.is_negative]
    for reason, count in sorted((+left_out).items()):
        log.info("%s, %s: %d left out: %s", ctx.name, split, count, reason)
    material = Material(tuple(photos), tuple(labelled), tuple(boxed), tuple(negatives),
                        ImageStore(working_side(ctx.config)),
                        max(SMALLEST_HELD, ctx.config.detector.image_size))
    if stage.bank is not None and split == "train":
        material = _with_bank(material, ctx, stage.bank)
    log.info("%s, %s: %s", ctx.name, split, material.summary())
    return material


def _with_bank(material: Material, ctx: StageContext, bank: BankConfig) -> Material:
    """The material with the styled versions of its images, and the scenes, of a style bank."""
    contents: dict[str, list[Item]] = {}
    for item in (*material.photos, *material.labelled, *material.boxed):
        contents.setdefault(sha256(item.path), []).append(item)
    styled: dict[Path, tuple[Item, ...]] = {}
    scenes: list[Item] = []
    left_out: Counter[str] = Counter()
    for item, record in _items(ctx, Manifest.read(bank.path), "train", left_out):
        copies = contents.get(str(record.extra.get("content_sha256")), [])
        for content in copies:
            zoom = record.width / probe(content.path).width
            styled[content.path] = (*styled.get(content.path, ()), replace(item, zoom=zoom))
        if copies:
            continue
        if len(item.boxes):
            scenes.append(item)
        else:
            left_out["styled images of others than this stage's"] += 1
    if not styled and not scenes:
        raise UserError(f"{bank.path}: the bank holds nothing that stage {ctx.name} can use; make "
                        f"it from the stage's own data: python tools/build_bank.py make --content "
                        f"{ctx.stage.manifest} ...")
    for reason, count in sorted((+left_out).items()):
        log.info("%s, bank: %d left out: %s", ctx.name, count, reason)
    return replace(material, styled=styled, scenes=tuple(scenes), styled_share=bank.probability)


def working_side(config: Config) -> int:
    """Longer side, in pixels, that a stage's images are held in memory with.

    Enough for parts of them to be as sharp as the detector sees whole ones, and no more than it
    has when it is used.
    """
    return min(max(SMALLEST_HELD, 2 * config.detector.image_size), WORKING_SIDE)


def own_first(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` items: the stage's own, evenly over them, then evenly over the others."""
    own = spread([item for item in items if not item.rehearsed], count)
    return [*own, *spread([item for item in items if item.rehearsed], count - len(own))]


def with_boxes(item: Item, boxes: NDArray[np.float32], label: int) -> Item:
    """An item with other boxes, (N, 4), all of one label."""
    return replace(item, boxes=boxes, box_labels=np.full(len(boxes), label, np.int64))


def _items(ctx: StageContext, manifest: Manifest, split: str,
           left_out: Counter[str]) -> Iterable[tuple[Item, ImageRecord]]:
    labels = ctx.labels_of(manifest.categories)
    for record in manifest.select(split=split).images:
        if record.labels is None and not record.boxes:
            left_out["images that nobody has labelled"] += 1
            continue
        known = tuple(sorted({labels[i] for i in record.known_labels if i in labels}))
        if record.known_labels and not known:
            left_out["images of classes that are not among this stage's"] += 1
            continue
        boxes = [box for box in record.boxes if not box.iscrowd and box.label in labels]
        others = [box for box in record.boxes if box.iscrowd or box.label not in labels]
        crowds = sum(box.iscrowd for box in others)
        left_out["boxes around crowds"] += crowds
        left_out["boxes of classes that are not among this stage's"] += len(others) - crowds
        yield Item(manifest.path(record), known, _xyxy(boxes),
                   np.array([labels[box.label] for box in boxes], np.int64), _xyxy(others)), record


def _xyxy(boxes: Sequence[Box]) -> NDArray[np.float32]:
    return np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4)
