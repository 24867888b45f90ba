"""A small honest task for the training loop: tell horizontal from vertical stripes.

Run as a program it trains in a folder, so that tests can kill it and go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from musicon.datasets.records import UserError
from musicon.detect.config import FitConfig
from musicon.detect.logs import RunFolder
from musicon.detect.training import FitResult, fit, parameter_groups

ITEMS, SIDE = 24, 8


class ToyTask:
    """Batch norm (buffers), dropout (torch's chance) and augmentation (the loop's chance)."""

    name = "toy"

    def __init__(self, *, poisoned: Sequence[int] = (), unreadable: Sequence[int] = (),
                 plain: bool = False) -> None:
        torch.manual_seed(0)
        between = [nn.ReLU()] if plain else [nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)]
        self.model: nn.Module = nn.Sequential(
            nn.Conv2d(1, 4, 3), *between, nn.Flatten(), nn.Linear(4 * (SIDE - 2) ** 2, 2))
        self.poisoned, self.unreadable = set(poisoned), set(unreadable)
        self.seen: list[int] = []

    def __len__(self) -> int:
        return ITEMS

    def start(self) -> None:
        pass

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(ITEMS))

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        self.seen.append(index)
        if index in self.unreadable:
            raise UserError(f"item-{index}.png: truncated")
        image = stripes(index) + rng.normal(0, 0.7, (SIDE, SIDE))
        if index in self.poisoned:
            image[0, 0] = np.inf
        return {"image": torch.tensor(image[None], dtype=torch.float32), "label": index % 2}

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"image": torch.stack([e["image"] for e in examples]),
                "label": torch.tensor([e["label"] for e in examples])}

    def describe(self, index: int) -> str:
        return f"item-{index}.png"

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = model(batch["image"])
        return {"cross_entropy": nn.functional.cross_entropy(logits, batch["label"]),
                "penalty": 1e-3 * logits.square().mean()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        rng = np.random.default_rng(99)
        images = np.stack([stripes(i) + rng.normal(0, 0.7, (SIDE, SIDE)) for i in range(64)])
        logits = model(torch.tensor(images[:, None], dtype=torch.float32,
                                    device=next(model.parameters()).device)).detach()
        truth = torch.arange(64, device=logits.device) % 2
        loss = nn.functional.cross_entropy(logits, truth)
        accuracy = (logits.argmax(1) == truth).float().mean()
        return {"score": float(-loss), "accuracy": float(accuracy)}

    def parameter_groups(self, fit: FitConfig) -> list[dict[str, Any]]:
        return parameter_groups(self.model, fit, lambda name: name.startswith("0."))

    def preview(self, rng: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
        images = [self.example(self.draw(rng), rng)["image"][0].numpy() for _ in range(count)]
        return [np.repeat((np.nan_to_num(i).clip(0, 1) * 255).astype(np.uint8)[..., None], 3, 2)
                for i in images]


def stripes(index: int) -> NDArray[np.float64]:
    """Horizontal for even items, vertical for odd ones, (SIDE, SIDE) in 0..1."""
    image = np.zeros((SIDE, SIDE))
    image[index // 2 % 2::2] = 1
    return image if index % 2 == 0 else image.T


SETTINGS = FitConfig(steps=40, batch_size=4, accumulate=2, learning_rate=3e-3, warmup_steps=5,
                     evaluate_every=7, checkpoint_every=3, ema_decay=0.9)


def train(folder: Path, cfg: FitConfig = SETTINGS, *, task: ToyTask | None = None, workers: int = 0,
          fabric: Fabric | None = None, **options: Any) -> tuple[ToyTask, FitResult]:
    """Fit a toy task in a folder."""
    task = task or ToyTask()
    if fabric is None:
        fabric = Fabric(accelerator="cpu", devices=1)
    options.setdefault("quiet", True)
    return task, fit(task, cfg, RunFolder(folder), fabric, seed=1, num_workers=workers, **options)


def main() -> None:
    """Train in a folder and leave the final weights in ``final.pt``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=SETTINGS.batch_size)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=options.processes,
                    strategy="ddp" if options.processes > 1 else "auto")
    fabric.launch()
    cfg = SETTINGS.model_copy(update={"steps": options.steps, "batch_size": options.batch_size})
    task, _ = train(options.folder, cfg, task=ToyTask(plain=options.plain),
                    workers=options.workers, fabric=fabric, quiet=False)
    if fabric.is_global_zero:
        torch.save(task.model.state_dict(), options.folder / "final.pt")


if __name__ == "__main__":
    main()
