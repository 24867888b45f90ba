"""Records: what an image is, and the manifest that every command reads and writes.

A manifest is a COCO JSON file beside its images; the extra keys that COCO lacks
(``split``, ``domain``, ``group``, ``labels``, ``attributes``, ...) are optional and any COCO
tool ignores them. Records are frozen: changing one means ``dataclasses.replace``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicon.datasets.boxes import BOX_SLACK, box_fault, xywh_to_xyxy, xyxy_to_xywh
from musicon.datasets.files import (
    Rejects,
    UserError,
    tables_to_json,
    to_json,
    uncollected,
    write_atomic,
)

__all__ = ["BOX_SLACK", "MANIFEST_NAME", "ORIGINS", "SPLITS", "SUPERCATEGORIES", "Box", "Category",
           "ImageRecord", "Manifest", "ManifestError", "Rejects", "UserError", "box_fault",
           "to_json", "write_atomic"]

MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "val", "test")
ORIGINS = ("human", "foreground", "composite", "pseudo", "style")
SUPERCATEGORIES = ("strings", "wind", "percussion", "keyboard", "electronic", "other")

_IMAGE_KEYS = frozenset(
    "id file_name width height split domain group labels attributes source_url rights "
    "sha256".split()
)
BOX_KEYS = frozenset("id image_id category_id bbox area iscrowd origin score segmentation".split())
"""Keys of a COCO annotation that are read; what else there is, is kept as it is."""
_CATEGORY_KEYS = frozenset("id name supercategory mimo hornbostel_sachs".split())


class ManifestError(UserError):
    """A manifest that cannot be used; the message names the file, the place and the mend."""


@dataclass(frozen=True)
class Category:
    """One instrument class.

    Attributes:
        id: Number from 1; 0 is the background everywhere.
        name: Canonical English name, or the source's own name where it is not an instrument.
        supercategory: One of ``SUPERCATEGORIES``.
        mimo: Keyword number of the MIMO thesaurus, as text.
        hornbostel_sachs: Class number, such as ``321.322``.
    """

    id: int
    name: str
    supercategory: str = "other"
    mimo: str | None = None
    hornbostel_sachs: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """One boxed instrument.

    Attributes:
        xyxy: (x0, y0, x1, y1) in pixels of the upright original, half-open, x0 < x1, y0 < y1.
        label: Category id.
        origin: Who drew it, one of ``ORIGINS``.
        score: Confidence in [0, 1], or None for a human's box.
        iscrowd: One box around many instruments; ignored by training, as COCO evaluation does.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    origin: str = "human"
    score: float | None = None
    iscrowd: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageRecord:
    """One image and what is known of it.

    Attributes:
        id: Unique within the manifest.
        file_name: Path relative to the manifest's folder, with forward slashes.
        width: Pixels of the upright image (after EXIF orientation).
        height: Pixels of the upright image.
        boxes: Boxed instruments; empty for an image without any.
        labels: Category ids known to be in the image, sorted, with or without boxes. ``None``
            means that nobody looked (an unlabelled image), which is not "no instrument".
        split: ``train``, ``val``, ``test``, or None.
        domain: Where it comes from: ``mimo``, ``google``, ``cytomine``, ...
        group: Leakage group; one group is never divided by a split.
        attributes: Movement, painter, medium, ... of the work.
    """

    id: int
    file_name: str
    width: int
    height: int
    boxes: tuple[Box, ...] = ()
    labels: tuple[int, ...] | None = ()
    split: str | None = None
    domain: str | None = None
    group: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    source_url: str | None = None
    rights: str | None = None
    sha256: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_negative(self) -> bool:
        """True when the image is known to hold no instrument."""
        return not self.boxes and self.labels == ()

    @property
    def known_labels(self) -> tuple[int, ...]:
        """Category ids known to be in the image, from labels and boxes, sorted."""
        return tuple(sorted({box.label for box in self.boxes} | set(self.labels or ())))


@dataclass(frozen=True)
class Manifest:
    """Categories and images, and the folder that file names are relative to."""

    root: Path
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def names(self) -> dict[int, str]:
        """Category id -> name."""
        return {category.id: category.name for category in self.categories}

    def path(self, record: ImageRecord) -> Path:
        """The image's file."""
        return self.root / record.file_name

    def select(self, *, split: str | Sequence[str] | None = None, domain: str | None = None,
               where: Callable[[ImageRecord], bool] | None = None) -> Manifest:
        """A manifest of the images that meet every given condition."""
        splits = None if split is None else {split} if isinstance(split, str) else set(split)
        kept = tuple(
            record for record in self.images
            if (splits is None or record.split in splits)
            and (domain is None or record.domain == domain)
            and (where is None or where(record))
        )
        return replace(self, images=kept)

    @classmethod
    @uncollected()
    def read(cls, path: str | Path) -> Manifest:
        """Read and validate a COCO JSON file.

        Args:
            path: The JSON file, or the folder that holds ``manifest.json``.

        Raises:
            ManifestError: Not a usable manifest; the message names the first faults and counts
                the rest.
        """
        file = Path(path)
        if file.is_dir():
            file = file / MANIFEST_NAME
        try:
            document = json.loads(file.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise ManifestError(
                f"{file}: no such manifest; make one with python tools/prepare_data.py"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ManifestError(f"{file}: not a readable JSON file ({error}); name another, or "
                                "make it anew with python tools/prepare_data.py") from None
        return cls.from_coco(document, root=file.parent, source=str(file))

    @classmethod
    def from_coco(cls, document: Any, root: Path, source: str = "manifest") -> Manifest:
        """Build a manifest from a parsed COCO document; ``source`` names it in errors."""
        if not isinstance(document, Mapping) or not isinstance(document.get("images"), list):
            raise ManifestError(f"{source}: not a COCO document: it has no list 'images'")
        faults: list[str] = []
        categories = _read_categories(_rows(document, "categories", source), faults)
        boxes = _read_annotations(_rows(document, "annotations", source), faults)
        images = _read_images(document["images"], boxes, faults)
        info = document.get("info")
        manifest = cls(Path(root), categories, images,
                       dict(info) if isinstance(info, Mapping) else {})
        faults += manifest.faults()
        if faults:
            raise ManifestError(f"{source}: {_first(faults)}. To leave bad rows out, run "
                                "python tools/prepare_data.py coco FILE --out FOLDER")
        return manifest

    def to_coco(self) -> dict[str, Any]:
        """The COCO document: boxes as xywh, absent optional values left out."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record in self.images:
            images.append(_image_to_coco(record))
            for box in record.boxes:
                annotations.append(_box_to_coco(box, len(annotations) + 1, record.id))
        categories = [
            {**c.extra, "id": int(c.id), "name": c.name, "supercategory": c.supercategory}
            | ({"mimo": c.mimo} if c.mimo else {})
            | ({"hornbostel_sachs": c.hornbostel_sachs} if c.hornbostel_sachs else {})
            for c in self.categories
        ]
        return {"info": dict(self.info), "images": images, "annotations": annotations,
                "categories": categories}

    def write(self, path: str | Path) -> Path:
        """Validate, then write atomically; a folder gets ``manifest.json``."""
        faults = self.faults()
        if faults:
            raise ManifestError(f"{path}: not written: {_first(faults)}")
        file = Path(path)
        if file.suffix != ".json" or file.is_dir():
            file = file / MANIFEST_NAME
        write_atomic(file, tables_to_json(self.to_coco()))
        return file

    def faults(self) -> list[str]:
        """Everything that breaks the contract, in words; empty when the manifest is sound."""
        faults = [f"category id {i} is used {n} times"
                  for i, n in Counter(c.id for c in self.categories).items() if n > 1]
        faults += [f"category {c.name!r} has id {c.id}; ids start at 1"
                   for c in self.categories if c.id < 1]
        faults += [f"category name {name!r} is used {n} times"
                   for name, n in Counter(c.name for c in self.categories).items() if n > 1]
        faults += [f"image id {i} is used {n} times"
                   for i, n in Counter(r.id for r in self.images).items() if n > 1]
        faults += [f"image file {name!r} is listed {n} times"
                   for name, n in Counter(r.file_name for r in self.images).items() if n > 1]
        known = {c.id for c in self.categories}
        for record in self.images:
            faults += _record_faults(record, known)
        return faults


def _first(faults: Sequence[str], shown: int = 5) -> str:
    more = f" (and {len(faults) - shown} more faults)" if len(faults) > shown else ""
    return "; ".join(faults[:shown]) + more


def _rows(document: Mapping[str, Any], key: str, source: str) -> list[Any]:
    rows = document.get(key) or []
    if not isinstance(rows, list):
        raise ManifestError(f"{source}: not a COCO document: {key!r} is not a list")
    return rows


def _integer(value: Any) -> int:
    """A whole number, also written as 640.0 or "640"; 1.5 is refused, not cut."""
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value} is not a whole number")
    return number


_UNUSABLE = (AttributeError, KeyError, TypeError, ValueError, OverflowError)


def _read_categories(rows: Iterable[Any], faults: list[str]) -> tuple[Category, ...]:
    categories = []
    for row in rows:
        try:
            supercategory = row.get("supercategory") or "other"
            categories.append(Category(
                id=_integer(row["id"]), name=str(row["name"]), supercategory=str(supercategory),
                mimo=_text(row.get("mimo")), hornbostel_sachs=_text(row.get("hornbostel_sachs")),
                extra={k: v for k, v in row.items() if k not in _CATEGORY_KEYS},
            ))
        except _UNUSABLE as error:
            faults.append(f"category {row!r} is not usable ({error!r})")
    return tuple(categories)


def _read_annotations(rows: Iterable[Any], faults: list[str]) -> dict[int, list[Box]]:
    boxes: dict[int, list[Box]] = {}
    seen: set[Any] = set()
    for row in rows:
        try:
            if row.get("id") is not None and row["id"] in seen:
                faults.append(f"annotation id {row['id']} is used twice")
            seen.add(row.get("id"))
            if len(row["bbox"]) != 4:
                raise ValueError("bbox is not [x, y, width, height]")
            score = row.get("score")
            boxes.setdefault(_integer(row["image_id"]), []).append(Box(
                xyxy=xywh_to_xyxy(row["bbox"]), label=_integer(row["category_id"]),
                origin=str(row.get("origin") or "human"),
                score=None if score is None else float(score),
                iscrowd=bool(row.get("iscrowd", 0)),
                extra={k: v for k, v in row.items() if k not in BOX_KEYS},
            ))
        except _UNUSABLE as error:
            faults.append(f"annotation {str(row)[:120]} is not usable ({error!r})")
    return boxes


def _read_images(rows: Iterable[Any], boxes: dict[int, list[Box]],
                 faults: list[str]) -> tuple[ImageRecord, ...]:
    images = []
    for row in rows:
        try:
            labels = row.get("labels", ())
            images.append(ImageRecord(
                id=_integer(row["id"]), file_name=str(row["file_name"]),
                width=_integer(row["width"]), height=_integer(row["height"]),
                boxes=tuple(boxes.pop(_integer(row["id"]), ())),
                labels=None if labels is None else tuple(sorted({_integer(i) for i in labels})),
                split=_text(row.get("split")), domain=_text(row.get("domain")),
                group=_text(row.get("group")),
                attributes={str(k): str(v) for k, v in dict(row.get("attributes") or {}).items()
                            if v is not None},
                source_url=_text(row.get("source_url")), rights=_text(row.get("rights")),
                sha256=_text(row.get("sha256")),
                extra={k: v for k, v in row.items() if k not in _IMAGE_KEYS},
            ))
        except _UNUSABLE as error:
            faults.append(f"image {str(row)[:120]} is not usable ({error!r})")
    faults += [f"annotations name image {i}, which is not listed" for i in boxes]
    return tuple(images)


def _record_faults(record: ImageRecord, known: set[int]) -> list[str]:
    where = f"image {record.id} ({record.file_name})"
    faults = []
    if record.width < 1 or record.height < 1:
        faults.append(f"{where}: size {record.width}x{record.height} is not positive")
    if record.split is not None and record.split not in SPLITS:
        faults.append(f"{where}: split {record.split!r} is not one of {', '.join(SPLITS)}")
    faults += [f"{where}: label {i} is not a category id"
               for i in record.labels or () if i not in known]
    for box in record.boxes:
        fault = box_fault(box.xyxy, record.width, record.height)
        if fault:
            faults.append(f"{where}: {fault}")
        if box.label not in known:
            faults.append(f"{where}: box category {box.label} is not a category id")
        if box.origin not in ORIGINS:
            faults.append(f"{where}: origin {box.origin!r} is not one of {', '.join(ORIGINS)}")
        if box.score is not None and not 0 <= box.score <= 1:
            faults.append(f"{where}: score {box.score} is outside 0..1")
    return faults


def _box_to_coco(box: Box, annotation_id: int, image_id: int) -> dict[str, Any]:
    x, y, w, h = (round(float(v), 3) for v in xyxy_to_xywh(box.xyxy))
    w, h = max(w, 0.001), max(h, 0.001)  # a sliver must not be rounded to nothing
    row: dict[str, Any] = {
        "id": annotation_id, "image_id": int(image_id), "category_id": int(box.label),
        "bbox": [x, y, w, h], "area": round(w * h, 3), "iscrowd": int(box.iscrowd),
        "origin": box.origin}
    if box.score is not None:
        row["score"] = round(float(box.score), 6)
    return row | {key: value for key, value in box.extra.items() if key not in row}


def _image_to_coco(record: ImageRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"id": int(record.id), "file_name": record.file_name,
                           "width": int(record.width), "height": int(record.height)}
    for key in ("split", "domain", "group", "source_url", "rights", "sha256"):
        value = getattr(record, key)
        if value is not None:
            row[key] = value
    if record.labels is None or record.labels:
        row["labels"] = None if record.labels is None else [int(i) for i in record.labels]
    if record.attributes:
        row["attributes"] = dict(record.attributes)
    return row | {key: value for key, value in record.extra.items() if key not in row}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
