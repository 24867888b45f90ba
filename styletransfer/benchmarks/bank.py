"""Speed of style transfer: images a second by method and size, and where the time goes.

Files in, files out: each content is read, given K styles, written as JPEG; each style is encoded
once. On the same weights and files the plain loop of public AdaIN code runs in turn with it, so
that a busy machine is equally unfair to both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from musicon.datasets.command import DONE, DONE_WITH_REJECTS, SummaryTable, count, progress

if TYPE_CHECKING:
    from torch import Tensor

    from musicon.styletransfer.methods.base import StyleMethod

CPU_BAR = 3.0
"""Least speed on a CPU, in speeds of the plain loop."""
CUDA_BARS = {512: 150.0, 256: 600.0}
"""Least images a second on an H100 or H200."""
JPEG_QUALITY = 95


@dataclass
class Clock:
    """Seconds spent in each part."""

    seconds: dict[str, float] = field(default_factory=dict)
    synchronise: Callable[[], None] = lambda: None

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to a part."""
        def call(*args: Any, **kwargs: Any) -> Any:
            self.synchronise()
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self.synchronise()
            self.seconds[part] = self.seconds.get(part, 0) + time.perf_counter() - started
            return result
        return call


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py bank``."""
    add = parser.add_argument
    add("--content", type=Path, required=True, metavar="DIR|FILE|GLOB", help="photos")
    add("--styles", type=Path, required=True, metavar="DIR|FILE|GLOB", help="paintings")
    add("--encoder", required=True, metavar="FILE", help="of AdaIN")
    add("--decoder", required=True, metavar="FILE", help="of AdaIN")
    add("--johnson", type=Path, metavar="FILE", help="also time this network")
    add("--size", type=count, nargs="+", default=[256, 512],
        help="sides of the square images, pixels (default: 256 512)")
    add("--limit", type=count, default=8, help="contents (default: 8)")
    add("--per-image", type=count, default=4, metavar="K", help="styles each (default: 4)")
    add("--batch-size", type=count, default=2, help="contents at once (default: 2)")
    add("--rounds", type=count, default=3, help="times that each is timed (default: 3)")
    add("--precision", nargs="+", default=["auto"],
        help="auto, float32, bfloat16, float16; several are compared (default: auto)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    add("--workers", type=count, default=2, help="threads that read and write (default: 2)")
    add("--quiet", action="store_true", help="no progress bars")


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables; 1 when the bar is missed."""
    from musicon.datasets.images import find_images
    from musicon.styletransfer.methods import build

    contents = find_images(options.content)[::_step(options.content, options.limit)]
    styles = find_images(options.styles)[::_step(options.styles, options.per_image)]
    job = Job(contents[:options.limit], styles[:options.per_image], options)
    networks = {"encoder": options.encoder, "decoder": options.decoder}
    speeds = SummaryTable("method", "precision", "size", "images/s", "plain loop", "times")
    shares = SummaryTable("method", "precision", "size", "read %", "encode %", "transfer %",
                          "decode %", "JPEG %")
    met = True
    for size in options.size:
        for precision in options.precision:
            method = build("adain", networks).place(options.device, precision)
            met = measure(job, method, size, speeds, shares, compare=True) and met
        if options.johnson:
            method = build("johnson", {"weights": options.johnson}).place(options.device)
            # The style is in the weights: a second one would be the same image.
            measure(replace(job, styles=job.styles[:1]), method, size, speeds, shares,
                    compare=False)
    print(f"{len(job.contents)} contents in {len(job.styles)} styles each, {options.device}\n")
    speeds.print()
    print("\nTime of the threads that compute, read and write, in parts of their sum:")
    shares.print()
    print(f"\nbar: {CPU_BAR:g} times the plain loop on a CPU, "
          + ", ".join(f"{bar:g} images/s at {size} px" for size, bar in CUDA_BARS.items())
          + f" on an H100 or H200: {'met' if met else 'MISSED'}")
    return DONE if met else DONE_WITH_REJECTS


def _step(place: Path, limit: int) -> int:
    """Which of the files are taken: spread evenly, as neighbours are of one kind."""
    from musicon.datasets.images import find_images

    return max(1, len(find_images(place)) // limit)


@dataclass(frozen=True)
class Job:
    """What is stylised, and with which options."""

    contents: Sequence[Path]
    styles: Sequence[Path]
    options: argparse.Namespace

    @property
    def results(self) -> int:
        """Images that one round makes."""
        return len(self.contents) * len(self.styles)


def measure(job: Job, method: StyleMethod, size: int, speeds: SummaryTable, shares: SummaryTable,
            *, compare: bool) -> bool:
    """Time one method at one size, in turn with the plain loop; True when the bar is met."""
    from musicon.styletransfer.benchmarks.plain_adain import PlainAdaIN
    from musicon.styletransfer.methods.adain import AdaIN

    plain = PlainAdaIN(method) if compare and isinstance(method, AdaIN) else None
    clock = Clock(synchronise=_synchronise(method))
    watch(method, clock)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="musicon-benchmark-") as scratch:
        _stylise(job, method, size, Path(scratch), clock)  # the first call is slower
        clock.seconds.clear()
        for _ in progress(range(job.options.rounds), desc=f"{method.name} {size}",
                          quiet=job.options.quiet):
            started = time.perf_counter()
            _stylise(job, method, size, Path(scratch), clock)
            ours.append(time.perf_counter() - started)
            if plain:
                started = time.perf_counter()
                for content in job.contents:
                    for style in job.styles:
                        plain.run(content, style, size, Path(scratch) / "plain.jpg")
                theirs.append(time.perf_counter() - started)
    speed = job.results / median(ours)
    times = median(t / o for t, o in zip(theirs, ours, strict=True)) if theirs else None
    precision = str(method.dtype).removeprefix("torch.")
    speeds.add(method.name, precision, size, speed,
               job.results / median(theirs) if theirs else None, times)
    shares.add(method.name, precision, size, *shares_of(clock.seconds))
    if method.device.type == "cuda":
        return speed >= CUDA_BARS.get(size, 0)
    return times is None or times >= CPU_BAR


def shares_of(seconds: dict[str, float]) -> list[int | None]:
    """Percent of read, encode, transfer, decode, JPEG; None for a part that a method has not."""
    inside = seconds.get("encode", 0) + seconds.get("decode", 0)
    parts = {**seconds, "transfer": seconds["transfer"] + seconds["styles"] - inside}
    del parts["styles"]
    total = sum(parts.values())
    return [round(100 * parts[part] / total) if part in parts else None
            for part in ("read", "encode", "transfer", "decode", "JPEG")]


def watch(method: StyleMethod, clock: Clock) -> None:
    """Have the encoder's, the decoder's and the whole transfer's time counted."""
    setattr(method, "transfer", clock.timed("transfer", method.transfer))  # noqa: B010
    setattr(method, "encode_style", clock.timed("styles", method.encode_style))  # noqa: B010
    for name, part, function in (("encoder", "encode", "features"),
                                 ("decoder", "decode", "forward")):
        module = getattr(method, name, None)
        if module is not None:
            setattr(module, function, clock.timed(part, getattr(module, function)))


def _stylise(job: Job, method: StyleMethod, size: int, scratch: Path, clock: Clock) -> None:
    """Each content in every style, by batches; threads read ahead and write behind."""
    import torch

    read = clock.timed("read", lambda file: _read(file, size))
    write = clock.timed("JPEG", _write)
    batch, writing = job.options.batch_size, list[Future[None]]()
    with ThreadPoolExecutor(job.options.workers) as pool:
        reading = [pool.submit(read, file) for file in job.contents]
        codes = torch.cat([method.encode_style(_batch([read(file)])) for file in job.styles])
        for first in range(0, len(job.contents), batch):
            content = _batch([future.result() for future in reading[first:first + batch]])
            repeated = codes.repeat(len(content), *[1] * (codes.ndim - 1))
            images = (method.transfer(content, repeated) * 255).round_().to(torch.uint8)
            pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
            writing += [pool.submit(write, image, scratch / f"{first}-{number}.jpg")
                        for number, image in enumerate(pixels)]
        for future in writing:
            future.result()


def _read(file: Path, size: int) -> Any:
    import cv2

    from musicon.datasets.images import decode_reduced

    return cv2.resize(decode_reduced(file, 2 * size)[0], (size, size),
                      interpolation=cv2.INTER_AREA)


def _batch(pixels: Sequence[Any]) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def _write(pixels: Any, file: Path) -> None:
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise OSError(f"{file}: could not be encoded")
    file.write_bytes(data.tobytes())


def _synchronise(method: StyleMethod) -> Callable[[], None]:
    if method.device.type != "cuda":
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(method.device)
