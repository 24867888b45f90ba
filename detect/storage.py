"""Tensors and training states as files, each written whole; check sums."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from musicon.datasets.files import UserError

FORMAT = 1
"""Of checkpoints; raised whenever an older reader would misread one."""


class CheckpointError(UserError):
    """A checkpoint that cannot be resumed from."""


def file_hash(file: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


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
    # Not save_file: of a full disk it tells in an error of its own, without a number.
    _write_stream(file, lambda stream: stream.write(save(whole)))


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
    _write_stream(file, lambda stream: torch.save(dict(state), stream))


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


def _write_stream(file: Path, write: Callable[[BinaryIO], Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, file)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        # torch.save hides a full disk behind a RuntimeError of its own.
        failure = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(failure, OSError):
            failure.filename = str(file)
            raise failure from None
        raise
