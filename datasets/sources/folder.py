"""A folder a class: ``violin/0001.jpg``, ``harp/scan 3.png``; nested folders are fine.

The folder below PATH names the class (``--level 2``: the one below that); folders train, val and
test above the classes are understood. One class for a whole folder: ``--class NAME``.

Folders that tell something else of the work, in any language: ``--attribute movement`` for
``Kubismus/1.jpg``, ``--attribute movement,painter`` for ``Kubismus/Braque/1.jpg``.
"""

from __future__ import annotations

import argparse
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from musicon.datasets.boxes import Xyxy, xywh_to_xyxy
from musicon.datasets.command import count, counted
from musicon.datasets.images import FOREIGN_SUFFIXES, ImageError, find_images, probe
from musicon.datasets.records import Box, ImageRecord, Rejects
from musicon.datasets.sources import class_names
from musicon.datasets.sources.base import (
    SourceData,
    SourceError,
    add_path,
    existing_folder,
    split_of,
)
from musicon.datasets.taxonomy import Taxonomy

UNLABELLED = "unlabelled"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    add_path(parser, "folder that holds a folder a class")
    parser.add_argument(
        "--class", dest="single_class", metavar="NAME",
        help="every picture is of this class, whatever folder it is in; 'negative' for pictures "
             f"without instruments, '{UNLABELLED}' where nobody knows")
    parser.add_argument(
        "--level", type=count, default=1, metavar="N",
        help="which folder below PATH names the class (default 1); 2 for photo/violin/1.jpg")
    parser.add_argument(
        "--by-name", action="store_true",
        help="the pictures' own names tell the instrument (harp_01.png); where one doesn't, the "
             "picture is left out")
    parser.add_argument(
        "--attribute", type=_names, default=(), metavar="NAME[,NAME]",
        help="the folders are not instruments but tell this of the work, the outer one first: "
             "movement; movement,painter. Names are kept as they are written")
    parser.add_argument(
        "--boxes", type=Path, metavar="FILE",
        help="text file, or folder of .txt files, with lines 'picture x y width height' in pixels")
    parser.add_argument(
        "--alpha", choices=("keep", "reject"), default="keep",
        help="pictures with transparency: keep them, seen on white (default), or reject them")
    class_names.add_arguments(parser)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures with image-level labels from the folders they are in.

    Raises:
        SourceError: No such folder, or no pictures in class folders.
    """
    root = existing_folder(options.path)
    files = find_images(root, rejects)
    if not files:
        raise SourceError(f"{options.path}: no pictures in it; expected {root.name}/CLASS/*.jpg")
    splits = options.single_class is None and _has_split_folders(root, files)
    if options.attribute:
        return _described(root, files, options, splits, rejects)
    found: list[tuple[Path, str, str | None]] = []
    for path in files:
        parts = path.relative_to(root).parts
        name, fault = _class_of(path, parts[1:] if splits else parts, options)
        if name:
            found.append((path, name, split_of(f"{parts[0]}/x") if splits else None))
        else:
            rejects.add(path, fault)
    if not found:
        expected = ("called after one instrument; expected harp_01.jpg" if options.by_name else
                    f"in a folder of its class; expected {root.name}/CLASS/*.jpg")
        raise SourceError(f"{options.path}: {len(files)} pictures, but none {expected}, or give "
                          "--class NAME")
    classes = sorted({name for _, name, _ in found} - {UNLABELLED})
    names = class_names.resolve(classes, options)
    records = []
    for path, name, split in found:
        record = _record(path, path.relative_to(root).as_posix(), name, split, names, rejects)
        if record is not None and not (options.alpha == "reject" and _transparent(path, rejects)):
            records.append((path, record))
    notes = [*names.notes, *_notes(root, files)]
    if options.boxes is not None:
        records, unwanted = _with_boxes(records, _read_boxes(options.boxes, rejects), rejects)
        if unwanted:
            notes.append(f"{counted(unwanted, 'box', 'boxes')} left out: their picture's class is "
                         "no instrument")
    return SourceData(names.categories, records, {"layout": "folder"}, tuple(notes), names.rows)


def _class_of(path: Path, below: Sequence[str], options: argparse.Namespace) -> tuple[str, str]:
    """The class that a picture's folder or name tells, or an empty one and why it has none."""
    if options.single_class is not None:
        return options.single_class, ""
    if options.by_name:
        told = {match.instrument.name for match in Taxonomy.load().find_within(path.stem)
                if match.instrument is not None}
        if len(told) == 1:
            return told.pop(), ""
        return "", f"its name tells {' and '.join(sorted(told)) or 'no instrument'}"
    if len(below) > options.level:
        return below[options.level - 1], ""
    return "", "not in a class folder (or give --class NAME for all)"


def _names(text: str) -> tuple[str, ...]:
    """``movement, painter`` -> its parts."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: write names such as movement,painter")
    return names


def _described(root: Path, files: Sequence[Path], options: argparse.Namespace, splits: bool,
               rejects: Rejects) -> SourceData:
    """Pictures of which the folders tell attributes, and nobody the instruments.

    The folders below the first become part of the file's name, so that works of two painters
    stay apart: ``Kubismus/Braque/1.jpg`` is listed as ``Kubismus/Braque_1.jpg``.
    """
    names, records = options.attribute, []
    for path in files:
        split, *parts = path.relative_to(root).parts if splits else ("", *path.relative_to(
            root).parts)
        if len(parts) <= len(names):
            rejects.add(path, f"not in a folder for each of {', '.join(names)}")
            continue
        values = [unicodedata.normalize("NFC", " ".join(part.split())) for part in parts]
        records.append((path, ImageRecord(
            0, f"{parts[0]}/{'_'.join(parts[1:])}", 0, 0, labels=None,
            split=split_of(f"{split}/x") if splits else None,
            attributes=dict(zip(names, values, strict=False)))))
    if not records:
        raise SourceError(f"{options.path}: {len(files)} pictures, but none in a folder for each "
                          f"of {', '.join(names)}; expected {root.name}/"
                          f"{'/'.join(name.upper() for name in names)}/*.jpg")
    if options.single_class is not None or options.boxes is not None:
        raise SourceError("--attribute says that the folders are no instruments; leave out "
                          "--class and --boxes")
    return SourceData((), records, {"layout": "folder"}, tuple(_notes(root, files)))


def _transparent(path: Path, rejects: Rejects) -> bool:
    try:
        found = probe(path).has_alpha
    except ImageError as error:
        rejects.add(path, error.reason)
        return True
    if found:
        rejects.add(path, "has transparency (--alpha reject)")
    return found


def _record(path: Path, file_name: str, name: str, split: str | None,
            names: class_names.ClassNames, rejects: Rejects) -> ImageRecord | None:
    if name in names.rejected:
        rejects.add(path, names.rejected[name])
        return None
    labels = None if name == UNLABELLED else (
        (names.ids[name],) if name in names.ids else ())
    return ImageRecord(0, file_name, 0, 0, labels=labels, split=split)


def _has_split_folders(root: Path, files: list[Path]) -> bool:
    """True where every picture lies in train/CLASS/, val/CLASS/, ... and both kinds exist."""
    tops = {path.relative_to(root).parts[0] for path in files
            if len(path.relative_to(root).parts) > 1}
    deep = all(len(path.relative_to(root).parts) > 2 for path in files)
    return deep and bool(tops) and all(split_of(f"{top}/x") is not None for top in tops)


def _notes(root: Path, files: Sequence[Path]) -> list[str]:
    """What else lies in the folder: empty class folders, files that are no pictures."""
    used = {path.relative_to(root).parts[0] for path in files}
    empty = sorted(entry.name for entry in root.iterdir()
                   if entry.is_dir() and entry.name not in used and not entry.name.startswith("."))
    notes = [f"no pictures in: {', '.join(empty)}"] if empty else []
    pictures = set(files)
    others = sum(1 for entry in root.rglob("*")
                 if entry.is_file() and not entry.name.startswith(".") and entry not in pictures)
    if others:
        notes.append(f"{counted(others, 'file')} passed over: no pictures")
    foreign = sum(path.suffix.lower() in FOREIGN_SUFFIXES for path in files)
    if foreign:
        notes.append(f"{counted(foreign, 'picture')} of kinds that cannot be read (HEIC, SVG, ...)")
    return notes


def _read_boxes(place: Path, rejects: Rejects) -> dict[str, list[Xyxy]]:
    """Lines ``picture x y width height`` -> the picture's name and its boxes as xyxy."""
    files = sorted(place.glob("*.txt")) if place.is_dir() else [place]
    if not files or not files[0].exists():
        raise SourceError(f"{place}: no such file, or no .txt files in it (--boxes)")
    boxes: dict[str, list[Xyxy]] = defaultdict(list)
    for file in files:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                name, *values = line.strip().rsplit(maxsplit=4)
                boxes[name].append(xywh_to_xyxy([float(value) for value in values]))
            except ValueError:
                rejects.add(file, f"line {number}: expected 'picture x y width height', found "
                                  f"{line.strip()[:60]!r}")
    return boxes


_Records = list[tuple[Path, ImageRecord]]


def _with_boxes(records: _Records, boxes: dict[str, list[Xyxy]],
                rejects: Rejects) -> tuple[_Records, int]:
    """The records with their boxes, and how many boxes belong to pictures without a class."""
    at: dict[str, list[int]] = defaultdict(list)
    for index, (path, record) in enumerate(records):
        for name in {path.name, record.file_name}:
            at[name].append(index)
    out, unwanted = list(records), 0
    for name, rows in boxes.items():
        if len(at[name]) != 1:
            rejects.add(name, f"{len(rows)} boxes left out: " + (
                f"{len(at[name])} pictures of that name; write its path below PATH"
                if at[name] else "no such picture"))
            continue
        path, record = out[at[name][0]]
        if not record.labels:
            unwanted += len(rows)
            continue
        new = tuple(Box(row, record.labels[0]) for row in rows)
        out[at[name][0]] = (path, replace(record, boxes=(*record.boxes, *new)))
    return out, unwanted
