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
from torch import Tensor

from musicon.detect.backbones import BackboneError, read_weight_file

ARRAYS_NEED = {"numpy": {"ndarray", "dtype"}, "_codecs": {"encode"}, "collections": {"OrderedDict"},
               "numpy._core.multiarray": {"_reconstruct", "scalar"},
               "numpy._core.numeric": {"_frombuffer"}}
"""Module -> what a pickle of arrays takes from it (``numpy.core`` is the older name)."""


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


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays and plain Python values, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that arrays need.

        Raises:
            pickle.UnpicklingError: Any other name.
        """
        module = module.replace("numpy.core.", "numpy._core.")
        if name not in ARRAYS_NEED.get(module, ()):
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which no array needs")
        return super().find_class(module, name)


def read_zoo(file: Path) -> ZooWeights:
    """Read a ``.pkl`` of the zoo, a ``.pth`` of tensors, or safetensors.

    Raises:
        BackboneError: Not such a file, or a pickle that holds more than arrays.
    """
    held = _unpickled(file) if file.suffix == ".pkl" else read_weight_file(file)
    named = isinstance(held.get("model"), Mapping)
    caffe = file.suffix == ".pkl" and not named
    state = held["model"] if named else held.get("blobs", held)
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
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return torch.from_numpy(np.array(value))
    return value if isinstance(value, Tensor) else None
