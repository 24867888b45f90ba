"""Detection figures against pycocotools, scikit-learn and values worked out by hand."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import f1_score

from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect.detections import Detections
from musicon.detect.evaluation import EvaluationError, evaluate
from musicon.detect.matching import pool

NAMES = ("lute", "violin", "harp", "drum")
CATEGORIES = tuple(Category(i, name) for i, name in enumerate(NAMES, start=1))


def found(boxes: Any, scores: Any, labels: Any, wh: tuple[int, int] = (400, 300)) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    scores = np.asarray(scores, np.float32)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    return Detections(boxes[order], scores, np.asarray(labels, np.int64)[order], scores, scores, wh)


def image(image_id: int, boxes: list[tuple[float, ...]] | None = None,
          labels: list[int] | None = None, **values: Any) -> ImageRecord:
    drawn = tuple(Box((b[0], b[1], b[2], b[3]), label)
                  for b, label in zip(boxes or [], labels or [], strict=True))
    return ImageRecord(image_id, f"{image_id}.jpg", 400, 300, drawn, **values)


def manifest(*images: ImageRecord, categories: tuple[Category, ...] = CATEGORIES) -> Manifest:
    return Manifest(Path("."), categories, images)


def random_case(seed: int, images: int = 12, crowds: bool = True,
                ) -> tuple[Manifest, dict[int, Detections]]:
    """Images with 0 to 4 true boxes, found again with jitter, doubles, wrong names and ties."""
    rng = np.random.default_rng(seed)
    records, predictions = [], {}
    for image_id in range(1, images + 1):
        low = rng.uniform(0, (250, 150), (rng.integers(0, 5), 2))
        sides = rng.uniform(8, 150, low.shape)
        boxes = np.concatenate([low, low + sides], axis=1).round(2)
        labels = rng.integers(1, 4, len(boxes))  # class 4, drum, has no true box
        drawn = tuple(Box(tuple(map(float, b)), int(c), iscrowd=bool(crowds and rng.random() < 0.1))
                      for b, c in zip(boxes, labels, strict=True))
        records.append(replace(image(image_id), boxes=drawn))
        if rng.random() < 0.1:
            continue
        again = np.repeat(np.arange(len(boxes)), rng.integers(0, 4, len(boxes)))
        jitter = rng.normal(0, 0.12, (len(again), 4)) * np.tile(sides[again], 2)
        stray = rng.uniform(0, 150, (rng.integers(0, 3), 4)) + np.array([0, 0, 151, 151])
        pred_boxes = np.concatenate([boxes[again] + jitter, stray])
        pred_labels = np.where(rng.random(len(pred_boxes)) < 0.7,
                               np.concatenate([labels[again], np.ones(len(stray), int)]),
                               rng.integers(1, 5, len(pred_boxes)))
        predictions[image_id] = found(pred_boxes, rng.random(len(pred_boxes)).round(2), pred_labels)
    return manifest(*records), predictions


def pycocotools_figures(truth: dict[str, Any], predictions: dict[int, Detections],
                        use_cats: bool = True) -> list[float]:
    """The 12 figures straight from COCO JSON, as any other tool would get them."""
    rows = [{"image_id": image_id, "category_id": int(label), "score": float(score),
             "bbox": [float(b[0]), float(b[1]), float(b[2]) - float(b[0]),
                      float(b[3]) - float(b[1])]}
            for image_id, d in predictions.items()
            for b, score, label in zip(d.boxes, d.scores, d.labels, strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        scorer = COCOeval(gt, gt.loadRes(rows), "bbox")
        scorer.params.useCats = int(use_cats)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return [float(v) for v in scorer.stats]


@pytest.mark.parametrize("seed", range(6))
def test_coco_figures_are_those_of_pycocotools(seed: int) -> None:
    data, predictions = random_case(seed)
    metrics = evaluate(data, predictions, engine="reference")
    assert list(metrics.coco.values()) == pycocotools_figures(data.to_coco(), predictions)
    assert list(metrics.agnostic_coco.values()) == pycocotools_figures(
        data.to_coco(), predictions, use_cats=False)
    assert metrics.agnostic_ap50 == pytest.approx(metrics.agnostic_coco["AP50"], abs=1e-12)
    assert 0 < metrics.coco["AP"] < 1


@pytest.mark.parametrize("seed", range(6))
def test_fast_evaluator_agrees_with_the_reference(seed: int) -> None:
    data, predictions = random_case(seed, images=30)
    fast = evaluate(data, predictions, engine="fast")
    reference = evaluate(data, predictions, engine="reference")
    assert list(fast.coco.values()) == pytest.approx(list(reference.coco.values()), abs=1e-12)
    assert fast.agnostic_ap10 == pytest.approx(reference.agnostic_ap10, abs=1e-12)
    for first, second in zip(fast.per_class, reference.per_class, strict=True):
        assert first.ap == pytest.approx(second.ap, abs=1e-12)
        assert first.ap50 == pytest.approx(second.ap50, abs=1e-12)


def test_a_crowded_image_is_cut_class_by_class() -> None:
    """A right violin comes after 120 lutes: by name it is its class's first, else beyond 100."""
    strays = np.arange(119)[:, None] + np.array([100, 200, 110, 210])
    boxes = [(10, 10, 50, 50), *strays.tolist(), (60, 10, 90, 90)]
    data = manifest(image(1, [boxes[0], boxes[-1]], [1, 2]))
    predictions = {1: found(boxes, np.linspace(0.9, 0.1, 121), [1] * 120 + [2])}
    metrics = evaluate(data, predictions, threshold=0.05, engine="reference", bootstrap=5)
    assert list(metrics.coco.values()) == pycocotools_figures(data.to_coco(), predictions)
    assert list(metrics.agnostic_coco.values()) == pycocotools_figures(
        data.to_coco(), predictions, use_cats=False)
    assert metrics.coco["AP"] == pytest.approx(1)
    assert metrics.agnostic_ap50 == pytest.approx(51 / 101)
    assert metrics.agnostic_ap50_interval == pytest.approx((51 / 101, 51 / 101))
    assert (metrics.found.hits, metrics.found.false_alarms, metrics.found.misses) == (2, 119, 0)


def test_average_precision_worked_by_hand() -> None:
    # Two lutes. Found in falling order: hit, false alarm, hit.
    # Precision 1 up to recall .5 (51 of 101 levels), then 2/3 (50 levels).
    data = manifest(image(1, [(10, 10, 50, 50), (100, 100, 160, 180)], [1, 1]))
    predictions = {1: found([(10, 10, 50, 50), (200, 200, 240, 240), (100, 100, 160, 180)],
                            [0.9, 0.8, 0.7], [1, 1, 1])}
    metrics = evaluate(data, predictions, threshold=0.75)
    expected = (51 * 1 + 50 * 2 / 3) / 101
    assert metrics.coco["AP50"] == pytest.approx(expected, abs=1e-12)
    assert metrics.agnostic_ap == pytest.approx(expected, abs=1e-12)
    assert (metrics.found.hits, metrics.found.false_alarms, metrics.found.misses) == (1, 1, 1)
    assert metrics.found.f1 == pytest.approx(0.5)


def test_the_calibration_error_of_what_is_shown_is_told_apart() -> None:
    # Shown: a find at .9, a false alarm at .7. Not shown: eight false alarms at .05.
    data = manifest(image(1, [(10, 10, 50, 50)], [1]))
    strays = [(10 + 40 * i, 200, 40 + 40 * i, 240) for i in range(9)]
    predictions = {1: found([(10, 10, 50, 50), *strays], [0.9, 0.7] + [0.05] * 8, [1] * 10)}
    metrics = evaluate(data, predictions, threshold=0.5)
    assert metrics.shown_calibration.error == pytest.approx((0.1 + 0.7) / 2)
    assert metrics.calibration.error == pytest.approx((0.1 + 0.7 + 8 * 0.05) / 10)
    assert metrics.to_json()["calibration"]["shown"] == {
        "error": metrics.shown_calibration.error, "perfect": metrics.shown_calibration.perfect,
        "boxes": 2}
    none = evaluate(data, predictions, threshold=0.95)
    assert none.shown_calibration.error is None and none.shown_calibration.total == 0


def test_loose_overlap_counts_only_at_iou_tenth() -> None:
    # Boxes of 20 x 10 shifted by 10 pixels: IoU 100 / 300.
    data = manifest(image(1, [(0, 0, 20, 10)], [1]))
    metrics = evaluate(data, {1: found([(10, 0, 30, 10)], [0.9], [1])}, threshold=0.5)
    assert metrics.agnostic_ap10 == pytest.approx(1.0)
    assert metrics.agnostic_ap50 == 0.0


def test_perfect_prediction_scores_one() -> None:
    data, _ = random_case(3, crowds=False)
    predictions = {r.id: found([b.xyxy for b in r.boxes], np.linspace(0.9, 0.4, len(r.boxes)),
                               [b.label for b in r.boxes]) for r in data.images}
    metrics = evaluate(data, predictions)
    assert metrics.coco["AP"] == pytest.approx(1.0)
    assert metrics.agnostic_ap == pytest.approx(1.0)
    assert metrics.macro_f1 == metrics.found.f1 == metrics.naming_accuracy == 1.0
    assert metrics.confusion.sum() == np.trace(metrics.confusion) == metrics.coverage.boxes


def test_no_prediction_scores_zero_and_is_counted() -> None:
    data, _ = random_case(3, crowds=False)
    metrics = evaluate(data, {})
    assert metrics.coco["AP"] == metrics.agnostic_ap50 == metrics.macro_f1 == 0.0
    assert metrics.found.recall == 0.0 and metrics.found.precision is None
    assert metrics.coverage.without_prediction == len(data)


def test_empty_manifest_has_nothing_to_measure() -> None:
    metrics = evaluate(manifest(), {}, bootstrap=10)
    assert set(metrics.coco.values()) == {-1.0}
    assert metrics.agnostic_ap50 is metrics.macro_f1 is metrics.agnostic_ap50_interval is None
    assert metrics.calibration.error is None and metrics.coverage.images == 0


def test_only_instrument_free_images() -> None:
    data = manifest(image(1), image(2))
    metrics = evaluate(data, {1: found([(0, 0, 9, 9), (50, 50, 90, 90)], [0.9, 0.6], [1, 2])},
                       threshold=0.5)
    assert metrics.agnostic_ap50 is None
    assert metrics.false_alarms_per_negative == 1.0 and metrics.negatives_with_alarm == 0.5


def test_class_without_true_box_is_left_out_of_the_mean() -> None:
    data = manifest(image(1, [(10, 10, 50, 50)], [1]))
    metrics = evaluate(data, {1: found([(10, 10, 50, 50), (90, 90, 150, 150)], [0.9, 0.8], [1, 4])},
                       threshold=0.5)
    assert metrics.coco["AP"] == pytest.approx(1.0)  # not (1 + 0) / 4
    rows = {row.name: row for row in metrics.per_class}
    assert rows["drum"].ap is None and rows["drum"].boxes == 0
    assert metrics.macro_f1 == 1.0
    assert metrics.found.false_alarms == 1


@pytest.mark.parametrize("seed", range(4))
def test_confusion_and_macro_f1_are_those_of_scikit_learn(seed: int) -> None:
    data, predictions = random_case(seed, crowds=False)
    metrics = evaluate(data, predictions, threshold=0.3)
    true, given_name = [], []
    for matched in metrics.matched:
        shown = matched.scores >= 0.3
        for label, row in zip(matched.labels[shown], matched.gt_index[shown], strict=True):
            true.append(0 if row < 0 else int(matched.gt_labels[row]))
            given_name.append(int(label))
        for row in set(range(len(matched.gt_labels))) - set(matched.gt_index[shown].tolist()):
            true.append(int(matched.gt_labels[row]))
            given_name.append(0)
    assert metrics.confusion.tolist() == sklearn_confusion(
        true, given_name, labels=[1, 2, 3, 4, 0]).tolist()
    with_boxes = sorted(set(true) - {0})
    assert metrics.macro_f1 == pytest.approx(
        f1_score(true, given_name, labels=with_boxes, average="macro", zero_division=0))


def test_crowd_is_neither_missed_nor_a_false_alarm() -> None:
    crowd = Box((0, 0, 200, 200), 1, iscrowd=True)
    data = manifest(replace(image(1), boxes=(crowd, Box((250, 10, 300, 60), 2))))
    metrics = evaluate(data, {1: found([(10, 10, 60, 60), (70, 70, 110, 110), (250, 10, 300, 60)],
                                       [0.9, 0.8, 0.7], [1, 1, 2])}, threshold=0.5)
    assert (metrics.found.hits, metrics.found.false_alarms, metrics.found.misses) == (1, 0, 0)
    assert metrics.agnostic_ap == pytest.approx(1.0)
    assert metrics.coverage.crowds == 1 and metrics.coverage.boxes == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_images_does_not_matter(seed: int) -> None:
    data, predictions = random_case(seed, images=6)
    shuffled = list(data.images)
    np.random.default_rng(seed).shuffle(shuffled)
    first = evaluate(data, predictions)
    second = evaluate(replace(data, images=tuple(shuffled)), dict(reversed(predictions.items())))
    assert first.to_json() == second.to_json()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.floats(0.3, 3.0))
def test_only_the_ranking_of_scores_matters(seed: int, power: float) -> None:
    data, predictions = random_case(seed, images=6)
    bent = {i: found(d.boxes, np.round(d.scores.astype(float), 2) ** power, d.labels)
            for i, d in predictions.items()}
    first, second = evaluate(data, predictions), evaluate(data, bent)
    assert first.coco == second.coco and first.found == second.found


def test_threshold_is_fitted_only_when_not_given() -> None:
    # F1 at .9: 2/3; at .7 (hit, hit): 1; at .6 (a false alarm more): 4/5.
    data = manifest(image(1, [(10, 10, 50, 50), (100, 100, 160, 180)], [1, 1]))
    predictions = {1: found([(10, 10, 50, 50), (100, 100, 160, 180), (200, 200, 240, 240)],
                            [0.9, 0.7, 0.6], [1, 1, 1])}
    fitted = evaluate(data, predictions)
    assert fitted.threshold == pytest.approx(0.65) and fitted.threshold_chosen_here
    fixed = evaluate(data, predictions, threshold=0.8)
    assert fixed.threshold == 0.8 and not fixed.threshold_chosen_here
    assert fixed.found.misses == 1


def test_classes_align_by_name_and_nothing_is_dropped() -> None:
    model = (Category(1, "Violin"), Category(2, "kazoo"))
    data = manifest(image(1, [(10, 10, 50, 50), (100, 100, 160, 180)], [2, 3]))
    predictions = {1: found([(10, 10, 50, 50), (100, 100, 160, 180)], [0.9, 0.8], [1, 2])}
    metrics = evaluate(data, predictions, model_categories=model, threshold=0.5)
    classes = metrics.alignment.to_json()
    assert classes["shared"] == ["violin"] and classes["model_only"] == ["kazoo"]
    assert classes["data_only"] == ["lute", "harp", "drum"]
    assert metrics.coco["AP"] == pytest.approx(1.0)  # over violin alone
    assert metrics.agnostic_ap50 == pytest.approx(1.0)  # the harp was found, as a kazoo
    assert metrics.coverage.model_only_boxes == metrics.coverage.data_only_boxes == 1
    row, column = metrics.confusion_names.index("harp"), metrics.confusion_names.index("kazoo")
    assert metrics.confusion[row, column] == 1


def test_label_that_no_category_has_is_an_error() -> None:
    data = manifest(image(1, [(10, 10, 50, 50)], [1]))
    with pytest.raises(EvaluationError, match=r"\[77\].*categories.json"):
        evaluate(data, {1: found([(10, 10, 50, 50)], [0.9], [77])})


def test_score_that_is_not_a_number_is_an_error() -> None:
    data = manifest(image(1, [(10, 10, 50, 50)], [1]))
    with pytest.raises(EvaluationError, match="not a number"):
        evaluate(data, {1: found([(10, 10, 50, 50)], [float("nan")], [1])})


def test_images_with_unboxed_instruments_are_left_out_and_counted() -> None:
    data = manifest(image(1, [(10, 10, 50, 50)], [1]), replace(image(2), labels=(1,)),
                    replace(image(3), labels=None), image(4))
    metrics = evaluate(data, {i: found([(10, 10, 50, 50)], [0.9], [1]) for i in (1, 2, 3, 9)},
                       threshold=0.5)
    assert metrics.coverage.images == 2 and metrics.coverage.unboxed == 2
    assert metrics.coverage.not_in_data == 1 and metrics.coverage.without_prediction == 1
    assert metrics.found.false_alarms == 0


def test_finds_beside_the_boxes_of_a_partly_boxed_image_are_ignored() -> None:
    """A lute and a violin, only the lute boxed: as if a crowd of violins filled the image."""
    lute, violin = (10, 10, 110, 110), (200, 100, 350, 250)
    whole = image(1, [lute], [1])
    partly = replace(whole, labels=(1, 2))
    crowd = Box((0, 0, 400, 300), 2, iscrowd=True)
    others = (image(2, [violin], [2]), image(3))
    predictions = {1: found([lute, violin, (15, 10, 110, 115)], [0.9, 0.8, 0.6], [1, 2, 3]),
                   2: found([violin], [0.7], [2]), 3: found([lute], [0.65], [1])}
    data = manifest(partly, *others)
    metrics = evaluate(data, predictions, threshold=0.5, engine="reference")
    assert (metrics.found.hits, metrics.found.false_alarms, metrics.found.misses) == (2, 1, 0)
    assert pool(metrics.matched).scores == pytest.approx([0.9, 0.7, 0.65])  # what is calibrated on
    truth = manifest(replace(partly, boxes=(*partly.boxes, crowd)), *others).to_coco()
    assert list(metrics.coco.values()) == pycocotools_figures(truth, predictions)
    assert list(metrics.agnostic_coco.values()) == pycocotools_figures(
        truth, predictions, use_cats=False)
    assert metrics.coco["AP"] == pytest.approx(1)
    assert (metrics.coverage.partly_boxed, metrics.coverage.crowds) == (1, 0)
    assert metrics.coverage.boxes == 2 and metrics.coverage.unboxed == 0
    assert evaluate(manifest(whole), predictions, threshold=0.5).found.false_alarms == 2


@pytest.mark.real
def test_figures_on_real_boxes_are_those_of_pycocotools(real_fixture: Path) -> None:
    data = Manifest.read(real_fixture / "artworks_boxed")
    rng = np.random.default_rng(0)
    predictions = {}
    for record in data.images:
        boxes = np.repeat(np.array([b.xyxy for b in record.boxes]).reshape(-1, 4), 3, axis=0)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        stray = rng.uniform(0, 100, (int(rng.integers(0, 2)), 4)) + np.array([0, 0, 101, 101])
        labels = np.repeat([b.label for b in record.boxes], 3).astype(int)
        predictions[record.id] = found(
            np.concatenate([boxes + rng.normal(0, 0.1, boxes.shape) * sides, stray]),
            rng.random(len(boxes) + len(stray)),
            np.concatenate([labels, rng.integers(1, 21, len(stray))]))
    metrics = evaluate(data, predictions, engine="reference", bootstrap=200)
    truth = json.loads((real_fixture / "artworks_boxed" / "manifest.json").read_text("utf-8"))
    assert list(metrics.coco.values()) == pycocotools_figures(truth, predictions)
    low, high = metrics.agnostic_ap50_interval or (1.0, 0.0)
    assert low < (metrics.agnostic_ap50 or 0) < high
    assert metrics.coverage.images == 133 and metrics.coverage.negatives == 96
