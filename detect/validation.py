"""The pictures on which a stage's threshold is set and its model is judged during training.

Boxed validation images where there are any; where they are few or missing, as in stages that
know class labels alone, scenes composed of validation photos and validation paintings stand in.
Instrument-free validation images are there in any case: a threshold must know false alarms.
"""

from __future__ import annotations

import os
from dataclasses import replace

import cv2
import numpy as np

from musicon.datasets.images import probe
from musicon.datasets.records import Box, ImageRecord, Manifest, write_atomic
from musicon.detect.material import collect, own_first
from musicon.detect.training import StageContext

ENOUGH_BOXED = 40
"""Boxed validation images; composed scenes stand in for those that are missing."""
MAX_NEGATIVES = 60
SCENE_SIDE = 512


def validation_manifest(ctx: StageContext) -> Manifest:
    """A stage's validation images as one manifest; composed scenes are kept in its cache.

    Labels are the stage's: category k is ``ctx.categories[k - 1]``, renumbered from 1. Where a find
    counts neither way, there is a crowd of each.
    """
    folder = ctx.cache / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    material = collect(ctx, "val")
    records: list[ImageRecord] = []
    for item in (*material.boxed, *own_first(material.negatives, MAX_NEGATIVES)):
        info = probe(item.path)
        boxes = tuple(Box(tuple(box.tolist()), int(label))
                      for box, label in zip(item.boxes, item.box_labels, strict=True))
        crowds = tuple(Box(tuple(box.tolist()), label, iscrowd=True) for box in item.unasked
                       for label in range(1, len(ctx.categories) + 1))
        name = os.path.relpath(item.path, folder).replace(os.sep, "/")
        records.append(ImageRecord(len(records) + 1, name, info.width, info.height,
                                   (*boxes, *crowds), split="val"))
    if ctx.stage.composites is not None and material.photos:
        rng = np.random.default_rng(0)
        for i in range(ENOUGH_BOXED - len(material.boxed)):
            scene = material.scene(rng, SCENE_SIDE, ctx.stage.composites)
            _, data = cv2.imencode(".png", scene.image[..., ::-1])
            write_atomic(folder / f"scene-{i:03d}.png", data.tobytes())
            height, width = scene.image.shape[:2]
            boxes = tuple(Box(tuple(box.tolist()), int(label), origin="composite")
                          for box, label in zip(scene.boxes, scene.labels, strict=True))
            records.append(ImageRecord(len(records) + 1, f"scene-{i:03d}.png", width, height,
                                       boxes, split="val"))
    categories = tuple(replace(c, id=k) for k, c in enumerate(ctx.categories, start=1))
    return Manifest(folder, categories, tuple(records))
