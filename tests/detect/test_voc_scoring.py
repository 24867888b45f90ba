"""VOC's average precision by hand, and against pycocotools on a fine grid of recalls."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from musicon.detect.matching import MatchedImage
from musicon.detect.voc_scoring import average_precision, minerva_json, minerva_rows, minerva_table

BOX = (0.0, 0.0, 10.0, 10.0)
NEAR = (0.0, 0.0, 10.0, 12.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def scene(truths: list[tuple[tuple[float, ...], int]],
          found: list[tuple[tuple[float, ...], int, float]], image_id: int = 1,
          crowd: tuple[int, ...] = ()) -> MatchedImage:
    found = sorted(found, key=lambda row: -row[2])
    return MatchedImage(
        image_id=image_id, gt_boxes=np.array([b for b, _ in truths], float).reshape(-1, 4),
        gt_labels=np.array([c for _, c in truths], int),
        gt_crowd=np.array([i in crowd for i in range(len(truths))], bool),
        boxes=np.array([b for b, _, _ in found], float).reshape(-1, 4),
        scores=np.array([s for _, _, s in found], float),
        labels=np.array([c for _, c, _ in found], int), gt_index=np.full(len(found), -1),
        is_negative=not truths)


def test_by_hand() -> None:
    # Hit, false alarm, hit over 2 true boxes: 1/2 at precision 1, 1/2 at precision 2/3.
    images = [scene([(BOX, 1)], [(BOX, 1, 0.9), (FAR, 1, 0.8)]),
              scene([(FAR, 1)], [(FAR, 1, 0.7), (BOX, 2, 0.99)], image_id=2)]
    assert average_precision(images, 1) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(images, 1, lowest=0.75) == pytest.approx(0.5)
    assert average_precision(images, 2) is None and average_precision([], 1) is None
    assert average_precision([scene([(BOX, 1)], [])], 1) == 0


def test_overlap_decides() -> None:
    images = [scene([(BOX, 1)], [((0.0, 0.0, 10.0, 3.0), 1, 0.9)])]  # IoU 0.3
    assert average_precision(images, 1, iou=0.1) == 1
    assert average_precision(images, 1, iou=0.5) == 0


def test_second_box_on_a_true_one_is_a_false_alarm_even_if_another_is_free() -> None:
    shifted = (0.0, 1.0, 10.0, 13.0)
    images = [scene([(BOX, 1), (shifted, 1)], [(BOX, 1, 0.9), (NEAR, 1, 0.8)])]
    # VOC gives NEAR the box it overlaps most: BOX (10/12 = 0.83; the other 11/13 = 0.85).
    assert average_precision(images, 1) == 1
    images = [scene([(BOX, 1), (shifted, 1)], [(BOX, 1, 0.9), (BOX, 1, 0.8)])]
    assert average_precision(images, 1) == 0.5


def test_crowds_do_not_count() -> None:
    images = [scene([(BOX, 1), (FAR, 1)], [(FAR, 1, 0.9), (BOX, 1, 0.8)], crowd=(1,))]
    assert average_precision(images, 1) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou", [0.1, 0.5])
def test_agrees_with_pycocotools_on_a_fine_grid(seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    images: list[MatchedImage] = []
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image_id in range(1, 30):
        # True boxes on a grid, far apart: which is overlapped most is never in doubt.
        cells = rng.permutation(9)[:rng.integers(0, 5)]
        boxes = [tuple(float(v) for v in (x * 100, y * 100, x * 100 + 50, y * 100 + 50))
                 for x, y in zip(cells % 3, cells // 3, strict=True)]
        near = [tuple(v + float(d) for v, d in zip(box, rng.normal(0, 12, 4), strict=True))
                for box in boxes for _ in range(rng.integers(0, 3))]
        rows = [(box, 1, float(rng.random())) for box in [*near, (310.0, 310.0, 330.0, 330.0)]]
        images.append(scene([(b, 1) for b in boxes], rows, image_id))
        truths += [{"id": len(truths) + n, "image_id": image_id, "category_id": 1, "iscrowd": 0,
                    "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "area": 2500}
                   for n, b in enumerate(boxes, start=1)]
        found += [{"image_id": image_id, "category_id": 1, "score": s,
                   "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]} for b, _, s in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": i.image_id} for i in images], "annotations": truths,
                        "categories": [{"id": 1}]}
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.params.iouThrs = np.array([iou])
        judge.params.recThrs = np.linspace(0, 1, 100_001)
        judge.evaluate()
        judge.accumulate()
    expected = judge.eval["precision"][0, :, 0, 0, -1].mean()
    assert average_precision(images, 1, iou=iou) == pytest.approx(expected, abs=1e-3)


def test_minerva_table() -> None:
    images = [scene([(BOX, 1), (FAR, 2)], [((0.0, 0.0, 10.0, 3.0), 1, 0.9), (FAR, 2, 0.04)])]
    rows = minerva_rows(images, {1: "lute", 2: "harp", 3: "drum"})
    assert [(r.name, r.boxes, r.ap10, r.ap50) for r in rows] == [
        ("drum", 0, None, None), ("harp", 1, 0, 0), ("lute", 1, 1, 0)]
    assert [(r.name, r.ap50) for r in minerva_rows(images, {1: "instrument"})] == [
        ("instrument", 0)]  # the one lute, found too loosely as a lute and missed as a harp
    said = json.loads(json.dumps(minerva_json(rows)))
    assert (said["map10"], said["map50"]) == (0.5, 0)
    text = minerva_table(rows, "minerva single")
    assert text.splitlines()[-2].split() == ["mean", "2", "0.5", "0"]
    assert text.splitlines()[-1].endswith("AP50 0.22")
    assert "published" not in minerva_table(rows)
