"""Bank pictures made by a Ray cluster: the same work, spread over machines by Ray Data.

The only file that imports Ray, and only when ``make --engine ray`` is used. All machines see the
same folders; the results are the same files as without Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from musicon.styletransfer.bank_worker import Made, Recipe, Task, Worker


class RayWorker:
    """A bank worker as a stateful Ray Data transform: rows in, rows with results out."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.worker = Worker(recipe, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the pictures of one batch of tasks."""
        return {"made": self.worker.make(row["tasks"])}


def made_by_ray(recipe: Recipe, batches: Sequence[Sequence[Task]], device: str,
                workers: int) -> Iterator[Made]:
    """Make all batches on the Ray cluster that is running, or on this machine.

    Args:
        recipe: What all pictures share.
        batches: Tasks that are done at once.
        device: ``cpu``, or ``cuda`` to give each worker a GPU.
        workers: Actors; on CUDA, GPUs. 0 for as many as the cluster has room for.

    Raises:
        ImportError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("Ray is not installed; type: .venv/bin/pip install 'ray[data]', or leave "
                          "out --engine ray") from error
    if not ray.is_initialized():
        _join(ray)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cuda = device != "cpu"
    room = int(ray.cluster_resources().get("GPU" if cuda else "CPU", 0))
    made = ray.data.from_items([{"tasks": list(batch)} for batch in batches],
                               override_num_blocks=len(batches)).map(
        RayWorker, fn_constructor_args=(recipe, "cuda" if cuda else "cpu"),
        concurrency=min(workers or max(1, room), len(batches)),
        num_cpus=0.5, num_gpus=1 if cuda else None)
    for row in made.iter_rows():
        yield from row["made"]


def _join(ray: Any) -> None:
    """Join the cluster that runs here; without one, begin one that only this machine sees."""
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="WARNING")
    except ConnectionError:
        ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, log_to_driver=False,
                 logging_level="WARNING")
