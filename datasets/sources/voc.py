"""Pascal VOC: an XML file a picture, beside it or in Annotations/ opposite JPEGImages/.

Boxes are 1-based and closed, as in the VOC devkit. Splits come from ImageSets/Main or from
folders named train, valid, test.
"""

from __future__ import annotations

import argparse
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path, PurePosixPath

from musicon.datasets.boxes import voc_to_xyxy
from musicon.datasets.images import IMAGE_SUFFIXES, find_images
from musicon.datasets.records import SPLITS, ImageRecord, Rejects
from musicon.datasets.sources import boxed
from musicon.datasets.sources.base import (
    SourceData,
    SourceError,
    add_path,
    existing_folder,
    split_of,
)
from musicon.datasets.sources.boxed import RawBox, RawImage

_IMAGE_FOLDERS = frozenset({"jpegimages", "images", "imgs", "img"})
_XML_FOLDERS = frozenset({"annotations", "annotation", "annots", "labels", "xml", "xmls"})
_MARK = re.compile(r"\s+(-1|0|1)$")
"""What a list of a class says of a picture: it is there, difficult, or not there."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    add_path(parser, "folder with pictures and XML files, together or in JPEGImages/ and "
                     "Annotations/")
    boxed.add_arguments(parser, unannotated=True, files=True)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures and boxes.

    Raises:
        SourceError: No such folder, no pictures, or no XML at all.
    """
    root = existing_folder(options.path)
    pictures = find_images(root, rejects)
    annotations = {_key(path.relative_to(root)): path for path in sorted(root.rglob("*.xml"))
                   if not path.name.startswith(".")}
    if not pictures:
        raise SourceError(f"{options.path}: no pictures in it; expected JPEGImages/ and "
                          "Annotations/, or pictures with an .xml file beside each")
    if not annotations:
        raise SourceError(f"{options.path}: {len(pictures)} pictures but no .xml file; for "
                          "pictures without boxes use the source 'folder'")
    splits = _image_sets(root)
    told: list[RawImage | None] = []
    untold: list[RawImage | None] = []
    for path in pictures:
        relative = path.relative_to(root)
        split = splits.get(path.stem) or split_of(relative.as_posix())
        record = ImageRecord(0, relative.as_posix(), 0, 0, split=split)
        xml = annotations.pop(_key(relative), None) or annotations.pop(
            _key(relative.with_suffix("")), None)
        if xml is None:
            untold.append(boxed.unannotated(path, record, f"{path.stem}.xml", options.unannotated,
                                            rejects))
        else:
            told.append(_read_picture(path, record, xml, rejects))
    for xml in annotations.values():
        rejects.add(xml, "annotation without its picture")
    images, notes = boxed.annotated(told, untold, options, rejects)
    classes = sorted({box.name for image in images for box in image.boxes}
                     | {name for image in images for name in image.label_names or ()})
    return boxed.build(images, classes, options, rejects, info={"layout": "voc"}, notes=notes)


def _key(relative: Path) -> str:
    """What a picture and its annotation share: folders except the two that differ, and stem.

    ``JPEGImages/Cubism/a.jpg``, ``Annotations/Cubism/a.xml`` and (after one more suffix)
    ``Annotations/Cubism/a.jpg.xml`` meet.
    """
    folders = [part for part in relative.parts[:-1]
               if part.lower() not in _IMAGE_FOLDERS | _XML_FOLDERS]
    name = relative.name
    if name.lower().endswith(".xml"):
        return "/".join([*folders, name[:-4]])
    return "/".join([*folders, name])


def _read_picture(path: Path, record: ImageRecord, xml: Path,
                  rejects: Rejects) -> RawImage | None:
    try:
        document = ElementTree.parse(xml).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        rejects.add(path, f"its annotation {xml.name} is not readable XML ({error})")
        return None
    except OSError as error:
        rejects.add(path, f"its annotation {xml.name} cannot be read ({error.strerror})")
        return None
    if document.tag != "annotation":
        rejects.add(path, f"its annotation {xml.name} is no VOC file: it starts with "
                          f"<{document.tag}>, not <annotation>")
        return None
    boxes, names, spoilt = [], set(), False
    for item in document.findall("object"):
        name = " ".join((item.findtext("name") or "").split())
        try:
            if not name:
                raise ValueError("it has no name")
            boxes.append(RawBox(name, _corners(item), extra=_extra(item)))
        except ValueError as error:
            rejects.add(path, f"box {name!r} left out: {error}")
            names |= {name} if name else set()
            spoilt = True
    nobody_knows = spoilt and not boxes and not names
    width, height = _size(document)
    sized = ImageRecord(0, record.file_name, width, height, split=record.split)
    return RawImage(path, sized, tuple(boxes), None if nobody_knows else tuple(sorted(names)))


def _corners(item: ElementTree.Element) -> tuple[float, float, float, float]:
    values = []
    for corner in _CORNERS:
        text = item.findtext(f"bndbox/{corner}")
        if text is None:
            raise ValueError(f"no <bndbox> with <{corner}>")
        try:
            values.append(float(text))
        except ValueError:
            raise ValueError(f"<{corner}> is {text.strip()!r}, not a number") from None
    return voc_to_xyxy(values)


def _extra(item: ElementTree.Element) -> dict[str, int]:
    """VOC's marks that say something; COCO tools pass them over."""
    return {mark: 1 for mark in ("difficult", "truncated", "occluded")
            if (item.findtext(mark) or "").strip() == "1"}


def _size(document: ElementTree.Element) -> tuple[int, int]:
    """Width and height as written; (0, 0) where missing or nonsense: the file tells."""
    try:
        width = int(float(document.findtext("size/width") or 0))
        height = int(float(document.findtext("size/height") or 0))
    except (ValueError, OverflowError):
        return 0, 0
    return (width, height) if width > 0 and height > 0 else (0, 0)


def _image_sets(root: Path) -> dict[str, str]:
    """Stem of a picture -> split, from ImageSets/Main/train.txt, val.txt, test.txt.

    Where these are missing, the lists of a class (person_train.txt) name the same pictures. There
    a mark follows the name, which may itself hold blanks and dots (``Inv. 12.5 lute``).
    """
    splits: dict[str, str] = {}
    for name in (*SPLITS, *(f"*_{split}" for split in SPLITS)):
        for file in root.rglob(f"ImageSets/Main/{name}.txt"):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                for written in {line.strip(), _MARK.sub("", line.strip())} - {""}:
                    found = PurePosixPath(written)
                    stem = found.stem if found.suffix.lower() in IMAGE_SUFFIXES else found.name
                    splits.setdefault(stem, name.removeprefix("*_"))
    return splits
