"""A training run is asked to stop: by Ctrl-C or SIGTERM, in any of its processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) ended the run after its state was saved."""


def agreed(stop: threading.Event, fabric: Fabric) -> bool:
    """True when any process of the run was asked to stop."""
    if fabric.world_size == 1:
        return stop.is_set()
    asked = torch.tensor(float(stop.is_set()), device=fabric.device)
    total: Any = fabric.all_reduce(asked, reduce_op="sum")
    return bool(total > 0)


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event set by Ctrl-C or SIGTERM; a second Ctrl-C stops at once."""
    stop = threading.Event()

    def ask(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
