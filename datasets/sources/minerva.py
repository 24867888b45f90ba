"""MINERVA: instruments boxed in artworks, with published splits (Zenodo 10.5281/zenodo.3732580).

Sabatelli et al., Advances in Digital Music Iconography, DHQ 15.1 (2021). The release has a folder
a benchmark with train.txt, dev.txt and test.txt: tables of one box a row. ``--benchmark`` says
which task: instruments of any kind as one class (single), the most frequent 5, 10 or 20
instruments, or all.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from musicon.datasets.boxes import Xyxy
from musicon.datasets.command import counted
from musicon.datasets.images import find_images
from musicon.datasets.naming import normalise
from musicon.datasets.records import ImageRecord, Rejects
from musicon.datasets.sources import boxed
from musicon.datasets.sources.base import SourceData, SourceError, add_path, existing_folder
from musicon.datasets.sources.boxed import RawBox, RawImage

SPLIT_FILES = {"test": "test.txt", "val": "dev.txt", "train": "train.txt"}
"""Most protected first: an image in two files is tested on, not learnt from."""

SINGLE_CLASS = "instrument"
BENCHMARKS = {"single": None, "top-5": 5, "top-10": 10, "top-20": 20, "all": None}
PUBLISHED_IMAGES = {"single": (1857, 1137, 1189), "top-5": (952, 540, 724),
                    "top-10": (1227, 680, 898), "top-20": (1471, 860, 1047)}
"""Images in train, val and test, as the article counts them."""

TOP_10 = ("harp", "lute", "violin", "shawm", "end-blown trumpet", "bagpipe", "portative organ",
          "horn", "rebec", "lyre")
_COLUMNS = ("image_filename", "instrument_name", "bounding_box_coordinates")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    add_path(parser, "the unpacked release: pictures and split tables, however deep")
    parser.add_argument("--benchmark", choices=tuple(BENCHMARKS), default="single",
                        help="which published task (default: single)")
    parser.add_argument("--splits", type=Path, metavar="FOLDER",
                        help="folder with train.txt, dev.txt, test.txt, where it cannot be told "
                             "from its name (top5, top10, top20, full)")
    boxed.add_arguments(parser, unannotated=False)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures and boxes of one benchmark in its splits.

    Raises:
        SourceError: No such folder, no pictures, no split tables, or several that could be meant.
    """
    root = existing_folder(options.path)
    folder, own = _splits_folder(root, options)
    rows = [row for split, name in SPLIT_FILES.items()
            for row in _rows(folder / name, split, rejects)]
    wanted = None if own else _most_frequent(rows, BENCHMARKS[options.benchmark])
    kept = [row for row in rows if wanted is None or row.name in wanted]
    images = _images(root, kept, options.benchmark == "single", rejects)
    if not images:
        raise SourceError(f"{options.path}: none of the pictures that {folder} lists is there; "
                          "give the folder that holds pictures and tables")
    names = sorted({box.name for image in images for box in image.boxes})
    info = {"layout": "minerva", "benchmark": f"minerva {options.benchmark}",
            "citation": "Sabatelli et al., Advances in Digital Music Iconography, DHQ 15.1, 2021",
            "doi": "10.5281/zenodo.3732580", "licence": "CC BY 4.0"}
    return boxed.build(images, names, options, rejects, info=info,
                       notes=_notes(options.benchmark, images, names))


@dataclass(frozen=True)
class _Row:
    """One line of a table: a box."""

    file_name: str
    name: str
    xyxy: Xyxy
    split: str
    place: str


def _splits_folder(root: Path, options: argparse.Namespace) -> tuple[Path, bool]:
    """The folder of the tables, and whether they are this very benchmark's."""
    found = sorted({file.parent for file in root.rglob("train.txt")
                    if (file.parent / "test.txt").exists()})
    if options.splits is not None:
        found = [options.splits]
        if not (options.splits / "train.txt").exists():
            raise SourceError(f"{options.splits}: no train.txt in it (--splits)")
    if not found:
        raise SourceError(f"{options.path}: no folder with train.txt, dev.txt and test.txt in it; "
                          "unpack the release's splits there, or give --splits FOLDER")
    kinds = {folder: _kind(folder) for folder in found}
    for accepted in ((options.benchmark,), ("all", None)):
        named = [folder for folder, kind in kinds.items() if kind in accepted]
        if len(named) == 1:
            # A table of all instruments serves every benchmark; "single" forgets the names.
            return named[0], kinds[named[0]] == options.benchmark
    shown = ", ".join(str(folder.relative_to(root) if folder.is_relative_to(root) else folder)
                      for folder in found[:6])
    raise SourceError(f"{options.path}: cannot tell which tables are those of "
                      f"{options.benchmark!r} ({shown}); give --splits FOLDER")


def _kind(folder: Path) -> str | None:
    """What a folder's name says of the tables in it: a benchmark, "other", or None."""
    name = re.sub("[^a-z0-9]+", "", folder.name.lower())
    numbered = re.fullmatch(r"(?:top)?(5|10|20)", name)
    if numbered:
        return f"top-{numbered[1]}"
    if name.startswith("hyper"):
        return "other"
    return {"single": "single", "full": "all", "all": "all"}.get(name)


def _rows(file: Path, split: str, rejects: Rejects) -> Iterator[_Row]:
    if not file.exists():
        raise SourceError(f"{file}: no such file; MINERVA's splits are train.txt, dev.txt and "
                          "test.txt")
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        table = csv.DictReader(stream)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise SourceError(f"{file}: no column {missing[0]!r}; expected a table with "
                              f"{', '.join(_COLUMNS)}")
        for row in table:
            place = f"{file.name}, line {table.line_num}"
            name = " ".join((row["instrument_name"] or "").split())
            try:
                if not name:
                    raise ValueError("no instrument_name")
                box = _box(row["bounding_box_coordinates"] or "")
            except ValueError as error:
                rejects.add(row["image_filename"] or file, f"box left out: {error} ({place})")
                continue
            yield _Row((row["image_filename"] or "").strip(), name, box, split, place)


def _box(text: str) -> Xyxy:
    """``x0,y0,x1,y1`` in pixels, from the upper left."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not x_min,y_min,x_max,y_max") from None
    return x0, y0, x1, y1


def _most_frequent(rows: list[_Row], count: int | None) -> set[str] | None:
    if count is None:
        return None
    frequent = Counter(row.name for row in rows).most_common()
    ordered = sorted(frequent, key=lambda item: (-item[1], item[0]))
    return {name for name, _ in ordered[:count]}


def _images(root: Path, rows: list[_Row], single: bool, rejects: Rejects) -> list[RawImage]:
    there: dict[str, Path] = {}
    for file in find_images(root, rejects):
        there.setdefault(_plain(file.name), file)
    boxes: dict[Path, list[RawBox]] = defaultdict(list)
    splits: dict[Path, str] = {}
    missing: Counter[str] = Counter()
    for row in rows:
        if (path := there.get(_plain(row.file_name))) is None:
            missing[row.file_name] += 1
        elif splits.setdefault(path, row.split) != row.split:
            rejects.add(path, f"box left out: the picture is in {SPLIT_FILES[splits[path]]} too "
                              f"({row.place})")
        else:
            boxes[path].append(RawBox(SINGLE_CLASS if single else row.name, row.xyxy))
    for name, count in missing.items():
        rejects.add(name, f"no such picture; {counted(count, 'box', 'boxes')} left out")
    return [RawImage(path, ImageRecord(0, path.relative_to(root).as_posix(), 0, 0,
                                       split=splits[path]), tuple(found))
            for path, found in boxes.items()]


def _plain(file_name: str) -> str:
    """File names as the tables and the disk share them: %22 decoded, no blanks."""
    return "".join(unquote(file_name).split()).casefold()


def _notes(benchmark: str, images: list[RawImage], names: list[str]) -> list[str]:
    notes = []
    if benchmark in PUBLISHED_IMAGES:
        counts = Counter(image.record.split for image in images)
        found = tuple(counts[split] for split in ("train", "val", "test"))
        published = PUBLISHED_IMAGES[benchmark]
        said = "/".join(f"{number:,}" for number in published)
        notes.append(f"{benchmark}: " + (
            f"{said} pictures, as published" if found == published else
            f"{'/'.join(f'{number:,}' for number in found)} pictures, but {said} are published"))
    if benchmark == "top-10":
        known = {normalise(name) for name in TOP_10}
        other = [name for name in names if normalise(name) not in known]
        if other:
            notes.append(f"not among the published 10 instruments: {', '.join(other)}")
    return notes
