"""COCO JSON: a file, or a folder with one, or Roboflow's and the COCO authors' layouts.

Several paths become one data set: ``coco data/pacs data/photoart50`` joins two manifests.
The extra keys of a musicon manifest (split, labels, group, attributes, ...) are read too. Rows
that cannot be used are left out one by one, each with its reason.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from musicon.datasets.boxes import xywh_to_xyxy
from musicon.datasets.records import (
    BOX_KEYS,
    MANIFEST_NAME,
    ORIGINS,
    SPLITS,
    ImageRecord,
    Manifest,
    ManifestError,
    Rejects,
)
from musicon.datasets.sources import boxed
from musicon.datasets.sources.base import SourceData, SourceError, split_of
from musicon.datasets.sources.boxed import RawBox, RawImage

_PATTERNS = (MANIFEST_NAME, "_annotations.coco.json", "*.json", "*/_annotations.coco.json",
             "annotations/instances_*.json", "annotations/*.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    parser.add_argument("path", type=Path, nargs="+",
                        help="COCO JSON file, or the folder that holds it; several are joined")
    parser.add_argument("--images", type=Path, metavar="FOLDER",
                        help="where the pictures lie (default: beside the JSON file)")
    boxed.add_arguments(parser, unannotated=False)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures and boxes of one or several COCO files.

    Raises:
        SourceError: No COCO file there, or none that can be used.
    """
    files = [file for path in options.path for file in _find_documents(path)]
    parts = [_Document(file, options.images).parse(rejects) for file in files]
    images = [image for part in parts for image in part.images]
    if not images:
        raise SourceError(f"{options.path[0]}: no usable picture in it; expected a list 'images' "
                          "with the names of existing files")
    if len(parts) > 1:
        images = _below_common_folder(images)
    classes = [name for part in parts for name in part.class_names.values()]
    masks = sum(part.masks for part in parts)
    notes = [f"{masks} outlines (segmentation) left out; their boxes are kept"] if masks else []
    info = {key: value for part in parts for key, value in part.info.items()}
    return boxed.build(images, classes, options, rejects, info=info | {"layout": "coco"},
                       notes=notes)


def _find_documents(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; check the path")
    for pattern in _PATTERNS:
        found = sorted(path.glob(pattern))
        if found and pattern == "*.json" and len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise SourceError(f"{path}: several JSON files ({names}); name the one to read")
        if found:
            return [file.resolve() for file in found]
    raise SourceError(f"{path}: no COCO JSON file in it; name the file")


def _below_common_folder(images: list[RawImage]) -> list[RawImage]:
    """Names and ids of several documents can be the same: ids go, names get their folder."""
    clashes = Counter(image.record.file_name for image in images)
    out = []
    for image in images:
        name = image.record.file_name
        if clashes[name] > 1:
            depth = len(PurePosixPath(name).parts)
            name = f"{image.path.parents[min(depth, len(image.path.parents)) - 1].name}/{name}"
        out.append(replace(image, record=replace(image.record, id=0, file_name=name)))
    return out


@dataclass
class _Document:
    """One COCO file on its way to raw images; counts what it could not use."""

    file: Path
    folder: Path | None
    images: list[RawImage] = field(default_factory=list)
    class_names: dict[Any, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    masks: int = 0
    spoilt: dict[int, set[str]] = field(default_factory=dict)
    """Images with annotations that could not be used -> the classes those still tell."""

    def parse(self, rejects: Rejects) -> _Document:
        document = _load(self.file)
        info = document.get("info")
        self.info = dict(info) if isinstance(info, Mapping) else {}
        self.info.pop("made_by", None)
        if isinstance(document.get("licenses"), list) and document["licenses"]:
            self.info["licenses"] = document["licenses"]
        self._categories(document, rejects)
        boxes = self._annotations(document, rejects)
        seen: set[int] = set()
        for row in document["images"]:
            record = self._image(row, seen, rejects)
            if record is not None:
                self._place(row, record, boxes.pop(record.id, []), rejects)
        listed = {row.get("id") for row in document["images"] if isinstance(row, Mapping)}
        for image_id, rows in boxes.items():
            if image_id not in listed:
                rejects.add(self.file, f"boxes of image {image_id}, which is not listed "
                                       f"({len(rows)})")
        return self

    def _categories(self, document: Mapping[str, Any], rejects: Rejects) -> None:
        for row in document.get("categories") or []:
            try:
                if row["id"] in self.class_names:
                    raise SourceError(f"{self.file}: category id {row['id']} is used twice "
                                      f"({self.class_names[row['id']]!r} and {row['name']!r}); "
                                      "give each class its own id")
                self.class_names[row["id"]] = str(row["name"])
            except (KeyError, TypeError, AttributeError):
                rejects.add(self.file, f"category {str(row)[:80]} lacks its id or name")

    def _annotations(self, document: Mapping[str, Any],
                     rejects: Rejects) -> dict[int, list[RawBox]]:
        boxes: dict[int, list[RawBox]] = {}
        seen: set[Any] = set()
        for row in document.get("annotations") or []:
            try:
                if row.get("id") is not None and row["id"] in seen:
                    raise ValueError(f"annotation id {row['id']} is used twice")
                seen.add(row.get("id"))
                boxes.setdefault(int(row["image_id"]), []).append(self._box(row))
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                reason = (f"it lacks {error}" if isinstance(error, KeyError) else
                          error.args[0] if isinstance(error, ValueError) else repr(error))
                rejects.add(self.file, f"box left out: {reason}: annotation {str(row)[:100]}")
                self._note_spoilt(row)
        return boxes

    def _note_spoilt(self, row: Any) -> None:
        """An image whose box is left out must not pass for one without instruments."""
        try:
            classes = self.spoilt.setdefault(int(row["image_id"]), set())
            if row["category_id"] in self.class_names:
                classes.add(self.class_names[row["category_id"]])
        except (KeyError, TypeError, ValueError, OverflowError):
            return

    def _box(self, row: Mapping[str, Any]) -> RawBox:
        if row["category_id"] not in self.class_names:
            raise ValueError(f"category_id {row['category_id']} is not among the categories")
        if not isinstance(row.get("bbox"), list) or len(row["bbox"]) != 4:
            raise ValueError("no bbox [x, y, width, height]")
        origin = row["origin"] if row.get("origin") in ORIGINS else "human"
        score = row.get("score")
        if score is not None and not 0 <= float(score) <= 1:
            raise ValueError(f"score {score} is outside 0..1")
        self.masks += bool(row.get("segmentation"))
        return RawBox(self.class_names[row["category_id"]], xywh_to_xyxy(row["bbox"]), origin,
                      None if score is None else float(score), bool(row.get("iscrowd", 0)),
                      {key: value for key, value in row.items() if key not in BOX_KEYS})

    def _image(self, row: Any, seen: set[int], rejects: Rejects) -> ImageRecord | None:
        """The image's row through the manifest's own reader, so that every extra key is kept."""
        try:
            missing = not row.get("width") or not row.get("height")
            split = row.get("split")
            known = {**row, "labels": [], "split": split_of(f"{split}/x") or split}
            if missing:
                known |= {"width": 1, "height": 1}  # passes the check; the file tells later
            record = Manifest.from_coco({"images": [known]}, self.file.parent).images[0]
        except ManifestError as error:
            rejects.add(self.file, str(error).removeprefix("manifest: ").split(". To leave")[0])
            return None
        except (AttributeError, TypeError):
            rejects.add(self.file, f"image {str(row)[:80]} is not a JSON object")
            return None
        if record.id in seen:
            rejects.add(record.file_name, f"image id {record.id} is used twice; this one left out")
            return None
        seen.add(record.id)
        return replace(record, width=0, height=0) if missing else record

    def _place(self, row: Mapping[str, Any], record: ImageRecord, boxes: list[RawBox],
               rejects: Rejects) -> None:
        path = self._find(record.file_name)
        if path is None:
            rejects.add(record.file_name, f"listed in {self.file.name}, but there is no such file; "
                                          "give --images FOLDER where the pictures lie elsewhere")
            return
        labels = row.get("labels", [])
        try:
            names = None if labels is None else {self.class_names[i] for i in labels}
        except (KeyError, TypeError):
            rejects.add(record.file_name, f"labels {str(labels)[:80]} are not all category ids")
            return
        if record.id in self.spoilt:
            # What the unusable boxes still tell is kept; without that, nobody knows.
            names = (names or set()) | self.spoilt[record.id]
            names = names if names or boxes else None
        split = record.split or split_of(record.file_name) or self._split()
        self.images.append(RawImage(path, replace(record, split=split), tuple(boxes),
                                    None if names is None else tuple(sorted(names))))

    def _split(self) -> str | None:
        """From the file's own name (instances_val2017.json) or its folder (valid/)."""
        words = self.file.stem.replace("-", "_").lower().split("_")
        for word in words:
            for name in (*SPLITS, "valid"):
                if word.rstrip("0123456789") == name:
                    return split_of(f"{name}/x")
        return split_of(f"{self.file.parent.name}/x")

    def _find(self, file_name: str) -> Path | None:
        name = file_name.replace("\\", "/")
        here = self.file.parent
        folders = [self.folder.resolve()] if self.folder is not None else [
            here, here / "images", here.parent, here.parent / "images",
            here.parent / self.file.stem.removeprefix("instances_")]
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        return None


def _load(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SourceError(f"{file}: not a readable JSON file ({error}); save it "
                          "anew as JSON in UTF-8, or name another file") from None
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror})") from None
    if isinstance(document, list):
        raise SourceError(f"{file}: a list (COCO results?), not a COCO data set; name the file "
                          "that has 'images', 'annotations' and 'categories'")
    for key in ("images", "annotations", "categories"):
        rows = document.get(key) if isinstance(document, dict) else None
        if not isinstance(rows, list) and (key == "images" or rows is not None):
            raise SourceError(f"{file}: not a COCO document: it has no list {key!r}")
    return dict(document)
