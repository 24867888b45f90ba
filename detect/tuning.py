"""The last part of a stage: rule of fusion, threshold and rescorer, set on validation pictures."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from musicon.detect.config import Config
from musicon.detect.fusion_choice import (
    calibrate,
    candidates,
    choose,
    rescoring_helps,
    search,
    set_threshold,
    try_rules,
)
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.quiet import quiet_on_own_works
from musicon.detect.rescoring import Rescorer
from musicon.detect.rescoring_examples import stage_examples
from musicon.detect.training import StageContext
from musicon.detect.validation import validation_manifest

log = logging.getLogger(__name__)


def tune(classifier: Any, detector: Any, config: Config,
         ctx: StageContext) -> tuple[Config, dict[str, Any], Rescorer | None]:
    """The settings with the best rule and threshold on validation, figures there, rescorer.

    Where the detector has not learnt yet, or no validation image is boxed and none can be
    composed, the settings stay.

    Args:
        classifier: The stage's, trained.
        detector: The stage's, trained.
        config: The settings that they were built with.
        ctx: The stage.
    """
    written = config.fusion.model_copy(update={"slope": 1.0, "shift": 0.0})
    if not _has_learnt(ctx):
        return _untuned(config, ctx, "the detector has not learnt anything")
    validation = validation_manifest(ctx)
    if not any(record.boxes for record in validation.images):
        return _untuned(config, ctx, "no boxed validation image")
    finder = ArtworkDetector(classifier, detector, config.model_copy(update={"fusion": written}),
                             ctx.categories, ctx.device)
    wanted = written.rescore and written.rule != "detector"
    examples = stage_examples(finder, ctx) if wanted else None
    rescorer = finder.rescorer = examples.fit() if examples is not None else None
    if examples is not None:
        log.info("%s: %d of the detector's boxes on instruments, %d false alarms",
                 "rescoring learnt from" if rescorer is not None else "too few to rescore by",
                 examples.hits.sum(), (~examples.hits).sum())
    opinions = search(finder, validation, quiet=ctx.quiet)
    if rescorer is not None and not rescoring_helps(finder, opinions, validation):
        log.info(f"stage {ctx.name}: no rescoring, which does not help on validation")
        examples = rescorer = finder.rescorer = None
        opinions = {i: replace(said, rescored=None) for i, said in opinions.items()}
    auto = written.rule == "auto"
    tried = try_rules(finder, opinions, validation, candidates(written) if auto else [written])
    best = choose(tried)
    figures: dict[str, Any] = {}
    if auto:
        figures["fusion"] = [one.row() for one in tried]
        log.info(f"stage {ctx.name}: {best.fusion.describe()}")
    fusion = calibrate(best.fusion, best.found, validation, ctx.categories)
    fusion, scores = set_threshold(fusion, best.found, validation, ctx.categories,
                                   quiet_on_own_works(finder, fusion, examples, ctx))
    log.info(f"stage {ctx.name}: threshold {fusion.threshold:.3f}, class-agnostic AP50 "
             f"{scores.agnostic_ap50 or 0:.3f} on {len(validation)} validation images")
    return (config.model_copy(update={"fusion": fusion}),
            {"validation": scores.to_json(), **figures}, rescorer)


def _has_learnt(ctx: StageContext) -> bool:
    """Whether the detector learns in this stage or in one of those that it goes back to."""
    name: str | None = ctx.name
    while name is not None:
        stage = ctx.config.stages[name]
        if stage.detector.steps:
            return True
        name = stage.parent
    return False


def _untuned(config: Config, ctx: StageContext,
             reason: str) -> tuple[Config, dict[str, Any], None]:
    """The settings as they are written, no figures, no rescorer."""
    fusion = candidates(config.fusion)[0]
    log.info(f"stage {ctx.name}: {reason}, so the threshold stays {fusion.threshold}")
    return config.model_copy(update={"fusion": fusion}), {"validation": None}, None
