"""Open Images: its instruments, from the official CSV files and a folder of pictures.

PATH holds the tables (boxes, image labels verified by humans, image information; any version, any
folder below) and the pictures, named ID.jpg. What FiftyOne's zoo downloads has the same tables:
``--download N`` has it fetch N pictures a split into PATH first.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from musicon.datasets import command
from musicon.datasets.boxes import Xyxy
from musicon.datasets.files import write_atomic
from musicon.datasets.images import ImageError, find_images, probe
from musicon.datasets.records import ImageRecord, Rejects
from musicon.datasets.sources import boxed
from musicon.datasets.sources.base import SourceData, SourceError, add_path, existing_folder
from musicon.datasets.sources.boxed import RawBox, RawImage

ANY_INSTRUMENT = "/m/04szw"
INSTRUMENTS = {
    "/m/0mkg": "accordion", "/m/018j2": "banjo", "/m/01xqw": "cello", "/m/0f8s22": "chime",
    "/m/026t6": "drum", "/m/0l14j_": "flute", "/m/0342h": "guitar", "/m/03qjg": "harmonica",
    "/m/03m5k": "harp", "/m/03q5t": "harpsichord", "/m/0319l": "horn", "/m/0xzly": "maracas",
    "/m/057cc": "musical keyboard", "/m/05kms": "oboe", "/m/013y1f": "organ",
    "/m/05r5c": "piano", "/m/06ncr": "saxophone", "/m/07c6l": "trombone", "/m/07gql": "trumpet",
    "/m/07y_7": "violin", ANY_INSTRUMENT: "musical instrument",
}
"""Open Images' ids of its boxable instruments; the last stands above the others."""

SPLITS = {"train": "train", "validation": "val", "test": "test"}
_BOX_MARKS = {"IsOccluded": "occluded", "IsTruncated": "truncated", "IsDepiction": "depiction",
              "IsInside": "inside"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    add_path(parser, "folder with the CSV files and the pictures, however deep")
    parser.add_argument("--images", type=Path, metavar="FOLDER",
                        help="where the pictures lie (default: below PATH)")
    parser.add_argument("--depictions", choices=("all", "only", "none"), default="all",
                        help="drawn and painted instruments: all boxes (default), only pictures "
                             "with such a box, or none")
    parser.add_argument("--absent-is-negative", action="store_true",
                        help="a picture verified to lack one instrument, and with no sign of any "
                             "other, is a negative (default: only where all are verified absent)")
    parser.add_argument("--list-missing", type=Path, metavar="FILE",
                        help="write the pictures that PATH lacks as split/ID lines, which Open "
                             "Images' own downloader reads")
    parser.add_argument("--download", type=command.count, metavar="N",
                        help="first fetch N pictures with instruments a split by FiftyOne's zoo")
    parser.add_argument("--download-splits", nargs="+", choices=tuple(SPLITS),
                        default=["validation"], metavar="SPLIT",
                        help="of which splits: train, validation (default), test")
    boxed.add_arguments(parser, unannotated=False)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures and boxes of instruments.

    Raises:
        SourceError: No such folder, no tables, or no pictures of instruments.
        ImportError: ``--download`` without FiftyOne; it names what to install.
    """
    if options.download:
        _download(options)
    root = existing_folder(options.path)
    folder = root if options.images is None else existing_folder(options.images)
    there = {path.stem: path for path in find_images(folder, rejects)}
    tables = _Tables(root)
    facts, missing = _facts(tables, there, options, rejects)
    if options.list_missing is not None:
        write_atomic(options.list_missing, "".join(f"{line}\n" for line in sorted(missing)))
    images = [image for image_id, fact in sorted(facts.items())
              if (image := _image(there[image_id], folder, fact, options, rejects)) is not None]
    if not images:
        raise SourceError(f"{options.path}: none of the {len(missing):,} listed pictures with "
                          f"instruments is in {folder}; --list-missing FILE lists them")
    notes = [f"not in {folder.name}: {command.counted(len(missing), 'listed picture')} "
             "(--list-missing FILE lists them)"] if missing else []
    used = [name for name in INSTRUMENTS.values()
            if any(name in (image.label_names or ()) or name in {b.name for b in image.boxes}
                   for image in images)]
    return boxed.build(images, used, options, rejects, notes=notes,
                       info={"layout": "openimages", "licence": "boxes and labels: CC BY 4.0"})


@dataclass
class _Fact:
    """What the tables say of one picture; instruments by their names here."""

    split: str | None = None
    boxes: list[tuple[str, Xyxy, bool, dict[str, int]]] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    about: dict[str, str] = field(default_factory=dict)


class _Tables:
    """The CSV files below a folder by what their first line says they hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boxes: list[Path] = []
        self.labels: list[Path] = []
        self.about: list[Path] = []
        for file in sorted(root.rglob("*.csv")):
            with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
                header = set(next(csv.reader(stream), []))
            if {"ImageID", "LabelName", "XMin", "YMax"} <= header:
                self.boxes.append(file)
            elif {"ImageID", "LabelName", "Confidence"} <= header:
                self.labels.append(file)
            elif {"ImageID", "License"} <= header:
                self.about.append(file)
        if not self.boxes and not self.labels:
            raise SourceError(f"{root}: no table of boxes or image labels in it; put Open Images' "
                              "...-annotations-bbox.csv there, or give --download N")


def _rows(file: Path, options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The rows about instruments; a table can have millions, so that the rest is skipped early."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader)
        label = header.index("LabelName")
        for row in command.progress(reader, None, f"reading {file.name}",
                                    getattr(options, "quiet", True)):
            if len(row) > label and row[label] in INSTRUMENTS:
                yield {"line": str(reader.line_num), **dict(zip(header, row, strict=False))}


def _facts(tables: _Tables, there: Mapping[str, Path],
           options: argparse.Namespace, rejects: Rejects) -> tuple[dict[str, _Fact], set[str]]:
    """What is known of each picture that is there, and ``split/ID`` of those that are not."""
    facts: dict[str, _Fact] = defaultdict(_Fact)
    missing: set[str] = set()
    for file in [*tables.boxes, *tables.labels]:
        split = _split(file.relative_to(tables.root))
        boxed_here = file in tables.boxes
        for row in _rows(file, options):
            name = INSTRUMENTS[row["LabelName"]]
            try:
                corners = _corners(row) if boxed_here else None
                verified_absent = not boxed_here and float(row["Confidence"] or 0) < 0.5
            except (KeyError, ValueError):
                rejects.add(file, f"line {row['line']} is cut off or damaged; download it again")
                continue
            if row["ImageID"] not in there:
                if not verified_absent:
                    missing.add(f"{split or 'train'}/{row['ImageID']}")
                continue
            fact = facts[row["ImageID"]]
            fact.split = fact.split or SPLITS.get(split or "")
            if corners is not None:
                fact.boxes.append((name, corners, row.get("IsGroupOf") == "1",
                                   {ours: 1 for mark, ours in _BOX_MARKS.items()
                                    if row.get(mark) == "1"}))
            else:
                (fact.absent if verified_absent else fact.present).add(name)
    for file in tables.about:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            for row in csv.DictReader(stream):
                if row["ImageID"] in facts:
                    facts[row["ImageID"]].about = {k: v for k, v in row.items() if k and v}
    return dict(facts), missing


def _split(file: Path) -> str | None:
    """From ``oidv6-train-annotations-bbox.csv`` or FiftyOne's ``train/labels/detections.csv``."""
    for part in (file.name, *(parent.name for parent in file.parents)):
        words = part.lower().replace("-", "_").split("_")
        for split in SPLITS:
            if split in words:
                return split
    return None


def _corners(row: Mapping[str, str]) -> Xyxy:
    return (float(row["XMin"]), float(row["YMin"]), float(row["XMax"]), float(row["YMax"]))


def _image(path: Path, folder: Path, fact: _Fact, options: argparse.Namespace,
           rejects: Rejects) -> RawImage | None:
    boxes = fact.boxes
    if options.depictions == "none":
        boxes = [box for box in boxes if "depiction" not in box[3]]
    present = fact.present | {box[0] for box in fact.boxes}
    if options.depictions == "only" and not any("depiction" in box[3] for box in boxes):
        return None
    if len(present) > 1:
        present.discard(INSTRUMENTS[ANY_INSTRUMENT])  # a violin is a musical instrument, too
    try:
        info = probe(path)
    except ImageError as error:
        rejects.add(path, error.reason)
        return None
    raw = tuple(RawBox(name, (x0 * info.width, y0 * info.height, x1 * info.width,
                              y1 * info.height), iscrowd=group, extra=marks)
                for name, (x0, y0, x1, y1), group, marks in boxes)
    labels: tuple[str, ...] | None = tuple(sorted(present))
    if not present and not _without(fact, options):
        labels = None
    about = fact.about
    extra = {"absent": sorted(fact.absent)} if fact.absent else {}
    wanted = {"title": "Title", "author": "Author", "rotation": "Rotation"}
    record = ImageRecord(
        0, path.relative_to(folder).as_posix(), info.width, info.height, split=fact.split,
        attributes={ours: about[key] for ours, key in wanted.items()
                    if about.get(key) not in (None, "0.0", "0")},
        source_url=about.get("OriginalLandingURL"), rights=about.get("License"), extra=extra)
    return RawImage(path, record, raw, labels)


def _without(fact: _Fact, options: argparse.Namespace) -> bool:
    """True where no instrument at all is in the picture, as far as humans verified."""
    root = INSTRUMENTS[ANY_INSTRUMENT]
    return bool(fact.absent) and (options.absent_is_negative or root in fact.absent
                                  or set(INSTRUMENTS.values()) - {root} <= fact.absent)


def _download(options: argparse.Namespace) -> None:
    """Have FiftyOne's zoo fetch pictures and tables into PATH; what is there stays."""
    try:
        from fiftyone.utils import openimages as zoo
    except ImportError:
        raise ImportError("--download needs FiftyOne: pip install 'musicon[review]'") from None
    import requests

    folder = Path(options.path)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        zoo.get_classes(dataset_dir=str(folder))
        with (folder / "metadata/classes.csv").open(encoding="utf-8", newline="") as stream:
            names = [row[1] for row in csv.reader(stream) if row and row[0] in INSTRUMENTS]
        for split in options.download_splits:
            zoo.download_open_images_split(
                str(folder / split), split, version="v7", classes=names,
                label_types=["detections", "classifications"], max_samples=options.download)
    except (requests.RequestException, OSError) as error:
        raise SourceError(f"--download: Open Images cannot be reached ({type(error).__name__}); "
                          "download its CSV files and pictures yourself and leave --download "
                          "out") from None
