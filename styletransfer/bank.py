"""The bank: photos with the look of paintings, made once, before training, boxes carried along.

The result is an ordinary manifest. Every picture's name follows from all that its pixels depend
on: what is there is kept, so that a run that was cut off, or another machine's share, or a changed
setting needs only what is missing.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch

from musicon.datasets import command
from musicon.datasets.files import sha256
from musicon.datasets.images import ImageError, decode_reduced
from musicon.datasets.records import Box, ImageRecord, Manifest, Rejects
from musicon.datasets.scenes import make_scenes
from musicon.datasets.workplace import REJECTS_NAME
from musicon.styletransfer import bank_ray, bank_worker, methods
from musicon.styletransfer.bank_files import (
    MADE_BY,
    SCENES,
    earlier_bank,
    intact,
    remove_stale,
    sweep,
)
from musicon.styletransfer.bank_plan import BankStyle, Content, Job, Look, plan, sized
from musicon.styletransfer.bank_worker import Made, Recipe, Task
from musicon.styletransfer.gram_vectors import free_bytes
from musicon.styletransfer.styles import read_styles
from musicon.styletransfer.weights import StyleError

RESERVE = 500_000_000
"""Bytes of disk that are left free."""
SAMPLED = 12
"""Pictures encoded to estimate how large the bank will be."""
GROWTH = 1.3
"""Styled pictures have more texture than either of the two that they are made from."""
GPU_BATCH = 32
_FILES = frozenset({"encoder", "decoder", "weights"})
"""Settings that name files: their contents count, by the weights' check sum, not their places."""


@dataclass(frozen=True)
class BankOptions:
    """What ``build_bank.py make`` was asked for.

    Attributes:
        contents: Manifests of what is to be styled.
        styles: Folder of styles; None for methods whose look is in their weights.
        out: Folder to make.
        per_image: Styles of each content.
        method: Name of the transfer method.
        settings: Its settings.
        alpha: Range of strengths.
        size: Longer side at most.
        format: ``jpg`` or ``webp``.
        quality: 1 to 100.
        composites: So many scenes composed of the contents are styled too.
        grounds: Manifest whose instrument-free pictures scenes are composed in.
        splits: Of the contents, out of train and val.
        shard: (i, n): make the i-th of n shares (from 1) and no manifest.
        workers: Processes on each device; 0 for as many as there are cores (CPU), 4 (GPU).
        devices: ``cpu``, or one or more of ``cuda:0``, ``cuda:1``, ...
        engine: ``processes`` of this machine, or ``ray`` for a Ray cluster that sees ``out``.
    """

    contents: tuple[Path, ...]
    styles: Path | None
    out: Path
    per_image: int = 4
    method: str = methods.DEFAULT
    settings: dict[str, Any] = field(default_factory=dict)
    alpha: tuple[float, float] = (1.0, 1.0)
    size: int = 512
    format: str = "jpg"
    quality: int = 90
    seed: int = 0
    composites: int = 0
    grounds: Path | None = None
    splits: tuple[str, ...] = ("train",)
    shard: tuple[int, int] = (1, 1)
    workers: int = 0
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "auto"
    engine: str = "processes"
    quiet: bool = False


@dataclass(frozen=True)
class BankMade:
    """What a run did.

    Attributes:
        manifest: The bank; None after a share of it (``shard``).
        made: Pictures made.
        kept: Pictures that were there.
        planned: Pictures of the whole bank, or of the share.
        seconds: That making took.
        rejects: Contents that could not be read.
    """

    manifest: Manifest | None
    made: int
    kept: int
    planned: int
    seconds: float
    rejects: Rejects


def make_bank(options: BankOptions) -> BankMade:
    """Make a bank, or what is missing of it.

    Raises:
        StyleError: Nothing to style, too little disk, or settings that cannot be used.
        ManifestError: A manifest that cannot be read.
    """
    earlier = earlier_bank(options.out)
    method = methods.build(options.method, options.settings).place("cpu", _precision(options))
    described = {k: v for k, v in method.describe().items() if k not in _FILES}
    look = Look(described, options.alpha, options.size, options.format, options.quality)
    styles = _styles(options)
    options = _with_scenes(options)
    contents = _contents(options)
    jobs = plan(contents, styles, options.per_image, options.seed, look)
    share, of = options.shard
    if of == 1:
        sweep(options.out)
    mine = [job for job in jobs if job.content % of == share - 1]
    known = {r.file_name: r.sha256 or "" for r in earlier.images} if earlier else {}
    sums = intact(options.out, [job.file_name for job in mine], known, options.quiet)
    missing = [job for job in mine if job.file_name not in sums]
    _check_room(missing, contents, styles, options)
    rejects, started = Rejects(), time.monotonic()
    for made in _made(missing, mine, contents, styles, options):
        if made.fault:
            rejects.add(made.task.path, made.fault)
        for (_, _, file), check_sum in zip(made.task.wanted, made.sums, strict=False):
            sums[file.relative_to(options.out).as_posix()] = check_sum
    seconds = time.monotonic() - started
    manifest = None
    if of == 1:
        manifest = _bank_manifest(jobs, contents, styles, sums, options, look)
        rejects.write(options.out / REJECTS_NAME)
        manifest.write(options.out)
        remove_stale(options.out, known, sums)
    done = sum(job.file_name in sums for job in missing)
    return BankMade(manifest, done, len(mine) - len(missing), len(mine), seconds, rejects)


def _precision(options: BankOptions) -> str:
    """The precision that is used, which is part of what decides the pictures."""
    if options.precision == "auto":
        return "float32" if options.devices[0] == "cpu" else "float16"
    return options.precision


def _styles(options: BankOptions) -> list[BankStyle]:
    if options.method == "johnson":
        if options.styles is not None:
            raise StyleError("johnson's style is in its network: leave out --styles, and give "
                             "--per-image 1")
        weights = Path(str(options.settings.get("weights", "network")))
        return [BankStyle(weights.stem, weights.stem, None, "")]
    if options.styles is None:
        raise StyleError(f"{options.method} needs --styles FOLDER, as build_bank.py styles makes "
                         "it")
    manifest, names = read_styles(options.styles)
    return [BankStyle(name, group, manifest.path(record),
                      record.sha256 or sha256(manifest.path(record)))
            for record, (name, group) in zip(manifest.images, names, strict=True)]


def _with_scenes(options: BankOptions) -> BankOptions:
    """Compose the scenes that were asked for and count them among the contents."""
    if not options.composites:
        return options
    if options.grounds is None:
        raise StyleError("--composites needs --grounds MANIFEST: pictures without instruments")

    def bar(iterable: Any, total: int | None = None, desc: str = "") -> Iterator[Any]:
        return command.progress(iterable, total, desc, options.quiet)

    scenes = make_scenes(Manifest.read(options.contents[0]), Manifest.read(options.grounds),
                         options.out / SCENES, count=options.composites, side=options.size,
                         seed=options.seed, bar=bar)
    return replace(options, contents=(*options.contents, scenes.root))


def _contents(options: BankOptions) -> list[Content]:
    """What is to be styled, of the wanted splits; never test pictures."""
    found = []
    for path in options.contents:
        manifest = Manifest.read(path)
        source = manifest.root.resolve().name
        for record in manifest.select(split=options.splits).images:
            file = manifest.path(record)
            try:
                content = record.sha256 or sha256(file)
            except OSError as error:
                raise StyleError(f"{file}: cannot be read ({error.strerror}); make the data set "
                                 "anew with prepare_data.py") from None
            found.append(Content(file, record, content, source, sized(record, options.size)))
    if not found:
        names = ", ".join(str(path) for path in options.contents)
        raise StyleError(f"{names}: no picture in {' or '.join(options.splits)}; give another "
                         "--content, or deal splits with prepare_data.py")
    return found


def expected_bytes(jobs: Sequence[Job], contents: Sequence[Content], styles: Sequence[BankStyle],
                   form: str, quality: int) -> int:
    """Size of pictures to be made, judged by some contents and styles in the same form."""
    paths = [content.path for content in contents[::max(1, len(contents) // SAMPLED)]]
    paths += [s.path for s in styles[::max(1, len(styles) // SAMPLED)] if s.path is not None]
    largest = max((max(content.size) for content in contents), default=1)
    taken = pixels = 0
    for path in paths:
        try:
            picture, _ = decode_reduced(path, largest)
        except ImageError:
            continue
        taken += len(bank_worker.encoded(picture, form, quality))
        pixels += picture.shape[0] * picture.shape[1]
    wanted = sum(contents[job.content].size[0] * contents[job.content].size[1] for job in jobs)
    return round(wanted * GROWTH * taken / max(1, pixels))


def _check_room(missing: Sequence[Job], contents: Sequence[Content], styles: Sequence[BankStyle],
                options: BankOptions) -> None:
    if not missing:
        return
    needed = expected_bytes(missing, contents, styles, options.format, options.quality)
    free = free_bytes(options.out)
    if not options.quiet:
        print(f"to make: {command.counted(len(missing), 'picture')}, about {needed / 1e6:,.0f} MB "
              f"({free / 1e9:,.1f} GB free)", flush=True)
    if needed + RESERVE > free:
        raise StyleError(f"{options.out}: about {needed / 1e9:.1f} GB are needed and "
                         f"{free / 1e9:.1f} GB are free (of which {RESERVE / 1e9:.1f} GB stay "
                         "free); give a smaller --per-image, --size or --quality, or another --out")


def _made(missing: Sequence[Job], jobs: Sequence[Job], contents: Sequence[Content],
          styles: Sequence[BankStyle], options: BankOptions) -> Iterator[Made]:
    """Make what is missing, in as many processes as were asked for."""
    if not missing:
        return
    recipe = Recipe(options.method, options.settings, _precision(options),
                    tuple(style.path for style in styles), options.format, options.quality)
    batches = _batches(missing, jobs, contents, options)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = options.devices == ("cpu",)
    if options.engine == "ray":
        done = bank_ray.made_by_ray(recipe, batches, options.devices[0], options.workers)
        yield from command.progress(done, sum(map(len, batches)), "styling", options.quiet)
        return
    workers = min(options.workers or ((cores or 1) if cpu else 4), len(batches))
    if cpu and workers == 1:
        yield from _made_here(recipe, batches, options)
        return
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(
            workers, get_context("spawn"), bank_worker.start, (recipe, device)))
            for device in options.devices]
        futures = [pools[number % len(pools)].submit(bank_worker.work, batch)
                   for number, batch in enumerate(batches)]
        try:
            yield from _one_by_one(futures, sum(map(len, batches)), options)
        except BaseException:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def _made_here(recipe: Recipe, batches: Sequence[list[Task]],
               options: BankOptions) -> Iterator[Made]:
    """In this process, whose numbers of threads are put back at the end."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        worker = bank_worker.Worker(recipe, "cpu")
        done = (made for batch in batches for made in worker.make(batch))
        yield from command.progress(done, len(batches), "styling", options.quiet)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _one_by_one(futures: Iterable[Future[list[Made]]], total: int,
                options: BankOptions) -> Iterator[Made]:
    done = (made for future in as_completed(futures) for made in future.result())
    yield from command.progress(done, total, "styling", options.quiet)


def _batches(missing: Sequence[Job], jobs: Sequence[Job], contents: Sequence[Content],
             options: BankOptions) -> list[list[Task]]:
    """Tasks that are done at once: one content on a CPU, contents of one size on a GPU.

    A content of which one picture is missing is done whole: the same pictures computed together
    give the same bytes as in a run that was never cut off.
    """
    wanted = {job.content for job in missing}
    of: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.content in wanted:
            of[job.content].append(job)
    tasks = [Task(contents[at].path, contents[at].size, tuple(
        (job.style, job.alpha, options.out / job.file_name) for job in own))
        for at, own in of.items()]
    if options.devices == ("cpu",):
        return [[task] for task in tasks]
    by_size: dict[tuple[int, int], list[Task]] = defaultdict(list)
    for task in tasks:
        by_size[task.size].append(task)
    step = max(1, GPU_BATCH // options.per_image)
    return [same[i:i + step] for same in by_size.values() for i in range(0, len(same), step)]


def _bank_manifest(jobs: Sequence[Job], contents: Sequence[Content], styles: Sequence[BankStyle],
                   sums: dict[str, str], options: BankOptions, look: Look) -> Manifest:
    categories: dict[int, Any] = {}
    for path in options.contents:
        for category in Manifest.read(path).categories:
            if categories.setdefault(category.id, category).name != category.name:
                raise StyleError(f"{path}: its class {category.id} is {category.name}, that of "
                                 f"the first content is {categories[category.id].name}; make one "
                                 "bank for each, or one data set of them with prepare_data.py coco")
    records = [styled_record(number, job, contents[job.content], styles[job.style],
                             sums[job.file_name], look, options.seed)
               for number, job in enumerate((j for j in jobs if j.file_name in sums), 1)]
    info = {"description": f"style bank of {', '.join(c.resolve().name for c in options.contents)}",
            "made_by": MADE_BY, "method": dict(look.method), "size": look.size,
            "alpha": list(look.alpha), "format": look.format, "quality": look.quality,
            "per_image": options.per_image, "seed": options.seed, "styles": len(styles)}
    return Manifest(options.out, tuple(categories.values()), tuple(records), info)


def styled_record(number: int, job: Job, content: Content, style: BankStyle, check_sum: str,
                  look: Look, seed: int) -> ImageRecord:
    """A content's record for one of its styled pictures: boxes scaled, where it comes from told."""
    record = content.record
    width, height = content.size
    across, down = width / record.width, height / record.height
    boxes = tuple(replace(box, xyxy=_scaled(box, across, down), origin="style")
                  for box in record.boxes)
    origin = f"{content.source}/{record.file_name}"
    return replace(
        record, id=number, file_name=job.file_name, width=width, height=height, boxes=boxes,
        group=record.group or origin, sha256=check_sum,
        attributes={**record.attributes, "content": origin, "style": style.name},
        extra={**record.extra, "content_id": record.id, "content_sha256": content.sha256,
               "style_sha256": style.sha256, "style_group": style.group,
               "method": look.method["method"], "weights_sha256": look.method["weights_sha256"],
               "alpha": job.alpha, "seed": seed})


def _scaled(box: Box, across: float, down: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.xyxy
    return x0 * across, y0 * down, x1 * across, y1 * down


