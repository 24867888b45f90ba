"""Weight files of style-transfer networks: read safely, brought to one way of naming layers.

Layers are named ``conv1_1`` ... ``conv5_1`` as in VGG, in decoders after the layer that they undo;
``preprocess`` is a 1x1 convolution that maps RGB in 0..1 to what ``conv1_1`` expects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from musicon.datasets.records import UserError

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""The layers whose features style transfer compares, from fine to coarse."""
_CONVS_A_BLOCK = (2, 2, 4, 4)
_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
_NORMALISED = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42)

State = dict[str, Tensor]


class StyleError(UserError):
    """Weights, settings or images that style transfer cannot use; the message says what to do."""


def conv_names(depth: str) -> tuple[str, ...]:
    """The convolutions of VGG19 up to a layer of ``LAYERS``: ``conv1_1`` ... ``convN_1``."""
    names = [f"conv{block}_{number}" for block, count in enumerate(_CONVS_A_BLOCK, 1)
             for number in range(1, count + 1)]
    names.append("conv5_1")
    return tuple(names[:names.index(depth.replace("relu", "conv")) + 1])


def read_state(file: str | Path) -> State:
    """The tensors of a safetensors file or a plain state dictionary (``.pth``).

    Raises:
        StyleError: Missing, or neither of the two.
    """
    path = Path(file)
    if not path.is_file():
        raise StyleError(f"{path}: no such weight file")
    state: object
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 (unpickling errors have no common base)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise StyleError(f"{path}: not a readable weight file ({reason})") from None
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise StyleError(f"{path}: it holds no dictionary of tensors; give a safetensors file or a "
                         "saved state dictionary")
    return {str(name): value.float() for name, value in state.items()}


def encoder_state(state: Mapping[str, Tensor], source: str) -> State:
    """An encoder's tensors under the common names, in whichever way they were named.

    Known are torchvision's VGG19 (``features.0.weight``), the normalised VGG19 of the
    style-transfer literature (``0.weight`` is 1x1), and names such as ``conv11`` or ``conv1_1``.

    Raises:
        StyleError: None of these.
    """
    names = conv_names("relu5_1")
    state = {key.removeprefix("features."): value for key, value in state.items()}
    first = state.get("0.weight")
    if first is not None:
        normalised = first.shape[-1] == 1
        numbers = _NORMALISED if normalised else _TORCHVISION
        table = {str(number): name for number, name in zip(numbers, names, strict=True)}
        if normalised:
            table["0"] = "preprocess"
    else:
        table = {name: name for name in (*names, "preprocess")}
        table |= {name.replace("_", ""): name for name in names} | {"conv0": "preprocess"}
    found = _renamed(state, table)
    if "conv1_1.weight" not in found:
        raise StyleError(f"{source}: not the weights of a VGG encoder (the first tensors are "
                         f"{', '.join(list(state)[:4]) or 'none'}); give torchvision's VGG19 or a "
                         "normalised VGG19")
    return found


def decoder_state(state: Mapping[str, Tensor], source: str) -> State:
    """A decoder's tensors under the names of the layers that they undo, deepest first.

    Known are plain sequences (``1.weight``, ``5.weight``, ...) and names such as ``conv31`` or
    ``conv3_1``.

    Raises:
        StyleError: None of these, or not as many layers as some depth has.
    """
    numbers = sorted({int(key.split(".")[0]) for key in state if re.fullmatch(r"\d+\.\w+", key)})
    counts = {len(conv_names(depth)): depth for depth in LAYERS}
    if numbers and len(numbers) in counts:
        names = reversed(conv_names(counts[len(numbers)]))
        table = {str(number): name for number, name in zip(numbers, names, strict=True)}
    else:
        every = conv_names("relu5_1")
        table = {name: name for name in every} | {name.replace("_", ""): name for name in every}
    found = _renamed(state, table)
    if len(found) != len(state) or len(found) // 2 not in counts:
        raise StyleError(f"{source}: not the weights of a decoder of VGG features (the first "
                         f"tensors are {', '.join(list(state)[:4]) or 'none'})")
    return found


def deepest(state: Mapping[str, Tensor]) -> str:
    """The deepest layer of ``LAYERS`` for which every convolution is there."""
    return [depth for depth in LAYERS
            if all(f"{name}.weight" in state for name in conv_names(depth))][-1]


def _renamed(state: Mapping[str, Tensor], table: Mapping[str, str]) -> State:
    found = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if layer in table and kind in ("weight", "bias"):
            found[f"{table[layer]}.{kind}"] = value
    return found
