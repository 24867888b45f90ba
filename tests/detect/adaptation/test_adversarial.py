"""Domain-adversarial training: the reversed gradient, its schedule, what it does to features."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_stage import context, make_data, models, settings
from torch import nn

from musicon.datasets.transforms import Augmentation
from musicon.detect.adaptation import adapt
from musicon.detect.adaptation.adversarial import (
    Discriminator,
    Reverse,
    schedule,
    weighted_entropy,
)
from musicon.detect.adaptation.base import AdaptedTask
from musicon.detect.crops import ClassifierTask
from musicon.detect.detectors.task import DetectorTask


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("adversarial"))


@pytest.mark.parametrize("conditional", [False, True])
def test_the_gradient_is_reversed_as_finite_differences_have_it(conditional: bool) -> None:
    torch.manual_seed(0)
    judge = Discriminator(5, 3 if conditional else None).double()
    probabilities = torch.rand(4, 3, dtype=torch.float64) if conditional else None
    features = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)

    def loss(seen: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(judge(seen, probabilities), truth)

    assert torch.autograd.gradcheck(loss, (features,))
    loss(Reverse.apply(features, 0.7)).backward()
    step, numeric = 1e-6, torch.zeros_like(features)
    for i in range(features.numel()):
        move = torch.zeros(features.numel(), dtype=torch.float64)
        move[i] = step
        move = move.view_as(features)
        with torch.no_grad():
            slope = (loss(features + move) - loss(features - move)) / (2 * step)
        numeric.view(-1)[i] = slope
    torch.testing.assert_close(features.grad, -0.7 * numeric, rtol=1e-6, atol=1e-9)
    # The discriminator itself goes downhill, whatever the strength.
    learnt = [p.grad.clone() for p in judge.parameters() if p.grad is not None]
    judge.zero_grad()
    loss(features.detach()).backward()
    for reversed_, plain in zip(learnt, judge.parameters(), strict=True):
        torch.testing.assert_close(reversed_, plain.grad)


def test_the_schedule_is_the_papers() -> None:
    assert schedule(0, 1, 10) == 0
    assert schedule(0.1, 1, 10) == pytest.approx(2 / (1 + math.exp(-1)) - 1)  # .4621
    assert schedule(1, 0.5, 10) == pytest.approx(0.49995460)
    assert schedule(0.3, 2, 10) == pytest.approx(2 * math.tanh(1.5))  # the same, another way


def test_conditional_discriminator_is_linear_in_each_class() -> None:
    """With a one-hot row only that class's block of weights is looked at."""
    torch.manual_seed(0)
    judge, features = Discriminator(6, 3), torch.randn(2, 6)
    after_product: Any = judge.judge[1]
    one = torch.tensor([[0.0, 1.0, 0.0]]).expand(2, 3)
    before = judge(features, one)
    with torch.no_grad():
        after_product.weight[:, :128] += 1  # the block of class 0
    assert torch.equal(judge(features, one), before)
    assert not torch.allclose(judge(features, one.roll(-1, 1)), before)


def test_weighted_entropy_by_hand() -> None:
    sure, unsure = torch.tensor([50.0, 0.0]), torch.zeros(2)
    assert float(weighted_entropy(sure[None])) == pytest.approx(0, abs=1e-6)
    assert float(weighted_entropy(unsure[None])) == pytest.approx(math.log(2))
    # Weights 1 + exp(0) = 2 and 1 + exp(-ln 2) = 1.5.
    both = float(weighted_entropy(torch.stack([sure, unsure])))
    assert both == pytest.approx(1.5 * math.log(2) / 3.5, rel=1e-5)


def test_features_lose_what_gives_the_domain_away() -> None:
    """Both inputs tell the class, one of them is shifted in the target domain: plain training
    leans on both, adversarial training less on the shifted one."""
    kind, source = torch.arange(256) % 2, (torch.arange(256) < 128).float()

    def draw() -> torch.Tensor:
        sign = kind * 2.0 - 1
        return torch.stack([sign, sign - 2 * (1 - source)], 1) + 0.5 * torch.randn(256, 2)

    def learn(strength: float, seed: int) -> tuple[float, float]:
        """Accuracy on the target, and how well a discriminator learns the domains meanwhile."""
        torch.manual_seed(seed)
        features = nn.Sequential(nn.Linear(2, 8), nn.Tanh())
        head, judge = nn.Linear(8, 2), Discriminator(8)
        optimizer = torch.optim.Adam([*features.parameters(), *head.parameters(),
                                      *judge.parameters()], lr=0.01)
        for step in range(300):
            seen = features(draw())
            reversed_ = Reverse.apply(seen, schedule(step / 300, strength, 10))
            loss = nn.functional.cross_entropy(head(seen[:128]), kind[:128])
            loss = loss + nn.functional.binary_cross_entropy_with_logits(judge(reversed_), source)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            right = (head(features(draw())).argmax(1) == kind).float()[128:]
            told = (judge(features(draw())) > 0).float() == source
        return float(right.mean()), float(told.float().mean())

    (plain, apart), (adversarial, alike) = (
        np.mean([learn(strength, seed) for seed in range(4)], axis=0) for strength in (0.0, 1.0))
    assert adversarial > plain + 0.04
    assert apart > 0.9 and alike < apart - 0.05


@pytest.mark.parametrize("conditional", [False, True])
def test_it_joins_the_classifier(data: Path, tmp_path: Path, conditional: bool) -> None:
    config = settings(data, {"name": "adversarial", "targets": [str(data / "art")],
                             "conditional": conditional})
    ctx = context(config, tmp_path)
    classifier, _ = models(config)
    task = adapt(ClassifierTask(classifier, ctx), ctx)
    assert isinstance(task, AdaptedTask)
    terms = one_step(task, share=1.0)
    assert set(terms) == {"cross_entropy", "domain_instance", "entropy"}
    assert all(p.grad is not None for p in task.model.methods.parameters())
    figures = task.evaluate(task.model.eval())
    assert 0 <= figures["domain_accuracy_instance"] <= 1
    assert "domain_accuracy_instance" not in task.evaluate(task.model)  # counted anew
    assert "entropy" in one_step(task, share=0.0) and one_step(task, 0.0)["entropy"].item() == 0


@pytest.mark.parametrize("lightly", [0.0, 1.0])
def test_targets_are_changed_as_the_source_is(data: Path, tmp_path: Path, lightly: float) -> None:
    """At the network's size, and as often lightly: else it would give the domain away."""
    config = settings(data, {"name": "adversarial", "targets": [str(data / "art")]},
                      classifier={"augmentation": "strong", "light_share": lightly})
    ctx = context(config, tmp_path)
    classifier, _ = models(config)
    task = adapt(ClassifierTask(classifier, ctx), ctx)
    assert isinstance(task, AdaptedTask)
    method: Any = task.methods[0]
    window = method.targets.look(method.targets.draw(np.random.default_rng(7)), None)
    method.targets.draw = lambda rng: None
    method.targets.look = lambda _, rng: window
    source = Augmentation("light" if lightly else "strong")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        if lightly:
            rng.random()  # decides whether this one is changed lightly
        expected = source(method.part.fitted(window), rng)
        assert (method.example(np.random.default_rng(seed)) == expected).all()


@pytest.mark.parametrize(("engine", "family", "levels"), [
    ("torchvision", "fasterrcnn", {"image", "instance"}), ("torchvision", "fcos", {"image"}),
    ("torchvision", "retinanet", {"image"}), ("torchvision", "ssdlite", {"image"}),
    ("yolox", "yolox_nano", {"image"}),
    ("detectron2", "fasterrcnn", {"image", "instance"}), ("detectron2", "retinanet", {"image"})])
def test_it_joins_the_detector(data: Path, tmp_path: Path, engine: str, family: str,
                               levels: set[str], need_engine: Callable[[str], None]) -> None:
    need_engine(engine)
    config = settings(data, {"name": "adversarial", "targets": [str(data / "art")]})
    small = config.detector.model_copy(update={"engine": engine, "family": family,
                                                    "weights": "none"})
    config = config.model_copy(update={"detector": small})
    ctx = context(config, tmp_path)
    _, detector = models(config)
    plain = DetectorTask(detector, ctx)
    task = adapt(plain, ctx)
    assert isinstance(task, AdaptedTask)
    terms = one_step(task, share=0.5)
    assert {f"domain_{level}" for level in levels} <= set(terms)
    assert not any(name.startswith("domain") and name[7:] not in levels for name in terms)
    assert "entropy" not in terms
    groups = task.parameter_groups(ctx.stage.detector)
    learnt = {id(p) for group in groups for p in group["params"]}
    assert learnt == {id(p) for p in task.model.parameters() if p.requires_grad}


def one_step(task: AdaptedTask, share: float) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    task.before_step(share, task.model)
    batch = task.collate([task.example(task.draw(rng), rng) for _ in range(4)])
    task.model.zero_grad()
    terms = task.losses(task.model.train(), batch)
    torch.stack([term.float() for term in terms.values()]).sum().backward()
    return terms
