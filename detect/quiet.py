"""The threshold that leaves a stage's own instrument-free artworks in peace.

Few of them are in the validation split, and the paintings that stand beside them there are often
easier. So those of the training split speak too: each is searched with a rescorer that has not
seen it, nor a picture of its leakage group (cross-fitting). The detector has, but a single picture
moves it little.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from musicon.datasets.command import progress
from musicon.datasets.images import decode_reduced
from musicon.datasets.records import ImageRecord, Manifest
from musicon.detect.config import FusionConfig
from musicon.detect.detections import rescale
from musicon.detect.evaluation import evaluate
from musicon.detect.matching import quiet_threshold
from musicon.detect.material import PHOTO_DOMAIN
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.rescoring_examples import Examples
from musicon.detect.sampling import spread
from musicon.detect.training import StageContext

log = logging.getLogger(__name__)

FOLDS = 5
MOST_WORKS = 120
LEAST_WORKS = 30
"""With fewer ``quiet_threshold`` can be sure of nothing."""


def quiet_on_own_works(finder: ArtworkDetector, fusion: FusionConfig, examples: Examples | None,
                       ctx: StageContext) -> float:
    """``quiet_threshold`` of the instrument-free artworks that a stage learns from.

    Photos don't count: what the model is to leave in peace are artworks. Where too few examples
    are left for a rescorer that hasn't seen some of them, nothing is asked for.

    Args:
        finder: The model; its rescorer is what it was afterwards.
        fusion: The rule, calibrated.
        examples: What the rescorer learnt from; None without one.
        ctx: The stage.

    Raises:
        ImageError: A picture that cannot be read.
    """
    manifest = Manifest.read(ctx.stage.manifest)
    works = spread([record for record in manifest.select(split="train").images
                    if record.is_negative and record.domain != PHOTO_DOMAIN], MOST_WORKS)
    if len(works) < LEAST_WORKS:
        return 0.0
    fold_of = _folds(works)
    unseen: list[set[Path]] = [set() for _ in range(FOLDS)]
    for record in manifest.select(split="train").images:
        if (fold := fold_of.get(_group(record))) is not None:
            unseen[fold].add(manifest.path(record))
    rescorers = [None if examples is None else examples.fit(paths) for paths in unseen]
    if examples is not None and None in rescorers:
        log.info("%s: too few boxes to judge its own works without an instrument by a rescorer "
                 "that has not seen them", ctx.name)
        return 0.0
    usual, found = finder.rescorer, {}
    for work in progress(iter(works), total=len(works), desc="empty works", quiet=ctx.quiet):
        image, _ = decode_reduced(manifest.path(work), finder.working_side)
        finder.rescorer = rescorers[fold_of[_group(work)]]
        opinions, = finder.opinions([image])
        found[work.id] = rescale(finder.decide(opinions, 0.0, fusion), (work.width, work.height))
    finder.rescorer = usual
    least = quiet_threshold(evaluate(replace(manifest, images=tuple(works)), found,
                                     model_categories=finder.categories).matched)
    log.info("%s: %d of its own works without an instrument ask for a threshold of %.3f at least",
             ctx.name, len(works), least)
    return least


def _folds(works: Sequence[ImageRecord]) -> dict[str, int]:
    """Leakage group -> its fold, in turn; all pictures of a group are in one."""
    groups = dict.fromkeys(_group(work) for work in works)
    return {group: i % FOLDS for i, group in enumerate(groups)}


def _group(record: ImageRecord) -> str:
    """The leakage group; a picture without one is alone in its own."""
    return record.group or f"image {record.id}"
