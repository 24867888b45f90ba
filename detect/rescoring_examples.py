"""What a rescorer learns from: the detector's proposals in real pictures where the truth is known.

Composed scenes are left out on purpose: on artworks that no stage had seen, a rescorer that knew
pasted cut-outs as instruments was no better than none (docs/benchmarks.md, "Rescoring").
"""

from __future__ import annotations

from collections.abc import Sequence
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


def learn_rescorer(finder: ArtworkDetector, ctx: StageContext) -> Rescorer | None:
    """Fit a rescorer to a model's proposals in a stage's training images.

    Returns:
        None where the stage has too few boxed images, or images without instruments.
    """
    material = collect(ctx, "train")
    boxed = own_first(material.boxed, MOST_IMAGES)
    guessed = own_first(pseudo_boxed(material, ctx), MOST_IMAGES)
    empty = own_first(material.negatives, MOST_IMAGES)
    if not (boxed or guessed) or not empty:
        return None
    open_ended = partly_boxed(ctx)
    partly = [*guessed, *(item for item in boxed if item.path in open_ended)]
    features, hits = rescoring_examples(finder, [*boxed, *guessed, *empty], partly,
                                        quiet=ctx.quiet)
    return fit_rescorer(features, hits)


def partly_boxed(ctx: StageContext) -> set[Path]:
    """Training images that hold more instruments than the stage has boxes of.

    They are named without a box, drawn as a crowd, or of classes that the stage does not know.
    """
    found: set[Path] = set()
    for source in (ctx.stage.manifest, *ctx.stage.rehearsal):
        manifest = Manifest.read(source)
        known = {c.id for c in manifest.categories if c.name in ctx.label_of}
        for record in manifest.select(split="train").images:
            boxed = {box.label for box in record.boxes} & known
            if any(box.iscrowd for box in record.boxes) or boxed != set(record.known_labels):
                found.add(manifest.path(record))
    return found


def rescoring_examples(finder: ArtworkDetector, items: Sequence[Item],
                       partly: Sequence[Item] = (), *, quiet: bool = False
                       ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features (N, 2F) of a model's proposals, and whether each is an instrument, (N,).

    Args:
        finder: The model.
        items: Images whose boxes are known; those without boxes hold no instrument.
        partly: Those of them that may hold more instruments than boxes: what lies elsewhere is
            not counted as a false alarm there.
        quiet: No progress on the terminal.
    """
    partial = {id(item) for item in partly}
    features, hits = [], []
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
    if not features:
        return np.zeros((0, 0), np.float32), np.zeros(0, bool)
    return np.concatenate(features), np.concatenate(hits)


def _proposals(finder: ArtworkDetector, image: NDArray[np.uint8]) -> BoxArray:
    """The detector's best boxes (N, 4) in pixels of the image, one for each place."""
    found = finder.propose([image])[0]
    kept = nms(found.boxes, found.scores, SAME_IOU)[:MOST_BOXES]
    return box_tools.as_boxes(found.boxes[kept].numpy())
