"""What a training run leaves to look at: CSV and TensorBoard logs, curves, example pictures."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.records import write_atomic
from musicon.detect.plots import plot_curves

FIRST_COLUMNS = ("step", "seconds", "lr", "loss")
CURVES_EVERY = 60.0
"""Seconds between two drawings of the curves while training runs."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one stage and the places in it."""

    root: Path

    @property
    def model(self) -> Path:
        """What inference needs; there once the stage is done."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """What resuming needs."""
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        """CSV, TensorBoard, curves, examples."""
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """What is computed once a stage: cut-outs, pseudo-boxes."""
        return self.root / "cache"


class TrainingLog:
    """One row a step, as CSV and for TensorBoard, and a progress bar.

    The CSV has the columns step, seconds, lr, loss, the loss's parts where there are several, and
    the validation figures, which are empty where nothing was validated.
    """

    def __init__(self, folder: Path, name: str, *, steps: int, resumed: int = 0,
                 writes: bool = True, quiet: bool = False) -> None:
        """Open the logs; rows after the step that is resumed from are dropped.

        Args:
            folder: Where ``<name>.csv``, ``<name>.png`` and ``tensorboard/<name>`` go.
            name: The task.
            steps: Length of the whole run, for the bar.
            resumed: Steps already done.
            writes: False where another process of the run writes.
            quiet: Say nothing on the terminal.
        """
        self.csv, self.png = folder / f"{name}.csv", folder / f"{name}.png"
        self.name, self.writes, self.steps = name, writes, steps
        self._talks = writes and not quiet
        self._rows = _read_rows(self.csv, resumed) if writes and resumed else []
        self._columns = _columns(self._rows)
        self._drawn = time.monotonic()
        if writes:
            self._rewrite()
        self._board = _tensorboard(folder / "tensorboard" / name, resumed) if writes else None
        self._bar = _bar(name, steps, resumed) if self._talks and sys.stderr.isatty() else None

    def add(self, step: int, losses: Mapping[str, float], lr: float, seconds: float,
            metrics: Mapping[str, float] | None = None) -> None:
        """Note one step; ``losses`` has the parts, the loss is their sum."""
        row: dict[str, Any] = {"step": step, "seconds": round(seconds, 3), "lr": f"{lr:.6g}",
                               "loss": f"{sum(losses.values()):.6g}"}
        parts = losses if len(losses) > 1 else {}
        row |= {_loss_column(key): f"{value:.6g}" for key, value in parts.items()}
        row |= {key: f"{value:.6g}" for key, value in (metrics or {}).items()}
        if self.writes:
            self._write(row)
        if self._board is not None:
            values = {f"loss/{key}": value for key, value in losses.items()}
            values |= {"loss": sum(losses.values()), "lr": lr}
            values |= {f"validation/{key}": value for key, value in (metrics or {}).items()}
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {sum(losses.values()):.3f}", refresh=False)
            self._bar.update(1)
        if metrics and self._talks:
            figures = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items())
            self.say(f"{self.name} {step}/{self.steps}: loss {sum(losses.values()):.3f}, {figures}")
        if metrics:
            self.draw(now=False)

    def say(self, text: str) -> None:
        """One line on the terminal, above the bar."""
        if self._talks:
            if self._bar is not None:
                self._bar.write(text, file=sys.stdout)
            else:
                print(text, flush=True)

    def draw(self, *, now: bool = True) -> None:
        """Draw the curves; with ``now`` false only if the last drawing is a while ago."""
        if self.writes and self._rows and (
                now or time.monotonic() - self._drawn > CURVES_EVERY):
            plot_curves(self.csv, self.png)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Finish the files and the bar."""
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.close()

    def _write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        columns = _columns([dict.fromkeys(self._columns), row])
        if columns != self._columns:
            self._columns = columns
            self._rewrite()
        else:
            with self.csv.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, self._columns).writerow(row)

    def _rewrite(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomic(self.csv, text.getvalue())


def write_grid(images: Sequence[NDArray[np.uint8]], file: Path, *, side: int = 224) -> None:
    """Pictures side by side as one PNG, each fitted into ``side`` pixels.

    Args:
        images: uint8 RGB (H, W, 3) of any sizes; at least one.
        file: The PNG.
        side: Of one cell.
    """
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = int(np.ceil(len(images) / columns))
    sheet = np.full((rows * (side + 4) + 4, columns * (side + 4) + 4, 3), 255, np.uint8)
    for i, image in enumerate(images):
        scale = side / max(image.shape[:2])
        w, h = (max(1, round(v * scale)) for v in (image.shape[1], image.shape[0]))
        small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
        y = 4 + (i // columns) * (side + 4) + (side - h) // 2
        x = 4 + (i % columns) * (side + 4) + (side - w) // 2
        sheet[y:y + h, x:x + w] = small
    _, png = cv2.imencode(".png", sheet[:, :, ::-1])
    write_atomic(file, png.tobytes())


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys([*FIRST_COLUMNS, *(key for row in rows for key in row)]))


def _read_rows(file: Path, last_step: int) -> list[dict[str, Any]]:
    """The rows up to a step; a last row that a crash cut short is left out."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["step"] or "").isdigit()]
    return [row for row in rows if int(row["step"]) <= last_step]


def _tensorboard(folder: Path, resumed: int) -> Any:
    # Slow to import, and only needed by the process that writes.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resumed + 1 if resumed else None)


def _bar(name: str, steps: int, resumed: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=steps, initial=resumed, desc=name, unit="step", dynamic_ncols=True,
                leave=False, mininterval=0.3)


def _loss_column(name: str) -> str:
    return name if "loss" in name else f"loss_{name}"
