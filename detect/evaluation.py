"""How good the detections are, in the field's figures and in a cataloguer's.

``evaluate`` scores the boxes: by name over the classes that model and data share, and whatever
the name over all boxes ("found an instrument").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.records import Box, Category, ImageRecord, Manifest, UserError
from musicon.detect.alignment import ClassAlignment, align
from musicon.detect.calibration import Calibration, calibration
from musicon.detect.coco_scoring import MAX_DETECTIONS, CocoScores, Engine, coco_scores
from musicon.detect.detections import Detections
from musicon.detect.matching import (
    IGNORED,
    Counts,
    LevelScores,
    MatchedImage,
    best_threshold,
    bootstrap_interval,
    confusion_matrix,
    count,
    level_scores,
    match_boxes,
    pool,
)

BACKGROUND = "background"
LOOSE_IOU = 0.1
"""Overlap at which a box at least points at the instrument."""


class EvaluationError(UserError):
    """Predictions that cannot be scored against the data; the message says what to mend."""


@dataclass(frozen=True)
class Curve:
    """Precision at 101 recall levels (IoU .5), and the score at which each is reached.

    Attributes:
        recall: (101,), 0 to 1.
        precision: (101,), interpolated; 0 beyond the highest recall.
        scores: (101,), 0 beyond the highest recall.
    """

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class ClassMetrics:
    """One class's figures; None where there is nothing to measure.

    Attributes:
        name: The data's name of the class.
        boxes: True boxes.
        ap: Mean over IoU .50:.05:.95.
        ap50: At IoU .5.
        precision: At the threshold, over boxes matched whatever their name.
        recall: The same.
        f1: The same.
    """

    name: str
    boxes: int
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Coverage:
    """What was scored and what could not be.

    Attributes:
        images: Images scored.
        negatives: Of these, known to hold no instrument.
        boxes: True boxes to find (crowds are not).
        crowds: True boxes around many instruments, ignored.
        partly_boxed: Images of which some known instruments have no box; finds on none of their
            boxes are ignored.
        unboxed: Images left out: an instrument is in them but nobody boxed it.
        without_prediction: Images scored as "nothing found" because no prediction was given.
        not_in_data: Predicted images that the data does not list.
        model_only_boxes: Found boxes of classes that the data cannot confirm; they count only
            in the class-agnostic figures.
        data_only_boxes: True boxes of classes that the model does not know; likewise.
    """

    images: int
    negatives: int
    boxes: int
    crowds: int
    partly_boxed: int
    unboxed: int
    without_prediction: int
    not_in_data: int
    model_only_boxes: int
    data_only_boxes: int


@dataclass(frozen=True)
class DetectionMetrics:
    """Every figure of one evaluation; None where there was nothing to measure.

    Attributes:
        coco: The 12 COCO figures over the shared classes, as pycocotools gives them (-1 where
            there is nothing to find).
        agnostic_coco: The same with all classes as one, over all boxes.
        agnostic_ap: Its AP.
        agnostic_ap50: Its AP50: "found an instrument".
        agnostic_ap10: AP at IoU .1: "pointed at an instrument".
        agnostic_ap50_interval: 95% bootstrap interval of ``agnostic_ap50`` over images.
        per_class: The shared classes, by name.
        macro_f1: Mean F1 of the shared classes that have true boxes, at the threshold.
        threshold: Least score of a box that counts as shown.
        threshold_chosen_here: The threshold was fitted to these very data (validation only).
        found: Hits and misses at the threshold, whatever the name.
        named: The same where only the right name is a hit, over all boxes.
        levels: Names judged by family, and as far as they are sure.
        naming_accuracy: Share of the found instruments (of shared classes) named rightly.
        false_alarms_per_negative: Boxes shown per image without instrument.
        negatives_with_alarm: Share of images without instrument that show any box.
        confusion: (K + 1, K + 1) true class by given name; the last is background.
        confusion_names: (K + 1,) names of its rows and columns.
        curves: Name -> precision-recall curve; "" is class-agnostic.
        calibration: Score against the share of boxes that are right (class-agnostic).
        shown_calibration: The same of the boxes that are shown.
        coverage: What was scored and what could not be.
        alignment: Which classes were compared.
        matched: The images' boxes, matched; what the pictures of a report are drawn from.
    """

    coco: dict[str, float]
    agnostic_coco: dict[str, float]
    agnostic_ap: float | None
    agnostic_ap50: float | None
    agnostic_ap10: float | None
    agnostic_ap50_interval: tuple[float, float] | None
    per_class: tuple[ClassMetrics, ...]
    macro_f1: float | None
    threshold: float
    threshold_chosen_here: bool
    found: Counts
    named: Counts
    levels: LevelScores
    naming_accuracy: float | None
    false_alarms_per_negative: float | None
    negatives_with_alarm: float | None
    confusion: NDArray[np.int64]
    confusion_names: tuple[str, ...]
    curves: Mapping[str, Curve]
    calibration: Calibration
    shown_calibration: Calibration
    coverage: Coverage
    alignment: ClassAlignment
    matched: tuple[MatchedImage, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``; the curves and pictures stay out."""
        interval = self.agnostic_ap50_interval
        return {
            "coco": self.coco,
            "agnostic_coco": self.agnostic_coco,
            "agnostic_ap": self.agnostic_ap,
            "agnostic_ap50": self.agnostic_ap50,
            "agnostic_ap10": self.agnostic_ap10,
            "agnostic_ap50_interval": None if interval is None else list(interval),
            "macro_f1": self.macro_f1,
            "threshold": self.threshold,
            "threshold_chosen_here": self.threshold_chosen_here,
            "found": _counts_json(self.found),
            "named": _counts_json(self.named),
            "family": _counts_json(self.levels.family),
            "naming_accuracy": self.naming_accuracy,
            "family_accuracy": self.levels.family_accuracy,
            "sure_accuracy": self.levels.sure_accuracy,
            "sure": {level: {"boxes": n, "right": right}
                     for level, (n, right) in self.levels.sure.items()},
            "false_alarms_per_negative": self.false_alarms_per_negative,
            "negatives_with_alarm": self.negatives_with_alarm,
            "per_class": [asdict(row) for row in self.per_class],
            "confusion": {"names": list(self.confusion_names),
                          "rows_true_columns_given": self.confusion.tolist()},
            "calibration": {**self.calibration.to_json(),
                            "shown": {"error": self.shown_calibration.error,
                                      "perfect": self.shown_calibration.perfect,
                                      "boxes": self.shown_calibration.total}},
            "coverage": asdict(self.coverage),
            "classes": self.alignment.to_json(),
        }


def _counts_json(counts: Counts) -> dict[str, Any]:
    return asdict(counts) | {"precision": counts.precision, "recall": counts.recall,
                             "f1": counts.f1}


def evaluate(manifest: Manifest, predictions: Mapping[int, Detections], *,
             model_categories: Sequence[Category] | None = None, threshold: float | None = None,
             engine: Engine = "auto", bootstrap: int = 0, seed: int = 0) -> DetectionMetrics:
    """Score detections against a manifest's boxes.

    Args:
        manifest: The images to score; select the split before.
        predictions: Image id -> what was found, with scores down to near 0 (not only the boxes
            above a threshold: average precision needs the rest).
        model_categories: What the predictions' labels refer to; None where they are the
            manifest's categories.
        threshold: Least score of a box that counts as shown. None fits it to these data, which
            is only right on validation data; the result says so.
        engine: Which evaluator gives the COCO figures.
        bootstrap: Rounds of the interval of ``agnostic_ap50``; 0 leaves it out.
        seed: Seed of the bootstrap.

    Raises:
        EvaluationError: A prediction has a label that ``model_categories`` lacks.
    """
    alignment = align(model_categories, manifest.categories)
    records = sorted((r for r in manifest.images if is_boxed(r)), key=lambda r: r.id)
    matched = tuple(_match(record, predictions.get(record.id), alignment) for record in records)
    pooled = pool(matched)
    chosen_here = threshold is None
    if threshold is None:
        threshold = best_threshold(pooled)
        threshold = 0.5 if threshold is None else threshold  # nothing right to keep or lose
    rows = [{"id": r.id, "width": r.width, "height": r.height} for r in records]
    named = _coco(rows, matched, alignment.shared, engine)
    agnostic = _coco(rows, matched, None, engine)
    loose = _coco(rows, matched, None, engine, [LOOSE_IOU])
    class_ids = tuple(alignment.names)
    matrix = confusion_matrix(matched, class_ids, threshold)
    per_class = _class_rows(alignment, named, matrix, class_ids)
    f1_values = [row.f1 for row in per_class if row.boxes and row.f1 is not None]
    curves = {"": _curve(agnostic, 0)}
    curves |= {alignment.names[class_id]: _curve(named, position)
               for position, class_id in enumerate(alignment.shared)
               if named.average_precision(position) is not None}
    alarms, with_alarm = _false_alarms(matched, threshold)
    shown = pooled.scores >= threshold
    return DetectionMetrics(
        coco=named.figures, agnostic_coco=agnostic.figures,
        agnostic_ap=agnostic.average_precision(),
        agnostic_ap50=agnostic.average_precision(iou=0.5),
        agnostic_ap10=loose.average_precision(),
        agnostic_ap50_interval=bootstrap_interval(pool(matched, MAX_DETECTIONS), bootstrap,
                                                  seed=seed) if bootstrap else None,
        per_class=per_class, macro_f1=float(np.mean(f1_values)) if f1_values else None,
        threshold=float(threshold), threshold_chosen_here=chosen_here,
        found=count(matched, threshold), named=count(matched, threshold, named=True),
        levels=level_scores(matched, alignment.names, threshold),
        naming_accuracy=_naming_accuracy(matched, alignment, threshold),
        false_alarms_per_negative=alarms, negatives_with_alarm=with_alarm,
        confusion=matrix,
        confusion_names=(*(alignment.names[i] for i in class_ids), BACKGROUND), curves=curves,
        calibration=calibration(pooled.scores, pooled.hits),
        shown_calibration=calibration(pooled.scores[shown], pooled.hits[shown]),
        coverage=_coverage(manifest, records, matched, predictions, alignment),
        alignment=alignment, matched=matched,
    )


def is_boxed(record: ImageRecord) -> bool:
    """True where instruments of the image are boxed, or it has none.

    An image known to hold an instrument that nobody boxed cannot tell a find from a false alarm.
    """
    return bool(record.boxes) or record.is_negative


def unboxed_labels(record: ImageRecord) -> list[int]:
    """Category ids that are known to be in the image, but not where."""
    return sorted(set(record.known_labels) - {box.label for box in record.boxes})


def _match(record: ImageRecord, found: Detections | None, alignment: ClassAlignment,
           ) -> MatchedImage:
    """Put one image's boxes in common classes, best first, and match them.

    The whole of a partly boxed image is a crowd of the instruments that have no box.
    """
    if found is None:
        found = Detections.empty((record.width, record.height))
    unknown = sorted(set(found.labels.tolist()) - set(alignment.to_common))
    if unknown:
        raise EvaluationError(
            f"image {record.id} ({record.file_name}): predicted category ids {unknown} are not "
            "among the model's categories; give the categories.json that the predictions belong to"
        )
    scores = found.scores.astype(np.float64)
    if not np.isfinite(scores).all() or not np.isfinite(found.boxes).all():
        raise EvaluationError(f"image {record.id} ({record.file_name}): a predicted box or score "
                              "is not a number; the model's weights are probably broken")
    order = np.argsort(-scores, kind="stable")
    # Six decimals undo the rounding of x + w - x, so that the figures are those of the file.
    whole = (0.0, 0.0, float(record.width), float(record.height))
    truths = [*record.boxes, *(Box(whole, label, iscrowd=True) for label in unboxed_labels(record))]
    gt_boxes = np.array([box.xyxy for box in truths], np.float64).reshape(-1, 4).round(6)
    boxes = found.boxes[order].astype(np.float64)
    crowd = np.array([box.iscrowd for box in truths], dtype=bool)
    return MatchedImage(
        image_id=record.id, gt_boxes=gt_boxes,
        gt_labels=np.array([box.label for box in truths], dtype=np.int64), gt_crowd=crowd,
        boxes=boxes, scores=scores[order],
        labels=np.array([alignment.to_common[int(i)] for i in found.labels[order]], np.int64),
        gt_index=match_boxes(boxes, gt_boxes, crowd), is_negative=record.is_negative,
        sure=None if found.sure is None else tuple(found.sure[i] for i in order),
    )


def _coco(images: Sequence[dict[str, Any]], matched: Sequence[MatchedImage],
          class_ids: Sequence[int] | None, engine: Engine,
          iou_thresholds: Sequence[float] | None = None) -> CocoScores:
    """COCO figures over some classes, or with every class as one (None)."""
    truths, found = [], []
    for image in matched:
        for box, label, crowd in zip(image.gt_boxes, image.gt_labels, image.gt_crowd, strict=True):
            truths.append({"image_id": image.image_id, "category_id": int(label),
                           "bbox": _xywh(box), "iscrowd": int(crowd)})
        for box, label, score in zip(image.boxes, image.labels, image.scores, strict=True):
            found.append({"image_id": image.image_id, "category_id": int(label),
                          "bbox": _xywh(box), "score": float(score)})
    if class_ids is None:
        for row in truths + found:
            row["category_id"] = 1
        return coco_scores(images, truths, found, [1], iou_thresholds=iou_thresholds,
                           engine=engine)
    kept = set(class_ids)
    return coco_scores(images, [row for row in truths if row["category_id"] in kept],
                       [row for row in found if row["category_id"] in kept], class_ids,
                       iou_thresholds=iou_thresholds, engine=engine)


def _xywh(box: NDArray[np.float64]) -> list[float]:
    x0, y0, x1, y1 = (float(v) for v in box)
    return [x0, y0, round(x1 - x0, 6), round(y1 - y0, 6)]


def _class_rows(alignment: ClassAlignment, scores: CocoScores, matrix: NDArray[np.int64],
                class_ids: Sequence[int]) -> tuple[ClassMetrics, ...]:
    rows = []
    for position, class_id in enumerate(alignment.shared):
        at = class_ids.index(class_id)
        hits, true, given = matrix[at, at], matrix[at].sum(), matrix[:, at].sum()
        counts = Counts(int(hits), int(given - hits), int(true - hits))
        rows.append(ClassMetrics(
            name=alignment.names[class_id], boxes=int(true), ap=scores.average_precision(position),
            ap50=scores.average_precision(position, iou=0.5), precision=counts.precision,
            recall=counts.recall, f1=counts.f1,
        ))
    return tuple(sorted(rows, key=lambda row: row.name))


def _curve(scores: CocoScores, position: int) -> Curve:
    at = int(np.flatnonzero(np.isclose(scores.iou_thresholds, 0.5))[0])
    return Curve(scores.recall_levels, scores.precision[at, :, position].clip(0),
                 scores.scores[at, :, position].clip(0))


def _false_alarms(matched: Sequence[MatchedImage], threshold: float,
                  ) -> tuple[float | None, float | None]:
    """Boxes per instrument-free image, and the share of such images that show any."""
    shown = [int(image.shown(threshold).sum()) for image in matched if image.is_negative]
    if not shown:
        return None, None
    return float(np.mean(shown)), float(np.mean([n > 0 for n in shown]))


def _naming_accuracy(matched: Sequence[MatchedImage], alignment: ClassAlignment,
                     threshold: float) -> float | None:
    """Share of the found instruments of shared classes that got the right name."""
    right: list[bool] = []
    for image in matched:
        keep = image.shown(threshold) & (image.gt_index >= 0)
        truth = image.gt_labels[image.gt_index[keep]]
        right += [bool(a == b) for a, b in zip(image.labels[keep], truth, strict=True)
                  if b in alignment.shared]
    return float(np.mean(right)) if right else None


def _coverage(manifest: Manifest, records: Sequence[ImageRecord],
              matched: Sequence[MatchedImage], predictions: Mapping[int, Detections],
              alignment: ClassAlignment) -> Coverage:
    listed = {record.id for record in manifest.images}
    return Coverage(
        images=len(records), negatives=sum(image.is_negative for image in matched),
        boxes=sum(image.to_find for image in matched),
        crowds=sum(box.iscrowd for record in records for box in record.boxes),
        partly_boxed=sum(bool(unboxed_labels(record)) for record in records),
        unboxed=len(manifest.images) - len(records),
        without_prediction=sum(record.id not in predictions for record in records),
        not_in_data=sum(image_id not in listed for image_id in predictions),
        model_only_boxes=sum(int((np.isin(image.labels, alignment.model_only)
                                  & (image.gt_index != IGNORED)).sum()) for image in matched),
        data_only_boxes=sum(int((np.isin(image.gt_labels, alignment.data_only)
                                 & ~image.gt_crowd).sum()) for image in matched),
    )
