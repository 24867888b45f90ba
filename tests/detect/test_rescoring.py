"""The second look at what the detector proposes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from finder import CATEGORIES, ColourFinder, colour_detector, picture, settings, tiny_model
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.detect.checkpoints import ModelFolderError, load_model, save_model
from musicon.detect.config import Config
from musicon.detect.material import Item
from musicon.detect.model_files import LINEAGE, RESCORER
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.rescoring import LEAST, STRENGTH, Rescorer, fit_rescorer
from musicon.detect.rescoring_examples import (
    MOST_BOXES,
    Examples,
    rescoring_examples,
    stage_examples,
)
from musicon.detect.tiling import TestTime
from musicon.detect.training import StageContext

NONE = np.zeros((0, 4), np.float32)


def proposals(hits: int, alarms: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(hits + alarms, 6)).astype(np.float32) * [1, 5, 0.5, 1, 1, 20] + 3
    features[:hits, 1] += 6
    return features.astype(np.float32), np.arange(hits + alarms) < hits


def test_the_rescorer_is_a_logistic_regression_on_standardised_features() -> None:
    features, hits = proposals(40, 300)
    rescorer = fit_rescorer(features, hits)
    assert rescorer is not None
    exact = features.astype(np.float64)  # in float32 the solver stops where the processor's sums do
    oracle = make_pipeline(StandardScaler(), LogisticRegression(
        C=STRENGTH / 340, class_weight="balanced", max_iter=1000)).fit(exact, hits)
    with torch.inference_mode():
        given = rescorer(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(given, oracle.predict_proba(exact)[:, 1], atol=1e-4)
    assert given[hits].mean() > given[~hits].mean()


def test_a_feature_that_was_all_but_silent_does_not_decide_alone() -> None:
    features, hits = proposals(40, 300)
    features[:, 2] = 0
    features[3, 2] = 1e-4
    rescorer = fit_rescorer(features, hits)
    assert rescorer is not None
    loud = features[hits]
    loud[:, 2] = 0.05
    with torch.inference_mode():
        quiet, spoken = (rescorer(torch.from_numpy(rows)) for rows in (features[hits], loud))
    assert float((quiet - spoken).abs().max()) < 0.01


@pytest.mark.parametrize(("hits", "alarms"), [(LEAST - 1, 300), (300, LEAST - 1)])
def test_too_few_of_either_teach_nothing(hits: int, alarms: int) -> None:
    assert fit_rescorer(*proposals(hits, alarms)) is None


class Looking(nn.Module):
    """Probabilities 0.8 for the first class; features: means of the crop's colours, in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def probabilities(self, crops: Tensor) -> Tensor:
        return torch.tensor([0.2, 0.8, 0.0, 0.0]).expand(len(crops), -1)

    def features_and_probabilities(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        left = crops[..., : crops.shape[-1] // 2].float().mean(dim=(2, 3)) / 255
        return left, self.probabilities(crops)


def rescoring_detector(test_time: TestTime | None = None, **fusion: object) -> ArtworkDetector:
    torch.manual_seed(3)
    return ArtworkDetector(Looking(), ColourFinder(), settings(**fusion), CATEGORIES, "cpu",
                           test_time=test_time, rescorer=Rescorer(6).eval())


SCENE = picture(120, 90, red=(5, 5, 30, 60), green=(40, 20, 110, 40), blue=(50, 60, 80, 85))


def test_the_score_is_the_fused_one_times_the_rescorers() -> None:
    finder = rescoring_detector()
    plain = ArtworkDetector(Looking(), ColourFinder(), settings(), CATEGORIES, "cpu")
    found, before = finder.predict([SCENE], 0.0)[0], plain.predict([SCENE], 0.0)[0]
    assert len(found) == len(before) == 3
    for box, score in zip(found.boxes, found.scores, strict=True):
        row = int(np.abs(before.boxes - box).sum(axis=1).argmin())
        with torch.inference_mode():
            said = finder.rescorer(torch.from_numpy(finder.features(SCENE, box[None])))
        assert 0.01 < float(said) < 0.99
        assert score == pytest.approx(before.scores[row] * float(said), rel=1e-5)


def test_what_cannot_reach_the_threshold_is_not_looked_at_again() -> None:
    finder = rescoring_detector()
    everything = finder.predict([SCENE], 0.0)[0]
    middle = float(everything.scores[1])
    found = finder.predict([SCENE, picture(50, 40)], middle)
    np.testing.assert_allclose(found[0].boxes, everything.above(middle).boxes)
    assert len(found[0]) == 2 and len(found[1]) == 0
    assert len(finder.opinions([SCENE], 0.99)[0].proposals) == 0


def test_the_detectors_own_score_stays_its_own() -> None:
    found = rescoring_detector(rule="detector").predict([SCENE], 0.0)[0]
    assert found.scores == pytest.approx(found.detector_scores)


def test_settings_can_go_without_it() -> None:
    plain = ArtworkDetector(Looking(), ColourFinder(), settings(), CATEGORIES, "cpu")
    found = rescoring_detector(rescore=False).predict([SCENE], 0.0)[0]
    assert sorted(found.scores) == pytest.approx(sorted(plain.predict([SCENE], 0.0)[0].scores))


def test_a_mirrored_look_counts_as_much() -> None:
    flipped = np.ascontiguousarray(SCENE[:, ::-1])
    both = [rescoring_detector(TestTime(flip=True)).predict([image], 0.0)[0]
            for image in (SCENE, flipped)]
    assert sorted(both[0].scores) == pytest.approx(sorted(both[1].scores), abs=0.003)
    one = [rescoring_detector().predict([image], 0.0)[0] for image in (SCENE, flipped)]
    assert sorted(one[0].scores) != pytest.approx(sorted(one[1].scores), abs=0.006)


def test_examples_are_the_detectors_own_boxes(tmp_path: Path) -> None:
    Image.fromarray(SCENE).save(tmp_path / "scene.png")
    red = np.array([[6, 5, 30, 60]], np.float32)
    boxed = Item(tmp_path / "scene.png", (1,), red, np.ones(1, np.int64))
    empty = Item(tmp_path / "scene.png", (), NONE, np.zeros(0, np.int64))
    finder = ArtworkDetector(Looking(), ColourFinder(), settings(), CATEGORIES, "cpu")
    found = rescoring_examples(finder, [boxed, empty], quiet=True)
    features, hits = found.features, found.hits
    assert features.shape == (6, 6) and len(hits) <= 2 * MOST_BOXES
    assert found.images == (boxed.path,) * 6
    assert hits.sum() == 1 and hits[:3].any()
    np.testing.assert_allclose(features[hits], finder.features(SCENE, red), atol=0.1)
    assert features[hits][0, 0] > features[hits][0, 1]  # redder than green
    guessed = rescoring_examples(finder, [boxed, empty], [boxed], quiet=True).hits
    assert guessed.tolist() == [True, False, False, False]  # what else the guess left out is open


RED = Box((5, 5, 30, 60), 3)


@pytest.mark.parametrize(("boxes", "labels", "alarms"), [
    ((RED,), (3,), 2), ((RED,), None, 2),
    ((RED,), (3, 5), 0),  # the violin has no box
    ((RED, Box((40, 20, 110, 40), 5, iscrowd=True)), None, 0),
    ((RED, Box((40, 20, 110, 40), 11)), None, 0),  # a class that the stage does not know
])
def test_only_wholly_boxed_training_pictures_show_false_alarms(
        boxes: tuple[Box, ...], labels: tuple[int, ...] | None, alarms: int,
        tmp_path: Path) -> None:
    for name, image in (("scene", SCENE), ("empty", picture(90, 80, blue=(20, 20, 60, 50)))):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    Manifest(tmp_path, (*CATEGORIES, Category(11, "serpent")), (
        ImageRecord(1, "scene.png", 120, 90, boxes, labels, split="train"),
        ImageRecord(2, "empty.png", 90, 80, labels=(), split="train"),
        ImageRecord(3, "not-there.png", 90, 80, (RED,), split="val"),
        ImageRecord(4, "nor-there.png", 90, 80, labels=(), split="test"))).write(tmp_path)
    config = Config.model_validate({**settings().model_dump(), "stages": {
        "cytomine": {"manifest": tmp_path}}})
    found = stage_examples(
        ArtworkDetector(Looking(), ColourFinder(), config, CATEGORIES, "cpu"),
        StageContext("cytomine", config, CATEGORIES, tmp_path, torch.device("cpu"), True, None))
    assert found is not None
    assert sorted(found.hits.tolist(), reverse=True) == [True] + [False] * (alarms + 1)


def test_images_without_proposals_teach_nothing(tmp_path: Path) -> None:
    Image.fromarray(picture(60, 50)).save(tmp_path / "plain.png")
    empty = Item(tmp_path / "plain.png", (), NONE, np.zeros(0, np.int64))
    found = rescoring_examples(rescoring_detector(), [empty], quiet=True)
    assert found.features.shape == (0, 0) and found.hits.shape == (0,)
    assert found.fit() is None


def test_a_rescorer_may_be_kept_from_images() -> None:
    features, hits = proposals(40, 300)
    images = tuple(Path(f"{i % 4}.png") for i in range(340))
    known = np.arange(340) % 4 > 0
    kept = Examples(features, hits, images).fit({Path("0.png")})
    expected = fit_rescorer(features[known], hits[known])
    assert kept is not None and expected is not None
    torch.testing.assert_close(kept.linear.weight, expected.linear.weight)


@pytest.fixture
def rescored(tmp_path: Path) -> Path:
    """A model folder with a rescorer."""
    model = load_model(tiny_model(tmp_path / "plain"))
    _, probabilities = model.classifier.features_and_probabilities(torch.zeros(1, 3, 32, 32))
    width = model.classifier.features_and_probabilities(torch.zeros(1, 3, 32, 32))[0].shape[1]
    assert probabilities.shape == (1, len(CATEGORIES) + 1)
    save_model(tmp_path / "run" / "model", classifier=model.classifier, detector=model.detector,
               config=model.config, categories=model.categories, metrics={},
               lineage={"stage": "cytomine"}, rescorer=Rescorer(2 * width))
    return tmp_path / "run" / "model"


def test_a_model_folder_keeps_its_rescorer(rescored: Path, tmp_path: Path) -> None:
    first, again = (ArtworkDetector.load(rescored, "cpu") for _ in range(2))
    assert first.rescorer is not None and not first.rescorer.training
    torch.testing.assert_close(first.rescorer.linear.weight, again.rescorer.linear.weight)
    plain = ArtworkDetector.load(tmp_path / "plain", "cpu")
    assert plain.rescorer is None
    assert plain.fingerprint() != first.fingerprint() == again.fingerprint()


def test_a_broken_rescorer_is_named(rescored: Path) -> None:
    file = rescored / RESCORER
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelFolderError, match=r"rescorer\.safetensors: the weights are damaged"):
        load_model(rescored)
    file.unlink()
    with pytest.raises(ModelFolderError, match=r"rescorer\.safetensors missing; train it again"):
        load_model(rescored)


def test_a_rescorer_of_another_classifier_is_refused(rescored: Path) -> None:
    model = load_model(rescored)
    save_model(rescored, classifier=model.classifier, detector=model.detector,
               config=model.config, categories=model.categories, metrics={},
               lineage={"stage": "cytomine"}, rescorer=Rescorer(8))
    assert "rescorer_sha256" in (rescored / LINEAGE).read_text()
    with pytest.raises(ModelFolderError, match="do not fit the rescorer"):
        load_model(rescored)


def test_finders_without_a_rescorer_need_no_features() -> None:
    assert len(colour_detector().predict([SCENE], 0.0)[0]) == 3


def test_threads_that_share_a_classifier_get_their_own_features(rescored: Path) -> None:
    classifier = load_model(rescored).classifier
    crops = [torch.full((2, 3, 32, 32), value) for value in (0.0, 255.0)]
    alone = [classifier.features_and_probabilities(one)[0] for one in crops]
    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        found = list(pool.map(lambda i: classifier.features_and_probabilities(crops[i % 2])[0],
                              range(80)))
    for i, features in enumerate(found):
        torch.testing.assert_close(features, alone[i % 2])
