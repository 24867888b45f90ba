"""How well a task's model labels works: figures of every split, plots, one web page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.command import SummaryTable
from musicon.datasets.files import sha256
from musicon.datasets.images import decode_reduced
from musicon.datasets.records import SPLITS, write_atomic
from musicon.detect import plots
from musicon.detect.report import template
from musicon.detect.stage_checks import check_files
from musicon.detect.tasks import UNCERTAIN, TaskError
from musicon.detect.tasks.kept import feature_store, judged, keep_features
from musicon.detect.tasks.models import TaskModel, decide
from musicon.detect.tasks.scores import LabelMetrics, confused_pairs, label_metrics
from musicon.detect.tasks.works import Work, Works, answer, plain, read_splits

FIGURES = ("accuracy", "macro_f1", "top3", "ece", "uncertain", "accuracy_certain")
"""Names that ``--require`` can be given a bar for."""
PAIRS = 6
PICTURE_SIDE = 420
JPEG_QUALITY = 82


@dataclass(frozen=True)
class LabelReport:
    """What the page shows.

    Attributes:
        question: What the model was asked.
        facts: Name -> value of what was evaluated.
        notes: Sentences that a reader must know before trusting a figure.
        split: The split that the plots and pictures are of.
        classes: Names of the classes.
        metrics: Figures by split.
        pairs: The commonest mistakes, with pictures.
        plots: Title -> PNG.
    """

    question: str
    facts: Mapping[str, str]
    notes: Sequence[str]
    split: str
    classes: Sequence[str]
    metrics: Mapping[str, LabelMetrics]
    pairs: Sequence[ConfusedPair]
    plots: Mapping[str, bytes]


@dataclass(frozen=True)
class ConfusedPair:
    """A mistake that was made ``count`` times, with (caption, JPEG) of some of the works."""

    truth: str
    said: str
    count: int
    pictures: Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class LabelEvaluation:
    """What an evaluation found and left.

    Attributes:
        metrics: Figures by split.
        split: The split that was asked for.
        out: Folder with metrics.json, report.html, plots and tensorboard/.
    """

    metrics: Mapping[str, LabelMetrics]
    split: str
    out: Path


def run_evaluation(model: TaskModel, data: Path | None, split: str, out: Path, *,
                   pictures: int = 9, quiet: bool = False) -> LabelEvaluation:
    """Score a model on the data that it was trained with, or on others; write everything.

    Args:
        model: What is evaluated.
        data: Manifest of works; None takes the data of the training. Works that the model was
            trained with keep the split that they had then.
        split: What the plots and pictures are of; ``all`` takes every work as one.
        out: Folder of the results.
        pictures: Of each kind of mistake at the most.
        quiet: No progress bar.

    Raises:
        TaskError: No work of that split whose class the model knows.
    """
    works = _works(model, data or model.config.data, split)
    if not works.of(split):
        there = ", ".join(f"{len(works.of(name))} {name}" for name in SPLITS if works.of(name))
        raise TaskError(f"{data or model.config.data}: no work of split {split!r} has a "
                        f"{model.kind.name} that the model knows; "
                        + (f"there are {there}: give one with --split, or all" if there else
                           f"it knows {', '.join(model.classes[:12])}"))
    own = model.folder.parent / "cache"
    root = own if feature_store(model.network, model.config, own).folder.is_dir() \
        else model.config.features
    store = feature_store(model.network, model.config, root)
    keep_features(store, model.network, model.config, works.works, quiet)
    metrics: dict[str, LabelMetrics] = {}
    for name in dict.fromkeys((*SPLITS, split)):
        part = works.of(name)
        if part:
            p, doubts = decide(model.network, *judged(model.network, store, part))
            metrics[name] = label_metrics(p, np.array([work.label for work in part]), doubts)
            if name == split:
                chosen = p
    report = LabelReport(
        question=model.kind.question, facts=_facts(model, data, split, works),
        notes=_notes(model, works, metrics[split], split), split=split, classes=model.classes,
        metrics=metrics, pairs=_pairs(works.of(split), chosen, metrics[split], model, pictures),
        plots=_plots(model, metrics[split], split))
    _write(out, report, model)
    return LabelEvaluation(metrics, split, out)


def _works(model: TaskModel, data: Path, split: str) -> Works:
    """The works of the data whose class the model knows, each with its split."""
    manifest = check_files(data)
    dealt = read_splits(model.folder.parent)
    names = {plain(name): i for i, name in enumerate(model.classes)}
    wanted = {plain(old): names[plain(name)] for name, olds in model.config.classes.items()
              if plain(name) in names for old in (*olds, name)} or names
    works, left_out = [], Counter[str]()
    for record in manifest.images:
        said = answer(record, model.kind)
        if said is None:
            left_out[f"no {model.kind.name} is known"] += 1
        elif plain(said) not in wanted:
            left_out[f"the model was not taught their {model.kind.name}"] += 1
        else:
            path = manifest.path(record)
            key = record.sha256 or sha256(path)
            known = dealt.get(key) or record.split or ""
            works.append(Work(path, record.file_name, key, wanted[plain(said)],
                              "all" if split == "all" else known, record))
    return Works(model.classes, tuple(works), dict(left_out))


def _facts(model: TaskModel, data: Path | None, split: str, works: Works) -> dict[str, str]:
    return {"model": str(model.folder), "data": str(data or model.config.data), "split": split,
            "works": f"{len(works.of(split)):,}", "classes": str(len(model.classes)),
            "backbone": model.config.network.backbone or "none: layers of its own",
            "parameters": f"{model.metrics['parameters']:,}", "date": date.today().isoformat()}


def _notes(model: TaskModel, works: Works, metrics: LabelMetrics, split: str) -> list[str]:
    notes = [f"{count:,} pictures were left out: {reason}."
             for reason, count in works.left_out.items()]
    rare = sum(0 < int(n) < 5 for n in metrics.matrix.sum(1))
    absent = sum(int(n) == 0 for n in metrics.matrix.sum(1))
    if rare or absent:
        notes.append(f"Of {len(model.classes)} classes, {rare} have fewer than 5 works in this "
                     f"split and {absent} have none: their figures say little.")
    if split in ("train", "all") and any(work.split for work in works.works):
        notes.append("These works, or some of them, were learnt from: the figures flatter.")
    return notes


def _pairs(works: Sequence[Work], p: NDArray[np.float32], metrics: LabelMetrics,
           model: TaskModel, limit: int) -> list[ConfusedPair]:
    """The commonest mistakes, each with the works that the model was surest of."""
    said, truth = p.argmax(1), np.array([work.label for work in works])
    found = []
    for row, column, count in confused_pairs(metrics.matrix, PAIRS):
        wrong = np.flatnonzero((truth == row) & (said == column))
        surest = wrong[np.argsort(-p[wrong, column], kind="stable")][:limit]
        pictures = [(f"{works[i].path.stem.replace('_', ' · ').replace('-', ' ')}: "
                     f"{p[i, column]:.0%} {model.classes[column]}, "
                     f"{p[i, row]:.0%} {model.classes[row]}", _jpeg(works[i].path))
                    for i in surest.tolist()]
        found.append(ConfusedPair(model.classes[row], model.classes[column], count, pictures))
    return found


def _jpeg(path: Path) -> bytes:
    image = decode_reduced(path, PICTURE_SIDE)[0]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"a picture of shape {image.shape} could not be encoded as JPEG")
    return data.tobytes()


def _plots(model: TaskModel, metrics: LabelMetrics, split: str) -> dict[str, bytes]:
    """Confusion, reliability, and the curves that training left, as PNG."""
    drawn = {"confusion": plots.to_png(plots.plot_labels(metrics.matrix, model.classes)),
             "reliability": plots.to_png(plots.plot_reliability(
                 metrics.calibration, f"Is 80% right in 80 of 100? ({split})"))}
    for part in ("head", "whole"):
        file = model.folder.parent / "logs" / f"{part}.png"
        if file.is_file():
            drawn[f"curves_{part}"] = file.read_bytes()
    return drawn


def _write(out: Path, report: LabelReport, model: TaskModel) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, png in report.plots.items():
        write_atomic(out / f"{name}.png", png)
    document = {"facts": dict(report.facts), "notes": list(report.notes), "splits": {
        split: metrics.to_json(report.classes) for split, metrics in report.metrics.items()}}
    write_atomic(out / "metrics.json", json.dumps(document, ensure_ascii=False, indent=1))
    write_atomic(out / "report.html", template("labels.html").render(
        report=report, uncertain=UNCERTAIN, shown=report.metrics[report.split]))
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    board = SummaryWriter(str(out / "tensorboard"))
    for split, metrics in report.metrics.items():
        for name, value in metrics.figures().items():
            if value is not None:
                board.add_scalar(f"{model.kind.name}/{split}/{name}", value)
    for name, png in report.plots.items():
        pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        if pixels is not None:
            board.add_image(f"{model.kind.name}/{name}", pixels[:, :, ::-1], dataformats="HWC")
    board.close()


def summary(result: LabelEvaluation) -> str:
    """A compact table for the terminal."""
    table = SummaryTable("split", "works", *FIGURES)
    for split, metrics in result.metrics.items():
        figures = metrics.figures()
        table.add(split, metrics.count, *(figures[name] for name in FIGURES))
    return f"{table}\nreport: {result.out / 'report.html'}"
