"""Pseudo-boxes: where the known instrument of a labelled image probably is.

The parent stage's detector proposes, its classifier weighs each proposal by the image's own label
(a box of anything else is of no use), and the best are taken as if a person had drawn them. A
label that the parent doesn't know is weighed by "any instrument".
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets import boxes as box_tools
from musicon.datasets.command import progress
from musicon.datasets.loading import ImageStore, resize_longer
from musicon.datasets.records import write_atomic
from musicon.detect.alignment import taxonomy_name
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.classifier import NEGATIVE
from musicon.detect.config import PseudoBoxConfig
from musicon.detect.material import Item, Material, with_boxes
from musicon.detect.training import StageContext

log = logging.getLogger(__name__)

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
    file = ctx.cache / "pseudo_boxes.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
    else:
        kept = {}
        for item in progress(wanted, total=len(wanted), desc="pseudo-boxes", quiet=ctx.quiet):
            name = ctx.categories[item.labels[0] - 1].name
            kept[str(item.path)] = propose(item.path, name, teacher, settings,
                                            material.store).tolist()
        write_atomic(file, json.dumps(kept))
    boxed = [with_boxes(item, box_tools.as_boxes(kept[str(item.path)]), item.labels[0])
             for item in wanted if kept.get(str(item.path))]
    log.info("%s: pseudo-boxes in %d of %d labelled images", ctx.name, len(boxed), len(wanted))
    return boxed


@torch.inference_mode()
def propose(path: Path, name: str, teacher: LoadedModel, settings: PseudoBoxConfig,
            store: ImageStore) -> NDArray[np.float32]:
    """Boxes (N, 4), in pixels of the original, of the instrument called ``name``; N may be 0."""
    image, scale = store.get(path)
    resized = resize_longer(image, teacher.config.detector.image_size)
    factor = resized.shape[1] / image.shape[1]
    device = next(teacher.detector.parameters()).device
    tensor = torch.from_numpy(resized).permute(2, 0, 1).to(device).float() / 255
    found = teacher.detector.detect([tensor])[0]
    boxes = found["boxes"].float().cpu().numpy() / factor
    probabilities = teacher.classifier.classify(image, boxes)
    seen = found["scores"].float().cpu().numpy()
    scores = np.sqrt(seen * relevance(probabilities, name, teacher))
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        apart = not chosen or box_tools.iou(boxes[i], boxes[chosen]).max() <= SAME_OBJECT_IOU
        if scores[i] >= settings.min_score and apart and len(chosen) < settings.max_per_image:
            chosen.append(int(i))
    return box_tools.as_boxes(boxes[chosen] / scale)


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
