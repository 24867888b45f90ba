"""Paintings found on the web by their instrument: "<instrument> in painting", in any language.

    python tools/prepare_data.py google downloads --out data/google
    python tools/prepare_data.py google links.csv --out data/google
    python tools/prepare_data.py google --search lute violin --languages en de fr --out data/google

PATH is a folder a query, as download tools leave it (``lute in painting/12. x.jpg``), or a CSV file
of addresses with the columns url and query and, where known, page, title, rights.

Image search also finds photos, products, drawings, small pictures and the same picture again.
Those are not learnt from: they have no label, but the attributes ``review`` (why) and
``proposed`` (the class), until a person decides, in tools/review.py or in the column decision of
STORE/report/review.csv (keep or drop), which the next run reads.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from musicon.datasets import duplicates, fetching, picture_kinds
from musicon.datasets.addresses import FetchError, public_url
from musicon.datasets.command import counted
from musicon.datasets.contact_sheet import Cell, contact_sheet, grid
from musicon.datasets.fetching import Fetcher
from musicon.datasets.files import sha256
from musicon.datasets.images import ImageError, RgbArray, decode_reduced, find_images
from musicon.datasets.records import ImageRecord, Rejects, write_atomic
from musicon.datasets.services import custom_search
from musicon.datasets.services.custom_search import Hit
from musicon.datasets.sources import class_names, remote
from musicon.datasets.sources.base import SourceData, SourceError, existing_folder
from musicon.datasets.taxonomy import Taxonomy

QUERIES = {
    "en": "{} in painting", "de": "{} Gemälde", "fr": "{} peinture", "it": "{} dipinto",
    "es": "{} pintura", "nl": "{} schilderij", "sv": "{} målning", "pl": "{} obraz",
    "ca": "{} pintura", "eu": "{} margolana", "zh": "{} 绘画", "ko": "{} 그림"}
"""What is searched for, by language."""
KEEP, DROP = "keep", "drop"
_REVIEW = ("decision", "picture", "class", "reasons", "file", "url", "sha256")
_LOOKED_AT = 384
_QUERY = ("query", "keyword", "class", "label", "instrument")
_URL = ("url", "link", "image_url", "image")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    parser.add_argument("path", type=Path, nargs="?",
                        help="folder that holds a folder a query, or a CSV file of addresses")
    parser.add_argument("--domain", default="google", metavar="NAME", help="(default google)")
    group = parser.add_argument_group("image search")
    group.add_argument("--search", nargs="+", default=[], metavar="INSTRUMENT",
                       help="search for these with the Custom Search JSON API; key and engine are "
                            f"in {custom_search.KEY_VARIABLE} (or ~/.netrc) and "
                            f"{custom_search.ENGINE_VARIABLE}")
    group.add_argument("--languages", nargs="+", default=["en"], choices=sorted(QUERIES),
                       metavar="CODE", help="languages to search in (default en)")
    group.add_argument("--query", metavar="TEXT",
                       help="what to search for, {} being the instrument (default: '{} in "
                            "painting' in each language)")
    group.add_argument("--most", type=int, default=custom_search.MOST, metavar="N",
                       help="pictures a query at most (default and limit 100)")
    group.add_argument("--licence", metavar="TEXT",
                       help="only such: cc_publicdomain|cc_attribute|cc_sharealike")
    group.add_argument("--search-again", type=float, default=30.0, metavar="DAYS",
                       help="searches of the last so many days are not repeated (default 30)")
    group.add_argument("--search-url", default=custom_search.API, help=argparse.SUPPRESS)
    doubts = parser.add_argument_group("doubtful pictures")
    doubts.add_argument("--doubtful", choices=("review", "keep", "reject"), default="review",
                        help="put them to review (default), keep them all the same, or leave "
                             "them out")
    doubts.add_argument("--min-side", type=int, default=200, metavar="PIXELS",
                        help="pictures with a shorter side are doubtful (default 200)")
    fetching.add_arguments(parser)
    class_names.add_arguments(parser)


@dataclass(frozen=True)
class _Found:
    """A picture and the query that found it."""

    file: Path
    name: str
    query: str
    url: str | None = None
    page: str | None = None
    title: str | None = None
    rights: str | None = None


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures with the label that they were searched for by; doubtful ones without.

    Raises:
        SourceError: Nothing to read was named, or nothing was found.
        UserError: No key, or no search engine.
    """
    if (options.path is not None) == bool(options.search):
        raise SourceError("give one of: a folder of queries, a CSV file of addresses, "
                          "--search INSTRUMENT ...")
    if options.path is not None and not options.path.is_file():
        found = _from_folder(existing_folder(options.path), rejects)
        notes: list[str] = []
    else:
        found, notes = _from_web(options, rejects)
    if not found:
        raise SourceError("no pictures; expected a folder a query, such as 'lute in painting', "
                          "or addresses that can be fetched")
    meant = {query: searched_for(query) for query in dict.fromkeys(f.query for f in found)}
    names = class_names.resolve(sorted(set(meant.values())), options)
    records, more = _records(found, meant, names, options, rejects)
    became = {row[0]: row for row in names.rows}
    rows = tuple((query, became[name][1], became[name][2] if name == query else "in the query")
                 for query, name in meant.items())
    return SourceData(names.categories, records, {"layout": "google"},
                      (*notes, *more, *names.notes), rows)


def searched_for(query: str) -> str:
    """The one instrument that a query names, by its canonical name; else the query."""
    within = Taxonomy.load().find_within(query)
    found = {match.instrument.name for match in within if match.instrument is not None}
    return found.pop() if len(found) == 1 else query


def _from_folder(root: Path, rejects: Rejects) -> list[_Found]:
    found = []
    for file in find_images(root, rejects):
        parts = file.relative_to(root).parts
        if len(parts) < 2:
            rejects.add(file, "not in the folder of a query")
        else:
            found.append(_Found(file, "/".join(parts), parts[0].replace("_", " ")))
    return found


def _from_web(options: argparse.Namespace, rejects: Rejects) -> tuple[list[_Found], list[str]]:
    """Addresses from the table or the search, then the pictures."""
    searching = bool(options.search) and not options.offline
    keys = [custom_search.key(options.search_url)] if searching else []
    engine = custom_search.engine() if searching else ""
    notes: list[str] = []
    with fetching.from_options(options, keys) as fetch:
        if options.path is not None:
            hits = list(_from_table(options.path, rejects))
        else:
            hits, notes = _search_all(fetch, options, engine)
        first: dict[str, tuple[str, Hit, str | None]] = {}
        for query, hit, rights in hits:
            if hit.url in first and first[hit.url][0] != query:
                rejects.add(public_url(hit.url), f"found for {query!r} too; it stays with "
                                                 f"{first[hit.url][0]!r}")
            first.setdefault(hit.url, (query, hit, rights))
        files = remote.download(fetch, list(first), options, rejects)
        notes.append(remote.fetch_note(fetch, files))
    return [_Found(files[url].path, f"{remote.file_stem(query)}/{files[url].path.name}", query,
                   public_url(url), hit.page and public_url(hit.page), hit.title, rights)
            for url, (query, hit, rights) in first.items() if url in files], notes


def _from_table(table: Path, rejects: Rejects) -> Iterator[tuple[str, Hit, str | None]]:
    for number, row in enumerate(remote.read_table(table, (_URL, _QUERY)), start=2):
        url, query = remote.cell(row, *_URL), remote.cell(row, *_QUERY)
        if url is None or query is None:
            rejects.add(table, f"line {number}: no address or no query")
        else:
            yield query, Hit(url, remote.cell(row, "page", "source", "source_url"),
                             row.get("title")), row.get("rights") or None


def _search_all(fetch: Fetcher, options: argparse.Namespace,
                engine: str) -> tuple[list[tuple[str, Hit, str | None]], list[str]]:
    """All queries' hits; what the daily quota stops today is searched tomorrow."""
    hits: list[tuple[str, Hit, str | None]] = []
    notes: list[str] = []
    queries = _queries(options)
    for number, (query, language) in enumerate(remote.bar(options, queries, len(queries),
                                                          "searching")):
        place = f"search {query} {language} {options.most} {options.licence or ''}"
        known = fetch.store.note(place)
        fresh = known and time.time() - known["time"] < options.search_again * 86_400
        if not (fresh or options.offline):
            try:
                new = [asdict(hit) for hit in custom_search.search(
                    fetch, query, engine_id=engine, most=options.most, language=language,
                    rights=options.licence, address=options.search_url)]
            except FetchError as error:
                if not error.temporary:
                    raise
                notes.append(f"stopped at {query!r}: {error.reason}; "
                             f"{counted(len(queries) - number, 'query', 'queries')} left for the "
                             "next run (the free quota is 100 requests a day)")
                options = argparse.Namespace(**{**vars(options), "offline": True})
            else:
                known = {"time": time.time(), "hits": new}
                fetch.store.set_notes({place: known})
        if known:
            hits += [(query, Hit(**row), options.licence) for row in known["hits"]]
    return hits, notes


def _queries(options: argparse.Namespace) -> list[tuple[str, str]]:
    """(what to search for, language), each once."""
    if options.query is not None and "{}" not in options.query:
        raise SourceError(f"--query {options.query!r}: write {{}} where the instrument goes")
    found: dict[str, str] = {}
    for word in options.search:
        match = Taxonomy.load().find(word)
        if match.instrument is None:
            raise SourceError(f"--search: {match}")
        for language in options.languages:
            names = () if language == "en" else match.instrument.names.get(language, ())
            name = (*names, match.instrument.name)[0]
            found.setdefault((options.query or QUERIES[language]).format(name), language)
    return list(found.items())


@dataclass(frozen=True)
class _Look:
    """What one picture is."""

    faults: tuple[str, ...]
    print: duplicates.Fingerprint


def _look_all(found: Sequence[_Found],
              options: argparse.Namespace) -> Iterator[_Look | ImageError]:
    """What each picture is, in their order; a batch at a time goes through the network."""
    workers = getattr(options, "workers", None) or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(found), picture_kinds.BATCH):
            some = found[start:start + picture_kinds.BATCH]
            opened = list(pool.map(_open, [item.file for item in some]))
            kinds = iter(picture_kinds.judge(
                [image[0] for image in opened if not isinstance(image, ImageError)]))
            for image in opened:
                yield image if isinstance(image, ImageError) else _judged(
                    *image, next(kinds), options.min_side)


def _open(file: Path) -> tuple[RgbArray, tuple[int, int]] | ImageError:
    try:
        return decode_reduced(file, _LOOKED_AT)
    except ImageError as error:
        return error


def _judged(image: RgbArray, size: tuple[int, int], kind: picture_kinds.Kind,
            min_side: int) -> _Look:
    faults = [f"small: {size[0]}x{size[1]}"] if min(size) < min_side else []
    if kind.name != picture_kinds.PAINTING:
        faults.append(f"{kind.name} ({kind.doubt:.2f})")
    return _Look(tuple(faults), duplicates.fingerprint(image))


def _records(found: Sequence[_Found], meant: Mapping[str, str], names: class_names.ClassNames,
             options: argparse.Namespace,
             rejects: Rejects) -> tuple[list[tuple[Path, ImageRecord]], list[str]]:
    """Labelled, put to review, or left out."""
    usable, looks = [], []
    seen = remote.bar(options, _look_all(found, options), len(found), "looking at pictures")
    for item, look in zip(found, seen, strict=True):
        if isinstance(look, ImageError):
            rejects.add(item.file if item.url is None else item.url, look.reason)
        elif meant[item.query] in names.rejected:
            rejects.add(item.file, names.rejected[meant[item.query]])
        else:
            usable.append(item)
            looks.append(look)
    first = duplicates.copy_groups([look.print for look in looks])
    copies = Counter(first)
    report = fetching.store_folder(options) / "report"
    earlier = _earlier_review(report / "review.csv")
    decided = {row["sha256"]: row["decision"] for row in earlier}
    records, doubtful, counts = [], [], Counter[str]()
    for at, (item, look) in enumerate(zip(usable, looks, strict=True)):
        leader = usable[first[at]].name
        faults = [*look.faults, *([f"near-duplicate of {leader}"] if first[at] != at else [])]
        name = meant[item.query]
        choice = decided.get(sha256(item.file), "") if faults else KEEP
        if faults:
            doubtful.append((item, name, faults, choice))
            counts.update(fault.partition(" ")[0].rstrip(":") for fault in faults)
        if choice == DROP or (faults and not choice and options.doubtful == "reject"):
            rejects.add(item.file, "; ".join(faults) + (" (dropped in review.csv)"
                                                        if choice == DROP else ""))
            continue
        record = _record(item, (names.ids[name],) if name in names.ids else (),
                         f"copies {leader}" if copies[first[at]] > 1 else None)
        if choice != KEEP and options.doubtful == "review":
            record = replace(record, labels=None, attributes=remote.doubts(
                {**record.attributes, remote.PROPOSED: name}, faults))
        records.append((item.file, record))
    _write_report(report, doubtful, usable, earlier)
    told_counts = ", ".join(f"{n} {fault}" for fault, n in counts.most_common())
    return records, [f"{counted(len(doubtful), 'doubtful picture')} ({told_counts}): see "
                     f"{report / 'review.csv'}"] if doubtful else []


def _record(item: _Found, labels: tuple[int, ...], group: str | None) -> ImageRecord:
    told = {"query": item.query, "title": item.title, "page": item.page}
    return ImageRecord(0, item.name, 0, 0, labels=labels, source_url=item.url, rights=item.rights,
                       attributes={k: v for k, v in told.items() if v}, group=group)


def _earlier_review(file: Path) -> list[dict[str, str]]:
    """The rows of an earlier run's review, with what a person wrote into the column decision.

    Raises:
        SourceError: Something other than keep or drop.
    """
    if not file.exists():
        return []
    rows = []
    for number, row in enumerate(remote.read_table(file, (("sha256",), ("decision",))), start=2):
        choice = row.get("decision", "").lower()
        if choice not in ("", KEEP, DROP):
            raise SourceError(f"{file}, line {number}: decision {choice!r}; write keep, drop or "
                              "nothing")
        rows.append({**dict.fromkeys(_REVIEW, ""), **row, "decision": choice})
    return rows


def _write_report(folder: Path, doubtful: Sequence[tuple[_Found, str, Sequence[str], str]],
                  usable: Sequence[_Found], earlier: Sequence[Mapping[str, str]]) -> None:
    """The list for the review, and sheets of what is doubtful and of what isn't.

    Decisions on pictures that this run did not see stay in the list: another run may.
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(_REVIEW)
    listed = set[str]()
    for item, name, faults, choice in doubtful:
        content = sha256(item.file)
        listed.add(content)
        table.writerow([choice, item.name, name, "; ".join(faults), item.file, item.url or "",
                        content])
    table.writerows([row[column] for column in _REVIEW] for row in earlier
                    if row["decision"] and row["sha256"] not in listed)
    write_atomic(folder / "review.csv", stream.getvalue())
    bad = {item.file for item, *_ in doubtful}
    sheets: dict[str, list[Cell]] = defaultdict(list)
    for item, _, faults, _ in doubtful[:96]:
        sheets["doubtful"].append(Cell(decode_reduced(item.file, 160)[0], faults[0]))
    for item in [item for item in usable if item.file not in bad][:96]:
        sheets["kept"].append(Cell(decode_reduced(item.file, 160)[0], searched_for(item.query)))
    for name, cells in sheets.items():
        write_atomic(folder / f"{name}.png", contact_sheet(grid(cells, 12), name, 110))
