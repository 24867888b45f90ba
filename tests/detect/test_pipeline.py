"""ArtworkDetector: boxes in the right pixels at any size, with real and with known networks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from finder import (
    CATEGORIES,
    ColourFinder,
    ColourNamer,
    colour_detector,
    picture,
    settings,
    tiny_model,
)

from musicon.datasets.boxes import iou
from musicon.datasets.loading import crop_square
from musicon.datasets.records import UserError
from musicon.detect.checkpoints import ModelFolderError, load_model
from musicon.detect.detections import Detections, rescale
from musicon.detect.pipeline import ArtworkDetector, ModelOutputError
from musicon.detect.tiling import TestTime


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def real(model: Path) -> ArtworkDetector:
    return ArtworkDetector.load(model, "cpu")


def test_boxes_names_and_scores_by_hand() -> None:
    image = picture(100, 80, red=(10, 20, 40, 60), blue=(60, 5, 90, 70))
    found = colour_detector().predict([image])[0]
    order = np.argsort(found.boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order], [[10, 20, 40, 60], [60, 5, 90, 70]])
    assert found.labels[order].tolist() == [3, 9]  # ids of the categories, not their order
    np.testing.assert_allclose(found.scores, (0.9 * 0.8) ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.detector_scores, 0.9, rtol=1e-6)
    np.testing.assert_allclose(found.classifier_scores, 0.8, rtol=1e-6)
    assert found.image_wh == (100, 80)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == ("f4", "f4", "i8")


@pytest.mark.parametrize("scale", [1, 3, 8, 40])
def test_boxes_come_back_in_the_pixels_of_the_image_given(scale: int) -> None:
    small = picture(100, 80, red=(10, 20, 40, 60))
    large = np.repeat(np.repeat(small, scale, axis=0), scale, axis=1)
    found = colour_detector().predict([large])[0]
    # The detector sees 128 pixels of the longer side: half of one of them is its precision.
    precision = max(1.0, 100 * scale / 128)
    np.testing.assert_allclose(found.boxes, [[10 * scale, 20 * scale, 40 * scale, 60 * scale]],
                               atol=precision)


def test_an_image_and_its_reduction_give_the_same_boxes(real: ArtworkDetector) -> None:
    """As streaming relies on: search the reduced image, scale back to the original."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)
    large = cv2.resize(coarse, (3200, 2400), interpolation=cv2.INTER_CUBIC)
    reduced = cv2.resize(large, (1600, 1200), interpolation=cv2.INTER_AREA)
    whole = real.predict([large], 0)[0]
    back = rescale(real.predict([reduced], 0)[0], (3200, 2400))
    assert len(whole) == len(back) > 0
    np.testing.assert_allclose(whole.boxes, back.boxes, atol=2)
    np.testing.assert_allclose(whole.scores, back.scores, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 500), (900, 3), (64, 64), (2500, 40)])
def test_any_size_gives_boxes_inside_the_image(real: ArtworkDetector,
                                               size: tuple[int, int]) -> None:
    width, height = size
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    found = real.predict([image], 0)[0]
    assert found.image_wh == size
    assert np.isfinite(found.boxes).all() and (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()


def test_a_batch_is_sorted_thresholded_and_without_duplicates(real: ArtworkDetector) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (90, 120, 3)).astype(np.uint8) for _ in range(3)]
    everything = real.predict(images, 0)
    middle = float(np.median(np.concatenate([found.scores for found in everything])))
    for found, all_found in zip(real.predict(images, middle), everything, strict=True):
        assert (np.diff(found.scores) <= 0).all() and (found.scores >= middle).all()
        assert set(found.labels) <= {c.id for c in CATEGORIES}
        overlap = iou(found.boxes, found.boxes) - np.eye(len(found))
        assert (overlap <= real.config.fusion.nms_iou + 1e-6).all()
        np.testing.assert_allclose(found.boxes, all_found.above(middle).boxes)


def test_looks_are_searched_as_many_at_once_as_wanted() -> None:
    given = []

    class Counting(ColourFinder):
        def detect(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            given.append(len(images))
            return super().detect(images)

    detector = ArtworkDetector(ColourNamer(), Counting(), settings(), CATEGORIES, "cpu",
                               test_time=TestTime(zooms=(2.0,)))
    image = picture(400, 300, red=(10, 20, 40, 60), blue=(300, 200, 350, 290))
    found = [detector.predict([image], None, at_once)[0] for at_once in (None, 4)]
    assert given == [1] * 10 + [4, 4, 2]
    np.testing.assert_allclose(found[0].boxes, found[1].boxes)


def test_two_names_for_one_place_become_one_box() -> None:
    class Stutter(ColourFinder):
        def detect(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            box = torch.tensor([[10.0, 20, 40, 60], [11, 20, 40, 61]])
            return [{"boxes": box, "labels": torch.tensor([2, 1]),
                     "scores": torch.tensor([0.9, 0.7])} for _ in images]

    detector = ArtworkDetector(ColourNamer(), Stutter(), settings(), CATEGORIES, "cpu")
    found = detector.predict([picture(100, 80, red=(10, 20, 40, 60))])[0]
    assert found.labels.tolist() == [3]  # the classifier sees red: a lute
    np.testing.assert_allclose(found.boxes, [[10, 20, 40, 60]])


def test_nothing_in_nothing_out(real: ArtworkDetector) -> None:
    assert real.predict([]) == []
    found = colour_detector().predict([picture(60, 50)])[0]
    assert len(found) == 0 and found.image_wh == (60, 50)
    assert len(real.predict([picture(60, 50)], threshold=1.01)[0]) == 0


def test_classify_is_the_classifier_on_its_own_crops(real: ArtworkDetector, model: Path) -> None:
    image = np.random.default_rng(2).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    boxes = np.array([[10, 10, 90, 120], [150, 40, 299, 199]], np.float32)
    classifier = load_model(model, "cpu").classifier
    margin, side = real.config.fusion.crop_margin, real.config.classifier.image_size
    expected = classifier.classify_crops([crop_square(image, box, margin, side) for box in boxes])
    given = real.classify(image, boxes)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    assert real.classify(image, []).shape == (0, len(CATEGORIES) + 1)


def test_the_classifier_score_is_what_classify_says(real: ArtworkDetector) -> None:
    image = np.random.default_rng(4).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    found = real.predict([image], 0)[0]
    columns = [[c.id for c in CATEGORIES].index(label) + 1 for label in found.labels]
    opinions = real.classify(image, found.boxes)
    np.testing.assert_allclose(found.classifier_scores,
                               opinions[np.arange(len(found)), columns], atol=1e-5)


def test_fingerprint_tells_models_apart(real: ArtworkDetector, model: Path,
                                        tmp_path: Path) -> None:
    assert ArtworkDetector.load(model, "cpu").fingerprint() == real.fingerprint()
    other = ArtworkDetector.load(tiny_model(tmp_path, seed=1), "cpu")
    assert other.fingerprint() != real.fingerprint()


def test_half_precision_finds_about_the_same(model: Path, real: ArtworkDetector) -> None:
    image = cv2.resize(np.random.default_rng(5).integers(0, 255, (12, 16, 3)).astype(np.uint8),
                       (320, 240))
    half = ArtworkDetector.load(model, "cpu", precision="bf16").predict([image], 0)[0]
    full = real.predict([image], 0)[0]
    assert half.scores.dtype == np.float32
    assert abs(float(half.scores.max()) - float(full.scores.max())) < 0.1


def test_unusable_input_is_refused_in_words(tmp_path: Path, real: ArtworkDetector) -> None:
    with pytest.raises(ValueError, match=r"uint8 RGB image \(H, W, 3\), found float64"):
        real.predict([np.zeros((4, 4, 3))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="found uint8"):
        real.predict([np.zeros((4, 0, 3), np.uint8)])
    with pytest.raises(UserError, match="write auto, cpu"):
        ArtworkDetector(ColourNamer(), ColourFinder(), settings(), CATEGORIES, "gpu")
    with pytest.raises(UserError, match="write auto or cpu"):
        ArtworkDetector(ColourNamer(), ColourFinder(), settings(), CATEGORIES, "cuda:99")
    with pytest.raises(ModelFolderError):
        ArtworkDetector.load(tmp_path / "nothing")


def test_broken_weights_are_named(model: Path) -> None:
    loaded = load_model(model, "cpu")
    with torch.no_grad():
        for value in loaded.classifier.parameters():
            value.fill_(float("nan"))
    detector = ArtworkDetector(loaded.classifier, ColourFinder(), loaded.config, CATEGORIES, "cpu")
    with pytest.raises(ModelOutputError, match="classifier"):
        detector.predict([picture(60, 50, red=(5, 5, 30, 30))])


def test_rescale() -> None:
    one = np.ones(1, np.float32)
    found = Detections(np.array([[1, 2, 3, 4]], np.float32), one, np.ones(1, np.int64), one, one,
                       (10, 20))
    larger = rescale(found, (20, 100))
    np.testing.assert_allclose(larger.boxes, [[2, 10, 6, 20]])
    assert larger.image_wh == (20, 100) and found.image_wh == (10, 20)
