"""Kept features: time of an epoch with and without them, and of a second start on many works."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from musicon.datasets.command import DONE, DONE_WITH_REJECTS, count
from musicon.datasets.images import decode_reduced
from musicon.datasets.records import Manifest, UserError
from musicon.detect.config import load_as
from musicon.detect.devices import make_fabric
from musicon.detect.logs import RunFolder
from musicon.detect.sampling import spread
from musicon.detect.tasks import TaskKind, load
from musicon.detect.tasks.kept import feature_store
from musicon.detect.tasks.learning import FeatureTask
from musicon.detect.tasks.models import compute
from musicon.detect.tasks.networks import WorkClassifier, views
from musicon.detect.tasks.running import TaskRun, build, train
from musicon.detect.tasks.settings import TaskConfig
from musicon.detect.tasks.works import Work, collect

EPOCH_BAR = 20.0
"""Least ratio of an epoch's time without kept features to one with them."""
START_BAR = 10.0
"""Most seconds from the call to the first step, of a second run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py features``."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="MANIFEST", help="works with a known label")
    add("--task", default="movement", help="default: movement")
    add("--config", type=Path, metavar="FILE", help="default: configs/tasks/TASK.yaml")
    add("--images", type=count, default=20_000, help="works of the second run (default: 20,000)")
    add("--sample", type=count, default=64, help="pictures timed without them (default: 64)")
    add("--quiet", action="store_true", help="only the result")


def run(options: argparse.Namespace) -> int:
    """Measure, print; 1 when a bar is missed.

    The works of the second run are links to the data's pictures under check sums of their own,
    with random features: what is timed reads features and never computes one.
    """
    kind = load(options.task)
    file = options.config or Path("configs/tasks") / f"{options.task}.yaml"
    config = load_as(TaskConfig, file, [f"data={options.data}"])
    if config.network.backbone is None:
        raise UserError(f"{file}: layers of its own, so no features are kept; give another "
                        "--config")
    works = list(collect(Manifest.read(options.data), kind, config).works)
    network = build(config, 2).eval()
    without = options.images * seconds_per_picture(network, config,
                                                   spread(works, options.sample))
    with tempfile.TemporaryDirectory(prefix="musicon-benchmark-") as scratch:
        folder = Path(scratch)
        many(options.data, works, options.images, folder)
        batch, views_kept = 64, config.views
        steps = -(-options.images // batch)
        config = load_as(TaskConfig, file, [
            f"data={folder}", f"features={folder / 'features'}", "split.near_duplicates=false"])
        keep_random(network, config, folder)
        head = config.head.model_copy(update={"batch_size": batch, "probe_examples": 0,
                                              "warmup_steps": 0, "evaluate_every": steps + 1})

        def timed(name: str, steps: int) -> float:
            settings = config.model_copy(update={
                "head": head.model_copy(update={"steps": steps}), "output": folder / name,
                "whole": config.whole.model_copy(update={"steps": 0, "epochs": None})})
            started = time.perf_counter()
            train(kind, settings, quiet=True)
            return time.perf_counter() - started

        start = seconds_to_first_step(kind, config.model_copy(update={"output": folder / "start"}))
        whole = timed("one-step", 1)
        epoch = timed("epoch", steps + 1) - whole
    ratio = without / epoch
    met = ratio >= EPOCH_BAR, start <= START_BAR
    said = ["met" if one else "MISSED" for one in met]
    print(f"{options.images:,} works, {views_kept} views of each kept, {config.network.backbone}\n"
          f"epoch: {epoch:.1f} s with kept features, {without:,.0f} s without (from "
          f"{min(len(works), options.sample)} pictures): {ratio:,.0f} times (bar: "
          f"{EPOCH_BAR:.0f}, {said[0]})\n"
          f"second run: {start:.1f} s until the first step (bar: {START_BAR:.0f} s, {said[1]}); "
          f"{whole:.1f} s with it, scoring every work, and writing the model")
    return DONE if all(met) else DONE_WITH_REJECTS


def seconds_to_first_step(kind: TaskKind, config: TaskConfig) -> float:
    """Reading the works, dealing splits, building the network, finding its features."""
    started = time.perf_counter()
    runner = TaskRun(kind, config, RunFolder(config.folder), make_fabric(config), quiet=True)
    network = build(config, len(runner.works.classes))
    store = runner.features(network, config.features, runner.works.works)
    task = FeatureTask(network.head, runner.works, config.head, store.table(),
                       lambda works: store.places([work.sha256 for work in works]))
    task.collate([task.example(task.draw(rng), rng) for rng in [np.random.default_rng(0)] * 64])
    return time.perf_counter() - started


def seconds_per_picture(network: WorkClassifier, config: TaskConfig,
                        works: Sequence[Work]) -> float:
    """Decoding, one view, and the backbone's pass, for each picture."""
    side = max(640, 2 * config.network.image_size)

    def pass_over(some: Sequence[Work]) -> None:
        compute(network, np.stack([views(decode_reduced(work.path, side)[0], config.network, 1)
                                   for work in some]))

    pass_over(works[:4])  # the first call is slower
    started = time.perf_counter()
    for first in range(0, len(works), 32):
        pass_over(works[first:first + 32])
    return (time.perf_counter() - started) / len(works)


def many(data: Path, works: Sequence[Work], number: int, folder: Path) -> None:
    """A manifest of ``number`` works in a folder: the given ones again and again."""
    (folder / "images").mkdir()
    records = []
    for i in range(number):
        work = works[i % len(works)]
        name = f"images/{i:07}{work.path.suffix}"
        (folder / name).symlink_to(work.path.resolve())
        attributes = {key: value if key not in ("painter", "artist") else f"{value} {i % 97}"
                      for key, value in work.record.attributes.items()}
        records.append(replace(work.record, id=i, file_name=name, sha256=f"{i:064x}",
                               attributes=attributes, group=None))
    Manifest(folder, (), tuple(records)).write(folder)


def keep_random(network: WorkClassifier, config: TaskConfig, folder: Path) -> None:
    """Random features for every work of the folder, as a first run would have left them."""
    keys = [str(record.sha256) for record in Manifest.read(folder).images]
    store = feature_store(network, config, config.features)
    rng = np.random.default_rng(0)
    with torch.inference_mode(), store.writing() as add:
        for first in range(0, len(keys), 512):
            part = keys[first:first + 512]
            add(part, rng.standard_normal((len(part), *store.shape), np.float32))
