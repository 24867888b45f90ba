"""Speed and memory of an inference: the bare model's share, N images against 10 N, a big scan.

The bare model is ``ArtworkDetector.predict`` on the same images, decoded beforehand, in the same
batches. End to end adds finding, decoding, drawing and writing. Both are timed in turn in one
process, so that a busy machine is equally unfair to both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from musicon.datasets import memory
from musicon.datasets.command import DONE, DONE_WITH_REJECTS, SummaryTable, count, progress
from musicon.datasets.images import ImageError, decode_reduced
from musicon.datasets.records import UserError
from musicon.detect.inference import InferenceOptions, Listing, list_images, run_inference
from musicon.detect.pipeline import WORKING_SIDE, ArtworkDetector
from musicon.detect.tiling import TestTime

SPEED_BAR = 0.8
"""Least share of the bare model's speed."""
MEMORY_BAR = 1.1
"""Most that the peak may grow from N to 10 N images."""
SCAN_BAR = 4 << 30
"""Most bytes that one scan may take."""
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Speed:
    """Images per second of each round, in the order they were run."""

    bare: tuple[float, ...]
    end_to_end: tuple[float, ...]

    @property
    def share(self) -> float:
        """End to end over bare: the median of the rounds' ratios."""
        return median(e / b for e, b in zip(self.end_to_end, self.bare, strict=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py infer``."""
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="DIR|FILE|GLOB", help="what to search")
    add("--model", type=Path, help="model or run folder (default: the newest trained)")
    add("--limit", type=count, default=100, help="images timed (default: 100)")
    add("--rounds", type=count, default=3, help="times that each is timed (default: 3)")
    add("--batch-size", type=count, default=8, help="images at once (default: 8)")
    add("--workers", type=count, default=min(8, os.cpu_count() or 2),
        help="threads that decode and draw (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--memory", type=int, metavar="N", default=0,
        help="also compare the memory peaks of N and 10 N images (default: 0, don't)")
    add("--scan", type=count, metavar="SIDE",
        help="also search one TIFF of SIDE x SIDE pixels, copies of an image (default: don't)")
    add("--zoom", nargs="+", type=float, default=[], metavar="Z",
        help="look at overlapping tiles of the scan too, as infer.py does")
    add("--quiet", action="store_true", help="no progress bars")


def run(options: argparse.Namespace) -> int:
    """Measure, print a table; 1 when a bar is missed."""
    from musicon.detect.checkpoints import find_newest

    if options.zoom and not options.scan:
        raise UserError("--zoom is for the scan; add --scan SIDE, or leave it out")
    model = options.model or find_newest()
    with tempfile.TemporaryDirectory(prefix="musicon-benchmark-") as scratch:
        listing = list_images(options.images, Path(scratch) / "none", options.limit)
        detector = ArtworkDetector.load(model, options.device)
        settings = InferenceOptions(batch_size=options.batch_size, workers=options.workers,
                                    quiet=True)
        speed = measure_speed(detector, listing, Path(scratch), settings, options.rounds,
                              options.quiet)
        met = _report_speed(speed, len(listing.files))
        if options.memory:
            peaks = [measure_peak(model, listing.files, count, settings, options.device,
                                  Path(scratch)) for count in (options.memory, 10 * options.memory)]
            met = _report_memory(options.memory, peaks) and met
        if options.scan:
            peak, seconds = measure_scan(model, listing.files[0], options.scan, settings,
                                         options.device, Path(scratch),
                                         TestTime(zooms=tuple(options.zoom)))
            met = _report_scan(options.scan, peak, seconds) and met
    return DONE if met else DONE_WITH_REJECTS


def measure_speed(detector: ArtworkDetector, listing: Listing, scratch: Path,
                  settings: InferenceOptions, rounds: int, quiet: bool = False) -> Speed:
    """Time both ways in turn, the first changing from round to round.

    Raises:
        UserError: An image that cannot be read: the two ways would not do the same work.
    """
    images = [_decoded(file) for file in listing.files]
    detector.predict(images[:settings.batch_size])  # the first call is slower
    bare, whole = [], []
    for number in progress(range(rounds), desc="rounds", quiet=quiet):
        def run_bare() -> None:
            bare.append(len(images) / _time_bare(detector, images, settings.batch_size))

        def run_whole(number: int = number) -> None:
            started = time.perf_counter()
            run_inference(detector, listing, scratch / f"round{number}", settings)
            whole.append(len(images) / (time.perf_counter() - started))

        for way in (run_bare, run_whole) if number % 2 == 0 else (run_whole, run_bare):
            way()
    return Speed(tuple(bare), tuple(whole))


def measure_peak(model: Path, files: Sequence[str], count: int, settings: InferenceOptions,
                 device: str, scratch: Path) -> int:
    """Peak memory in bytes of a process that searches ``count`` images (files used repeatedly)."""
    folder = scratch / f"images{count}"
    folder.mkdir()
    for number in range(count):
        source = Path(files[number % len(files)])
        (folder / f"{number:07}{source.suffix}").symlink_to(source)
    return _search_apart(model, folder, scratch / f"out{count}", settings, device, TestTime())[0]


def measure_scan(model: Path, file: str, side: int, settings: InferenceOptions, device: str,
                 scratch: Path, test_time: TestTime) -> tuple[int, float]:
    """Peak memory in bytes of a process that searches one big TIFF, and the search's seconds.

    Args:
        model: Model folder.
        file: An image, of which copies side by side make the scan.
        side: Of the scan, in pixels.
        settings: Of the search.
        device: Where the model runs.
        scratch: Folder for the scan, which takes up to three bytes a pixel, and the results.
        test_time: Further looks.
    """
    image = _decoded(file)
    height, width = image.shape[:2]
    folder = scratch / "scan"
    folder.mkdir()
    tiled = np.tile(image, (-(-side // height), -(-side // width), 1))[:side, :side]
    Image.fromarray(tiled).save(folder / "scan.tif", compression="tiff_lzw")
    del tiled
    return _search_apart(model, folder, scratch / "out-scan", settings, device, test_time)


def _search_apart(model: Path, folder: Path, out: Path, settings: InferenceOptions, device: str,
                  test_time: TestTime) -> tuple[int, float]:
    """Search a folder in a process of its own: its peak memory in bytes, the search's seconds."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_search_and_tell, args=(
        sender, model, folder, out, settings, device, test_time))
    child.start()
    child.join()
    if not receiver.poll():
        raise UserError(f"the run over {folder} failed; its message is above")
    found: tuple[int, float] = receiver.recv()
    return found


def _search_and_tell(sender: Connection, model: Path, folder: Path, out: Path,
                     settings: InferenceOptions, device: str, test_time: TestTime) -> None:
    detector = ArtworkDetector.load(model, device, test_time=test_time)
    started = time.perf_counter()
    run_inference(detector, list_images([str(folder)], out), out, settings)
    sender.send((memory.peak(), time.perf_counter() - started))


def _time_bare(detector: ArtworkDetector, images: Sequence[NDArray[np.uint8]],
               batch_size: int) -> float:
    started = time.perf_counter()
    for first in range(0, len(images), batch_size):
        detector.predict(images[first:first + batch_size])
    return time.perf_counter() - started


def _decoded(file: str) -> NDArray[np.uint8]:
    try:
        return decode_reduced(file, WORKING_SIDE)[0]
    except ImageError as error:
        raise UserError(f"{error}; a benchmark needs images that can all be read") from None


def _report_speed(speed: Speed, count: int) -> bool:
    table = SummaryTable("round", "bare images/s", "end to end images/s", "share")
    for number, (bare, whole) in enumerate(zip(speed.bare, speed.end_to_end, strict=True), 1):
        table.add(number, bare, whole, whole / bare)
    table.print()
    met = speed.share >= SPEED_BAR
    print(f"{count:,} images: end to end runs at {speed.share:.0%} of the bare model's speed "
          f"(bar: {SPEED_BAR:.0%}, {'met' if met else 'MISSED'})")
    return met


def _report_memory(count: int, peaks: Sequence[int]) -> bool:
    small, large = peaks
    met = large <= MEMORY_BAR * small
    print(f"memory peak: {small / MEGABYTE:,.0f} MB for {count:,} images, "
          f"{large / MEGABYTE:,.0f} MB for {10 * count:,}: x {large / small:.2f} "
          f"(bar: {MEMORY_BAR}, {'met' if met else 'MISSED'})")
    return met


def _report_scan(side: int, peak: int, seconds: float) -> bool:
    met = peak <= SCAN_BAR
    print(f"a scan of {side:,} x {side:,} pixels: memory peak {peak / MEGABYTE:,.0f} MB "
          f"(bar: {SCAN_BAR / MEGABYTE:,.0f}, {'met' if met else 'MISSED'}), {seconds:,.0f} s")
    return met
