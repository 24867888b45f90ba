"""Google's Custom Search JSON API, for pictures: at most a hundred a query, ten a request.

The key travels in the ``X-Goog-Api-Key`` header; the search engine's id (``cx``) is no secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from musicon.datasets.addresses import ApiKey, FetchError, api_key
from musicon.datasets.fetching import Fetcher
from musicon.datasets.files import UserError

API = "https://customsearch.googleapis.com"
KEY_VARIABLE, ENGINE_VARIABLE = "GOOGLE_API_KEY", "GOOGLE_SEARCH_ENGINE"
HEADER = "X-Goog-Api-Key"
ROWS, MOST = 10, 100


@dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
        url: The picture.
        page: The page that shows it.
        title: Of the page.
    """

    url: str
    page: str | None = None
    title: str | None = None


def key(address: str = API) -> ApiKey:
    """The user's key."""
    return api_key(address, HEADER, KEY_VARIABLE,
                   "It is made in the Google Cloud console, for the Custom Search API.")


def engine() -> str:
    """The id of the user's search engine.

    Raises:
        UserError: There is none.
    """
    found = os.environ.get(ENGINE_VARIABLE, "").strip()
    if not found:
        raise UserError(f"no search engine: set {ENGINE_VARIABLE} to the id of your Programmable "
                        "Search Engine (one that searches the whole web, for images)")
    return found


def search(fetch: Fetcher, query: str, *, engine_id: str, most: int = MOST,
           language: str | None = None, rights: str | None = None,
           address: str = API) -> Iterator[Hit]:
    """Pictures that a query finds, best first.

    Args:
        fetch: Has the key.
        query: What to search for.
        engine_id: Of the search engine.
        most: Stop after so many; the service gives no more than 100.
        language: ISO 639-1 code; prefers pages in it.
        rights: Licences wanted, such as ``cc_publicdomain|cc_attribute|cc_sharealike``.
        address: Of the service.

    Raises:
        FetchError: No answer, or a refusal, such as a spent daily quota.
    """
    start = 1
    while start <= min(most, MOST):
        rows = min(ROWS, most - start + 1, MOST - start + 1)
        got = fetch.get(f"{address}/customsearch/v1", {
            "cx": engine_id, "q": query, "searchType": "image", "num": rows, "start": start,
            "safe": "active", **({"hl": language} if language else {}),
            **({"rights": rights} if rights else {})})
        page = got.json()
        if not isinstance(page, Mapping):
            raise FetchError(got.url, "expected an answer of Custom Search, found something else")
        items = page.get("items") or []
        for item in items:
            hit = _hit(item)
            if hit is not None:
                yield hit
        following = ((page.get("queries") or {}).get("nextPage") or [{}])[0].get("startIndex")
        if not items or following is None or int(following) <= start:
            return
        start = int(following)


def _hit(item: Any) -> Hit | None:
    if not isinstance(item, Mapping) or not item.get("link"):
        return None
    image = item.get("image") or {}
    return Hit(str(item["link"]), image.get("contextLink"), item.get("title"))
