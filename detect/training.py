"""The one visible training loop, and what a task must offer to be trained by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.records import Category
from musicon.detect.config import Config, FitConfig, StageConfig


class Task(Protocol):
    """What is learnt: examples, losses and a score. The loop knows nothing else of it.

    ``draw``, ``example`` and ``preview`` take all their chance from the generator they are
    given, so that an example is a pure function of (seed, position in the run); a run that
    was killed then goes on with exactly the examples that it would have seen.

    Attributes:
        name: ``classifier`` or ``detector``; names the files that the run leaves.
        model: The module that is trained, in place.
    """

    name: str
    model: nn.Module

    def __len__(self) -> int:
        """Number of training items."""
        ...

    def draw(self, rng: np.random.Generator) -> int:
        """The next item to learn from, 0 <= index < len(self); classes are balanced here."""
        ...

    def example(self, index: int, rng: np.random.Generator) -> Any:
        """One augmented example of an item. Runs in loader processes: no model, no device."""
        ...

    def collate(self, examples: Sequence[Any]) -> Any:
        """Examples -> one batch: tensors in any nesting of lists, tuples and dicts."""
        ...

    def describe(self, index: int) -> str:
        """The item's image file, for messages about a batch."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses of a batch on the model's device; their sum is minimised."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Validation figures of a model in eval mode; ``score`` (higher is better) decides."""
        ...

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """Groups for the optimiser: ``params`` and, where they differ, ``lr``, ``weight_decay``."""
        ...

    def preview(self, rng: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
        """``count`` augmented examples as the network sees them, uint8 RGB (H, W, 3)."""
        ...


@dataclass(frozen=True)
class StageContext:
    """What a task's constructor is given about the stage that it belongs to.

    Attributes:
        name: Stage, such as ``google``.
        config: All settings, resolved.
        categories: Classes of this stage in label order: label k is ``categories[k - 1]``.
        cache: Folder for what is computed once a stage (cut-outs, pseudo-boxes).
        device: Where models run.
        quiet: No progress bars.
    """

    name: str
    config: Config
    categories: tuple[Category, ...]
    cache: Path
    device: torch.device
    quiet: bool = False

    @property
    def stage(self) -> StageConfig:
        """This stage's own settings."""
        return self.config.stages[self.name]

    @property
    def label_of(self) -> Mapping[str, int]:
        """Class name -> label (from 1); 0 is the negative class."""
        return {category.name: i for i, category in enumerate(self.categories, start=1)}
