"""What a rescorer learns from: the detector's proposals in real pictures where the truth is known.

Composed scenes are left out on purpose: on artworks that no stage had seen, a rescorer that knew
pasted cut-outs as instruments was no better than none (docs/benchmarks.md, "Rescoring").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.ops import nms

from musicon.datasets import boxes as box_tools
from musicon.datasets.boxes import BoxArray
from musicon.datasets.command import progress
from musicon.datasets.images import decode_reduced
from musicon.datasets.records import Manifest
from musicon.detect.material import Item, collect, own_first
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.pseudo import pseudo_boxed
from musicon.detect.rescoring import Rescorer, fit_rescorer
from musicon.detect.training import StageContext

MOST_IMAGES = 200
"""Boxed images, and as many without instruments; the stage's own come first."""
MOST_BOXES = 6
"""Proposals of an image, best first."""
SAME_IOU = 0.6
"""Of two proposals that overlap more, the better one counts."""
HIT_IOU, MISS_IOU = 0.5, 0.3
"""A proposal is an instrument from the first on, a false alarm under the second."""


@dataclass(frozen=True)
class Examples:
    """A model's proposals in training images.

    Attributes:
        features: float32 (N, 2F), of the crops of boxes and of their surroundings.
        hits: (N,), whether the box holds an instrument.
        images: The N proposals' files.
    """

    features: NDArray[np.float32]
    hits: NDArray[np.bool_]
    images: tuple[Path, ...]

    def fit(self, without: Collection[Path] = ()) -> Rescorer | None:
        """A rescorer that has not seen the images ``without``; None with too few examples."""
        keep = np.array([path not in without for path in self.images], bool)
        return fit_rescorer(self.features[keep], self.hits[keep])


def stage_examples(finder: ArtworkDetector, ctx: StageContext) -> Examples | None:
    """A model's proposals in a stage's training images.

    Returns:
        None where the stage has no boxed images, or none without instruments.
    """
    material = collect(ctx, "train")
    boxed = own_first(material.boxed, MOST_IMAGES)
    guessed = own_first(pseudo_boxed(material, ctx), MOST_IMAGES)
    empty = own_first(material.negatives, MOST_IMAGES)
    if not (boxed or guessed) or not empty:
        return None
    open_ended = partly_boxed(ctx)
    partly = [*guessed, *(item for item in boxed if item.path in open_ended)]
    return rescoring_examples(finder, [*boxed, *guessed, *empty], partly, quiet=ctx.quiet)


def partly_boxed(ctx: StageContext) -> set[Path]:
    """Training images that hold more instruments than the stage has boxes of.

    They are named without a box, drawn as a crowd, or of classes that the stage does not know.
    """
    found: set[Path] = set()
    for source in (ctx.stage.manifest, *ctx.stage.rehearsal):
        manifest = Manifest.read(source)
        known = set(ctx.labels_of(manifest.categories))
        for record in manifest.select(split="train").images:
            boxed = {box.label for box in record.boxes} & known
            if any(box.iscrowd for box in record.boxes) or boxed != set(record.known_labels):
                found.add(manifest.path(record))
    return found


def rescoring_examples(finder: ArtworkDetector, items: Sequence[Item],
                       partly: Sequence[Item] = (), *, quiet: bool = False) -> Examples:
    """What a model proposes in images, and whether it is an instrument.

    Args:
        finder: The model.
        items: Images whose boxes are known; those without boxes hold no instrument.
        partly: Those of them that may hold more instruments than boxes: what lies elsewhere is
            not counted as a false alarm there.
        quiet: No progress on the terminal.
    """
    partial = {id(item) for item in partly}
    features, hits = [], []
    images: list[Path] = []
    for item in progress(iter(items), total=len(items), desc="rescoring", quiet=quiet):
        image, (width, height) = decode_reduced(item.path, finder.working_side)
        scale = np.tile([image.shape[1] / width, image.shape[0] / height], 2).astype(np.float32)
        boxes = _proposals(finder, image)
        overlap = box_tools.iou(boxes, item.boxes * scale).max(axis=1, initial=0.0)
        hit = overlap >= HIT_IOU
        keep = hit if id(item) in partial else hit | (overlap < MISS_IOU)
        if keep.any():
            features.append(finder.features(image, boxes[keep]))
            hits.append(hit[keep])
            images += [item.path] * int(keep.sum())
    if not features:
        return Examples(np.zeros((0, 0), np.float32), np.zeros(0, bool), ())
    return Examples(np.concatenate(features), np.concatenate(hits), tuple(images))


def _proposals(finder: ArtworkDetector, image: NDArray[np.uint8]) -> BoxArray:
    """The detector's best boxes (N, 4) in pixels of the image, one for each place."""
    found = finder.propose([image])[0]
    kept = nms(found.boxes, found.scores, SAME_IOU)[:MOST_BOXES]
    return box_tools.as_boxes(found.boxes[kept].numpy())
