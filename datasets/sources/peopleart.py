"""PeopleArt: paintings by movement, with boxes of persons.

The layout is Pascal VOC's, ``JPEGImages/MOVEMENT/PAINTER_TITLE-YEAR.jpg`` opposite
``Annotations/MOVEMENT/...jpg.xml``; movement, painter, title and year become attributes.
Nobody looked for instruments in it, so that its pictures are unlabelled unless you say otherwise.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import PurePosixPath

from musicon.datasets.records import ImageRecord, Rejects
from musicon.datasets.sources import voc
from musicon.datasets.sources.base import SourceData, add_path

_PERSON = "person"
_IMAGE_FOLDER = "JPEGImages"
_DATED = re.compile(r"^(?P<title>.*?)-(?P<year>1[2-9]\d\d|20[0-2]\d)(?:-\d{1,2})?$")
"""A title, its year, and what may follow: the end of a span (1920-23) or WikiArt's counting."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    add_path(parser, f"folder that holds {_IMAGE_FOLDER}/ and Annotations/")
    parser.add_argument("--persons", action="store_true",
                        help="read the boxes of persons, as the one class 'person'")
    parser.add_argument("--without-instruments", action="store_true",
                        help="somebody looked: no picture shows an instrument, all are negatives")


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures with movement, painter, title and year.

    Raises:
        SourceError: No such folder, no pictures, or no XML at all.
    """
    as_voc = argparse.Namespace(
        path=options.path, unannotated="negative", empty="negative", only=[], unknown="keep",
        rename=None, language=None, negatives=[] if options.persons else [_PERSON])
    data = voc.read(as_voc, rejects)
    known = options.persons or options.without_instruments
    records = [(path, _described(record if known else replace(record, labels=None)))
               for path, record in data.records]
    return replace(data, records=records, info={"layout": "peopleart"},
                   notes=() if known else ("nobody looked for instruments: every picture is "
                                           "unlabelled (--without-instruments if you did)",))


def _described(record: ImageRecord) -> ImageRecord:
    file_name = record.file_name.removeprefix(f"{_IMAGE_FOLDER}/")
    return replace(record, file_name=file_name, attributes={
        **record.attributes, **from_path(file_name)})


def from_path(file_name: str) -> dict[str, str]:
    """What WikiArt's paths tell of a work.

    Movement and painter stay as written, so that they compare with those of other sources.

    Example:
        >>> from_path("Cubism/juan-gris_still-life-with-guitar-1912-1.jpg")
        {'movement': 'Cubism', 'painter': 'juan-gris', 'title': 'still life with guitar', \
'year': '1912'}
    """
    path = PurePosixPath(file_name)
    painter, separator, title = path.stem.partition("_")
    told = {"movement": path.parent.name}
    if separator:
        dated = _DATED.match(title)
        told["painter"] = painter
        told["title"] = re.sub("[-_]+", " ", dated["title"] if dated else title).strip()
        told["year"] = dated["year"] if dated else ""
    return {name: value for name, value in told.items() if value}
