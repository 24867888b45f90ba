"""Images of IIIF manifests and collections (Presentation 2 or 3), by address or file.

    python tools/prepare_data.py iiif https://museum.example/manifest.json --side 1600 \
        --out data/manuscript

The images come at the chosen size from the Image API. Nobody has labelled them, unless ``--class``
says what all of them show. Each keeps the id of its canvas (``iiif`` in the manifest), so that
boxes can go back as annotations. Images of one manifest are one group.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musicon.datasets import fetching
from musicon.datasets.addresses import FetchError, public_url
from musicon.datasets.command import counted
from musicon.datasets.fetching import Fetched, Fetcher
from musicon.datasets.records import ImageRecord, Rejects
from musicon.datasets.services import iiif
from musicon.datasets.services.iiif import Canvas, IiifError
from musicon.datasets.sources import class_names, remote
from musicon.datasets.sources.base import SourceData, SourceError

UNLABELLED = "unlabelled"
_DEPTH = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    parser.add_argument("manifests", nargs="+", metavar="URL|FILE",
                        help="manifests or collections; a collection is followed to its manifests")
    parser.add_argument("--side", type=int, default=1600, metavar="PIXELS",
                        help="longer side of the images (default 1600); 0 for the largest")
    parser.add_argument("--most", type=int, metavar="N", help="stop after so many images")
    parser.add_argument("--class", dest="single_class", default=UNLABELLED, metavar="NAME",
                        help="what every image shows; 'negative' for no instruments (default: "
                             "nobody knows)")
    fetching.add_arguments(parser)
    class_names.add_arguments(parser)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Images, unlabelled or all of one class.

    Raises:
        SourceError: A file that cannot be read, a negative size, or no images.
        FetchError: A manifest that was named cannot be had.
        IiifError: What was named is no IIIF.
    """
    if options.side < 0 or (options.most or 1) < 1:
        raise SourceError("--side and --most: give numbers from 0 and from 1")
    name = options.single_class
    names = class_names.resolve([] if name == UNLABELLED else [name], options)
    with fetching.from_options(options) as fetch:
        views = list(remote.bar(options, _views(fetch, options, rejects), options.most,
                                "reading manifests"))
        if not views:
            raise SourceError("no images in what was named; expected manifests with canvases")
        urls = _image_urls(fetch, views, options, rejects)
        files = remote.download(fetch, list(urls.values()), options, rejects)
        note = remote.fetch_note(fetch, files)
    labels = None if name == UNLABELLED else (names.ids[name],) if name in names.ids else ()
    pages = Counter[str]()
    records = []
    for number, view in enumerate(views):
        pages[view.manifest] += 1
        got = files.get(urls.get(number, ""))
        if got is not None:
            records.append((got.path, _record(view, pages[view.manifest], got, labels)))
    manifests = counted(len({view.manifest for view in views}), "manifest")
    return SourceData(names.categories, records, {"layout": "iiif"},
                      (f"{counted(len(views), 'image')} in {manifests}", note, *names.notes),
                      names.rows)


def _views(fetch: Fetcher, options: argparse.Namespace, rejects: Rejects) -> Iterator[Canvas]:
    """Canvases of all that was named, collections followed once each."""
    waiting = [(name, 0) for name in reversed(options.manifests)]
    seen: set[str] = set()
    count = 0
    while waiting:
        name, depth = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            document = _load(fetch, name)
            if iiif.kind(document) == "collection":
                if depth < _DEPTH:
                    waiting += [(m, depth + 1) for m in reversed(iiif.members(document))]
                continue
            found = list(iiif.canvases(document))
        except (FetchError, IiifError, AttributeError, TypeError, ValueError) as error:
            reason = error.reason if isinstance(error, FetchError) else str(error)
            if depth == 0 and isinstance(error, (FetchError, IiifError)):
                raise SourceError(f"{public_url(name)}: {reason}") from None
            rejects.add(public_url(name), reason if isinstance(error, (FetchError, IiifError))
                        else f"not readable as IIIF ({error})")
            continue
        for view in found:
            yield view
            count += 1
            if count == options.most:
                return


def _load(fetch: Fetcher, name: str) -> Any:
    if iiif.is_address(name):
        return fetch.get(name).json()
    try:
        return json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise IiifError(f"not a readable JSON file ({error})") from None


def _image_urls(fetch: Fetcher, views: list[Canvas], options: argparse.Namespace,
                rejects: Rejects) -> dict[int, str]:
    """Where each view's image is, at the wanted size; by position in ``views``."""
    urls: dict[int, str] = {}
    services = list(dict.fromkeys(f"{v.service}/info.json" for v in views if v.service))
    infos = dict(zip(services, remote.bar(options, fetch.get_all(services), len(services),
                                          "asking for sizes"), strict=True))
    for number, view in enumerate(views):
        try:
            info = infos.get(f"{view.service}/info.json")
            if isinstance(info, Fetched):
                document = {**info.json(), "id": view.service}  # where it has answered
                urls[number] = iiif.image_url(document, options.side or None)
            elif view.image:
                urls[number] = view.image
            elif info is not None:
                raise info
        except (FetchError, IiifError, TypeError, ValueError, KeyError) as error:
            rejects.add(view.identifier, error.reason if isinstance(error, FetchError)
                        else f"its image service is not usable ({error})")
    return urls


def _record(view: Canvas, number: int, got: Fetched,
            labels: tuple[int, ...] | None) -> ImageRecord:
    told = {"title": view.title, "page": view.label}
    attributes = {**view.metadata, **{k: v for k, v in told.items() if v}}
    canvas: dict[str, Any] = {"canvas": view.identifier, "manifest": view.manifest,
                              "canvas_size": list(view.size)}
    if view.service:
        canvas["service"] = view.service
    if view.region is not None:
        canvas["region"] = list(view.region)
    folder = remote.file_stem(view.title or view.manifest.rpartition("://")[2])
    return ImageRecord(
        0, f"{folder}/{number:05}_{remote.file_stem(view.label, 40)}{got.path.suffix}", 0, 0,
        labels=labels, group=view.manifest or None, attributes=attributes,
        source_url=public_url(got.url), rights=view.rights, extra={"iiif": canvas})
