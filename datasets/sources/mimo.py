"""Photos of museums' instruments: MIMO by OAI-PMH or through Europeana, or photos that you have.

    python tools/prepare_data.py mimo --europeana --settings configs/sources/mimo_thesis.yaml \
        --out data/mimo
    python tools/prepare_data.py mimo --oai https://museum.example/oai --out data/mimo
    python tools/prepare_data.py mimo photos --out data/mimo

PATH is a folder a class (MIMO keyword numbers or names), or a CSV file with the columns file and
class and, where known, object, source_url, rights, title, maker, date, institution.

Photos are cropped to the instrument, and panels, rulers and labels are painted over. What is
doubtful has the attribute ``review``. STORE/report holds quality.csv and a sheet a class with
photos before and after.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from musicon.datasets import fetching, museum_photos
from musicon.datasets.addresses import FetchError, public_url
from musicon.datasets.command import counted
from musicon.datasets.fetching import Fetcher
from musicon.datasets.images import ImageError, find_images
from musicon.datasets.museum_photos import Kept
from musicon.datasets.records import Box, Category, ImageRecord, Rejects, write_atomic
from musicon.datasets.services import europeana, lido, oai_pmh
from musicon.datasets.services.museum import MuseumObject
from musicon.datasets.sources import class_names, remote
from musicon.datasets.sources.base import SourceData, SourceError, existing_folder
from musicon.datasets.taxonomy import Instrument, Taxonomy

_FILE, _CLASS = ("file", "path", "image"), ("class", "keyword", "mimo", "label", "instrument")
_KNOWN_COLUMNS = {*_FILE, *_CLASS, "object", "group", "source_url", "url", "rights"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    parser.add_argument("path", type=Path, nargs="?",
                        help="photos that you have: a folder a class, or a CSV file")
    parser.add_argument("--domain", default="mimo", metavar="NAME", help="(default mimo)")
    group = parser.add_argument_group("museum")
    group.add_argument("--oai", metavar="URL",
                       help="harvest LIDO records from this OAI-PMH repository")
    group.add_argument("--set", metavar="NAME", help="only this set of the repository")
    group.add_argument("--metadata-prefix", default="lido", metavar="NAME",
                       help="the repository's name for LIDO (default lido)")
    group.add_argument("--europeana", action="store_true",
                       help=f"ask Europeana; the key is in {europeana.VARIABLE} or ~/.netrc")
    group.add_argument("--europeana-url", default=europeana.API, metavar="URL",
                       help=argparse.SUPPRESS)
    group.add_argument("--reusability", choices=("open", "restricted", "permission"),
                       help="only pictures of this kind of licence (Europeana)")
    group.add_argument("--keywords", nargs="+", default=[], metavar="NUMBER",
                       help="MIMO keyword numbers of the classes; default: all that are found")
    group.add_argument("--most", type=int, metavar="N", help="so many objects a class at most")
    group.add_argument("--whole", action="store_true", help="do not crop the photos")
    fetching.add_arguments(parser)
    class_names.add_arguments(parser)


@dataclass(frozen=True)
class _Photo:
    """One photo to use: its file, and what is known of it."""

    file: Path
    name: str
    classes: tuple[str, ...]
    group: str | None = None
    url: str | None = None
    rights: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Photos with image-level labels and, where they stand on a plain ground, boxes.

    Raises:
        SourceError: Nothing to read was named, or nothing usable was found.
        FetchError: The service cannot be asked.
    """
    ways = [options.path is not None, bool(options.oai), options.europeana]
    if sum(ways) != 1:
        raise SourceError("give one of: a folder or CSV file of photos, --oai URL, --europeana")
    classes = _Classes(options.keywords)
    folder = fetching.store_folder(options)
    if options.path is not None:
        photos, notes = _own_photos(options, classes, rejects)
    else:
        photos, notes = _museum_photos(options, classes, rejects)
    if not photos:
        raise SourceError("no photo of the wanted classes was found; see the options --keywords "
                          "and --rename")
    names = class_names.resolve(sorted({name for p in photos for name in p.classes}), options)
    records = _records(photos, names, options, folder, rejects)
    if not options.whole:
        notes.append(f"quality and photos before and after: {folder / 'report'}")
    return SourceData(classes.with_numbers(names.categories), records, {"layout": "mimo"},
                      (*notes, *names.notes), names.rows)


class _Classes:
    """Which class a keyword number or a name stands for."""

    def __init__(self, keywords: Sequence[str]) -> None:
        self.taxonomy = Taxonomy.load()
        self.wanted: dict[str, str] = {}
        for number in keywords:
            self.wanted[str(number)] = self.of_number(str(number)).name

    def of_number(self, number: str) -> Instrument:
        found = self.taxonomy.by_mimo(number)
        if found is None:
            raise SourceError(f"{number}: no keyword number of the MIMO thesaurus")
        return found

    def of(self, keywords: Sequence[str], terms: Sequence[str]) -> tuple[str, ...]:
        """The wanted classes of an object, without repeats; a kind of a class counts as it."""
        meant = [self.taxonomy.by_mimo(number) for number in keywords]
        if not any(meant):
            meant = [self.taxonomy.find(term).instrument for term in terms]
        found = [name for instrument in meant if instrument is not None
                 if (name := self._wanted(instrument))]
        if not self.wanted and not found and terms:
            return (terms[0],)
        return tuple(dict.fromkeys(found))

    def _wanted(self, instrument: Instrument) -> str | None:
        if not self.wanted:
            return instrument.name
        at: Instrument | None = instrument
        while at is not None:
            if at.name in self.wanted.values():
                return at.name
            at = self.taxonomy.broader(at)
        for number, name in self.wanted.items():
            group = self.of_number(number)
            if name not in self.taxonomy and (
                    group.family == instrument.family != "unclassified"
                    or f"{instrument.name.rpartition(' ')[2]}s" == name):  # violin bow: bows
                return name
        return None

    def of_folder(self, name: str) -> tuple[str, ...]:
        """The class of a folder or table cell: a number, or a name in any language."""
        if name.strip().isdigit():
            return self.of([str(int(name))], []) if self.wanted else (
                self.of_number(str(int(name))).name,)
        return self.of([], [name]) if self.wanted else (name,)

    def with_numbers(self, categories: Sequence[Category]) -> tuple[Category, ...]:
        """Groups such as bows are no instruments of the taxonomy, but have their number."""
        numbers = {name: number for number, name in self.wanted.items()}
        return tuple(c if c.mimo or c.name not in numbers else replace(c, mimo=numbers[c.name])
                     for c in categories)


def _own_photos(options: argparse.Namespace, classes: _Classes,
                rejects: Rejects) -> tuple[list[_Photo], list[str]]:
    """The photos of the wanted classes, and a sentence on the others."""
    others = Counter[str]()
    photos = (_table_photos if options.path.is_file() else _folder_photos)(
        options.path, classes, others, rejects)
    shown = ", ".join(sorted(others)[:8]) + (", ..." if len(others) > 8 else "")
    return photos, [f"{counted(others.total(), 'photo')} passed over, of classes that --keywords "
                    f"does not name: {shown}"] if others else []


def _folder_photos(path: Path, classes: _Classes, others: Counter[str],
                   rejects: Rejects) -> list[_Photo]:
    root = existing_folder(path)
    photos = []
    for file in find_images(root, rejects):
        parts = file.relative_to(root).parts
        if len(parts) < 2:
            rejects.add(file, "not in a class folder")
            continue
        names = classes.of_folder(parts[0])
        if names:
            photos.append(_Photo(file, file.relative_to(root).as_posix(), names))
        else:
            others[parts[0]] += 1
    return photos


def _table_photos(table: Path, classes: _Classes, others: Counter[str],
                  rejects: Rejects) -> list[_Photo]:
    photos = []
    for number, row in enumerate(remote.read_table(table, (_FILE, _CLASS)), start=2):
        name, label = remote.cell(row, *_FILE), remote.cell(row, *_CLASS)
        if name is None or label is None:
            rejects.add(table, f"line {number}: no file or no class")
            continue
        names = classes.of_folder(label)
        if names:
            url = remote.cell(row, "source_url", "url")
            photos.append(_Photo(
                Path(os.path.abspath(table.parent / name)), name, names,
                remote.cell(row, "object", "group"), url and public_url(url), row.get("rights"),
                {k: v for k, v in row.items() if v and k not in _KNOWN_COLUMNS}))
        else:
            others[label] += 1
    return photos


def _museum_photos(options: argparse.Namespace, classes: _Classes,
                   rejects: Rejects) -> tuple[list[_Photo], list[str]]:
    """What the museums tell, then their pictures."""
    keys = [europeana.key(options.europeana_url)] if options.europeana and not options.offline \
        else []
    with fetching.from_options(options, keys) as fetch:
        found = _from_europeana(fetch, options, classes, rejects) if options.europeana else \
            _from_oai(fetch, options)
        chosen: list[tuple[MuseumObject, tuple[str, ...]]] = []
        counts: Counter[str] = Counter()
        for item in sorted(found, key=lambda item: item.identifier):
            names = classes.of(item.keywords, item.terms)
            if not names or (options.most and counts[names[0]] >= options.most):
                continue
            if not item.pictures:
                rejects.add(item.identifier, "the museum links no picture of it")
                continue
            counts[names[0]] += 1
            chosen.append((item, names))
        files = remote.download(
            fetch, [p.url for item, _ in chosen for p in item.pictures], options, rejects)
        notes = [f"{counted(len(found), 'object')} known, {len(chosen):,} with pictures of the "
                 "wanted classes", remote.fetch_note(fetch, files)]
        return [_Photo(
            files[picture.url].path,
            f"{remote.file_stem(names[0])}/{remote.file_stem(item.identifier)}_{number}"
            f"{files[picture.url].path.suffix}",
            names, item.identifier, public_url(picture.url), picture.rights,
            {**(item.attributes or {}), **({"page": item.page} if item.page else {})})
            for item, names in chosen for number, picture in enumerate(item.pictures, start=1)
            if picture.url in files], notes


def _from_oai(fetch: Fetcher, options: argparse.Namespace) -> list[MuseumObject]:
    if not options.offline:
        arrived = oai_pmh.harvest(
            fetch, options.oai, lambda element, name: lido.parse(element, name).to_json(),
            prefix=options.metadata_prefix, sets=options.set, anew=options.refetch)
        for _ in remote.bar(options, arrived, None, "harvesting records"):
            pass
    rows = oai_pmh.harvested(fetch, options.oai, prefix=options.metadata_prefix, sets=options.set)
    return [MuseumObject.from_json(row) for row in rows.values()]


def _from_europeana(fetch: Fetcher, options: argparse.Namespace, classes: _Classes,
                    rejects: Rejects) -> list[MuseumObject]:
    if not classes.wanted:
        raise SourceError("--europeana needs --keywords NUMBER ..., such as 3564 for violins, or "
                          "--settings configs/sources/mimo_thesis.yaml")
    identifiers: dict[str, None] = {}
    for number, name in classes.wanted.items():
        instrument = classes.of_number(number)
        for keyword in dict.fromkeys((number, instrument.mimo or number, *instrument.also)):
            hits = europeana.search(fetch, europeana.query_of_keyword(keyword), most=options.most,
                                    reusability=options.reusability, address=options.europeana_url)
            for identifier in remote.bar(options, hits, None, f"searching {name}"):
                identifiers[identifier] = None
    urls = [europeana.record_url(i, options.europeana_url) for i in identifiers]
    found = []
    for url, got in zip(urls, remote.bar(options, fetch.get_all(urls, lasting=False), len(urls),
                                         "fetching records"), strict=True):
        try:
            if isinstance(got, FetchError):
                raise got
            found.append(europeana.parse(got.json(), url))
        except FetchError as error:
            rejects.add(public_url(url), error.reason)
    return found


def _records(photos: Sequence[_Photo], names: class_names.ClassNames, options: argparse.Namespace,
             folder: Path, rejects: Rejects) -> list[tuple[Path, ImageRecord]]:
    """The photos, cropped, as records; and the report on them."""
    labelled = []
    for photo in photos:
        refused = [names.rejected[name] for name in photo.classes if name in names.rejected]
        if refused:
            rejects.add(photo.file, refused[0])
        else:
            labelled.append(photo)
    if options.whole:
        return [(photo.file, _record(photo, names, None)) for photo in labelled]
    workers = getattr(options, "workers", None) or min(4, os.cpu_count() or 1)
    cropped = museum_photos.crop_all(
        [(p.file, p.name, p.classes[0]) for p in labelled], folder / "crops", workers)
    records, reported = [], []
    for photo, kept in zip(labelled, remote.bar(options, cropped, len(labelled), "cropping"),
                           strict=True):
        if isinstance(kept, ImageError):
            rejects.add(photo.file, kept.reason)
            continue
        reported.append((photo.file, kept))
        records.append((Path(kept.file), _record(photo, names, kept)))
    _report(reported, folder / "report")
    return records


def _record(photo: _Photo, names: class_names.ClassNames, kept: Kept | None) -> ImageRecord:
    labels = tuple(sorted({names.ids[name] for name in photo.classes if name in names.ids}))
    name, extra = photo.name, {}
    boxes: tuple[Box, ...] = ()
    faults = list(kept.faults) if kept is not None else []
    if len(labels) > 1:
        faults.append("an object of several classes")
    if kept is not None:
        if Path(kept.file) != photo.file:
            name = f"{name}.jpg" if not name.lower().endswith((".jpg", ".jpeg")) else name
            extra = {"photo_size": [kept.width, kept.height], "photo_window": list(kept.window)}
        if kept.xyxy is not None and labels:
            several = len(labels) > 1 or museum_photos.SEVERAL in faults
            boxes = (Box(kept.xyxy, labels[0], "foreground", iscrowd=several),)
    return ImageRecord(
        0, name, 0, 0, boxes=boxes, labels=labels, group=photo.group,
        attributes=remote.doubts(photo.attributes, [f.partition(":")[0] for f in faults]),
        source_url=photo.url, rights=photo.rights, extra=extra)


def _report(rows: Sequence[tuple[Path, Kept]], folder: Path) -> None:
    write_atomic(folder / "quality.csv", museum_photos.quality_report(kept for _, kept in rows))
    classes: dict[str, list[tuple[Path, Kept]]] = defaultdict(list)
    for row in rows:
        classes[row[1].label].append(row)
    for label, some in classes.items():
        sheet = museum_photos.before_and_after(some)
        write_atomic(folder / f"{remote.file_stem(label)}.png", sheet)
