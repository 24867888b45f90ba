"""Europeana's Search and Record APIs: objects of an instrument, their photos and rights.

The key travels in the ``X-Api-Key`` header. Search pages are walked with a cursor, which has no
end at a thousand results as page numbers have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from musicon.datasets.addresses import ApiKey, FetchError, api_key
from musicon.datasets.fetching import Fetcher
from musicon.datasets.services.museum import MuseumObject, Picture, keywords_in

API = "https://api.europeana.eu"
VARIABLE = "EUROPEANA_API_KEY"
HEADER = "X-Api-Key"
ROWS = 100
"""Results a page; the most that the service gives."""
KEYWORDS = "http://www.mimo-db.eu/InstrumentsKeywords/"


def key(address: str = API) -> ApiKey:
    """The user's key."""
    return api_key(address, HEADER, VARIABLE,
                   "Keys are free: https://pro.europeana.eu/pages/get-api")


def query_of_keyword(number: str) -> str:
    """The search for objects that carry a MIMO keyword, as their type or as a concept."""
    uri = f'"{KEYWORDS}{number}"'
    return f"proxy_dc_type:{uri} OR skos_concept:{uri}"


def search(fetch: Fetcher, query: str, *, refine: Sequence[str] = (),
           reusability: str | None = None, most: int | None = None,
           address: str = API) -> Iterator[str]:
    """Identifiers (``/09102/_UEDIN_214``) of objects with pictures.

    Args:
        fetch: Has the key.
        query: In Europeana's (Lucene) syntax.
        refine: Further conditions (``qf``).
        reusability: ``open``, ``restricted`` or ``permission``.
        most: Stop after so many.
        address: Of the service.

    Raises:
        FetchError: No answer, or a refusal.
    """
    cursor, count = "*", 0
    while True:
        got = fetch.get(f"{address}/record/v2/search.json", [
            ("query", query), ("qf", "TYPE:IMAGE"), *(("qf", text) for text in refine),
            ("media", "true"), ("profile", "minimal"), ("rows", ROWS), ("cursor", cursor),
            *([("reusability", reusability)] if reusability else [])])
        page = _checked(got.json(), got.url)
        for item in page.get("items") or []:
            yield str(item["id"])
            count += 1
            if count == most:
                return
        following = page.get("nextCursor")
        if not following or following == cursor or not page.get("items"):
            return
        cursor = str(following)


def record_url(identifier: str, address: str = API) -> str:
    """Where the Record API tells all about an object."""
    return f"{address}/record/v2{identifier}.json"


def parse(document: Any, url: str) -> MuseumObject:
    """The object of a Record API answer.

    Raises:
        FetchError: The answer is a refusal, or something else.
    """
    item = _checked(document, url).get("object")
    if not isinstance(item, Mapping):
        raise FetchError(url, "expected a record of Europeana, found another document")
    aggregations = [*_rows(item, "aggregations")]
    concepts = [*_rows(item, "concepts")]
    proxies = sorted(_rows(item, "proxies"), key=lambda row: bool(row.get("europeanaProxy")))
    types = [text for proxy in proxies for text in _values(proxy.get("dcType"))]
    uris = [str(row.get("about", "")) for row in concepts]
    terms = [text for text in types if "://" not in text] + [
        text for row in concepts if keywords_in([str(row.get("about", ""))])
        for text in _values(row.get("prefLabel"))]
    attributes = {name: value for name, value in {
        "title": _first(proxies, "dcTitle"), "maker": _first(proxies, "dcCreator"),
        "date": _first(proxies, "dctermsCreated", "dcDate"),
        "inventory": _first(proxies, "dcIdentifier"),
        "institution": _first(aggregations, "edmDataProvider")}.items() if value}
    identifier = str(item.get("about", ""))
    return MuseumObject(
        identifier, keywords_in([*types, *uris]), tuple(dict.fromkeys(terms)),
        tuple(dict.fromkeys(picture for row in aggregations for picture in _pictures(row))),
        attributes, f"https://www.europeana.eu/item{identifier}" if identifier else None)


def _pictures(aggregation: Mapping[str, Any]) -> Iterator[Picture]:
    resources = {str(row.get("about")): row for row in _rows(aggregation, "webResources")}
    whole = next(iter(_values(aggregation.get("edmRights"))), None)
    provider = next(iter(_values(aggregation.get("edmDataProvider"))), None)
    for url in (*_values(aggregation.get("edmIsShownBy")), *_values(aggregation.get("hasView"))):
        row = resources.get(url, {})
        kind = str(row.get("ebucoreHasMimeType") or "image/")
        if not kind.startswith("image/"):
            continue
        own = next(iter(_values(row.get("webResourceEdmRights"))), None)
        yield Picture(url, "; ".join(p for p in (own or whole, provider) if p) or None)


def _checked(document: Any, url: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping) or document.get("success") is False:
        said = document.get("error") if isinstance(document, Mapping) else None
        raise FetchError(url, f"Europeana refuses: {said or 'an unexpected answer'}")
    return document


def _rows(row: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    for entry in row.get(name) or []:
        if isinstance(entry, Mapping):
            yield entry


def _values(value: Any) -> list[str]:
    """Texts of a value, a list, or a mapping from languages to either, English first."""
    if isinstance(value, Mapping):
        order = sorted(value, key=lambda language: (language not in ("en", "def"), language))
        return [text for language in order for text in _values(value[language])]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in _values(entry)]
    return [str(value).strip()] if value not in (None, "") else []


def _first(rows: Sequence[Mapping[str, Any]], *names: str) -> str | None:
    texts = (text for name in names for row in rows for text in _values(row.get(name))
             if "://" not in text)
    return next(texts, None)
