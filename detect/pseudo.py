"""What the parent stage sees: pseudo-boxes in labelled images, false alarms in empty ones.

The parent stage's detector proposes, its classifier weighs each proposal by the image's own label
(a box of anything else is of no use), and the best are taken as if a person had drawn them. A
label that the parent doesn't know is weighed by "any instrument". What the parent proposes in an
image that holds no instrument is a false alarm, and what both models most need to see as
"none" (hard negative mining, Sung & Poggio 1998; Shrivastava et al. 2016).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets import boxes as box_tools
from musicon.datasets.boxes import BoxArray
from musicon.datasets.command import progress
from musicon.datasets.loading import ImageStore, resize_longer
from musicon.datasets.records import write_atomic
from musicon.detect.alignment import taxonomy_name
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.classifier import NEGATIVE
from musicon.detect.config import PseudoBoxConfig
from musicon.detect.material import Item, Material, own_first, with_boxes
from musicon.detect.training import StageContext

log = logging.getLogger(__name__)

MAX_SEARCHED = 250
"""Instrument-free images that are searched for false alarms."""
MAX_ALARMS = 6
"""False alarms kept of one image, best first."""
LEAST_SIDE = 1.0
"""Pixels that the detector sees; engines refuse to learn from an empty box, which some leave where
they cut one off at the image's edge."""
KEPT_EVERY = 20
"""Seconds between two writings of what the parent has seen so far."""
SAME_OBJECT_IOU = 0.3
"""Two kept pseudo-boxes overlap at most so much."""


def pseudo_boxed(material: Material, ctx: StageContext) -> list[Item]:
    """Box the labelled images of a stage by its parent's eyes.

    Images with exactly one label are boxed; a stage without parent or ``pseudo_boxes`` has none.
    The boxes are kept in the stage's cache, so that a run that goes on sees the same ones.

    Returns:
        The images in which a box was found; how many were not is logged.
    """
    settings, teacher = ctx.stage.pseudo_boxes, ctx.parent
    wanted = [item for item in material.labelled if len(item.labels) == 1]
    if settings is None or teacher is None or not wanted:
        return []

    def look(item: Item) -> list[list[float]]:
        name = ctx.categories[item.labels[0] - 1].name
        boxes: list[list[float]] = propose(item.path, name, teacher, settings,
                                           material.store).tolist()
        return boxes

    kept = _kept(ctx.cache / "pseudo_boxes.json", wanted, look, "pseudo-boxes", ctx.quiet)
    boxed = [with_boxes(item, box_tools.as_boxes(kept[str(item.path)]), item.labels[0])
             for item in wanted if kept[str(item.path)]]
    log.info("%s: pseudo-boxes in %d of %d labelled images", ctx.name, len(boxed), len(wanted))
    return boxed


@dataclass(frozen=True)
class FalseAlarms:
    """What the parent takes for instruments in one image that holds none.

    Attributes:
        item: The image.
        boxes: float32 (N, 4) in pixels of the original, the strongest first; N is at least 1.
        scores: (N,), the parent's.
    """

    item: Item
    boxes: BoxArray
    scores: Sequence[float]


class HardNegatives:
    """The parent's false alarms in a stage's instrument-free images, its own images first.

    They are kept in the stage's cache, as pseudo-boxes are; a stage without parent has none.
    """

    def __init__(self, material: Material, ctx: StageContext, share: float) -> None:
        """Look for them, unless ``share``, that of the draws which show one, is 0."""
        self.images: list[FalseAlarms] = []
        self.share = share
        if ctx.parent is None or not material.negatives or not share:
            return
        teacher = ctx.parent

        def look(item: Item) -> dict[str, Any]:
            boxes, scores = _search(item.path, teacher, material.store)
            chosen = _apart(boxes)[:MAX_ALARMS]
            return {"boxes": boxes[chosen].tolist(), "scores": scores[chosen].tolist()}

        items = own_first(material.negatives, MAX_SEARCHED)
        kept = _kept(ctx.cache / "false_alarms.json", items, look, "false alarms", ctx.quiet)
        self.images = [
            FalseAlarms(item, box_tools.as_boxes(alarms["boxes"]), alarms["scores"])
            for item in items if (alarms := kept[str(item.path)])["boxes"]]
        if self.images:
            self._chances = chances(self.images, ctx.stage.rehearsal_share)
        log.info("%s: %d false alarms of the parent to learn from", ctx.name,
                 sum(len(image.boxes) for image in self.images))

    def draw(self, rng: np.random.Generator) -> FalseAlarms | None:
        """By the share, an image, the likelier the stronger its strongest false alarm; else None.

        The stage's own images and others take turns by ``rehearsal_share``.
        """
        if not self.images or rng.random() >= self.share:
            return None
        return self.images[int(rng.choice(len(self.images), p=self._chances))]


def chances(images: Sequence[FalseAlarms], rehearsal_share: float) -> NDArray[np.float64]:
    """How probable each image is to be drawn, (N,); the sum is 1."""
    strongest = np.array([image.scores[0] for image in images], np.float64)
    rehearsed = np.array([image.item.rehearsed for image in images])
    if rehearsed.all() or not rehearsed.any():
        return strongest / strongest.sum()
    share = np.where(rehearsed, rehearsal_share, 1 - rehearsal_share)
    total = np.where(rehearsed, strongest[rehearsed].sum(), strongest[~rehearsed].sum())
    return share * strongest / total


def _kept(file: Path, items: Sequence[Item], look: Callable[[Item], Any], what: str,
          quiet: bool) -> dict[str, Any]:
    """What ``look`` says of each image, by its path, from a file where it was said before.

    The file may know the images by other paths, where the data have moved: they are looked at anew.
    It is written now and then, so that a run that is cut off goes on.
    """
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    new = [item for item in items if str(item.path) not in kept]
    written = time.monotonic()
    try:
        for item in progress(iter(new), total=len(new), desc=what, quiet=quiet):
            kept[str(item.path)] = look(item)
            if time.monotonic() - written > KEPT_EVERY:
                write_atomic(file, json.dumps(kept))
                written = time.monotonic()
    finally:
        if new:
            write_atomic(file, json.dumps(kept))
    return kept


def _apart(boxes: BoxArray) -> list[int]:
    """Which of the boxes (N, 4), best first, overlap no better one."""
    chosen: list[int] = []
    for i in range(len(boxes)):
        if not chosen or box_tools.iou(boxes[i], boxes[chosen]).max() <= SAME_OBJECT_IOU:
            chosen.append(i)
    return chosen


@torch.inference_mode()
def _search(path: Path, teacher: LoadedModel,
            store: ImageStore) -> tuple[BoxArray, NDArray[np.float32]]:
    """The parent's proposals in pixels of the original, (N, 4), best first, and their scores."""
    image, scale = store.get(path)
    resized = resize_longer(image, teacher.config.detector.image_size)
    factor = scale * resized.shape[1] / image.shape[1]
    device = next(teacher.detector.parameters()).device
    tensor = torch.from_numpy(resized).permute(2, 0, 1).to(device).float() / 255
    found = teacher.detector.detect([tensor])[0]
    boxes = box_tools.as_boxes(found["boxes"].float().cpu().numpy())
    keep = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1)
    return boxes[keep] / np.float32(factor), found["scores"].float().cpu().numpy()[keep]


@torch.inference_mode()
def propose(path: Path, name: str, teacher: LoadedModel, settings: PseudoBoxConfig,
            store: ImageStore) -> BoxArray:
    """Boxes (N, 4), in pixels of the original, of the instrument called ``name``; N may be 0."""
    boxes, seen = _search(path, teacher, store)
    image, scale = store.get(path)
    probabilities = teacher.classifier.classify(image, boxes * scale)
    scores = np.sqrt(seen * relevance(probabilities, name, teacher))
    order = np.argsort(-scores, kind="stable")
    likely = order[scores[order] >= settings.min_score]
    return boxes[likely[_apart(boxes[likely])[:settings.max_per_image]]]


def relevance(probabilities: NDArray[np.float32], name: str,
              teacher: LoadedModel) -> NDArray[np.float32]:
    """How well crops (N, L + 1) fit a class that is known to be there, in [0, 1], shape (N,).

    The other instruments are ruled out by the label, which leaves the class against "none".
    """
    negative = probabilities[:, NEGATIVE]
    known = {taxonomy_name(c.name): k for k, c in enumerate(teacher.categories, start=1)}
    label = known.get(taxonomy_name(name))
    if label is None:
        return 1 - negative
    own = probabilities[:, label]
    return own / np.maximum(own + negative, 1e-6)
