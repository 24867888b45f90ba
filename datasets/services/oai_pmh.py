"""OAI-PMH 2.0: harvest a repository's records, page by page, and tomorrow only what changed.

After every page the records and the token of the next one are kept together in the store, so that
a harvest that was cut off goes on where it stopped. The next harvest asks for what changed since
this one began, by the server's own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from musicon.datasets.addresses import FetchError
from musicon.datasets.fetching import Fetcher

OAI = "{http://www.openarchives.org/OAI/2.0/}"
_STALE_TOKEN = "badResumptionToken"
_NOTHING = "noRecordsMatch"

Convert = Callable[[Element, str], dict[str, Any]]
"""(metadata element, identifier) -> what is kept of the record, as JSON values."""


def harvest(fetch: Fetcher, address: str, convert: Convert, *, prefix: str,
            sets: str | None = None, anew: bool = False) -> Iterator[str]:
    """Bring the store up to date; yields the identifier of each record that arrives.

    Args:
        fetch: Has the store.
        address: Base URL of the repository.
        convert: What to keep of a record.
        prefix: Metadata format, such as ``lido``.
        sets: Only this set.
        anew: Forget earlier harvests of this repository.

    Raises:
        FetchError: The repository does not answer, or answers with an error.
    """
    place = _place(address, prefix, sets)
    if anew:
        fetch.store.set_notes(dict.fromkeys(
            [f"{place} {name}" for name in fetch.store.notes(f"{place} ")]))
    state: dict[str, Any] = fetch.store.note(f"{place} state") or {}
    first = {"verb": "ListRecords", "metadataPrefix": prefix} | ({"set": sets} if sets else {})
    restarted = False
    while True:
        if "token" in state:
            query = {"verb": "ListRecords", "resumptionToken": state["token"]}
        else:
            query = first | ({"from": state["since"]} if state.get("since") else {})
        page = _page(fetch, address, query)
        error = page.find(f"{OAI}error")
        code = "" if error is None else error.get("code", "")
        if code == _STALE_TOKEN and "token" in state and not restarted:
            # The server has forgotten how far we were: begin this harvest again.
            del state["token"]
            restarted = True
            continue
        if error is not None and code != _NOTHING:
            text = " ".join((error.text or "").split())
            raise FetchError(address, f"the repository answers {code}: {text[:200]}")
        if "token" not in state:
            state["began"] = _stamp(fetch, address, page, state)
        arrived, records = [], {}
        for record in page.iter(f"{OAI}record"):
            identifier, kept = _read(record, convert)
            arrived.append(identifier)
            records[f"{place} record {identifier}"] = kept
        token = page.find(f".//{OAI}resumptionToken")
        following = "" if token is None else (token.text or "").strip()
        if following:
            state["token"] = following
        else:
            state = {"since": state["began"], "granularity": state.get("granularity")}
        fetch.store.set_notes({**records, f"{place} state": state})
        yield from arrived
        if not following:
            return


def harvested(fetch: Fetcher, address: str, *, prefix: str,
              sets: str | None = None) -> dict[str, Any]:
    """All records that the store holds, by identifier, without the deleted ones."""
    return fetch.store.notes(f"{_place(address, prefix, sets)} record ")


def _place(address: str, prefix: str, sets: str | None) -> str:
    return f"oai {address} {prefix} {sets or ''}"


def _page(fetch: Fetcher, address: str, query: dict[str, str]) -> Element:
    # A page of an earlier harvest would be wrong here, even where the server is down.
    got = fetch.get(address, query, current=True)
    try:
        return ElementTree.fromstring(got.path.read_bytes())
    except ElementTree.ParseError as error:
        raise FetchError(got.url, f"expected XML of OAI-PMH; it cannot be read ({error})") from None
    finally:
        fetch.forget(got)


def _stamp(fetch: Fetcher, address: str, page: Element, state: dict[str, Any]) -> str:
    """The server's time, as fine as its ``from`` understands it."""
    if not state.get("granularity"):
        told = _page(fetch, address, {"verb": "Identify"}).findtext(f".//{OAI}granularity")
        state["granularity"] = (told or "YYYY-MM-DD").strip()
    date = (page.findtext(f"{OAI}responseDate") or "").strip()
    if not date:
        raise FetchError(address, "its answer has no responseDate: not OAI-PMH 2.0")
    return date if "hh" in state["granularity"].lower() else date[:10]


def _read(record: Element, convert: Convert) -> tuple[str, dict[str, Any] | None]:
    """Identifier and what is kept of a record; None for a deleted one."""
    header = record.find(f"{OAI}header")
    identifier = "" if header is None else (header.findtext(f"{OAI}identifier") or "").strip()
    metadata = record.find(f"{OAI}metadata")
    gone = header is not None and header.get("status") == "deleted"
    return identifier, None if gone or metadata is None else convert(metadata, identifier)
