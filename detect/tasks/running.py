"""A task from its settings to a model folder: what ``train_net.py --task`` does."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from musicon.datasets.command import SummaryTable, counted
from musicon.datasets.files import sha256
from musicon.datasets.records import SPLITS, Category, Manifest
from musicon.detect.calibration import fit_temperature
from musicon.detect.checkpoints import versions, write_model
from musicon.detect.devices import make_fabric
from musicon.detect.logs import RunFolder
from musicon.detect.rows import RowStore
from musicon.detect.sampling import mix, spread
from musicon.detect.stage_checks import (
    StageError,
    alone,
    check_files,
    finished,
    forget,
    manifest_file,
)
from musicon.detect.storage import digest
from musicon.detect.tasks import TaskKind
from musicon.detect.tasks.kept import (
    BATCH,
    copies_among,
    feature_store,
    judged,
    keep_features,
    rows_of,
)
from musicon.detect.tasks.learning import FeatureTask, PictureTask
from musicon.detect.tasks.models import decide
from musicon.detect.tasks.networks import WorkClassifier, count_parameters, direction
from musicon.detect.tasks.scores import LabelMetrics, label_metrics
from musicon.detect.tasks.settings import LearnConfig, TaskConfig
from musicon.detect.tasks.works import Work, collect, deal, write_splits
from musicon.detect.training import fit

log = logging.getLogger(__name__)

MAX_KNOWN = 4000
"""Training works that a model remembers to tell what is like them."""


@dataclass(frozen=True)
class TaskResult:
    """What training a task came to.

    Attributes:
        folder: The model folder.
        repeated: False when it was done before and nothing changed.
        metrics: What its ``metrics.json`` holds.
    """

    folder: Path
    repeated: bool
    metrics: Mapping[str, Any]


def train(kind: TaskKind, config: TaskConfig, *, fresh: bool = False,
          quiet: bool = False) -> TaskResult:
    """Train a task, or find that it is done.

    Raises:
        TaskError: The data leave nothing to learn.
        StageError: Data that are missing; another training in the same folder.
        TrainingInterrupted: After Ctrl-C, when the state is saved.
    """
    if not manifest_file(config.data).is_file():
        raise StageError(f"the {kind.name} is read from {config.data} (data), which is not there; "
                         "make it with 'python tools/prepare_data.py folder PICTURES --attribute "
                         f"{kind.name} --out {config.data}', or give another with --set "
                         "data=FOLDER")
    check_files(config.data)
    fabric = make_fabric(config)
    run = RunFolder(config.folder)
    with alone(run, fabric):
        if fabric.is_global_zero and fresh:
            forget(run)
        fabric.barrier()
        return TaskRun(kind, config, run, fabric, quiet).train()


def build(config: TaskConfig, num_classes: int) -> WorkClassifier:
    """The network of a run before training; what starts at random depends on the seed alone."""
    torch.manual_seed(mix(config.seed, zlib.crc32(b"network")))
    return WorkClassifier(config.network, num_classes)


class TaskRun:
    """One run of one task; ``train`` does it."""

    def __init__(self, kind: TaskKind, config: TaskConfig, run: RunFolder, fabric: Fabric,
                 quiet: bool) -> None:
        self.kind, self.config, self.run, self.fabric = kind, config, run, fabric
        self.quiet = quiet
        found = collect(Manifest.read(config.data), kind, config)
        self.works = deal(found, kind, config, self.copies(found.works))
        self.fingerprint = self._fingerprint()

    def train(self) -> TaskResult:
        """Train what is not trained yet, and write the model folder."""
        done = finished(self.run.model, self.fingerprint)
        if done is not None:
            self.say(f"done before with the same settings and data, kept ({self.run.model})")
            return TaskResult(self.run.model, False, done)
        counts = ", ".join(f"{len(self.works.of(split)):,} {split}" for split in SPLITS)
        self.say(f"{len(self.works.classes)} classes, {counts} works")
        for reason, number in self.works.left_out.items():
            self.say(f"{counted(number, 'picture')} left out: {reason}")
        network = build(self.config, len(self.works.classes)).to(self.fabric.device)
        fits = self.learn(network)
        network.eval()
        metrics = self.finish(network, fits)
        return TaskResult(self.run.model, True, metrics)

    def learn(self, network: WorkClassifier) -> dict[str, Any]:
        """Head, then everything; the better of the two stays. Returns figures of each."""
        fits: dict[str, Any] = {}
        head, whole = self.config.head, self.config.whole
        network.body.requires_grad_(self.config.learns(whole))
        if head.probe_examples or self.config.learns(head):
            store = self.features(network.eval(), self.config.features, self.works.works)
            task = FeatureTask(network.head, self.works, head, store.table(),
                               lambda works: store.places([work.sha256 for work in works]))
            fits["head"] = self.fit(task, head)
        if self.config.learns(whole):
            before = {name: value.clone() for name, value in network.state_dict().items()}
            fits["whole"] = self.fit(PictureTask(network, self.works, whole), whole)
            if "head" in fits:
                self._keep_better(network, before, fits)
        return fits

    def fit(self, task: FeatureTask | PictureTask, cfg: LearnConfig) -> dict[str, Any]:
        """Run the training loop on one part."""
        steps = cfg.steps if cfg.epochs is None else cfg.epochs * -(-len(task) // cfg.batch_size)
        if not steps:
            task.model.eval()
            task.start()
            with torch.no_grad():
                return {"steps": 0, "best_step": 0, "seconds": 0.0, **task.evaluate(task.model)}
        cfg = cfg.model_copy(update={"steps": steps, "epochs": None})
        result = fit(task, cfg, self.run, self.fabric,
                     seed=mix(self.config.seed, zlib.crc32(task.name.encode())),
                     fingerprint={**self.fingerprint, "part": task.name},
                     num_workers=self.config.num_workers, quiet=self.quiet)
        self.say(f"{task.name}: best at step {result.best_step} of {result.steps}, validation "
                 f"accuracy {result.metrics['accuracy']:.3f}")
        return {"steps": result.steps, "best_step": result.best_step,
                "seconds": round(result.seconds, 1), **result.metrics}

    def features(self, network: WorkClassifier, root: Path, works: Sequence[Work]) -> RowStore:
        """The features of works' views, computed by the first process where they are not kept."""
        store = feature_store(network, self.config, root)
        if self.fabric.is_global_zero:
            made = keep_features(store, network, self.config, works, self.quiet)
            self.say(f"features of {counted(len(works), 'work')}: {made:,} computed, "
                     f"{len(works) - made:,} kept from before ({store.folder})")
        self.fabric.barrier()
        return store if self.fabric.is_global_zero else feature_store(network, self.config, root)

    def copies(self, works: Sequence[Work]) -> list[int]:
        """For each work a number that its near-duplicates share."""
        if not self.config.split.near_duplicates:
            return list(range(len(works)))
        if self.fabric.is_global_zero:
            copies_among(works, self.config.features, self.quiet)
        self.fabric.barrier()
        return copies_among(works, self.config.features, self.quiet)

    def finish(self, network: WorkClassifier, fits: Mapping[str, Any]) -> Mapping[str, Any]:
        """Calibrate on validation, score every split, write the model folder."""
        changed = "whole" in fits and not fits["whole"].get("dropped")
        root = self.run.cache if changed else self.config.features
        store = self.features(network, root, self.works.works)
        metrics: dict[str, Any] = {}
        if self.fabric.is_global_zero:
            scores = self.calibrate(network, store)
            figures = {split: found.to_json(self.works.classes) for split, found in scores.items()}
            metrics = {"task": self.kind.name, "parameters": count_parameters(network),
                       "learning_parameters": count_parameters(network, learning=True),
                       "seconds": round(sum(part["seconds"] for part in fits.values()), 1),
                       "fits": dict(fits), **figures,
                       "thresholds": {"confidence": round(float(network.least_confidence), 4),
                                      "likeness": round(float(network.least_likeness), 4)}}
            categories = [Category(i, name) for i, name in enumerate(self.works.classes, start=1)]
            write_model(self.run.model, state=network.state_dict(), config=self.config,
                        categories=categories, metrics=metrics, lineage=self.lineage())
            write_splits(self.run.root, self.kind, self.works)
        self.fabric.barrier()
        return self.fabric.broadcast(metrics)

    def calibrate(self, network: WorkClassifier, store: RowStore) -> dict[str, LabelMetrics]:
        """Set temperature and thresholds on validation; figures of every split that has works."""
        train = spread(self.works.of("train"), MAX_KNOWN)
        known = torch.cat([direction(torch.from_numpy(part).mean(1))
                           for part in rows_of(store, train)]).to(self.fabric.device)
        network.known = known.half()
        # Each training work besides its own painter's and its copies: as a new hand's would be.
        hands = torch.tensor([work.group for work in train], device=known.device)
        apart = torch.cat([network.likeness(part, hand[:, None] == hands) for part, hand in
                           zip(known.split(BATCH), hands.split(BATCH), strict=True)]).cpu()
        said = {split: judged(network, store, works) for split in SPLITS
                if (works := self.works.of(split))}
        logits, likeness = said["val"]
        truth = {split: np.array([work.label for work in self.works.of(split)]) for split in said}
        network.temperature.fill_(fit_temperature(logits, torch.from_numpy(truth["val"])))
        p, _ = decide(network, logits, likeness)
        odd = 1 - self.config.keep
        network.least_likeness.fill_(float(np.quantile(torch.cat([apart, likeness]), odd)))
        network.least_confidence.fill_(float(np.quantile(p.max(1), odd / 4)))
        found = {}
        for split, told in said.items():
            p, doubts = decide(network, *told)
            found[split] = label_metrics(p, truth[split], doubts)
        return found

    def lineage(self) -> dict[str, Any]:
        """Where the model comes from."""
        return {"name": self.config.name, "task": self.kind.name, "seed": self.config.seed,
                "data": {"path": str(self.config.data), "sha256": self.fingerprint["data"]},
                "versions": versions(), "fingerprint": self.fingerprint}

    def say(self, text: str) -> None:
        """One line in the log of the process that writes."""
        if self.fabric.is_global_zero:
            log.info(f"{self.config.name}: {text}")

    def _keep_better(self, network: WorkClassifier, before: Mapping[str, torch.Tensor],
                     fits: dict[str, Any]) -> None:
        """Put the head's weights back where learning on pictures was no gain on validation."""
        val = self.works.of("val")
        truth = np.array([work.label for work in val])
        network.eval()
        store = self.features(network, self.run.cache, val)
        logits, _ = judged(network, store, val)
        found = label_metrics(logits.softmax(1).numpy(), truth, np.zeros(len(val), bool))
        score = (found.top1 + found.macro_f1) / 2
        fits["whole"]["score_of_views"] = score
        if score < fits["head"]["score"]:
            network.load_state_dict(before)
            fits["whole"]["dropped"] = True
            self.say(f"whole: {score:.3f} on validation, less than the head's "
                     f"{fits['head']['score']:.3f}: the head's model is kept")

    def _fingerprint(self) -> dict[str, Any]:
        """Everything that the result depends on, as plain values."""
        config = self.config.model_dump(mode="json")
        apart = ("name", "data", "features", "output", "device", "devices", "num_workers")
        dealt = {work.sha256: [work.split, work.label] for work in self.works.works}
        return {**{key: value for key, value in config.items() if key not in apart},
                "task": self.kind.name, "processes": self.fabric.world_size,
                "data": sha256(manifest_file(self.config.data)),
                "works": digest({"works": dealt, "classes": list(self.works.classes)})}


def summarise(kind: TaskKind, config: TaskConfig, result: TaskResult) -> None:
    """Print the figures of each split, where the model is, and what to type next."""
    table = SummaryTable("split", "works", "accuracy", "top-3", "macro-F1", "calibration error",
                         "uncertain")
    for split in SPLITS:
        row = result.metrics.get(split)
        if row:
            table.add(split, row["works"], row["accuracy"], row["top3"], row["macro_f1"],
                      row["ece"], row["uncertain"])
    print()
    table.print()
    again = "" if result.repeated else " (done before)"
    print(f"\n{kind.question} {len(result.metrics['train']['classes'])} classes, "
          f"{result.metrics['parameters']:,} parameters{again}\n"
          f"model: {result.folder}\nlogs, curves: {config.folder / 'logs'}\n"
          f"next: python tools/evaluate.py --model {config.folder}\n"
          f"      python tools/infer.py --images FOLDER --attributes {kind.name}={config.folder}")
