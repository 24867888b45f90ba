"""Where models run, and which processes and devices a training run uses."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from musicon.datasets.records import UserError
from musicon.detect.config import ConfigError, RunSettings

if TYPE_CHECKING:  # inference picks a device, but has no use for Lightning, which is slow to import
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import Strategy

PATIENCE = timedelta(hours=2)
"""How long the other processes wait while the first one validates and writes."""


def pick_device(device: str | torch.device) -> torch.device:
    """``auto`` -> CUDA where there is one, else the CPU; other names as PyTorch has them.

    Raises:
        UserError: A device that does not exist here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"device {device!r} is not known; write auto, cpu, cuda, cuda:1 or mps"
                        ) from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {device!r} is not there: this machine has "
                        f"{torch.cuda.device_count()} CUDA devices; write auto or cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there; write auto or cpu")
    return chosen


def make_fabric(config: RunSettings) -> Fabric:
    """The launched Fabric of a run: one process, or all that ``torchrun`` started.

    Sums are made deterministic on the CPU, where a resumed run must give the same bytes.

    Raises:
        ConfigError: A precision or device that is not there.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    device = pick_device(config.device)
    local, world = _processes()
    if config.precision == "16-mixed" and device.type == "cpu":
        raise ConfigError("precision=16-mixed needs a GPU; write precision=bf16-mixed or 32-true")
    if device.type == "cpu":
        # Operators without a deterministic kernel only warn: none of ours is among them.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    strategy: str | Strategy = "auto"
    if world > 1:
        # Anchors or proposals may be absent from a batch, and with them a head's gradients.
        strategy = DDPStrategy(find_unused_parameters=True, timeout=PATIENCE,
                               process_group_backend="nccl" if device.type == "cuda" else "gloo")
    devices: int | list[int] = local
    if world == 1 and device.type == "cuda":
        devices = [device.index or 0]
    fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=max(1, world // local),
                    strategy=strategy, precision=config.precision)
    fabric.launch()
    return fabric


def _processes() -> tuple[int, int]:
    """Processes of this run on this machine, and on all machines."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1, 1
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
