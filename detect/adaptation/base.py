"""What an adaptation method is, and the task of the training loop that it is added to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.loading import crop_square, resize_longer
from musicon.detect.backbones import last_linear
from musicon.detect.config import FitConfig
from musicon.detect.training import StageContext, Task

Image = NDArray[np.uint8]


class Part(Protocol):
    """How the model of a task is shown pictures without labels."""

    name: str
    fit: FitConfig
    num_classes: int

    def fitted(self, pixels: Image) -> Image:
        """A window (H, W, 3) as the network takes it."""
        ...

    def stack(self, images: Sequence[Image]) -> Any:
        """Fitted windows -> a batch."""
        ...

    def forward(self, network: Any, images: Any) -> Any:
        """A forward pass as in training; the classifier's gives logits (N, L + 1)."""
        ...

    def taps(self, network: Any) -> dict[str, nn.Module]:
        """Modules to look into, as ``Detector.taps`` has them."""
        ...


class ClassifierPart:
    """The crop classifier: a window is a crop."""

    name = "classifier"

    def __init__(self, ctx: StageContext) -> None:
        self.fit = ctx.stage.classifier
        self.num_classes = len(ctx.categories)
        self.side = ctx.config.classifier.image_size

    def fitted(self, pixels: Image) -> Image:
        """See ``Part``: (S, S, 3)."""
        whole = np.array([0, 0, pixels.shape[1], pixels.shape[0]])
        return crop_square(pixels, whole, 0.0, self.side)

    def stack(self, images: Sequence[Image]) -> Tensor:
        """See ``Part``: uint8 (N, 3, S, S)."""
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def forward(self, network: Any, images: Tensor) -> Tensor:
        """See ``Part``: logits (N, L + 1)."""
        logits: Tensor = network(images)
        return logits

    def taps(self, network: Any) -> dict[str, nn.Module]:
        """See ``Part``: the last layer."""
        return {"instance": last_linear(network.network)[1]}


class DetectorPart:
    """The detector: a window is an image of the usual size."""

    name = "detector"

    def __init__(self, ctx: StageContext) -> None:
        self.fit = ctx.stage.detector
        self.num_classes = len(ctx.categories)
        self.side = ctx.config.detector.image_size

    def fitted(self, pixels: Image) -> Image:
        """See ``Part``: longer side as the detector's."""
        return resize_longer(pixels, self.side)

    def stack(self, images: Sequence[Image]) -> list[Tensor]:
        """See ``Part``: uint8 (3, H, W) each."""
        return [torch.from_numpy(image).permute(2, 0, 1) for image in images]

    def forward(self, network: Any, images: list[Tensor]) -> None:
        """See ``Part``: as if nothing were to be found; the losses say nothing and are dropped."""
        nothing = [{"boxes": image.new_zeros(0, 4, dtype=torch.float32),
                    "labels": image.new_zeros(0, dtype=torch.int64)} for image in images]
        network.losses([image.float() / 255 for image in images], nothing)

    def taps(self, network: Any) -> dict[str, nn.Module]:
        """See ``Part``: the engine's."""
        taps: dict[str, nn.Module] = network.taps()
        return taps


def part_of(task: Task, ctx: StageContext) -> Part:
    """How a task's model is shown pictures."""
    return ClassifierPart(ctx) if task.name == ClassifierPart.name else DetectorPart(ctx)


class Method(ABC):
    """One adaptation method at work on one model.

    Attributes:
        module: What is learnt or kept from step to step; saved with the checkpoint, not shipped.

    """

    module: nn.Module

    @abstractmethod
    def example(self, rng: np.random.Generator) -> Any:
        """One example of the target domain, in a loader process: no model, no device."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Any:
        """Examples -> one batch: tensors in any nesting of lists, tuples and dicts."""

    @abstractmethod
    def begin(self, share: float, average: Any) -> None:
        """A step begins: the share of the run that is done, and the averaged model so far."""

    def watching(self, network: Any) -> AbstractContextManager[Any]:
        """Around the task's own forward pass on the source domain."""
        return nullcontext()

    @abstractmethod
    def losses(self, network: Any, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses on a batch of the target domain, after the source's forward pass."""


class Tally(nn.Module):
    """Means of figures since they were last asked for; kept in checkpoints."""

    sums: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("sums", torch.zeros(len(names), 2))

    def add(self, name: str, values: Tensor) -> None:
        """Take in values of one figure."""
        total = torch.stack([values.detach().float().sum(), values.new_tensor(
            values.numel(), dtype=torch.float32)])
        self.sums[self.names.index(name)] += total

    def take(self) -> dict[str, float]:
        """The means of what was counted, which begins anew."""
        found = {name: float(total / count) for name, (total, count)
                 in zip(self.names, self.sums.tolist(), strict=True) if count}
        self.sums.zero_()
        return found


class Adapted(nn.Module):
    """A task's model beside what the methods learn, as one module of the loop."""

    def __init__(self, network: nn.Module, methods: Sequence[Method]) -> None:
        super().__init__()
        self.network = network
        self.methods = nn.ModuleList(method.module for method in methods)


class AdaptedTask:
    """A task, and the losses that adaptation methods add to it; see ``training.Task``.

    Every example of the task goes with one of the target domain for each method.
    """

    def __init__(self, task: Task, methods: Sequence[Method]) -> None:
        self.task, self.methods = task, tuple(methods)
        self.model = Adapted(task.model, methods)
        self.name = task.name
        # What needs no change is the task's own.
        self.start, self.draw = task.start, task.draw
        self.describe, self.preview = task.describe, task.preview

    def __len__(self) -> int:
        return len(self.task)

    def example(self, index: int, rng: np.random.Generator) -> tuple[Any, list[Any]]:
        """The task's example, and one of the target domain a method."""
        return self.task.example(index, rng), [method.example(rng) for method in self.methods]

    def collate(self, examples: Sequence[tuple[Any, list[Any]]]) -> tuple[Any, list[Any]]:
        """The task's batch, and one a method."""
        source, targets = zip(*examples, strict=True)
        return self.task.collate(source), [
            method.collate(found)
            for method, found in zip(self.methods, zip(*targets, strict=True), strict=True)]

    def before_step(self, share: float, average: nn.Module) -> None:
        """See ``training.Attentive``."""
        for method in self.methods:
            method.begin(share, average.network)

    def losses(self, model: Any, batch: tuple[Any, list[Any]]) -> dict[str, Tensor]:
        """The task's losses and the methods'."""
        source, targets = batch
        with ExitStack() as stack:
            for method in self.methods:
                stack.enter_context(method.watching(model.network))
            terms = dict(self.task.losses(model.network, source))
        for method, found in zip(self.methods, targets, strict=True):
            terms |= method.losses(model.network, found)
        return terms

    def evaluate(self, model: Any) -> dict[str, float]:
        """The task's figures, and what the methods counted since the last time."""
        counted = [tally.take() for tally in self.model.methods.modules()
                   if isinstance(tally, Tally)]
        return self.task.evaluate(model.network) | {k: v for found in counted
                                                    for k, v in found.items()}

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """The task's groups, and the methods' parameters at the full learning rate."""
        learnt = list(self.model.methods.parameters())
        return [*self.task.parameter_groups(fit), *([{"params": learnt}] if learnt else [])]
