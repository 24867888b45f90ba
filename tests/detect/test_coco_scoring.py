"""The two evaluators behind one call: equal, and sound where there is nothing to score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from musicon.detect.coco_scoring import COCO_KEYS, Engine, coco_scores

IMAGES = [{"id": i, "width": 640, "height": 480} for i in range(1, 41)]
TRUTH = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50]}
FOUND = {**TRUTH, "score": 0.9}
ENGINES: list[Engine] = ["fast", "reference"]


def scattered(seed: int, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"image_id": int(rng.integers(1, 41)), "category_id": int(rng.integers(1, 6)),
             "bbox": [float(v) for v in (*rng.uniform(0, 300, 2), *rng.uniform(5, 180, 2))],
             "iscrowd": int(rng.random() < 0.05), "score": float(rng.random())}
            for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_fast_and_reference_agree_in_everything(seed: int) -> None:
    truths = scattered(seed, 120)
    rng = np.random.default_rng(seed)
    found = scattered(seed + 100, 80)
    for row in truths * 2:
        moved = np.array(row["bbox"]) * rng.uniform(0.85, 1.15, 4)
        found.append({**row, "bbox": moved.tolist(), "score": float(rng.random()), "iscrowd": 0})
    fast, reference = (coco_scores(IMAGES, truths, found, range(1, 6), engine=engine)
                       for engine in ENGINES)
    assert fast.figures == pytest.approx(reference.figures, abs=1e-12)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_allclose(getattr(fast, name), getattr(reference, name), atol=1e-12)
    assert 0 < reference.figures["AP"] < 1


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_found_is_zero_and_nothing_to_find_is_minus_one(engine: Engine) -> None:
    none_found = coco_scores(IMAGES, [TRUTH], [], [1], engine=engine)
    assert none_found.figures["AP"] == 0 and none_found.average_precision(0, iou=0.5) == 0
    nothing = coco_scores(IMAGES, [], [FOUND], [1], engine=engine)
    assert nothing.figures == dict.fromkeys(COCO_KEYS, -1.0)
    assert nothing.average_precision() is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("images", "classes"), [([], [1]), (IMAGES, []), ([], [])])
def test_no_images_or_no_classes(engine: Engine, images: list[dict[str, Any]],
                                 classes: list[int]) -> None:
    scores = coco_scores(images, [], [], classes, engine=engine)
    assert scores.figures == dict.fromkeys(COCO_KEYS, -1.0)
    assert scores.precision.shape == (10, 101, len(classes))


@pytest.mark.parametrize("engine", ENGINES)
def test_first_annotation_counts(engine: Engine) -> None:
    # An annotation with id 0 would count as never matched.
    scores = coco_scores(IMAGES, [TRUTH], [FOUND], [1], engine=engine)
    assert scores.figures["AP"] == pytest.approx(1)


def test_engine_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="auto, fast, reference"):
        coco_scores(IMAGES, [TRUTH], [FOUND], [1], engine="quick")  # type: ignore[arg-type]
