"""Tensors and training states as files, each written whole; check sums."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from musicon.datasets.files import UserError, write_atomic, writing

FORMAT = 1
"""Of checkpoints; raised whenever an older reader would misread one."""


class CheckpointError(UserError):
    """A checkpoint that cannot be resumed from."""


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a model's names, shapes and values."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, as hexadecimal text."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_tensors(file: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; the same tensors give the same bytes."""
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write_atomic(file, save(whole))  # save_file tells of a full disk in an error of its own


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read what ``write_tensors`` wrote.

    Raises:
        CheckpointError: Missing or damaged.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); "
                              "start the stage again with --fresh") from None


def write_checkpoint(file: Path, state: Mapping[str, Any]) -> None:
    """Write a training state, atomically and flushed to the disk."""
    try:
        with writing(file) as stream:
            torch.save({"format": FORMAT, **state}, stream)
    except RuntimeError as error:
        if not isinstance(error.__context__, OSError):
            raise
        error.__context__.filename = str(file)
        raise error.__context__ from None  # behind which torch.save hides a full disk


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a training state; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: Damaged, or of another version.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError,
            pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(f"{file}: the checkpoint is damaged ({reason}); "
                              "start the stage again with --fresh") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{file}: the checkpoint is of another version of musicon; "
                              "start the stage again with --fresh")
    return state
