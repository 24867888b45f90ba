"""The loop that trains a style-transfer network, and the pictures that it learns from.

A step's examples are a pure function of the seed and the step, so that a run that was killed goes
on from its last checkpoint and, on the CPU, ends with the same bytes as one that never was.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from musicon.datasets.command import progress
from musicon.datasets.loading import ImageStore
from musicon.datasets.records import Manifest, UserError, write_atomic
from musicon.styletransfer.weights import StyleError

FORMAT = 1
CHECKPOINT, LOSSES, RECORD, PREVIEW = "checkpoint.pt", "losses.csv", "training.json", "preview.jpg"
_CROP = (0.6, 1.0)
"""Range of a crop's side, as a share of the shorter side of its picture."""


@dataclass(frozen=True)
class Fit:
    """For how long and how.

    Attributes:
        steps: Batches to learn from.
        batch_size: Images a batch.
        image_size: Side of the square crops, pixels.
        learning_rate: Of Adam.
        seed: Decides the first weights and every crop.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int
    batch_size: int
    image_size: int
    learning_rate: float
    seed: int = 0
    checkpoint_every: int = 50


class Pictures:
    """Random square crops of the pictures of a manifest's training split."""

    def __init__(self, manifest: str | Path, size: int) -> None:
        """Read the manifest.

        Raises:
            StyleError: It has no training images.
        """
        found = Manifest.read(manifest)
        training = found.select(split="train")
        if not training.images:
            raise StyleError(f"{manifest}: none of its {len(found)} images is of the training "
                             "split; divide it with python tools/prepare_data.py")
        self.files = [training.path(record) for record in training.images]
        self.size = size
        self.store = ImageStore(2 * size)
        names = "\n".join(f"{r.file_name} {r.sha256}" for r in training.images)
        self.digest = hashlib.sha256(names.encode()).hexdigest()

    def batch(self, count: int, *seeds: int) -> tuple[Tensor, list[Path]]:
        """Crops decided by the seeds, float (N, 3, S, S) in 0..1, and the files they are from."""
        rng = np.random.default_rng(seeds)
        files = [self.files[int(index)] for index in rng.integers(len(self.files), size=count)]
        crops = np.stack([self._crop(self.store.get(file)[0], rng) for file in files])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255, files

    def _crop(self, image: Any, rng: np.random.Generator) -> Any:
        height, width = image.shape[:2]
        side = max(1, int(min(height, width) * rng.uniform(*_CROP)))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = image[top:top + side, left:left + side]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        return cv2.resize(np.ascontiguousarray(crop), (self.size, self.size),
                          interpolation=cv2.INTER_AREA if side > self.size else cv2.INTER_LINEAR)


Losses = Callable[[int], tuple[dict[str, Tensor], list[Path]]]
"""Step (from 1) -> its named losses, whose sum is minimised, and the files that it learnt from."""


def fit(network: nn.Module, losses: Losses, cfg: Fit, out: Path, settings: Mapping[str, Any], *,
        fresh: bool = False, quiet: bool = False) -> dict[str, float]:
    """Train a network in place; go on from the folder's checkpoint where there is one.

    Args:
        network: What learns.
        losses: Of a step.
        cfg: For how long and how.
        out: Folder for the checkpoint and the table of losses.
        settings: Plain values that a checkpoint must agree with to be used.
        fresh: Forget an earlier run.
        quiet: No progress bar.

    Returns:
        The last step's losses.

    Raises:
        StyleError: A checkpoint of other settings, or damaged; a loss that is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=cfg.learning_rate)
    rows: list[dict[str, float]] = []
    done = 0
    if fresh:
        (out / CHECKPOINT).unlink(missing_ok=True)
    if (out / CHECKPOINT).is_file():
        state = _read(out / CHECKPOINT, settings)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        done, rows = state["step"], state["rows"]
        if done > cfg.steps:
            raise StyleError(f"{out / CHECKPOINT}: it has learnt for {done} steps, more than "
                             f"{cfg.steps}; give --steps {done} or more, or --fresh")
    network.train()
    steps = range(done + 1, cfg.steps + 1)
    for step in progress(steps, desc="training", quiet=quiet):
        started = time.monotonic()
        terms, files = losses(step)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise StyleError(f"step {step}: the loss is not finite; the batch's images: "
                             f"{', '.join(map(str, files))}. Look at them, or give a lower "
                             "--learning-rate")
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        rows.append({"step": step, **{name: float(value.detach()) for name, value in terms.items()},
                     "seconds": time.monotonic() - started})
        if step % cfg.checkpoint_every == 0 or step == cfg.steps:
            _write(out, {"format": FORMAT, "settings": dict(settings), "step": step, "rows": rows,
                         "network": network.state_dict(), "optimiser": optimiser.state_dict()})
    network.eval()
    return {name: value for name, value in rows[-1].items() if name not in ("step", "seconds")}


def write_network(file: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write trained weights, and beside them what made them; equal weights give equal bytes."""
    whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomic(file.with_name(RECORD), json.dumps(dict(settings), indent=1, default=str) + "\n")
    write_atomic(file, save(whole))


def write_preview(file: Path, rows: Sequence[Sequence[Tensor]]) -> None:
    """Rows of equally large images (3, H, W) in 0..1 as one JPEG."""
    sheet = torch.cat([torch.cat(list(row), 2) for row in rows], 1).detach().cpu().clamp(0, 1)
    pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not done:
        raise UserError(f"{file}: the preview could not be encoded")
    write_atomic(file, data.tobytes())


def state_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        StyleError: A device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StyleError(f"--device {name}: {str(error).splitlines()[0]}; write auto or cpu"
                         ) from None
    return device


def _write(out: Path, state: Mapping[str, Any]) -> None:
    """The table of losses, then the checkpoint, each whole or not at all."""
    rows = state["rows"]
    lines = [",".join(rows[0]), *(",".join(f"{value:.6g}" for value in row.values())
                                  for row in rows)]
    write_atomic(out / LOSSES, "\n".join(lines) + "\n")
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    write_atomic(out / CHECKPOINT, stream.getvalue())


def _read(file: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (unpickling errors have no common base)
        raise StyleError(f"{file}: the checkpoint is damaged ({str(error).splitlines()[0]}); start "
                         "again with --fresh") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise StyleError(f"{file}: the checkpoint is of another version of musicon; start again "
                         "with --fresh")
    changed = [key for key in {**state["settings"], **settings}
               if state["settings"].get(key) != settings.get(key)]
    if changed:
        raise StyleError(f"{file}: this run was started with other settings "
                         f"({', '.join(sorted(changed))}); restore them to go on, give another "
                         "--out, or start again with --fresh")
    return state
