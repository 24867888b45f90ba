"""Size, speed and memory of detection networks, side by side, on the same boxed pictures.

Each network runs in a process of its own, from random weights on a random backbone: what is
measured doesn't depend on them. Times are of the processor, so that other work on the machine
matters little; on a GPU they are by the clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from musicon.datasets import memory
from musicon.datasets.command import DONE, DONE_WITH_REJECTS, SummaryTable, count, progress
from musicon.datasets.images import decode_reduced
from musicon.datasets.loading import resize_longer
from musicon.datasets.records import Manifest, UserError
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.config import ClassifierConfig, DetectorConfig

NETWORKS = ("torchvision:fasterrcnn", "torchvision:retinanet", "torchvision:fcos",
            "torchvision:ssdlite", "yolox:yolox_nano", "yolox:yolox_tiny",
            "detectron2:fasterrcnn", "detectron2:retinanet")
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What was measured of one network; ``fault`` says why nothing was.

    Attributes:
        parameters: Numbers that it learns.
        step: Seconds of one training step: losses, gradients, AdamW.
        image: Seconds of searching one image.
        peak: Most memory of the process, or of the GPU, in bytes.
    """

    parameters: int = 0
    step: float = 0.0
    image: float = 0.0
    peak: int = 0
    fault: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py engines``."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="manifest with boxed pictures")
    add("--networks", nargs="+", default=NETWORKS, metavar="ENGINE:FAMILY",
        help=f"default: {' '.join(NETWORKS)}")
    add("--backbone", default="tf_efficientnet_lite0", help="of those that have none of their own")
    add("--image-size", type=count, default=320, help="longer side in pixels (default: 320)")
    add("--batch-size", type=count, default=4, help="pictures in a training step (default: 4)")
    add("--rounds", type=count, default=8, help="steps, and searches, timed (default: 8)")
    add("--threads", type=count, default=1, help="threads on a CPU (default: 1)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    add("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Measure and print a table; 1 when a network could not be had."""
    if wrong := [name for name in options.networks if name.count(":") != 1]:
        raise UserError(f"--networks {wrong[0]}: write ENGINE:FAMILY, such as {NETWORKS[0]}")
    context = multiprocessing.get_context("spawn")
    found: dict[str, Figures] = {}
    for name in progress(options.networks, desc="networks", quiet=options.quiet):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_measure_and_tell, args=(sender, name, options))
        child.start()
        child.join()
        found[name] = receiver.recv() if receiver.poll() else Figures(fault="its process died")
    table = SummaryTable("network", "million parameters", "steps/s", "images/s", "peak MB")
    for name, figures in found.items():
        if not figures.fault:
            table.add(name, round(figures.parameters / 1e6, 2), round(1 / figures.step, 2),
                      round(1 / figures.image, 1), round(figures.peak / MEGABYTE))
    print(table)
    faults = {name: figures.fault for name, figures in found.items() if figures.fault}
    for name, fault in faults.items():
        print(f"{name}: not measured: {fault}")
    return DONE_WITH_REJECTS if faults else DONE


def _measure_and_tell(sender: Connection, name: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    try:
        pictures = boxed(options.data, options.image_size, options.batch_size)
        sender.send(measure(name, options, *pictures))
    except (UserError, ImportError) as error:
        sender.send(Figures(fault=str(error)))


def boxed(data: Path, side: int, most: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The first ``most`` boxed pictures of a manifest, as a detector is given them.

    Raises:
        UserError: There is none.
    """
    manifest = Manifest.read(data)
    records = [record for record in manifest.images if record.boxes][:most]
    if not records:
        raise UserError(f"{data}: no picture is boxed; give a manifest with boxes as --data")
    images, targets = [], []
    for record in records:
        pixels = resize_longer(decode_reduced(manifest.path(record), side)[0], side)
        scale = pixels.shape[1] / record.width
        images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        targets.append({"boxes": torch.tensor([box.xyxy for box in record.boxes]) * scale,
                        "labels": torch.ones(len(record.boxes), dtype=torch.int64)})
    return images, targets


def measure(name: str, options: argparse.Namespace, images: Sequence[Tensor],
            targets: Sequence[dict[str, Tensor]]) -> Figures:
    """Train and search with one network.

    Raises:
        UserError: No such network.
        ImportError: Its library is missing.
    """
    engine, family = name.split(":")
    cfg = detectors.resolved(DetectorConfig.model_validate({
        "engine": engine, "family": family, "weights": "none", "class_agnostic": True,
        "image_size": options.image_size, "anchor_sizes": [24, 48, 96, 192]}))
    classifier = classifiers.build(
        ClassifierConfig(backbone=options.backbone, weights="none"), 1)
    device = torch.device(options.device)
    model: torch.nn.Module = detectors.build(cfg, 1, classifier).to(device)  # type: ignore[attr-defined]
    images = [image.to(device) for image in images]
    targets = [{key: value.to(device) for key, value in row.items()} for row in targets]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        losses = model.losses(images, targets)  # type: ignore[operator]
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    def search() -> None:
        with torch.inference_mode():
            model.detect([images[0]])  # type: ignore[operator]

    model.train()
    steps = [_timed(step, device) for _ in range(options.rounds + 1)]
    model.eval()
    searches = [_timed(search, device) for _ in range(options.rounds + 1)]
    return Figures(sum(p.numel() for p in model.parameters()), median(steps[1:]),
                   median(searches[1:]), _peak(device))


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds: of the processor on a CPU, by the clock on a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return memory.peak()
