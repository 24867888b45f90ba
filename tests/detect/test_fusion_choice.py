"""The rule of fusion is the one that validation shows to be best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finder import CATEGORIES, ColourFinder, ColourNamer, picture, settings
from PIL import Image
from torch import Tensor

from musicon.datasets.boxes import BoxArray, as_boxes
from musicon.datasets.records import Box, ImageRecord, Manifest
from musicon.detect.config import FusionConfig
from musicon.detect.detections import Detections
from musicon.detect.evaluation import evaluate
from musicon.detect.fusion_choice import (
    WEIGHTS,
    Tried,
    calibrate,
    candidates,
    choose,
    rescoring_helps,
    search,
    set_threshold,
    try_rules,
)
from musicon.detect.matching import quiet_threshold
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.prediction import run_model


class Excited(ColourFinder):
    """Finds green things (false alarms here) with more confidence than red ones (true)."""

    def _one(self, image: Tensor) -> dict[str, Tensor]:
        found = super()._one(image)
        found["scores"] = torch.where(found["labels"] == 2, 0.95, 0.6)
        return found


class Blind(ColourNamer):
    """Takes red things for nothing."""

    def probabilities(self, crops: Tensor) -> Tensor:
        table = super().probabilities(crops)
        red = table[:, 1] > 0.5
        table[red] = torch.tensor([0.97, 0.03, 0.0, 0.0])
        return table


class Sees(ColourNamer):
    """Takes green things for nothing."""

    def probabilities(self, crops: Tensor) -> Tensor:
        table = super().probabilities(crops)
        table[table[:, 2] > 0.5] = torch.tensor([0.97, 0.0, 0.03, 0.0])
        return table


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Red boxes are instruments; green ones, in empty pictures, are not."""
    root = tmp_path_factory.mktemp("validation")
    records = []
    for i in range(1, 9):
        box = (10 + 3 * i, 10, 60 + 3 * i, 60)
        shown = {"red": box} if i % 2 else {"green": box}
        Image.fromarray(picture(120, 80, **shown)).save(root / f"{i}.png")
        boxes = (Box(tuple(map(float, box)), 3),) if i % 2 else ()  # type: ignore[arg-type]
        records.append(ImageRecord(i, f"{i}.png", 120, 80, boxes, split="val"))
    return Manifest(root, CATEGORIES, tuple(records))


def finder(detector: ColourFinder, namer: ColourNamer, **fusion: object) -> ArtworkDetector:
    return ArtworkDetector(namer, detector, settings(**fusion), CATEGORIES, "cpu")


def all_rules(model: ArtworkDetector, validation: Manifest) -> list[Tried]:
    return try_rules(model, search(model, validation, quiet=True), validation,
                     candidates(model.config.fusion))


def test_the_written_rule_comes_first_and_nothing_twice() -> None:
    rules = candidates(FusionConfig(rule="auto"))
    assert (rules[0].rule, rules[0].classifier_weight) == ("product", 0.5)
    assert len(rules) == 2 + len(WEIGHTS)
    rules = candidates(FusionConfig(rule="classifier"))
    assert rules[0].rule == "classifier" and len(rules) == 2 + len(WEIGHTS)


def test_a_seeing_classifier_is_listened_to(validation: Manifest) -> None:
    tried = all_rules(finder(Excited(), Sees()), validation)
    quality = {(t.fusion.rule, t.fusion.classifier_weight): t.quality for t in tried}
    assert quality["classifier", 0.5] == pytest.approx(1)
    assert quality["detector", 0.5] == pytest.approx(0.75, abs=0.01)  # .5 and, by name, 1
    best = choose(tried)
    assert best.quality == pytest.approx(1) and best.fusion.rule == "product"
    assert best.metrics.negatives_with_alarm == 0
    rows = {row["rule"]: row for row in (t.row() for t in tried)}
    assert rows["detector"]["agnostic_ap50"] < rows["classifier"]["agnostic_ap50"]


def test_large_pictures_are_seen_as_inference_sees_them(tmp_path: Path) -> None:
    """A detector of 2,048 pixels is calibrated on 2,048 pixels, not on what smaller ones see."""
    seen = []

    class Watching(ColourFinder):
        def _one(self, image: Tensor) -> dict[str, Tensor]:
            seen.append(max(image.shape))
            return super()._one(image)

    Image.fromarray(picture(1900, 300, red=(10, 10, 60, 60))).save(tmp_path / "1.png")
    data = Manifest(tmp_path, CATEGORIES, (
        ImageRecord(1, "1.png", 1900, 300, (Box((10, 10, 60, 60), 3),), split="val"),))
    config = settings()
    large = config.model_copy(update={
        "detector": config.detector.model_copy(update={"image_size": 2048})})
    model = ArtworkDetector(ColourNamer(), Watching(), large, CATEGORIES, "cpu")
    run_model(model, data, quiet=True)
    search(model, data, quiet=True)
    assert seen == [1900, 1900]


def test_a_blind_one_is_not(validation: Manifest) -> None:
    tried = all_rules(finder(ColourFinder(), Blind(), rule="auto"), validation)
    assert (tried[0].fusion.rule, choose(tried).fusion.rule) == ("product", "detector")


@pytest.mark.parametrize(("namer", "red", "green", "helps"), [
    (ColourNamer, 0.9, 0.1, True),  # the false alarms sink
    (Sees, 0.01, 0.99, False),  # they rise
    (Sees, 0.5, 0.5, True),  # nothing changes
])
def test_a_rescorer_stays_where_it_does_no_harm(validation: Manifest, namer: type[ColourNamer],
                                                red: float, green: float, helps: bool) -> None:
    model = finder(Excited(), namer())
    opinions = {i: replace(said, rescored=torch.where(said.proposals.labels == 2, green, red))
                for i, said in search(model, validation, quiet=True).items()}
    assert rescoring_helps(model, opinions, validation) is helps


def test_composed_scenes_say_nothing_of_a_rescorer(validation: Manifest) -> None:
    model = finder(Excited(), ColourNamer())
    opinions = {i: replace(said, rescored=torch.where(said.proposals.labels == 2, 0.1, 0.9))
                for i, said in search(model, validation, quiet=True).items()}
    composed = replace(validation, images=tuple(
        replace(r, boxes=tuple(replace(b, origin="composite") for b in r.boxes))
        for r in validation.images))
    assert not rescoring_helps(model, opinions, composed)


def test_opinions_fuse_to_what_the_pipeline_finds(validation: Manifest) -> None:
    model = finder(Excited(), Sees())
    images = [np.asarray(Image.open(validation.path(r))) for r in validation.images]
    said = model.opinions(images)
    for rule in ("detector", "classifier", "product"):
        fusion = FusionConfig(rule=rule)  # type: ignore[arg-type]
        other = finder(Excited(), Sees(), rule=rule)
        for opinions, expected in zip(said, other.predict(images, 0.0), strict=True):
            found = model.decide(opinions, 0.0, fusion)
            np.testing.assert_array_equal(found.boxes, expected.boxes)
            np.testing.assert_array_equal(found.scores, expected.scores)
            assert found.sure == expected.sure
    assert run_model(model, validation, quiet=True).found[1].sure == (("lute", "leaf"),)


def test_the_threshold_keeps_the_last_box_worth_showing(validation: Manifest) -> None:
    score = np.float32(2 / 3)  # which a rounded threshold would lie above
    found = {}
    for record in validation.images:
        boxes = as_boxes([box.xyxy for box in record.boxes])
        scores = np.full(len(boxes), score)
        found[record.id] = Detections(boxes, scores, np.full(len(boxes), 3), scores, scores,
                                      (record.width, record.height))
    fusion = calibrate(FusionConfig(), found, validation, CATEGORIES)
    fusion, metrics = set_threshold(fusion, found, validation, CATEGORIES)
    assert (fusion.slope, fusion.shift, metrics.found.hits) == (1.0, 0.0, 4)
    assert metrics.threshold - 1e-6 <= fusion.threshold <= score


def said(boxes: BoxArray, scores: Sequence[float], size: tuple[int, int]) -> Detections:
    """Lutes."""
    given = np.array(scores, np.float32)
    return Detections(boxes, given, np.full(len(boxes), 3), given, given, size)


def empty_works(first: int, count: int,
                scores: Sequence[float]) -> tuple[list[ImageRecord], dict[int, Detections]]:
    """Works without instrument, and one box in each of the first of them."""
    records = [ImageRecord(first + i, f"{first + i}.png", 20, 20, split="val")
               for i in range(count)]
    found = {record.id: said(as_boxes([[1, 1, 9, 9]] if scores[i:] else []), scores[i:i + 1],
                             (20, 20)) for i, record in enumerate(records)}
    return records, found


@pytest.mark.parametrize(("works", "may"), [(29, 4), (30, 0), (47, 0), (48, 1), (63, 2)])
def test_empty_works_are_left_in_peace(works: int, may: int) -> None:
    """Of so many works so many may show a box: from tables of the Poisson distribution.

    Of 29 nothing is sure, and all four boxes may be shown.
    """
    records, found = empty_works(1, works, [0.9, 0.8, 0.7, 0.6])
    data = Manifest(Path(), CATEGORIES, tuple(records))
    least = quiet_threshold(evaluate(data, found, model_categories=CATEGORIES).matched)
    assert sum(bool((one.scores >= least).any()) for one in found.values()) == may
    _, nothing = empty_works(1, works, [])
    assert quiet_threshold(evaluate(data, nothing, model_categories=CATEGORIES).matched) == 0


def test_the_threshold_leaves_empty_works_in_peace(validation: Manifest) -> None:
    boxed = [record for record in validation.images if record.boxes]
    records, found = empty_works(100, 40, [0.6])
    for i, record in enumerate(boxed):
        boxes = as_boxes([box.xyxy for box in record.boxes])
        found[record.id] = said(boxes, [0.5 + 0.1 * i] * len(boxes),
                                (record.width, record.height))
    data = replace(validation, images=(*boxed, *records))
    rule = calibrate(FusionConfig(), found, data, CATEGORIES)
    fusion, metrics = set_threshold(rule, found, data, CATEGORIES)
    assert metrics.false_alarms_per_negative == 0 and metrics.threshold_chosen_here
    assert fusion.threshold == metrics.threshold
    assert 0 < metrics.found.hits < sum(len(record.boxes) for record in boxed)
    least = (fusion.threshold + 1) / 2
    for given, expected in ((least, least), (fusion.threshold / 2, fusion.threshold)):
        quieter, fewer = set_threshold(rule, found, data, CATEGORIES, given)
        assert quieter.threshold == fewer.threshold == expected


def test_calibrated_scores_are_probabilities_and_find_the_same_boxes(validation: Manifest) -> None:
    finder = ArtworkDetector(Sees(), Excited(), settings(), CATEGORIES, "cpu")
    found = run_model(finder, validation, quiet=True).found
    before = evaluate(validation, found, model_categories=CATEGORIES)
    fusion = calibrate(finder.config.fusion, found, validation, CATEGORIES)
    fusion, after = set_threshold(fusion, found, validation, CATEGORIES)
    # Four right boxes and four wrong ones, kept apart by the scores: Platt's 5/6 and 1/6.
    assert after.calibration.error == pytest.approx(1 / 6, abs=1e-3)
    assert (before.calibration.error or 0) > 0.2
    assert after.found == before.found and after.agnostic_ap50 == before.agnostic_ap50

    again = ArtworkDetector(Sees(), Excited(),
                            finder.config.model_copy(update={"fusion": fusion}), CATEGORIES, "cpu")
    told = evaluate(validation, run_model(again, validation, quiet=True).found,
                    model_categories=CATEGORIES, threshold=fusion.threshold)
    assert told.calibration.error == pytest.approx(after.calibration.error, abs=1e-5)
    assert told.found == before.found
