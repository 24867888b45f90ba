"""One evaluation from the files to the report: what ``tools/evaluate.py`` does."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from musicon.datasets.command import SummaryTable
from musicon.datasets.records import SPLITS, Manifest, UserError, write_atomic
from musicon.detect import plots
from musicon.detect.calibration import CropMetrics, crop_metrics
from musicon.detect.config import FusionConfig
from musicon.detect.evaluation import (
    DetectionMetrics,
    EvaluationError,
    evaluate,
    is_boxed,
)
from musicon.detect.examples import galleries
from musicon.detect.prediction import (
    NamedCrops,
    Predictions,
    is_named,
    read_predictions,
    run_model,
)
from musicon.detect.report import Report, figure, write_report
from musicon.detect.tiling import TestTime
from musicon.detect.voc_scoring import VocRow, minerva_json, minerva_rows, minerva_table

BOOTSTRAP_ROUNDS = 1000
FITTED = "fitted"
"""Threshold that is fitted to the data, which only validation data may be used for."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate and how; see ``tools/evaluate.py``.

    Attributes:
        data: Manifest file or folder.
        out: Folder of the results.
        split: ``train``, ``val``, ``test`` or ``all``.
        model: Run or model folder; None where ``predictions`` are given.
        predictions: Ready detections.
        threshold: A score, ``FITTED``, or None for the model's own.
        device: As in ``ArtworkDetector.load``.
        batch_size: Images at once.
        workers: Threads that decode.
        pictures: Pictures in each gallery of the report.
        protocol: ``coco``, or ``minerva`` for that article's table as well.
        quiet: No progress bar.
        test_time: Further looks of the model at each image.
    """

    data: Path
    out: Path
    split: str = "test"
    model: Path | None = None
    predictions: Path | None = None
    threshold: float | str | None = None
    device: str = "auto"
    batch_size: int = 8
    workers: int = 2
    pictures: int = 9
    protocol: str = "coco"
    quiet: bool = False
    test_time: TestTime = TestTime()


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found and left.

    Attributes:
        metrics: Figures of the boxes.
        crops: Figures of the classifier alone on true boxes; None where no model ran.
        pictures: The same on whole pictures of one instrument that nobody boxed.
        named_crops: What ``crops`` was worked out from.
        named_pictures: The same of ``pictures``.
        rejected: Images that could not be read.
        out: Folder with metrics.json, report.html, plots and rejects.jsonl.
        minerva: That article's figures, where they were asked for.
        benchmark: Which published task the data are, as their source names it.
        notes: Sentences that a reader must know before trusting a figure.
    """

    metrics: DetectionMetrics
    crops: CropMetrics | None
    pictures: CropMetrics | None
    named_crops: NamedCrops | None
    named_pictures: NamedCrops | None
    rejected: int
    out: Path
    minerva: tuple[VocRow, ...] = ()
    benchmark: str | None = None
    notes: tuple[str, ...] = ()


def run_evaluation(options: EvaluationOptions) -> EvaluationResult:
    """Predict or read predictions, score, write metrics.json, plots and report.html.

    Raises:
        UserError: Data, model, predictions or threshold that cannot be used.
    """
    whole = Manifest.read(options.data)
    data = select_split(whole, options.split, options.data)
    predictions, threshold, origin = _predict(options, data, whole)
    metrics = evaluate(data, predictions.found, model_categories=predictions.categories,
                       threshold=threshold, bootstrap=BOOTSTRAP_ROUNDS)
    crops, pictures = _named(predictions.crops), _named(predictions.pictures)
    facts = _facts(options, data)
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = _plots(metrics, crops)
    for name, png in drawn.items():
        write_atomic(options.out / f"{name}.png", png)
    rows = minerva_rows(metrics.matched, data.names) if options.protocol == "minerva" else ()
    result = EvaluationResult(metrics, crops, pictures, predictions.crops, predictions.pictures,
                              len(predictions.rejects), options.out, tuple(rows),
                              data.info.get("benchmark"), _notes(metrics, predictions))
    document = {"facts": facts, **_json(result, predictions)}
    write_atomic(options.out / "metrics.json", json.dumps(document, ensure_ascii=False, indent=1))
    if options.predictions is None:
        predictions.to_manifest(data, options.out).write(options.out / "predictions.json")
    report = Report(
        metrics=metrics, facts=facts, crops=crops, pictures=pictures,
        galleries=galleries(data, metrics, limit=options.pictures, rejects=predictions.rejects),
        plots={name.replace("_", " "): png for name, png in drawn.items()},
        notes=result.notes, threshold_origin=origin)
    write_report(options.out / "report.html", report)
    predictions.rejects.write(options.out / "rejects.jsonl")
    return replace(result, rejected=len(predictions.rejects))


def _named(said: NamedCrops | None) -> CropMetrics | None:
    return None if said is None else crop_metrics(said.probabilities, said.labels)


def _json(result: EvaluationResult, predictions: Predictions) -> dict[str, Any]:
    parts = {"crops": (result.crops, predictions.crops),
             "pictures": (result.pictures, predictions.pictures)}
    named = {key: {**figures.to_json(), "left_out": said.left_out}
             for key, (figures, said) in parts.items() if figures is not None and said is not None}
    if result.minerva:
        named["minerva"] = minerva_json(result.minerva)
    return {**result.metrics.to_json(), **named, "unreadable": result.rejected,
            "predicted_not_in_data": predictions.not_in_data,
            "lowest_score": predictions.lowest}


def select_split(data: Manifest, split: str, source: Path) -> Manifest:
    """The images of one split, or all.

    Raises:
        EvaluationError: There is none, or none whose boxes are known.
    """
    chosen = data if split == "all" else data.select(split=split)
    if any(is_boxed(record) or is_named(record) for record in chosen.images):
        return chosen
    if chosen.images:
        raise EvaluationError(f"{source}: none of the {len(chosen)} images of split {split!r} can "
                              "be scored: they have no boxes and no single known instrument")
    counts = {name: len(data.select(split=name)) for name in SPLITS}
    there = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    advice = f"there are {there}: give one with --split" if there else \
        "none of its images has a split: give --split all"
    if not data.images:
        advice = "it lists no image at all"
    raise EvaluationError(f"{source}: no image of split {split!r}; {advice}")


def _predict(options: EvaluationOptions, data: Manifest, whole: Manifest,
             ) -> tuple[Predictions, float | None, str]:
    """The predictions, the threshold (None: fit it), and where it comes from."""
    if options.threshold == FITTED and options.split != "val":
        raise EvaluationError(f"a threshold may be fitted to validation images only, not to split "
                              f"{options.split!r}: give --split val, or a number")
    own: float | None = None
    if options.predictions is not None:
        predictions = read_predictions(options.predictions, whole).only(data)
        own = predictions.lowest
    elif options.model is not None:
        from musicon.detect.pipeline import ArtworkDetector

        detector = ArtworkDetector.load(options.model, options.device,
                                        test_time=options.test_time)
        own = detector.threshold
        predictions = run_model(detector, data, batch_size=options.batch_size,
                                workers=options.workers, quiet=options.quiet)
    else:
        raise EvaluationError("nothing to evaluate: give --model or --predictions")
    if options.threshold == FITTED:
        return predictions, None, "fitted to these very pictures"
    if options.threshold is not None:
        return predictions, float(options.threshold), "given"
    if own is not None:
        return predictions, own, "the model's own"
    return predictions, FusionConfig().threshold, "the default: the predictions name none"


def _facts(options: EvaluationOptions, data: Manifest) -> dict[str, str]:
    source = str(options.model) if options.predictions is None else str(options.predictions)
    looks = str(options.test_time) if options.predictions is None else ""
    return {"model" if options.predictions is None else "predictions": source,
            "data": str(options.data), "split": options.split, "pictures": f"{len(data):,}",
            **({"further looks": looks} if looks else {}),
            "date": date.today().isoformat()}


def _notes(metrics: DetectionMetrics, predictions: Predictions) -> tuple[str, ...]:
    notes = []
    if metrics.threshold_chosen_here:
        notes.append("The threshold was fitted to these very pictures: the figures that depend "
                     "on it are a little too good. Judge the model on pictures of another split.")
    if predictions.lowest:
        notes.append(f"The predictions were cut at a score of {predictions.lowest:.2f}: average "
                     "precision lacks the unlikelier boxes and comes out too low, and the "
                     "calibration error is that of the likelier boxes; give --model for all.")
    if predictions.rejects:
        notes.append(f"{len(predictions.rejects):,} pictures that could not be read count as "
                     "pictures in which nothing was found; rejects.jsonl lists them.")
    if predictions.not_in_data:
        notes.append(f"{predictions.not_in_data:,} of the predicted pictures are not in these "
                     "data and were not scored.")
    if not metrics.coverage.images:
        notes.append("No picture of these data has boxes: only the classifier could be scored.")
    elif metrics.coverage.boxes < 30:
        notes.append(f"Only {metrics.coverage.boxes:,} instruments were to be found: take every "
                     "figure as a rough guess.")
    return tuple(notes)


def _plots(metrics: DetectionMetrics, crops: CropMetrics | None) -> dict[str, bytes]:
    figures = {
        "precision_recall": plots.plot_precision_recall(metrics),
        "class_ap": plots.plot_class_ap(metrics),
        "confusion": plots.plot_confusion(metrics),
        "reliability": plots.plot_reliability(metrics.calibration,
                                              "Is a score of 80% right in 80 of 100?"),
    }
    if crops is not None and crops.count:
        figures["crop_reliability"] = plots.plot_reliability(
            crops.calibration, "The classifier alone, on true boxes")
    return {name: plots.to_png(drawn) for name, drawn in figures.items()}


def bar_values(result: EvaluationResult) -> dict[str, float | None]:
    """The figures that ``--require`` can be given a bar for, by name."""
    metrics, crops, pictures = result.metrics, result.crops, result.pictures
    coco = {key.lower(): None if value < 0 else value for key, value in metrics.coco.items()}
    return coco | {
        "agnostic_ap": metrics.agnostic_ap, "agnostic_ap50": metrics.agnostic_ap50,
        "agnostic_ap10": metrics.agnostic_ap10, "macro_f1": metrics.macro_f1,
        "precision": metrics.found.precision, "recall": metrics.found.recall,
        "f1": metrics.found.f1, "naming_accuracy": metrics.naming_accuracy,
        "family_accuracy": metrics.levels.family_accuracy,
        "sure_accuracy": metrics.levels.sure_accuracy,
        "false_alarms": metrics.false_alarms_per_negative,
        "ece": metrics.calibration.error, "ece_shown": metrics.shown_calibration.error,
        "crop_top1": None if crops is None else crops.top1,
        "crop_top3": None if crops is None else crops.top3,
        "crop_named": None if crops is None else crops.named,
        "crop_ece": None if crops is None else crops.calibration.error,
        "picture_top1": None if pictures is None else pictures.top1,
        "picture_top3": None if pictures is None else pictures.top3,
    }


BAR_NAMES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small",
    "ar_medium", "ar_large", "agnostic_ap", "agnostic_ap50", "agnostic_ap10", "macro_f1",
    "precision", "recall", "f1", "naming_accuracy", "family_accuracy", "sure_accuracy",
    "false_alarms", "ece", "ece_shown", "crop_top1", "crop_top3", "crop_named", "crop_ece",
    "picture_top1", "picture_top3",
)
LOWER_IS_BETTER = frozenset({"false_alarms", "ece", "ece_shown", "crop_ece", "uncertain"})


@dataclass(frozen=True)
class Bar:
    """A figure that must be reached: at least ``limit``, or at most where lower is better."""

    name: str
    limit: float

    @classmethod
    def parse(cls, text: str, names: Sequence[str] = BAR_NAMES) -> Bar:
        """``ap50=0.3`` -> a bar of one of the figures in ``names``.

        Raises:
            UserError: Not NAME=NUMBER, or no such figure.
        """
        name, sign, number = text.partition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = float("nan")
        if not sign or limit != limit:
            raise UserError(f"--require {text}: write NAME=NUMBER, such as ap50=0.3")
        if name not in names:
            raise UserError(f"--require {text}: no figure {name!r}; there are "
                            + ", ".join(names))
        return cls(name, limit)

    def missed_by(self, values: Mapping[str, float | None]) -> str | None:
        """How the bar was missed, in words; None where it was reached."""
        lower = self.name in LOWER_IS_BETTER
        within: Callable[[float, float], bool] = operator.le if lower else operator.ge
        value = values[self.name]
        if value is not None and within(value, self.limit):
            return None
        asked = f"at {'most' if lower else 'least'} {self.limit:g} was asked for"
        if value is None:
            return f"{self.name} could not be measured; {asked}"
        return f"{self.name} is {value:.4f}; {asked}"


def summary(result: EvaluationResult) -> str:
    """A compact table for the terminal."""
    metrics, crops, pictures = result.metrics, result.crops, result.pictures
    table = SummaryTable("figure", "by name", "any instrument")
    rows: Sequence[tuple[str, Any, Any]] = (
        ("AP", metrics.coco["AP"], metrics.agnostic_coco["AP"]),
        ("AP50", metrics.coco["AP50"], metrics.agnostic_coco["AP50"]),
        ("AP75", metrics.coco["AP75"], metrics.agnostic_coco["AP75"]),
        ("AP10", None, metrics.agnostic_ap10),
        ("AR100", metrics.coco["AR100"], metrics.agnostic_coco["AR100"]),
        (f"precision at {metrics.threshold:.2f}", metrics.named.precision,
         metrics.found.precision),
        (f"recall at {metrics.threshold:.2f}", metrics.named.recall, metrics.found.recall),
        ("macro-F1", metrics.macro_f1, None),
        ("found instruments named rightly", metrics.naming_accuracy, None),
        ("... or their family", metrics.levels.family_accuracy, None),
        ("... as far as the name is sure", metrics.levels.sure_accuracy, None),
        ("false alarms per empty image", None, metrics.false_alarms_per_negative),
        ("calibration error", None if crops is None else crops.calibration.error,
         metrics.calibration.error),
        ("... that perfect scores would have", None if crops is None else crops.calibration.perfect,
         metrics.calibration.perfect),
        (f"calibration error of the {metrics.shown_calibration.total:,} boxes shown", None,
         metrics.shown_calibration.error),
        ("... that perfect scores would have", None, metrics.shown_calibration.perfect),
        ("crops named: top-1", None if crops is None else crops.top1, None),
        ("crops named: top-3", None if crops is None else crops.top3, None),
        ("whole pictures named: top-1", None if pictures is None else pictures.top1, None),
        ("whole pictures named: top-3", None if pictures is None else pictures.top3, None),
    )
    for name, named, agnostic in rows:
        if named is not None or agnostic is not None:
            table.add(name, _shown(named), _shown(agnostic))
    coverage = metrics.coverage
    first = [minerva_table(result.minerva, result.benchmark), ""] if result.minerva else []
    lines = [*first, str(table),
             f"{coverage.images:,} images ({coverage.negatives:,} without instrument), "
             f"{coverage.boxes:,} boxes"]
    if metrics.agnostic_ap50_interval:
        low, high = metrics.agnostic_ap50_interval
        lines.append(f"AP50 of any instrument: 95% interval {low:.3f} to {high:.3f}")
    for name in ("unboxed", "partly_boxed", "without_prediction", "not_in_data"):
        if getattr(coverage, name):
            lines.append(f"{getattr(coverage, name):,} images {name.replace('_', ' ')}")
    if result.rejected:
        lines.append(f"{result.rejected:,} images could not be read: {result.out}/rejects.jsonl")
    return "\n".join([*lines, *result.notes, f"report: {result.out / 'report.html'}"])


def _shown(value: float | None) -> str:
    return "" if value is None else "–" if value < 0 else figure(value)
