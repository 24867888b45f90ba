"""Which stage follows which: photos, then paintings from the web, then boxed artworks.

A stage trains the classifier, then the detector, then sets the threshold on its validation
split and writes a model folder. What it starts from, in this order: its own unfinished
checkpoint, its parent's model, pretrained weights. A stage that is done with the same settings
and data is not repeated.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor

from musicon.datasets.command import SummaryTable
from musicon.datasets.files import sha256
from musicon.datasets.records import Category, Manifest
from musicon.detect import adaptation, detectors
from musicon.detect import classifier as classifiers
from musicon.detect.checkpoints import LoadedModel, load_model, save_model, versions
from musicon.detect.config import Config, DetectorConfig, FitConfig
from musicon.detect.crops import ClassifierTask
from musicon.detect.detectors.anchors import fit_anchors
from musicon.detect.detectors.task import DetectorTask, sample_boxes
from musicon.detect.devices import make_fabric
from musicon.detect.heads import carry_over, same_classes
from musicon.detect.logs import RunFolder
from musicon.detect.model_files import WEIGHTS
from musicon.detect.sampling import mix
from musicon.detect.stage_checks import (
    StageError,
    alone,
    check_data,
    check_parent,
    data_of,
    fingerprint,
    finished,
    fit_fingerprint,
    forget,
    untrained_differences,
)
from musicon.detect.storage import digest, state_hash
from musicon.detect.training import FitResult, StageContext, Task, fit
from musicon.detect.training import evaluate as validate
from musicon.detect.tuning import tune

log = logging.getLogger(__name__)

TaskT = TypeVar("TaskT")


@dataclass(frozen=True)
class StageResult:
    """What one stage came to.

    Attributes:
        name: The stage.
        folder: Its model folder.
        repeated: False when it was done before and nothing changed.
        metrics: What its ``metrics.json`` holds.
        seconds: Time spent on it: training, over all resumptions, and what goes with it.
    """

    name: str
    folder: Path
    repeated: bool
    metrics: Mapping[str, Any]
    seconds: float


def train(config: Config, names: Sequence[str], *, fresh: bool = False, quiet: bool = False,
          command: Callable[[str], str] | None = None) -> list[StageResult]:
    """Train stages in order.

    Args:
        config: All settings.
        names: Stages, each after its parent if that is among them.
        fresh: Forget what these stages have done so far.
        quiet: No progress on the terminal.
        command: Stage -> the command line that trains it, for advice in errors.

    Raises:
        StageError: Missing data or parent, or nothing to learn from.
        TrainingInterrupted: After Ctrl-C, when the state is saved.
    """
    advise = command or (lambda name: f"python tools/train_net.py --stage {name}")
    config = config.model_copy(update={"detector": detectors.resolved(config.detector)})
    config = adaptation.resolved(config, names)
    for name in names:
        check_data(config, name)
        parent = config.stages[name].parent
        if parent is not None and parent not in names[:list(names).index(name)]:
            check_parent(config, name, advise)
    fabric = make_fabric(config)
    results = []
    for name in names:
        run = RunFolder(config.output / name)
        with alone(run, fabric):
            if fabric.is_global_zero and fresh:
                forget(run)
            fabric.barrier()
            results.append(Stage(config, name, run, fabric, quiet, advise).train())
    return results


@dataclass(frozen=True)
class Carryover:
    """A part of the parent's model in the stage's classes, and its figures on validation."""

    weights: Mapping[str, Tensor]
    metrics: dict[str, float]


class Stage:
    """One stage of one run; ``train`` does it."""

    def __init__(self, config: Config, name: str, run: RunFolder, fabric: Fabric, quiet: bool,
                 command: Callable[[str], str]) -> None:
        self.config, self.name, self.run, self.fabric = config, name, run, fabric
        self.quiet, self.command = quiet, command
        self.settings = config.stages[name]
        self.gates: dict[str, dict[str, Any]] = {}
        self.looped = 0.0
        self.parent: LoadedModel | None = None
        self.parent_hash: str | None = None
        if self.settings.parent is not None:
            check_parent(config, name, command)
            folder = config.output / self.settings.parent / "model"
            self.parent = load_model(folder, fabric.device)
            self.parent_hash = sha256(folder / WEIGHTS)
        manifest = Manifest.read(self.settings.manifest)
        self.categories = stage_categories(shown_classes(manifest), self._kept_classes())
        self.source = manifest.info.get("source")
        if self.parent is not None and self.parent.lineage.get("source") != self.source:
            self.source = None  # the model has learnt from more than one
        self.fingerprint = fingerprint(config, name, fabric.world_size, self.parent_hash)
        cache = run.cache / digest({**self.fingerprint, "fits": None, "fusion": None})[:12]
        self.context = StageContext(name, config, self.categories, cache, fabric.device, quiet,
                                    self.parent)

    def _kept_classes(self) -> list[Sequence[Category]]:
        """Classes to know beside the manifest's own: the parent's and each rehearsed manifest's."""
        if not self.settings.keep_classes:
            return []
        rehearsed = [shown_classes(Manifest.read(path), quiet=True)
                     for path in self.settings.rehearsal]
        return [self.parent.categories if self.parent else (), *rehearsed]

    def train(self) -> StageResult:
        """Train what is not trained yet, and write the model folder."""
        done = finished(self.run.model, self.fingerprint)
        changed = [] if done is None else untrained_differences(self.run.model, self.config.fusion)
        if changed:
            self.say(f"stage {self.name}: {'; '.join(changed)}: the model folder is written anew")
        elif done is not None:
            self.say(f"stage {self.name}: done before with the same settings and data, kept "
                     f"({self.run.model})")
            return StageResult(self.name, self.run.model, False, done, done["seconds"])
        start = (f"stage {self.parent.stage}'s model in {self.parent.folder}" if self.parent
                 else f"{self.config.classifier.backbone} ({self.config.classifier.weights})")
        self.say(f"stage {self.name}: {len(self.categories)} classes, starts from {start}")
        started = time.monotonic()
        classifier, detector, fits = self.learn()
        metrics = self.finish(classifier, detector, fits, started)
        return StageResult(self.name, self.run.model, True, metrics, metrics["seconds"])

    def learn(self) -> tuple[Any, Any, dict[str, FitResult]]:
        """Both models, trained; a part with 0 steps keeps what the parent knew."""
        fits: dict[str, FitResult] = {}
        classifier = self.build_classifier()
        if self.settings.classifier.steps:
            crops = self.task(ClassifierTask, classifier)
            self.check_examples(crops)
            fits[crops.name] = self.fit(
                adaptation.adapt(crops, self.context), self.settings.classifier,
                fit_fingerprint(self.fingerprint, crops.name))
            classifier.eval()
            self.say(f"stage {self.name}: classifier's temperature {crops.calibrate():.2f}")
            del crops  # and the pictures that it holds
        classifier.eval()
        detector = self.build_detector(classifier)
        if self.settings.detector.steps:
            boxes = self.task(DetectorTask, detector)
            self.check_examples(boxes)
            task = adaptation.adapt(boxes, self.context)
            fits[task.name] = self.fit(task, self.settings.detector, {
                **fit_fingerprint(self.fingerprint, task.name),
                "classifier": state_hash(without_temperature(classifier))})
        detector.eval()
        return classifier, detector, fits

    def task(self, kind: Callable[[Any, StageContext], TaskT], model: Any) -> TaskT:
        """A part's task: the first process sees through the parent's eyes, the others read that."""
        with self.fabric.rank_zero_first():
            return kind(model, self.context)

    def check_examples(self, task: ClassifierTask | DetectorTask) -> None:
        """Refuse to teach a part that there is nothing anywhere.

        Raises:
            StageError: No example would show an instrument.
        """
        if task.missing is not None:
            instead = "keeps the parent's" if self.parent else "trains none"
            raise StageError(f"stage {self.name}: its {task.name} has nothing to learn from: "
                             f"{task.missing}; add such data, or write stages.{self.name}."
                             f"{task.name}.steps=0, which {instead}")

    def fit(self, task: Task, cfg: FitConfig, fingerprint: Mapping[str, Any]) -> FitResult:
        """Run the training loop on one part of the stage; see ``gate`` for what it leaves."""
        before = None
        if self.parent is not None:
            task.model.to(self.fabric.device)
            weights = {k: v.clone() for k, v in task.model.state_dict().items()}
            before = Carryover(weights, validate(task, task.model, self.fabric, step=0))
        started = time.monotonic()
        result = fit(task, cfg, self.run, self.fabric, seed=self.seed(task.name),
                     fingerprint=fingerprint, num_workers=self.config.num_workers,
                     quiet=self.quiet)
        self.looped += time.monotonic() - started
        self.say(f"stage {self.name}: {task.name} best at step {result.best_step} of "
                 f"{result.steps}, score {result.score:.3f}"
                 + ("" if result.score else ": nothing is found on validation, so that the last "
                    "step counts as the best"))
        return result if before is None else self.gate(task, result, before)

    def gate(self, task: Task, result: FitResult, before: Carryover) -> FitResult:
        """Put the parent's weights back where training made the model worse on validation.

        Both are judged by the task's own score on the same pictures; a tie goes to training.
        """
        worse = result.score < before.metrics["score"]
        self.gates[task.name] = {"parent": before.metrics["score"], "trained": result.score,
                                 "kept": "parent" if worse else "trained"}
        if not worse:
            if result.score == before.metrics["score"] == 0:
                self.say(f"stage {self.name}: {task.name}: validation cannot tell it from the "
                         "parent's: neither finds anything there")
            return result
        task.model.load_state_dict(before.weights)
        self.say(f"stage {self.name}: {task.name}: training came to {result.score:.3f} on "
                 f"validation, the parent has {before.metrics['score']:.3f}: the parent's weights "
                 "are kept")
        return replace(result, best_step=0, metrics=before.metrics)

    def build_classifier(self) -> Any:
        """A classifier with the parent's weights, or with pretrained ones."""
        torch.manual_seed(self.seed("classifier"))
        cfg = self.config.classifier
        if self.parent is None:
            return classifiers.build(cfg, len(self.categories))
        model = classifiers.build(cfg.model_copy(update={"weights": "none"}), len(self.categories))
        self.carry(self.parent.classifier, model, "classifier")
        return model

    def build_detector(self, classifier: Any) -> Any:
        """A detector with the parent's weights, or on the classifier's backbone."""
        self.config = self.config.model_copy(update={"detector": self.detector_config()})
        torch.manual_seed(self.seed("detector"))
        cfg = self.config.detector
        if self.parent is None:
            return detectors.build(cfg, len(self.categories), classifier)
        model = detectors.build(cfg.model_copy(update={"weights": "none"}), len(self.categories),
                                classifier)
        self.carry(self.parent.detector, model, "detector")
        return model

    def detector_config(self) -> DetectorConfig:
        """The detector's settings with anchors in numbers: the parent's, or fitted to the data."""
        cfg = self.config.detector
        if cfg.anchor_sizes != "auto" or "anchor_sizes" in detectors.unused(cfg):
            return cfg
        if self.parent is not None:
            known = self.parent.config.detector
            sizes, ratios = known.anchor_sizes, known.aspect_ratios
        else:
            boxes = sample_boxes(self.context)
            if not len(boxes):
                raise StageError(f"stage {self.name}: no box to fit anchors to; write "
                                 "detector.anchor_sizes as numbers, such as [24, 64, 128, 256]")
            sizes, ratios = fit_anchors(boxes)
            self.say(f"stage {self.name}: anchors of {', '.join(f'{s:.0f}' for s in sizes)} "
                     f"pixels, height to width {', '.join(f'{r:g}' for r in ratios)}")
        return cfg.model_copy(update={"anchor_sizes": sizes, "aspect_ratios": ratios})

    def carry(self, old: Any, new: Any, what: str) -> None:
        """Copy the parent's weights, class rows by name, and say what was new."""
        known = self.parent.categories if self.parent is not None else ()
        carried = carry_over(old, new, [c.name for c in known], [c.name for c in self.categories])
        self.say(f"stage {self.name}: {what}: {carried}")

    def finish(self, classifier: Any, detector: Any,
               fits: Mapping[str, FitResult], started: float) -> Mapping[str, Any]:
        """Set the threshold on the validation split and write the model folder.

        Its figures tell the stage's seconds: those of the training loops, with what they took
        before they were cut off, and all that this run did since ``started`` beside them.
        """
        metrics: dict[str, Any] = {}
        if self.fabric.is_global_zero:
            config, figures, rescorer = tune(classifier, detector, self.config, self.context)
            metrics = {"stage": self.name,
                       "seconds": round(sum(f.seconds for f in fits.values())
                                        + time.monotonic() - started - self.looped, 1),
                       "fits": {name: {"steps": f.steps, "best_step": f.best_step, **f.metrics}
                                for name, f in fits.items()},
                       "gate": self.gates,
                       "threshold": config.fusion.threshold, **figures}
            save_model(self.run.model, classifier=classifier, detector=detector, config=config,
                       categories=self.categories, metrics=metrics,
                       lineage=self.lineage(), rescorer=rescorer)
        self.fabric.barrier()
        return self.fabric.broadcast(metrics)

    def lineage(self) -> dict[str, Any]:
        """Where the model comes from."""
        parent = self.parent
        return {
            "name": self.config.name,
            "stage": self.name,
            "parent": None if parent is None else {
                "stage": parent.stage, "folder": str(parent.folder), "weights": self.parent_hash},
            "ancestors": [] if parent is None else [*parent.lineage.get("ancestors", []),
                                                    parent.stage],
            "kept_from_parent": [part for part, gate in self.gates.items()
                                 if gate["kept"] == "parent"],
            "seed": self.config.seed,
            "source": self.source,
            "data": {key: {"path": str(path), "sha256": self.fingerprint["data"][key]}
                     for key, path in data_of(self.config, self.name)},
            "versions": versions(),
            "fingerprint": self.fingerprint,
        }

    def seed(self, part: str) -> int:
        """The seed of one part of the stage, far from every other's."""
        return mix(self.config.seed, zlib.crc32(f"{self.name}/{part}".encode()))

    def say(self, text: str) -> None:
        """One line in the log of the process that writes."""
        if self.fabric.is_global_zero:
            log.info(text)


def without_temperature(classifier: Any) -> dict[str, Tensor]:
    """The weights that a detector may start from, the same bytes each time that a stage goes on.

    The temperature is fitted anew, and another device rounds otherwise.
    """
    return {name: value for name, value in classifier.state_dict().items() if name != "temperature"}


def shown_classes(manifest: Manifest, *, quiet: bool = False) -> list[Category]:
    """Classes of which the training split has at least one picture; the others are logged."""
    shown = {label for record in manifest.select(split="train").images
             for label in record.known_labels}
    absent = [category.name for category in manifest.categories if category.id not in shown]
    if absent and not quiet:
        log.info("no training picture of: %s", ", ".join(absent))
    return [category for category in manifest.categories if category.id in shown]


def stage_categories(own: Sequence[Category],
                     kept: Sequence[Sequence[Category]]) -> tuple[Category, ...]:
    """Classes of a stage in label order: its data's by id, then of each kept list the others."""
    categories = sorted(own, key=lambda category: category.id)
    for more in kept:
        known = set(same_classes([c.name for c in more], [c.name for c in categories]).values())
        last = max((category.id for category in categories), default=0)
        others = [category for category in more if category.name not in known]
        categories += [replace(category, id=last + i) for i, category in enumerate(others, 1)]
    return tuple(categories)


def summarise(config: Config, results: Sequence[StageResult],
              command: Callable[[str], str]) -> None:
    """Print a table of the stages, where the model is, and what to type next."""
    table = SummaryTable("stage", "classifier", "detector", "AP50", "threshold", "time", "")
    for result in results:
        fits, validation = result.metrics["fits"], result.metrics["validation"] or {}
        table.add(result.name, fits.get("classifier", {}).get("score"),
                  fits.get("detector", {}).get("score"), validation.get("agnostic_ap50"),
                  result.metrics["threshold"], _clock(result.seconds),
                  "; ".join(_remarks(result)))
    print()
    table.print()
    last = results[-1]
    print(f"\nclassifier, detector: validation scores in training; AP50: class-agnostic, both "
          f"models together\nmodel: {last.folder}\nlogs, curves: {last.folder.parent / 'logs'}")
    following = [name for name in config.stage_names()
                 if config.stages[name].parent == last.name]
    if following:
        print(f"next: {command(following[0])}")
    else:
        print(f"next: python tools/evaluate.py --model {last.folder.parent} --data "
              f"{config.stages[last.name].manifest} --split test\n"
              f"      python tools/infer.py --model {last.folder.parent} --images FOLDER")


def _remarks(result: StageResult) -> list[str]:
    kept = [part for part, gate in result.metrics.get("gate", {}).items()
            if gate["kept"] == "parent"]
    return [*([] if result.repeated else ["done before"]),
            *([f"{' and '.join(kept)}: the parent's, which is better"] if kept else [])]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
