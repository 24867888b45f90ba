"""Which examples a step learns from: a pure function of the seed and the step."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from musicon.datasets.loading import share_memory
from musicon.datasets.records import UserError
from musicon.detect.config import FitConfig

if TYPE_CHECKING:
    from musicon.detect.training import Task

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, evenly over the list: its start is often all of one kind."""
    taken = min(count, len(items))
    return [items[i * len(items) // taken] for i in range(taken)]


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers, each of which changes it."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def loader(task: Task, cfg: FitConfig, seed: int, done: int, fabric: Fabric,
           num_workers: int = 0) -> Iterator[tuple[list[int], Any]]:
    """The batches of this process after ``done`` steps, each with the items that it holds.

    Raises:
        UserError: An image that cannot be read.
    """
    positions = Positions(cfg, done, fabric.global_rank, fabric.world_size)
    # With a generator of its own the loader takes nothing from torch's chance, which belongs to
    # the step.
    batches: DataLoader[Any] = DataLoader(
        Stream(task, seed), batch_sampler=positions, collate_fn=Collate(task),
        num_workers=num_workers, worker_init_fn=_start_worker,
        generator=torch.Generator(), pin_memory=fabric.device.type == "cuda")
    for indices, batch in batches:
        if isinstance(batch, Exception):
            raise batch
        yield indices, batch


class Positions(Sampler[list[int]]):
    """Positions in the run, batch after batch, of one process.

    All processes together go through 0, 1, 2, ... once; with n processes of batch size b a step
    learns from the same examples as one process of batch size n * b.
    """

    def __init__(self, cfg: FitConfig, done: int, rank: int, world_size: int) -> None:
        self.batches = range(done * cfg.accumulate, cfg.steps * cfg.accumulate)
        self.size, self.rank, self.world_size = cfg.batch_size, rank, world_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            first = (batch * self.world_size + self.rank) * self.size
            yield list(range(first, first + self.size))


@dataclass(frozen=True)
class Stream(Dataset[Any]):
    """The run's examples by position; an unreadable image comes back as its error."""

    task: Task
    seed: int

    def __getitem__(self, position: int) -> tuple[int, Any]:
        rng = np.random.default_rng([self.seed, position])
        index = self.task.draw(rng)
        try:
            return index, self.task.example(index, rng)
        except (UserError, OSError) as error:
            # Raised again by the training process: a loader process would bury it in a traceback.
            return index, error


@dataclass(frozen=True)
class Collate:
    """Puts examples together to a batch, unless one of them is an error."""

    task: Task

    def __call__(self, examples: Sequence[tuple[int, Any]]) -> tuple[list[int], Any]:
        """(item, example) pairs -> their items, and the batch or the first error."""
        indices = [index for index, _ in examples]
        errors = [example for _, example in examples if isinstance(example, Exception)]
        return indices, errors[0] if errors else self.task.collate([e for _, e in examples])


def _start_worker(worker: int) -> None:
    """Leave Ctrl-C to the parent, and the other loader processes their part of the memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    info: Any = get_worker_info()
    share_memory(info.num_workers)
