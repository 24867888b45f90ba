"""Weight files of detectron2's model zoo, read without running anything that they may hold.

The zoo's ``.pkl`` files are pickles of NumPy arrays. A pickle can call any function while it is
read, so this reader knows the names that arrays need and refuses all others.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicon.detect.backbones import BackboneError, read_weight_file


@dataclass(frozen=True)
class ZooWeights:
    """What a file holds.

    Attributes:
        state: Name -> tensor.
        author: Who wrote it; ``Caffe2`` has names of its own.
        by_suffix: Its names are endings of the model's, such as an ImageNet backbone's.
    """

    state: dict[str, Tensor]
    author: str
    by_suffix: bool


class _DType:
    """Stands for ``numpy.dtype``: plain numbers, whose layout no later state can change."""

    def __init__(self, name: str, *_: object) -> None:
        if not re.fullmatch(r"[<>=|]?(f[248]|i[1248]|[ub]1)", name):
            raise pickle.UnpicklingError(f"it holds values of type {name}, which no weights are")
        self.name, self.order = name.lstrip("<>=|"), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("it holds a compound type, which no weights are")
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")

    def values(self, raw: bytes | str) -> NDArray[Any]:
        """The numbers of a buffer (N,); files of Python 2 have text in place of bytes."""
        data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        stored = np.dtype(self.order + self.name)
        return np.frombuffer(data, stored).astype(stored.newbyteorder("="))


class _Array:
    """Stands for ``numpy.ndarray``: filled from bytes, and only by values that fit."""

    values: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.values = dtype.values(raw).reshape(shape, order="F" if fortran else "C")

    @classmethod
    def reconstruct(cls, *_: object) -> _Array:
        """As ``numpy`` makes the array that its state then fills."""
        return cls()

    @classmethod
    def from_buffer(cls, raw: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
        """As ``numpy`` makes arrays in pickles of protocol 5."""
        found = cls()
        found.__setstate__((1, shape, dtype, order == "F", raw))
        return found


STAND_INS: Mapping[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array.reconstruct,
    ("numpy._core.multiarray", "scalar"): lambda dtype, raw: dtype.values(raw)[0],
    ("numpy._core.numeric", "_frombuffer"): _Array.from_buffer,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",  # of an empty array, at protocol 2
    ("collections", "OrderedDict"): dict,
}
"""What a pickle of arrays asks for, and what it gets: NumPy's own would let a file change an
array's type after it was filled, and so reach any memory."""


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays and plain Python values, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that arrays need (``numpy.core`` is the older name of ``numpy._core``).

        Raises:
            pickle.UnpicklingError: Any other name.
        """
        known = STAND_INS.get((module.replace("numpy.core.", "numpy._core."), name))
        if known is None:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which no array needs")
        return known


def read_zoo(file: Path) -> ZooWeights:
    """Read a ``.pkl`` of the zoo, a ``.pth`` of tensors, or safetensors.

    Raises:
        BackboneError: Not such a file, or a pickle that holds more than arrays.
    """
    held = _unpickled(file) if file.suffix == ".pkl" else read_weight_file(file)
    named = isinstance(held.get("model"), Mapping)
    caffe = file.suffix == ".pkl" and not named
    state = held["model"] if named else held.get("blobs", held)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise BackboneError(f"{file}: it holds no named weights")
    return ZooWeights(
        {name: tensor for name, value in state.items()
         if not name.endswith("_momentum") and (tensor := _tensor(value)) is not None},
        author="Caffe2" if caffe else str(held.get("__author__", "")),
        by_suffix=caffe or bool(held.get("matching_heuristics")))


def detectron2_names(state: Mapping[str, Tensor], flipped: bool) -> dict[str, Tensor]:
    """A ResNet's weights under the names that detectron2 has for them.

    Args:
        state: Named as by timm and torchvision.
        flipped: Its new network sees the channels in the order blue, green, red.
    """
    found = {}
    for name, value in state.items():
        name = re.sub(r"bn(\d)\.", r"conv\1.norm.", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        name = re.sub(r"^layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
        name = re.sub(r"^conv1", "stem.conv1", name)
        found[name] = value.flip(1) if flipped and name == "stem.conv1.weight" else value
    return found


def _unpickled(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as stream:
            held = ArrayUnpickler(stream, encoding="latin1").load()
    except Exception as error:  # noqa: BLE001 (a broken pickle raises whatever it stumbles over)
        raise BackboneError(f"{file}: not a weight file of detectron2's model zoo ({error})"
                            ) from None
    if not isinstance(held, Mapping):
        raise BackboneError(f"{file}: it holds a {type(held).__name__}, not named weights")
    return held


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, _Array):
        return torch.from_numpy(value.values)
    return value if isinstance(value, Tensor) else None
