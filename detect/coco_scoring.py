"""The COCO figures: average precision and recall, through the field's own evaluators.

``reference`` is pycocotools itself, ``fast`` is faster-coco-eval. They agree to 1e-12: pycocotools
divides by n + 2.2e-16, so a first box that hits has precision 1 - 2.2e-16 there and 1 here.
``auto`` is the reference where that takes seconds, and the fast one on larger sets.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Engine = Literal["auto", "fast", "reference"]

COCO_KEYS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
             "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
"""Names of the 12 figures, in pycocotools' order; small is under 32 px squared, large over 96."""

NOT_MEASURABLE = -1.0
"""What pycocotools says where there is no ground truth to find."""

FAST_FROM = 50_000
"""Image-class pairs from which ``auto`` takes the fast evaluator."""

MAX_DETECTIONS = 100
"""Boxes of a class in an image that COCO scores, best first."""


@dataclass(frozen=True)
class CocoScores:
    """Result of one evaluation over K categories, at T IoU thresholds and R recall levels.

    Attributes:
        figures: The 12 COCO figures by name; -1 where there is nothing to find.
        precision: (T, R, K) interpolated precision, all sizes, 100 boxes; -1 as above.
        scores: (T, R, K) score of the box at which that recall is reached.
        recall: (T, K) highest recall.
        iou_thresholds: (T,).
        recall_levels: (R,).
    """

    figures: dict[str, float]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]
    recall: NDArray[np.float64]
    iou_thresholds: NDArray[np.float64]
    recall_levels: NDArray[np.float64]

    def average_precision(self, category: int | None = None,
                          iou: float | None = None) -> float | None:
        """Mean precision over recall (and IoU), as COCO does; None where nothing is to be found.

        Args:
            category: Position among the evaluated categories; None means all.
            iou: One IoU threshold; None means all.
        """
        values = self.precision
        if iou is not None:
            values = values[np.isclose(self.iou_thresholds, iou)]
        if category is not None:
            values = values[:, :, category]
        values = values[values > -1]
        return float(np.mean(values)) if values.size else None


def coco_scores(images: Sequence[dict[str, Any]], truths: Sequence[dict[str, Any]],
                found: Sequence[dict[str, Any]], category_ids: Sequence[int], *,
                iou_thresholds: Sequence[float] | None = None,
                engine: Engine = "auto") -> CocoScores:
    """Score boxes with a COCO evaluator.

    Args:
        images: ``id``, ``width``, ``height`` of every image, also of those without boxes.
        truths: COCO annotations: ``image_id``, ``category_id``, ``bbox`` xywh, ``iscrowd``.
        found: The same with ``score``.
        category_ids: The categories to score.
        iou_thresholds: COCO's .50:.05:.95 unless given (then figures that need a missing
            threshold are -1).
        engine: ``auto``, ``fast`` or ``reference``.
    """
    if engine == "auto":
        engine = "fast" if len(images) * len(category_ids) >= FAST_FROM else "reference"
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print as they go
        evaluator = _evaluator(engine, _document(images, truths, category_ids),
                               _document(images, found, category_ids))
        parameters = evaluator.params
        parameters.imgIds = sorted(image["id"] for image in images)
        parameters.catIds = sorted(category_ids)
        if iou_thresholds is not None:
            parameters.iouThrs = np.asarray(iou_thresholds, dtype=np.float64)
        shape = (len(parameters.iouThrs), len(parameters.recThrs), len(parameters.catIds))
        if not parameters.imgIds or not parameters.catIds:
            none = np.full(shape, NOT_MEASURABLE)
            return CocoScores(dict.fromkeys(COCO_KEYS, NOT_MEASURABLE), none, none, none[:, 0],
                              parameters.iouThrs, parameters.recThrs)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    figures = dict(zip(COCO_KEYS, (float(v) for v in evaluator.stats), strict=False))
    result = evaluator.eval
    return CocoScores(figures,
                      np.asarray(result["precision"]).reshape(*shape, 4, 3)[..., 0, 2],
                      np.asarray(result["scores"]).reshape(*shape, 4, 3)[..., 0, 2],
                      np.asarray(result["recall"]).reshape(shape[0], shape[2], 4, 3)[..., 0, 2],
                      parameters.iouThrs, parameters.recThrs)


def _document(images: Sequence[dict[str, Any]], boxes: Sequence[dict[str, Any]],
              category_ids: Sequence[int]) -> dict[str, Any]:
    # Ids start at 1: pycocotools takes a match with annotation 0 for no match.
    rows = [{"iscrowd": 0, **box, "id": i, "area": box["bbox"][2] * box["bbox"][3]}
            for i, box in enumerate(boxes, start=1)]
    return {"info": {}, "images": list(images), "annotations": rows,
            "categories": [{"id": i, "name": str(i)} for i in sorted(category_ids)]}


def _evaluator(engine: Engine, truths: dict[str, Any], found: dict[str, Any]) -> Any:
    if engine == "fast":
        from faster_coco_eval import COCO, COCOeval_faster

        evaluator = COCOeval_faster(_indexed(COCO, truths), _indexed(COCO, found), "bbox",
                                    print_function=lambda *_: None)
    elif engine == "reference":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        evaluator = COCOeval(_indexed(COCO, truths), _indexed(COCO, found), "bbox")
    else:
        raise ValueError(f"engine {engine!r} is not one of auto, fast, reference")
    return evaluator


def _indexed(coco_class: Any, document: dict[str, Any]) -> Any:
    # Not loadRes: it fails on an empty list of detections.
    coco = coco_class()
    coco.dataset = document
    coco.createIndex()
    return coco
