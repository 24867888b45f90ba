"""Adaptation methods: how unlabelled paintings help to learn from labelled photos.

One file each, found by name, with ``Settings`` and ``build(settings, part, targets, network)``. A
method adds losses on pictures of the target domain to a task of the training loop; several may go
together.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from musicon.detect.config import AdaptationConfig, Config, fault

if TYPE_CHECKING:
    from musicon.detect.adaptation.base import Method
    from musicon.detect.training import StageContext, Task

log = logging.getLogger(__name__)

METHODS = ("adversarial", "teacher")
"""Method names; each is a module of this package."""


def settings(given: Any) -> AdaptationConfig:
    """A method's settings, from a mapping with its ``name``.

    Raises:
        ValueError: Unknown method or setting, or a value that cannot be used.
    """
    if isinstance(given, AdaptationConfig):
        return given
    name = given.get("name") if isinstance(given, Mapping) else given
    if not isinstance(given, Mapping) or name not in METHODS:
        wrong = "the method has no name" if name is None else \
            f"no adaptation method is named {name!r}"
        raise ValueError(f"{wrong}; write one of {', '.join(METHODS)} and all that it needs, such "
                         f"as {{name: {METHODS[0]}, targets: [data/google]}}")
    kind: type[AdaptationConfig] = _module(name).Settings
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{name}: {'; '.join(fault(f, kind) for f in error.errors())}; its "
                         f"settings are {', '.join(kind.model_fields)}") from None


def resolved(config: Config, names: Sequence[str]) -> Config:
    """The settings of stages without optional methods whose manifests are missing; each is told."""
    from musicon.detect.stage_checks import manifest_file, warn_once

    stages = dict(config.stages)
    for name in names:
        kept = []
        for method in stages[name].adaptation:
            missing = [path for _, path in method.manifests() if not manifest_file(path).is_file()]
            if method.optional and missing:
                warn_once(f"stage {name}: {missing[0]} is not there, so it learns without "
                          f"adaptation {method.name}")
            else:
                kept.append(method)
        stages[name] = stages[name].model_copy(update={"adaptation": tuple(kept)})
    return config.model_copy(update={"stages": stages})


def adapt(task: Task, ctx: StageContext) -> Task:
    """The task with the stage's adaptation methods at work; itself where there are none.

    Raises:
        UserError: No target picture, or settings that the method cannot work with.
    """
    from musicon.detect.adaptation.base import AdaptedTask, part_of
    from musicon.detect.adaptation.targets import Targets

    methods: Sequence[Method] = [
        _module(cfg.name).build(cfg, part_of(task, ctx), Targets(ctx, cfg), task.model)
        for cfg in ctx.stage.adaptation if task.name in cfg.models]
    return AdaptedTask(task, methods) if methods else task


def _module(name: str) -> Any:
    return importlib.import_module(f"musicon.detect.adaptation.{name}")
