"""What the training loop is given for a whole-work task: kept features, or pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.images import decode_reduced
from musicon.datasets.loading import ImageStore
from musicon.datasets.transforms import Augmentation
from musicon.detect.backbones import freeze_stages
from musicon.detect.config import FitConfig
from musicon.detect.crops import fit_linear
from musicon.detect.sampling import spread
from musicon.detect.tasks.networks import Image, WorkClassifier, square, to_tensor
from musicon.detect.tasks.scores import accuracy, macro_f1
from musicon.detect.tasks.settings import LearnConfig
from musicon.detect.tasks.works import Work, Works
from musicon.detect.training import parameter_groups

MAX_CHECKED = 500
"""Training works on which the training accuracy is watched."""
BATCH = 64
DECAYS = (1e-3, 1e-2, 3e-2, 1e-1)
"""Strengths of regularisation among which validation chooses."""
Example = tuple[Any, int]


class LabelTask(ABC):
    """One label a work: what examples from features and from pictures have in common."""

    name = ""

    def __init__(self, model: nn.Module, works: Works, cfg: LearnConfig) -> None:
        self.model = model
        self.cfg = cfg
        self.train, self.val = works.of("train"), works.of("val")
        self.num_classes = len(works.classes)
        self.labels = np.array([work.label for work in self.train], np.int64)
        self._pools = [np.flatnonzero(self.labels == k) for k in range(self.num_classes)]

    def __len__(self) -> int:
        return len(self.train)

    def draw(self, rng: np.random.Generator) -> int:
        """A class evenly, then one of its works; or any work unless ``balance`` is sampling."""
        if self.cfg.balance != "sampling":
            return int(rng.integers(len(self.train)))
        pool = self._pools[int(rng.integers(self.num_classes))]
        return int(pool[int(rng.integers(len(pool)))])

    def describe(self, index: int) -> str:
        """The work's picture."""
        return str(self.train[index].path)

    def losses(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy, weighted by inverse class frequency when ``balance`` is ``loss``."""
        inputs, labels = batch
        weight = None
        if self.cfg.balance == "loss":
            counts = np.bincount(self.labels, minlength=self.num_classes)
            weight = torch.tensor(len(self.labels) / (self.num_classes * counts),
                                  dtype=torch.float32, device=labels.device)
        return {"cross_entropy": nn.functional.cross_entropy(
            model(inputs), labels, weight=weight, label_smoothing=self.cfg.label_smoothing)}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy, macro-F1 and loss on validation, accuracy and loss on training works.

        ``score`` is the mean of accuracy and macro-F1.
        """
        figures: dict[str, float] = {}
        for prefix, works in (("", self.val), ("train_", spread(self.train, MAX_CHECKED))):
            truth = np.array([work.label for work in works])
            logits = self.logits(model, works).double()
            said = logits.argmax(1).numpy()
            figures |= {f"{prefix}accuracy": accuracy(truth, said),
                        f"{prefix}macro_f1": macro_f1(truth, said),
                        f"{prefix or 'val_'}loss": float(
                            nn.functional.cross_entropy(logits, torch.from_numpy(truth)))}
        figures["score"] = (figures["accuracy"] + figures["macro_f1"]) / 2
        return figures

    @abstractmethod
    def logits(self, model: nn.Module, works: Sequence[Work]) -> Tensor:
        """Logits (N, L) of works, on the CPU; the model is in eval mode."""


class FeatureTask(LabelTask):
    """The head learns from features that were computed once; its model is the head alone."""

    name = "head"

    def __init__(self, head: nn.Module, works: Works, cfg: LearnConfig, table: NDArray[np.float32],
                 place: Callable[[Sequence[Work]], NDArray[np.int64]]) -> None:
        """Take a table (N, views, ...) of features and where works are in it."""
        super().__init__(head, works, cfg)
        self.table = table
        self.place = place
        self._rows = place(self.train)

    def start(self) -> None:
        """Where the head is one linear layer: fit it to the features, as strictly as is best.

        Fine-tuning from a random last layer distorts pretrained features (Kumar et al. 2022).
        """
        last = cast(nn.Linear, cast(nn.Sequential, self.model)[-1])
        if not self.cfg.probe_examples or len(list(self.model.parameters())) > 2:
            return
        views = self.table.shape[1]
        chosen = spread(range(len(self.train)), max(1, self.cfg.probe_examples // views))
        rows = np.sort(self._rows[chosen])
        label_of = dict(zip(self._rows.tolist(), self.labels.tolist(), strict=True))
        features = torch.from_numpy(self.table[rows].reshape(len(rows) * views, -1))
        labels = torch.tensor([label_of[row] for row in rows.tolist()]).repeat_interleave(views)
        device = last.weight.device
        held, truth = self._held_out()
        best = float("inf")
        for decay in DECAYS:
            weight, bias = fit_linear(features.to(device), labels.to(device), last, decay=decay)
            loss = float(nn.functional.cross_entropy((held.to(device) @ weight.T + bias).mean(1),
                                                     truth.to(device)))
            if loss < best:
                best = loss
                with torch.no_grad():
                    last.weight.copy_(weight)
                    last.bias.copy_(bias)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """The features of one of a work's views, and its label."""
        view = int(rng.integers(self.table.shape[1]))
        return self.table[self._rows[index], view], int(self.labels[index])

    def collate(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """float32 (N, ...) and labels int64 (N,)."""
        return (torch.from_numpy(np.stack([row for row, _ in examples])),
                torch.tensor([label for _, label in examples]))

    def logits(self, model: nn.Module, works: Sequence[Work]) -> Tensor:
        """Logits averaged over each work's views."""
        device = next(model.parameters()).device
        found = []
        for start in range(0, len(works), BATCH):
            rows = torch.from_numpy(self.table[self.place(works[start:start + BATCH])])
            found.append(model(rows.to(device).flatten(0, 1)).view(*rows.shape[:2], -1).mean(1))
        return torch.cat(found).float().cpu()

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """All parameters at the full rate: the head starts at random."""
        return parameter_groups(self.model, fit, pretrained=lambda name: False)

    def preview(self, rng: np.random.Generator, count: int) -> list[Image]:
        """Training works: features can't be shown."""
        return [decode_reduced(self.train[self.draw(rng)].path, 224)[0] for _ in range(count)]

    def _held_out(self) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(self.table[self.place(self.val)])
        return rows.flatten(2), torch.tensor([work.label for work in self.val])


class PictureTask(LabelTask):
    """Body and head learn from augmented pictures."""

    name = "whole"

    def __init__(self, model: WorkClassifier, works: Works, cfg: LearnConfig) -> None:
        super().__init__(model, works, cfg)
        self.network = model.cfg
        # Twice the network's side: enough for zooming in, and little to hold in memory.
        self.store = ImageStore(2 * model.image_size)
        self.augment = Augmentation(cfg.augmentation)
        self._head = {f"head.{name}" for name, _ in model.head.named_parameters()}
        freeze_stages(model.body, cfg.freeze)

    def start(self) -> None:
        """Nothing to prepare: the network comes trained on features, or as it was published."""

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """An augmented picture, uint8 RGB (S, S, 3), and its label."""
        image, _ = self.store.get(self.train[index].path)
        seen = self.augment(turned(image, self.cfg, rng, self.network.view,
                                   self.network.image_size), rng)
        return seen, int(self.labels[index])

    def collate(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, S, S) and labels int64 (N,)."""
        return (to_tensor(np.stack([image for image, _ in examples])),
                torch.tensor([label for _, label in examples]))

    def logits(self, model: nn.Module, works: Sequence[Work]) -> Tensor:
        """Logits of the pictures as they are."""
        device = next(model.parameters()).device
        found = []
        for start in range(0, len(works), BATCH):
            pictures = [square(self.store.get(work.path)[0], self.network.view,
                               self.network.image_size) for work in works[start:start + BATCH]]
            found.append(model(to_tensor(np.stack(pictures)).to(device)))
        return torch.cat(found).float().cpu()

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        """The head at the full rate, the backbone at its share."""
        pretrained = self.network.backbone is not None
        return parameter_groups(self.model, fit,
                                lambda name: pretrained and name not in self._head)

    def preview(self, rng: np.random.Generator, count: int) -> list[Image]:
        """Augmented pictures as the network sees them."""
        return [self.example(self.draw(rng), rng)[0] for _ in range(count)]


def turned(image: Image, cfg: LearnConfig, rng: np.random.Generator, view: str,
           size: int) -> Image:
    """A picture mirrored, turned and zoomed by chance, as a square of ``size`` pixels.

    What a turn uncovers is filled with the border's mirror image.
    """
    if cfg.zoom:
        height, width = image.shape[:2]
        share = 1 - rng.uniform(0, cfg.zoom)
        h, w = max(1, round(height * share)), max(1, round(width * share))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        image = image[y:y + h, x:x + w]
    seen = square(image, view, size)
    if cfg.flip and rng.random() < 0.5:
        seen = seen[:, ::-1]
    if cfg.rotate:
        turn = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5),
                                       rng.uniform(-cfg.rotate, cfg.rotate), 1.0)
        seen = cast(Image, cv2.warpAffine(np.ascontiguousarray(seen), turn, (size, size),
                                          borderMode=cv2.BORDER_REFLECT_101))
    return np.ascontiguousarray(seen)

