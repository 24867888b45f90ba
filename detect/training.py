"""The one visible training loop, and what a task must offer to be trained by it.

Everything that happens at a step is a pure function of the weights, the seed and the step:
the examples (one generator a position), the learning rate, and torch's own chance (seeded at
each step). Resuming therefore needs the state after some step and nothing else, and on the CPU
it ends with the same bytes as a run that was never stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.records import Category, UserError
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.config import Config, FitConfig, StageConfig
from musicon.detect.heads import same_classes
from musicon.detect.logs import RunFolder, TrainingLog, write_grid
from musicon.detect.resume import FitResult, Keeper, Progress
from musicon.detect.sampling import loader, mix
from musicon.detect.stopping import TrainingInterrupted, agreed, interruption

PREVIEWS = 16
NAMED_IMAGES = 6
"""Images that an error about a batch names; the rest are counted."""


class TrainingError(UserError):
    """Training cannot go on; the message says at which step, with which images, and what to do."""


class Task(Protocol):
    """What is learnt: examples, losses and a score. The loop knows nothing else of it.

    ``draw``, ``example`` and ``preview`` take all their chance from the generator they are
    given, so that an example is a pure function of (seed, position in the run); a run that
    was killed then goes on with exactly the examples that it would have seen.

    """

    @property
    def name(self) -> str:
        """``classifier`` or ``detector``; names the files that the run leaves."""
        ...

    @property
    def model(self) -> nn.Module:
        """The module that is trained, in place."""
        ...

    def __len__(self) -> int:
        """Number of training items."""
        ...

    def start(self) -> None:
        """Prepare the model before the first step; not called when a run goes on."""
        ...

    def draw(self, rng: np.random.Generator) -> int:
        """The next item to learn from, 0 <= index < len(self); classes are balanced here."""
        ...

    def example(self, index: int, rng: np.random.Generator) -> Any:
        """One augmented example of an item. Runs in loader processes: no model, no device."""
        ...

    def collate(self, examples: Sequence[Any]) -> Any:
        """Examples -> one batch: tensors in any nesting of lists, tuples and dicts."""
        ...

    def describe(self, index: int) -> str:
        """The item's image file, for messages about a batch."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses of a batch on the model's device; their sum is minimised."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Validation figures of a model in eval mode; ``score`` (higher is better) decides."""
        ...

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """Groups for the optimiser: ``params`` and, where they differ, ``lr``, ``weight_decay``."""
        ...

    def preview(self, rng: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
        """``count`` augmented examples as the network sees them, uint8 RGB (H, W, 3)."""
        ...


@runtime_checkable
class Attentive(Protocol):
    """A task that is told how far the run is."""

    def before_step(self, share: float, average: nn.Module) -> None:
        """A step begins.

        Args:
            share: Of the run, this step included, in 0..1.
            average: The moving average of the model so far; the model itself where none is kept.
        """
        ...


@dataclass(frozen=True)
class StageContext:
    """What a task's constructor is given about the stage that it belongs to.

    Attributes:
        name: Stage, such as ``google``.
        config: All settings, resolved.
        categories: Classes of this stage in label order: label k is ``categories[k - 1]``.
        cache: Folder for what is computed once a stage (pseudo-boxes, false alarms, scenes).
        device: Where models run.
        quiet: No progress bars.
        parent: The model that the stage starts from; None where it is the first.
    """

    name: str
    config: Config
    categories: tuple[Category, ...]
    cache: Path
    device: torch.device
    quiet: bool = False
    parent: LoadedModel | None = None

    @property
    def stage(self) -> StageConfig:
        """This stage's own settings."""
        return self.config.stages[self.name]

    def labels_of(self, categories: Sequence[Category]) -> dict[int, int]:
        """Id of each of a manifest's categories -> label (from 1); without those not known here.

        A class is known by its name, or by another name of the same instrument.
        """
        label_of = {category.name: i for i, category in enumerate(self.categories, start=1)}
        same = same_classes(list(label_of), [category.name for category in categories])
        return {category.id: label_of[same[category.name]] for category in categories
                if category.name in same}


def fit(task: Task, cfg: FitConfig, run: RunFolder, fabric: Fabric, *, seed: int,
        fingerprint: Mapping[str, Any] | None = None, num_workers: int = 0,
        quiet: bool = False) -> FitResult:
    """Train ``task.model`` in place and leave the best weights in it.

    Goes on from the run's checkpoint where there is one; a finished run is not repeated.

    Args:
        task: What is learnt.
        cfg: For how long and how; at least one step.
        run: Where checkpoints and logs go.
        fabric: Device, precision and processes, launched.
        seed: Decides order, augmentation and dropout.
        fingerprint: Plain values that must agree with the checkpoint's for it to be used.
        num_workers: Loader processes; 0 loads in this one.
        quiet: Nothing on the terminal.

    Raises:
        TrainingError: A loss, gradient or score that is not finite.
        CheckpointError: A checkpoint that is damaged or of other settings.
        TrainingInterrupted: After Ctrl-C, when the state is saved.
    """
    keeper = Keeper(task.name, run, fabric, fingerprint or {})
    progress = keeper.progress()
    if progress.finished:
        return keeper.result(task.model, progress)
    optimizer = torch.optim.AdamW(task.parameter_groups(cfg), lr=cfg.learning_rate,
                                  weight_decay=cfg.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    objective, optimizer = fabric.setup(Objective(task), optimizer)
    if progress.step == 0:
        task.start()
        make_alike(task.model, fabric)
    average = Average(task.model, cfg.ema_decay) if cfg.ema_decay else None
    judged = average.model if average else task.model
    keeper.restore(progress, task.model, optimizer, average)
    batches = iter(loader(task, cfg, seed, progress.step, fabric, num_workers))
    objective.train()
    with interruption() as stop, run_log(task, cfg, run, fabric, progress, seed, quiet) as log:
        while not progress.finished:
            started, step = time.monotonic(), progress.step + 1
            torch.manual_seed(mix(seed, step, fabric.global_rank))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_at(step, cfg)
            if isinstance(task, Attentive):
                task.before_step(step / cfg.steps, judged)
            losses, items = backward(objective, batches, cfg, fabric, step)
            norm = fabric.clip_gradients(objective, optimizer, max_norm=cfg.clip_norm,
                                         error_if_nonfinite=False)
            check_gradient(norm, cfg, fabric, task, items, step)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                average.update(task.model, step)
            progress.step, progress.finished = step, step == cfg.steps
            metrics = None
            if step % cfg.evaluate_every == 0 or progress.finished:
                metrics = evaluate(task, judged, fabric, step)
                keeper.judge(progress, metrics, judged, cfg.patience)
                objective.train()
            progress.seconds += time.monotonic() - started
            log.add(step, losses, cfg.learning_rate * rate_at(step, cfg), progress.seconds, metrics)
            stopping = agreed(stop, fabric)
            if progress.finished:
                keeper.finish(progress)
            elif stopping or step % cfg.checkpoint_every == 0:
                keeper.save(progress, task.model, optimizer, average)
            if stopping:
                log.say(f"{task.name}: stopped after step {step} of {cfg.steps}; the state is "
                        "saved, the same command goes on from here")
                raise TrainingInterrupted
    if agreed(stop, fabric):
        # Asked to stop while the last step's curves were drawn; the run itself is finished.
        raise TrainingInterrupted
    return keeper.result(task.model, progress)


def backward(objective: Any, batches: Iterator[Any], cfg: FitConfig, fabric: Fabric,
             step: int) -> tuple[dict[str, float], list[int]]:
    """Gradients of one step's batches; returns their mean losses and the items they held.

    Raises:
        TrainingError: A loss that is not finite; nothing was learnt from the step.
    """
    losses: dict[str, float] = {}
    items: list[int] = []
    for part in range(cfg.accumulate):
        indices, batch = next(batches)
        items += indices
        # Only the last of the accumulated batches needs to agree with the other processes.
        with fabric.no_backward_sync(objective, enabled=part < cfg.accumulate - 1):
            terms = objective(fabric.to_device(batch))
            total = torch.stack([term.float() for term in terms.values()]).sum()
            if not torch.isfinite(total):
                bad = ", ".join(f"{k} {float(v.detach()):g}" for k, v in terms.items()
                                if not torch.isfinite(v))
                raise blame(objective.task, indices, step, f"the loss is not finite ({bad})")
            fabric.backward(total / cfg.accumulate)
        for name, term in terms.items():
            losses[name] = losses.get(name, 0.0) + float(term.detach()) / cfg.accumulate
    return losses, items


class Objective(nn.Module):
    """A task's losses as a module's forward pass, which is what DDP and precision wrap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.task = task

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """A batch -> named scalar losses."""
        return self.task.losses(self.model, batch)


class Average:
    """Exponential moving average of a model's weights and batch statistics.

    The decay starts low and rises to ``decay``, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        for mean, value in pairs:
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def make_alike(model: nn.Module, fabric: Fabric) -> None:
    """Give every process the first one's weights."""
    if fabric.world_size > 1:
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(fabric.broadcast(value))


def evaluate(task: Task, model: nn.Module, fabric: Fabric, step: int) -> dict[str, float]:
    """Validation figures, the same on every process; the first one computes them.

    Raises:
        TrainingError: A score that is not finite.
    """
    metrics: dict[str, float] = {}
    if fabric.is_global_zero:
        model.eval()
        with torch.no_grad():
            metrics = {name: float(value) for name, value in task.evaluate(model).items()}
    metrics = fabric.broadcast(metrics)
    if not math.isfinite(metrics["score"]):
        raise TrainingError(f"step {step}: the {task.name}'s validation score is "
                            f"{metrics['score']}; look at the validation images of this stage")
    return metrics


def rate_at(step: int, cfg: FitConfig) -> float:
    """Share of the learning rate at a step (from 1): linear warm-up, then half a cosine.

    The warm-up takes a quarter of the run at the most.
    """
    warmup = min(cfg.warmup_steps, cfg.steps // 4)
    if step <= warmup:
        return step / warmup
    done = (step - warmup - 1) / max(1, cfg.steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, cfg: FitConfig,
                     pretrained: Callable[[str], bool]) -> list[dict[str, Any]]:
    """The learning parameters in groups of equal rate and decay.

    Biases and normalisation layers are not decayed; parameters whose name ``pretrained`` says
    yes to learn at ``backbone_scale`` of the rate.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((pretrained(name), parameter.ndim > 1), []).append(parameter)
    return [{"params": parameters,
             "lr": cfg.learning_rate * (cfg.backbone_scale if old else 1.0),
             "weight_decay": cfg.weight_decay if decays else 0.0}
            for (old, decays), parameters in groups.items()]


def blame(task: Task, items: Sequence[int], step: int, what: str) -> TrainingError:
    """The error for a step that went wrong, with the images that it learnt from."""
    files = list(dict.fromkeys(task.describe(index) for index in items))
    more = f" and {len(files) - NAMED_IMAGES} more" if len(files) > NAMED_IMAGES else ""
    return TrainingError(f"step {step} of the {task.name}: {what}; the batch's images: "
                         f"{', '.join(files[:NAMED_IMAGES])}{more}. Look at them, or train with a "
                         "lower learning_rate or clip_norm")


def check_gradient(norm: Tensor | None, cfg: FitConfig, fabric: Fabric, task: Task,
                   items: Sequence[int], step: int) -> None:
    """Stop at a gradient that is not finite; half precision's scaler deals with its own."""
    scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
    if norm is not None and not scaled and not torch.isfinite(norm):
        raise blame(task, items, step, f"the gradient is not finite ({float(norm):g})")


@contextmanager
def run_log(task: Task, cfg: FitConfig, run: RunFolder, fabric: Fabric, progress: Progress,
            seed: int, quiet: bool) -> Iterator[TrainingLog]:
    """The run's log, with the example pictures at its start and the curves at its end."""
    first = fabric.is_global_zero
    if progress.step == 0 and first:
        pictures = task.preview(np.random.default_rng(seed), PREVIEWS)
        write_grid(pictures, run.logs / f"{task.name}-examples.png")
    log = TrainingLog(run.logs, task.name, steps=cfg.steps, resumed=progress.step, writes=first,
                      quiet=quiet)
    if progress.step:
        log.say(f"{task.name}: going on after step {progress.step} of {cfg.steps}")
    try:
        yield log
    finally:
        log.draw()
        log.close()
