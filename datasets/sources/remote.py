"""What sources share that fetch: a store, a bar, names for files, doubts put to review."""

from __future__ import annotations

import argparse
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from musicon.datasets import command
from musicon.datasets.addresses import FetchError, public_url
from musicon.datasets.fetching import Fetched, Fetcher
from musicon.datasets.records import Rejects
from musicon.datasets.sources.base import SourceError

T = TypeVar("T")
REVIEW = "review"
"""Attribute that says why a person should look at a picture."""
PROPOSED = "proposed"
"""Attribute that holds the class of a picture whose label waits for the review."""


def bar(options: argparse.Namespace, items: Iterable[T], total: int | None,
        desc: str) -> Iterator[T]:
    """The items, with a progress bar unless ``--quiet``."""
    return command.progress(items, total, desc, getattr(options, "quiet", False))


def download(fetch: Fetcher, urls: Sequence[str], options: argparse.Namespace,
             rejects: Rejects) -> dict[str, Fetched]:
    """Pictures by address; what cannot be had, or is a page instead, goes into ``rejects``."""
    found: dict[str, Fetched] = {}
    wanted = list(dict.fromkeys(urls))
    for url, got in zip(wanted, bar(options, fetch.get_all(wanted), len(wanted),
                                    "fetching pictures"), strict=True):
        if isinstance(got, FetchError):
            rejects.add(public_url(url), got.reason)
        elif got.media_type.startswith("text/"):
            rejects.add(public_url(url), f"a page ({got.media_type}), not a picture")
        else:
            found[url] = got
    return found


def fetch_note(fetch: Fetcher, found: Mapping[str, Fetched]) -> str:
    """A sentence on what was new."""
    new = sum(got.changed for got in found.values())
    return (f"{command.counted(new, 'picture')} fetched, {len(found) - new:,} taken from the store "
            f"{fetch.store.folder}; {command.counted(fetch.requests, 'request')} made")


def file_stem(text: str, longest: int = 80) -> str:
    """A name that every disk takes: letters, digits, ``-`` and ``_``."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", plain).strip("_")[-longest:] or "unnamed"


def read_table(file: Path, needed: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """The rows of a CSV (or tab- or semicolon-separated) file, keyed by lower-case column names.

    Args:
        file: With a header line.
        needed: For each, one of the names must be a column.

    Raises:
        SourceError: No such file, not text, or a column is missing.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file}: cannot be read as a UTF-8 table ({error})") from None
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = [{(name or "").strip().lower(): (value or "").strip() for name, value in row.items()
             if isinstance(value, str)}
            for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)]
    columns = {name.strip().lower() for name in head.rstrip("\r").split(delimiter)}
    for names in needed:
        if not columns & set(names):
            raise SourceError(f"{file}: no column {' or '.join(map(repr, names))}; it has "
                              f"{', '.join(sorted(columns))}")
    return rows


def cell(row: Mapping[str, str], *names: str) -> str | None:
    """The first of these columns that is filled."""
    return next((row[name] for name in names if row.get(name)), None)


def doubts(attributes: Mapping[str, Any], reasons: Sequence[str]) -> dict[str, str]:
    """The attributes with the reasons for a review, if there are any."""
    told = {REVIEW: "; ".join(reasons)} if reasons else {}
    return {**{k: str(v) for k, v in attributes.items()}, **told}
