"""HTTP sessions that keep keys to their own host, and what servers say in words and headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from musicon.datasets.addresses import ApiKey

Sign = Callable[[requests.PreparedRequest], requests.PreparedRequest]


class KeyedSession(requests.Session):
    """Sends each host its key; takes keys off when a redirect leads to another host.

    ``requests`` itself does that with the headers that it knows only.

    Args:
        keys: Host -> its key.
        contact: Address told to the servers.
    """

    def __init__(self, keys: Mapping[str, ApiKey], contact: str = "") -> None:
        super().__init__()
        self._keys = keys
        told = f"; {contact}" if contact else ""
        self.headers["User-Agent"] = f"musicon/0.1 (data sets for research{told})"

    def key_for(self, url: str) -> Sign | None:
        """Adds the host's key; None lets ``requests`` look into ~/.netrc."""
        key = self._keys.get(urlsplit(url).hostname or "")
        if key is None:
            return None

        def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers[key.header] = key.value
            return request

        return add

    def rebuild_auth(self, prepared_request: requests.PreparedRequest,
                     response: requests.Response) -> None:
        """Called by ``requests`` for a redirect."""
        super().rebuild_auth(prepared_request, response)
        old, new = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(old, new):
            for key in self._keys.values():
                prepared_request.headers.pop(key.header, None)


def reason(error: requests.RequestException) -> str:
    """In words, and never in the library's own: those hold the whole address."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.TooManyRedirects):
        return "redirected in a circle"
    return f"a request that cannot be made ({type(error).__name__})"


def retry_after(text: str | None) -> float | None:
    """Seconds from a Retry-After header (a number or a date), or None."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
