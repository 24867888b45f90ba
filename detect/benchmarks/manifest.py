"""Time and memory of a large manifest: read and validate, filter, split.

A manifest of generated records (as many attributes, groups and boxes as real ones have) is read in
a process of its own. No picture is made: only what is known of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from musicon.datasets import memory
from musicon.datasets.command import DONE, DONE_WITH_REJECTS, SummaryTable, count, progress
from musicon.datasets.records import MANIFEST_NAME, Manifest
from musicon.datasets.splits import assign_splits

CLASSES = 50
GIGABYTE = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py manifest``."""
    add = parser.add_argument
    add("--records", type=count, default=1_000_000, help="images listed (default: 1,000,000)")
    add("--seconds", type=float, default=60.0, help="bar for all three (default: 60)")
    add("--gigabytes", type=float, default=4.0, help="bar for the peak (default: 4)")
    add("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Write, measure, print; 1 where a bar is missed."""
    with tempfile.TemporaryDirectory(prefix="musicon-manifest-") as folder:
        write(Path(folder) / MANIFEST_NAME, options.records, options.quiet)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=measure, args=(folder, theirs))
        worker.start()
        theirs.close()
        steps, peak = ours.recv()
        worker.join()
    table = SummaryTable("step", "seconds", "of them computing")
    for name, wall, busy in steps:
        table.add(name, round(wall, 1), round(busy, 1))
    total = sum(wall for _, wall, _ in steps)
    table.add("all", round(total, 1), round(sum(busy for _, _, busy in steps), 1))
    print(f"{table}\n{options.records:,} images, peak {peak / GIGABYTE:.2f} GB")
    missed = total > options.seconds or peak > options.gigabytes * GIGABYTE
    return DONE_WITH_REJECTS if missed else DONE


def write(file: Path, records: int, quiet: bool) -> None:
    """A COCO file, row by row, so that writing it takes no memory."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, max(1, records // 3), records)
    splits = rng.integers(0, 3, records)
    boxes = rng.integers(0, 3, records)
    with file.open("w", encoding="ascii") as stream:
        stream.write('{"info": {}, "categories": ' + json.dumps(
            [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]) + ', "images": [')
        for i in progress(range(records), records, "writing", quiet):
            split = ("", '"split": "train", ', '"split": "val", ')[splits[i]]
            stream.write(
                f'{", " if i else ""}{{"id": {i + 1}, "file_name": "images/{i // 1000}/{i}.jpg", '
                f'"width": 1024, "height": 768, {split}"domain": "mimo", "group": "{groups[i]}", '
                f'"attributes": {{"painter": "painter {i % 5000}", "movement": "Rococo"}}, '
                f'"source_url": "https://example.org/{i}", "rights": "CC BY", '
                f'"sha256": "{i:064x}"}}')
        stream.write('], "annotations": [')
        number = 0
        for i in range(records):
            for _ in range(boxes[i]):
                stream.write(f'{", " if number else ""}{{"id": {number + 1}, "image_id": {i + 1}, '
                             f'"category_id": {number % CLASSES + 1}, "iscrowd": 0, '
                             '"area": 17000, "bbox": [10, 10, 90.5, 190.25]}')
                number += 1
        stream.write("]}")


def measure(folder: str, out: Connection) -> None:
    """Read, filter, split; send (step, seconds, seconds computing) and the peak in bytes."""
    steps = []

    def step(name: str, started: tuple[float, float]) -> tuple[float, float]:
        now = time.perf_counter(), time.process_time()
        steps.append((name, now[0] - started[0], now[1] - started[1]))
        return now

    at = time.perf_counter(), time.process_time()
    manifest = Manifest.read(folder)
    at = step("read and validate", at)
    manifest.select(split="train", where=lambda record: bool(record.boxes))
    at = step("filter", at)
    assign_splits(manifest.images, seed=1)
    step("split", at)
    out.send((steps, memory.peak()))
