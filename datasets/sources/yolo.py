"""YOLO: images/ and labels/ side by side (or label files beside the pictures).

Class names come from data.yaml, classes.txt, obj.names or ``--names``. An empty label file says
that there is nothing in the picture; a missing one says nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicon.datasets.boxes import Xyxy, yolo_to_xyxy
from musicon.datasets.images import ImageError, find_images, probe
from musicon.datasets.records import ImageRecord, Rejects
from musicon.datasets.sources import boxed
from musicon.datasets.sources.base import (
    SourceData,
    SourceError,
    add_path,
    existing_folder,
    split_of,
)
from musicon.datasets.sources.boxed import RawBox, RawImage

_NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names",
               "_darknet.labels")
_SLACK = 0.02
"""Share of the image by which a written box may stick out before it is nonsense."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    add_path(parser, "folder with images/ and labels/, however deep")
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME",
                        help="class names in order, where no data.yaml or classes.txt gives them")
    boxed.add_arguments(parser, unannotated=True, files=True)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures and boxes.

    Raises:
        SourceError: No such folder, no pictures, no label files, or classes without names.
    """
    root = existing_folder(options.path)
    pictures = find_images(root, rejects)
    if not pictures:
        raise SourceError(f"{options.path}: no pictures in it; expected images/ and labels/")
    labelled = {path: _label_file(path, root) for path in pictures}
    if not any(file is not None for file in labelled.values()):
        raise SourceError(f"{options.path}: {len(pictures)} pictures but no label file; expected "
                          "labels/NAME.txt for images/NAME.jpg")
    parsed = {path: _parse(file) for path, file in labelled.items() if file is not None}
    names, given_by = _names(root, options)
    numbers = {row.index: labelled[path] for path, label in parsed.items() for row in label.rows}
    for index in sorted(numbers.keys() - names.keys()):
        raise SourceError(_nameless(index, numbers, names, given_by))
    told: list[RawImage | None] = []
    untold: list[RawImage | None] = []
    for path in pictures:
        relative = path.relative_to(root).as_posix()
        record = ImageRecord(0, relative, 0, 0, split=split_of(relative))
        if path in parsed:
            told.append(_raw(path, record, parsed[path], names, rejects))
        else:
            untold.append(boxed.unannotated(path, record, f"{path.stem}.txt", options.unannotated,
                                            rejects))
    for file in _orphans(root, labelled):
        rejects.add(file, "label file without its picture")
    images, notes = boxed.annotated(told, untold, options, rejects)
    return boxed.build(images, [names[i] for i in sorted(names)], options, rejects,
                       info={"layout": "yolo"}, notes=notes)


def _names(root: Path, options: argparse.Namespace) -> tuple[dict[int, str], str]:
    """Class number -> name, and what said so."""
    if options.names:
        return dict(enumerate(options.names)), "--names"
    return _read_names(root)


def _nameless(index: int, numbers: Mapping[int, Path | None], names: Mapping[int, str],
              given_by: str) -> str:
    """What to do about a class number without a name; ``numbers`` says where each stands."""
    file = numbers[index]
    if not names:
        wanted = "the name of class 0: --names NAME" if max(numbers) == 0 else \
            f"the names of classes 0 to {max(numbers)} in order: --names NAME0 NAME1 ..."
        return (f"{file}: no name for class number {index}; give {wanted} (or write data.yaml)")
    shown = ", ".join(f"{number} {names[number]}" for number in sorted(names)[:8])
    more = ", ..." if len(names) > 8 else ""
    return (f"{file}: no name for class number {index}, as {given_by} has {shown}{more}; add the "
            "name there, or correct the number (YOLO counts from 0)")


@dataclass(frozen=True)
class _Row:
    index: int
    cxcywh: Xyxy


@dataclass
class _Label:
    rows: list[_Row] = field(default_factory=list)
    faults: list[tuple[int | None, str]] = field(default_factory=list)
    """(class number where it could be read, what is wrong)."""


def _label_file(picture: Path, root: Path) -> Path | None:
    """``images/a.jpg`` -> ``labels/a.txt`` (the last folder named images counts), or beside it."""
    parts = list(picture.relative_to(root).parts)
    candidates = [picture.with_suffix(".txt")]
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].lower() == "images":
            for folder in ("labels", "Labels"):
                swapped = root.joinpath(*parts[:index], folder, *parts[index + 1:])
                candidates.append(swapped.with_suffix(".txt"))
            break
    else:
        if root.name.lower() == "images":
            candidates.append(root.parent.joinpath("labels", *parts).with_suffix(".txt"))
    return next((file for file in candidates if file.is_file()), None)


def _orphans(root: Path, labelled: Mapping[Path, Path | None]) -> list[Path]:
    used = {file for file in labelled.values() if file is not None}
    return sorted(file for file in root.rglob("*.txt")
                  if file.parent in {u.parent for u in used} and file not in used
                  and file.name not in _NAME_FILES)


def _parse(file: Path) -> _Label:
    label = _Label()
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        index: int | None = None
        try:
            index = _class_number(words[0])
            label.rows.append(_Row(index, _box([float(word) for word in words[1:]])))
        except ValueError as error:
            label.faults.append((index, f"{file.name}, line {number}: {error}"))
    return label


def _class_number(word: str) -> int:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not value.is_integer() or value < 0:
        raise ValueError(f"class {word!r} is not a whole number from 0")
    return int(value)


def _box(values: list[float]) -> Xyxy:
    """Four shares of the image, five with a confidence, or an outline of points."""
    if len(values) in (4, 5):
        cx, cy, w, h = values[:4]
    elif len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[0::2], values[1::2]
        cx, cy = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        w, h = max(xs) - min(xs), max(ys) - min(ys)
    else:
        raise ValueError(f"{len(values)} numbers after the class; expected centre x, centre y, "
                         "width, height")
    if not all(math.isfinite(value) for value in (cx, cy, w, h)):
        raise ValueError("a value that is not a number")
    if w <= 0 or h <= 0:
        raise ValueError(f"box of {w:g} x {h:g} is empty or reversed")
    if max(cx, cy) > 1 + _SLACK or min(cx, cy) < -_SLACK or max(w, h) > 1 + _SLACK:
        raise ValueError("values outside 0..1 (pixels? YOLO wants shares of the image)")
    return cx, cy, w, h


def _raw(path: Path, record: ImageRecord, label: _Label, names: Mapping[int, str],
         rejects: Rejects) -> RawImage | None:
    try:
        info = probe(path)
    except ImageError as error:
        rejects.add(path, error.reason)
        return None
    for _, fault in label.faults:
        rejects.add(path, f"box left out: {fault}")
    boxes = tuple(RawBox(names[row.index], yolo_to_xyxy(row.cxcywh, info.width, info.height))
                  for row in label.rows)
    told = {names[index] for index, _ in label.faults if index is not None and index in names}
    nobody_knows = bool(label.faults) and not boxes and not told
    return RawImage(path, record, boxes, None if nobody_knows else tuple(sorted(told)))


def _read_names(root: Path) -> tuple[dict[int, str], str]:
    """Class number -> name, from the names file nearest to ``root``, and which that is."""
    for folder in (root, root.parent, *sorted(p for p in root.rglob("*") if p.is_dir())):
        for name in _NAME_FILES:
            file = folder / name
            if file.is_file():
                return _names_in(file), str(file)
    return {}, ""


def _names_in(file: Path) -> dict[int, str]:
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    if file.suffix not in (".yaml", ".yml"):
        # A blank line counts, too: the number of a class is that of its line.
        return {number: line.strip() for number, line in enumerate(text.splitlines())
                if line.strip()}
    import yaml

    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SourceError(f"{file}: not a readable YAML file "
                          f"({' '.join(str(error).split())})") from None
    names = document.get("names") if isinstance(document, Mapping) else None
    if isinstance(names, list):
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, Mapping):
        try:
            return {int(index): str(name) for index, name in names.items()}
        except (TypeError, ValueError):
            pass
    raise SourceError(f"{file}: expected 'names:' with a list of class names, or number: name")
