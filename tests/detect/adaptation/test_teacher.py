"""The mean teacher: who is sure of what, what labels rule out, and when it begins to teach."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_stage import context, make_data, models, settings
from torch import Tensor, nn

from musicon.datasets.files import sha256
from musicon.datasets.records import Manifest
from musicon.detect.adaptation import adapt
from musicon.detect.adaptation.base import AdaptedTask, ClassifierPart, DetectorPart
from musicon.detect.adaptation.targets import Targets
from musicon.detect.adaptation.teacher import Confidence, Settings, Teacher
from musicon.detect.config import ConfigError
from musicon.detect.crops import ClassifierTask
from musicon.detect.detectors.task import DetectorTask
from musicon.detect.training import StageContext


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("teacher"))


def stage(data: Path, cache: Path, **method: Any) -> StageContext:
    given = {"name": "teacher", "targets": [str(data / "art")], "burn_in": 0.5, **method}
    return context(settings(data, given), cache)


class Says(nn.Module):
    """A classifier, or a detector, that always says the same."""

    class_agnostic = True

    def __init__(self, logits: list[list[float]], scores: list[float] | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.scores = scores or []
        self.taught: list[dict[str, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[:len(images)]

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        boxes = torch.tensor([[10.0, 10, 60, 50], [30, 20, 100, 80]])[:len(self.scores)]
        return [{"boxes": boxes, "scores": torch.tensor(self.scores),
                 "labels": torch.ones(len(self.scores), dtype=torch.int64)} for _ in images]

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        self.taught += targets
        one = self.logits.sum() * 0 + 1
        return {"loss_classifier": one, "loss_box_reg": one, "loss_rpn_loc": one,
                "loss_objectness": one}


def test_thresholds_follow_each_class_by_hand() -> None:
    cfg = Settings(targets=(Path("x"),), momentum=0.5, least_confidence=0.5, most_confidence=0.9)
    confidence = Confidence(2, cfg)
    torch.testing.assert_close(confidence.thresholds, torch.tensor([0.9, 0.9, 0.9]))
    confidence.update(torch.tensor([0.8, 0.6, 0.1]), torch.tensor([1, 1, 2]))
    # Class 1: .5 * .9 + .5 * .7; class 2: .5 * .9 + .5 * .1, no less than half sure.
    torch.testing.assert_close(confidence.thresholds, torch.tensor([0.9, 0.8, 0.5]))
    torch.testing.assert_close(confidence.means[2], torch.tensor(0.5))
    confidence.update(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    torch.testing.assert_close(confidence.thresholds, torch.tensor([0.9, 0.8, 0.5]))


def test_the_classifier_learns_what_the_teacher_is_sure_of(data: Path, tmp_path: Path) -> None:
    ctx = stage(data, tmp_path, momentum=0.0, least_confidence=0.6, most_confidence=0.7,
                weight=2.0)
    method = Teacher(ctx.stage.adaptation[0], ClassifierPart(ctx),  # type: ignore[arg-type]
                     Targets(ctx, ctx.stage.adaptation[0]))
    student = Says([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    # Softmax: (.21, .58, .21) unsure, (.04, .92, .04) sure, and (.91, .05, .05), of which the
    # picture's label leaves (0, .5, .5): unsure.
    teacher = Says([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [3.0, 0.0, 0.0]])
    allowed = torch.tensor([[True] * 3, [True] * 3, [False, True, True]])
    views = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    method.begin(0.5, teacher)
    assert method.losses(student, (views, views, allowed)) == {}  # burn-in
    method.begin(0.51, teacher)
    (loss,) = method.losses(student, (views, views, allowed)).values()
    expected = nn.functional.cross_entropy(student.logits[1:2], torch.tensor([1])) / 3 * 2
    torch.testing.assert_close(loss, expected)
    assert method.tally.take()["pseudo_labelled"] == pytest.approx(1 / 3)
    loss.backward()
    assert student.logits.grad is not None and teacher.logits.grad is None


def test_the_detector_learns_sure_boxes_and_not_where_they_end(data: Path, tmp_path: Path) -> None:
    ctx = stage(data, tmp_path, momentum=0.5, least_confidence=0.4, most_confidence=0.8)
    method = Teacher(ctx.stage.adaptation[0], DetectorPart(ctx),  # type: ignore[arg-type]
                     Targets(ctx, ctx.stage.adaptation[0]))
    teacher, student = Says([[0.0]], [0.85, 0.5]), Says([[0.0]])
    views = [torch.zeros(3, 100, 120, dtype=torch.uint8)] * 3
    allowed = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    method.begin(1.0, teacher)
    terms = method.losses(student, (views, views, allowed))
    assert set(terms) == {"pseudo_loss_classifier", "pseudo_loss_objectness"}
    first, empty, third = student.taught
    # After the first image class 1 is at .5 * .8 + .5 * .675 = .7375, which .85 still passes.
    assert first["boxes"].tolist() == third["boxes"].tolist() == [[10, 10, 60, 50]]
    assert empty["boxes"].shape == (0, 4)  # known to hold no instrument
    silent = Says([[0.0]], [0.3])
    method.begin(1.0, silent)
    assert method.losses(student, (views[:1], views[:1], allowed[:1])) == {}
    assert len(student.taught) == 3


def test_no_empty_box_is_learnt(data: Path, tmp_path: Path) -> None:
    """Some engines leave one where they cut a box off at the edge, and refuse to learn it."""
    ctx = stage(data, tmp_path, least_confidence=0.0, most_confidence=0.0)
    method = Teacher(ctx.stage.adaptation[0], DetectorPart(ctx),  # type: ignore[arg-type]
                     Targets(ctx, ctx.stage.adaptation[0]))
    row = {"boxes": torch.tensor([[0.0, 96, 0, 99], [10, 10, 60, 50], [5, 5, 9, 5.5]]),
           "scores": torch.tensor([0.9, 0.8, 0.9]), "labels": torch.ones(3, dtype=torch.int64)}
    boxes, sure = method._sure(row, torch.ones(3, dtype=torch.bool), agnostic=True)
    assert boxes[sure].tolist() == [[10, 10, 60, 50]]


@pytest.mark.parametrize(("engine", "family"), [
    ("torchvision", "fasterrcnn"), ("torchvision", "fcos"), ("torchvision", "retinanet"),
    ("torchvision", "ssdlite"), ("yolox", "yolox_nano"), ("detectron2", "fasterrcnn"),
    ("detectron2", "retinanet")])
def test_every_engine_learns_from_its_teacher(data: Path, tmp_path: Path, engine: str, family: str,
                                              need_engine: Callable[[str], None]) -> None:
    need_engine(engine)
    ctx = stage(data, tmp_path, least_confidence=0.0, most_confidence=0.0, use_labels=False)
    small = ctx.config.detector.model_copy(update={"engine": engine, "family": family,
                                                     "weights": "none"})
    ctx = context(ctx.config.model_copy(update={"detector": small}), tmp_path)
    _, detector = models(ctx.config)
    task = adapt(DetectorTask(detector, ctx), ctx)
    assert isinstance(task, AdaptedTask)
    rng = np.random.default_rng(0)
    batch = task.collate([task.example(task.draw(rng), rng) for _ in range(4)])
    average = copy.deepcopy(task.model).eval()
    average.network.detect = Says([[0.0]], [0.9, 0.8]).detect
    task.before_step(1.0, average)
    terms = task.losses(task.model.train(), batch)
    taught = {name: term for name, term in terms.items() if name.startswith("pseudo_")}
    assert taught and all(torch.isfinite(term) for term in taught.values())
    torch.stack(list(taught.values())).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in detector.parameters())


def test_a_styled_version_shows_the_same_window(data: Path, tmp_path: Path) -> None:
    """The bank's versions here are negatives, so that the two looks add up to white."""
    bank = tmp_path / "bank"
    bank.mkdir()
    manifest = Manifest.read(data / "art")
    versions = []
    for record in manifest.select(split="train").images:
        file = manifest.path(record)
        Image.fromarray(255 - np.asarray(Image.open(file))).save(bank / file.name)
        versions.append(replace(record, extra={"content_sha256": sha256(file)}))
    replace(manifest, images=tuple(versions), root=bank).write(bank)
    ctx = stage(data, tmp_path, bank=str(bank))
    targets = Targets(ctx, ctx.stage.adaptation[0])
    targets.styled_share = 1.0
    rng = np.random.default_rng(0)
    for _ in range(8):
        window = targets.draw(rng)
        assert (targets.look(window, rng) == 255 - targets.plain(window)).all()


def test_the_strong_view_is_changed_at_the_networks_size(data: Path, tmp_path: Path) -> None:
    """Noise that is shrunk with a larger window averages out."""
    ctx = stage(data, tmp_path)
    method = Teacher(ctx.stage.adaptation[0], ClassifierPart(ctx),  # type: ignore[arg-type]
                     Targets(ctx, ctx.stage.adaptation[0]))
    seen: list[tuple[int, ...]] = []
    method.strong = lambda image, rng: seen.append(image.shape) or image  # type: ignore[assignment,return-value,func-returns-value]
    method.example(np.random.default_rng(0))
    assert seen == [(48, 48, 3)]


def test_only_training_pictures_with_what_is_known_of_them(data: Path, tmp_path: Path) -> None:
    ctx = stage(data, tmp_path)
    known = {t.path.name: t.labels for t in Targets(ctx, ctx.stage.adaptation[0]).items}
    assert known == {"1.png": (1,), "2.png": None, "3.png": (), "4.png": (), "7.png": (2,)}
    blind = stage(data, tmp_path, use_labels=False)
    assert {t.labels for t in Targets(blind, blind.stage.adaptation[0]).items} == {None}


def test_both_views_show_the_same_window(data: Path, tmp_path: Path) -> None:
    """Where augmentation changes colours alone, the views must line up."""
    ctx = stage(data, tmp_path)
    method = Teacher(ctx.stage.adaptation[0], ClassifierPart(ctx),  # type: ignore[arg-type]
                     Targets(ctx, ctx.stage.adaptation[0]))
    alike = []
    for seed in range(12):
        views = method.example(np.random.default_rng(seed))
        weak, strong = (v.mean(2).ravel() for v in (views.weak, views.strong))
        other = method.example(np.random.default_rng(seed + 100)).weak.mean(2).ravel()
        alike.append(abs(np.corrcoef(weak, strong)[0, 1]) > abs(np.corrcoef(other, strong)[0, 1]))
    assert np.mean(alike) > 0.8


def test_it_joins_the_loop_and_needs_an_average(data: Path, tmp_path: Path) -> None:
    ctx = stage(data, tmp_path)
    classifier, _ = models(ctx.config)
    task = adapt(ClassifierTask(classifier, ctx), ctx)
    assert isinstance(task, AdaptedTask)
    rng = np.random.default_rng(0)
    task.before_step(1.0, task.model)
    batch = task.collate([task.example(task.draw(rng), rng) for _ in range(4)])
    terms = task.losses(task.model.train(), batch)
    assert set(terms) == {"cross_entropy", "pseudo_label"}
    fit = ctx.stage.classifier.model_dump() | {"ema_decay": None}
    with pytest.raises(ConfigError, match=r"keeps no average .* of the method's models$"):
        settings(data, ctx.stage.adaptation[0].model_dump(mode="json"), classifier=fit)
