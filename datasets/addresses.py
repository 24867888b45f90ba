"""Web addresses, the keys that open them, and what to say where one cannot be had."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from musicon.datasets.files import UserError
from musicon.datasets.images import IMAGE_SUFFIXES

Params = Mapping[str, Any] | Iterable[tuple[str, Any]]
_SECRET = re.compile(r"key|token|secret|passw|signature|credential|^sig$|^auth", re.I)
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/tiff": ".tif", "image/gif": ".gif",
             "image/webp": ".webp", "image/jp2": ".jp2", "image/bmp": ".bmp",
             "image/avif": ".avif"}
_SAFE = "/:@!$&'()*+,;=~%-._?"


class FetchError(UserError):
    """Something that could not be fetched; no message holds a key.

    Attributes:
        reason: What is wrong, without the address.
        temporary: Another run may get it.
    """

    def __init__(self, url: str, reason: str, temporary: bool = False) -> None:
        super().__init__(f"{public_url(url)}: {reason}")
        self.reason = reason
        self.temporary = temporary


@dataclass(frozen=True)
class ApiKey:
    """A key that belongs to one host and travels in a header."""

    host: str
    header: str
    value: str


def api_key(address: str, header: str, variable: str, advice: str) -> ApiKey:
    """The user's key for the service at an address, as ``find_key`` finds it.

    Raises:
        UserError: There is none.
    """
    host = urlsplit(address).hostname or ""
    return ApiKey(host, header, find_key(variable, host, advice))


def find_key(variable: str, host: str, advice: str) -> str:
    """A key from the environment, or the password of ``host`` in ``~/.netrc`` (or $NETRC).

    Raises:
        UserError: There is none; ``advice`` says where to get one.
    """
    if os.environ.get(variable):
        return os.environ[variable].strip()
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        entry = netrc.netrc(file).authenticators(host) if file.exists() else None
    except (netrc.NetrcParseError, OSError) as error:
        what = type(error).__name__  # the parser's message may quote the line with the key
        raise UserError(f"{file}: cannot be read as a netrc file ({what})") from None
    if entry is None or not entry[2]:
        raise UserError(f"no key: set {variable}, or add 'machine {host} login key password "
                        f"YOUR-KEY' to {file}. {advice}")
    return entry[2]


def public_url(url: str) -> str:
    """The address without name, password and whatever its query holds of keys and tokens."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return "(unreadable address)"
    if host == parts.netloc and not any(_SECRET.search(name) for name, _ in pairs):
        return url
    query = urlencode([(k, "..." if _SECRET.search(k) else v) for k, v in pairs])
    return urlunsplit((parts.scheme, host, parts.path, query, parts.fragment))


def full_url(url: str, params: Params | None = None) -> str:
    """The address with the parameters in its query, letters beyond ASCII escaped.

    Raises:
        FetchError: Not an http or https address.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme.lower() in ("http", "https") and parts.hostname
    except ValueError:
        usable = None
    if not usable:
        raise FetchError(url, "not an http or https address")
    query = [*([parts.query] if parts.query else []),
             *([urlencode(list(params.items() if isinstance(params, Mapping) else params),
                          doseq=True)] if params else [])]
    return urlunsplit((parts.scheme, parts.netloc, quote(parts.path, _SAFE) or "/",
                       quote("&".join(query), _SAFE + "[]"), ""))


def suffix(url: str, media_type: str) -> str:
    """How a fetched picture's file ends, such as ``.jpg``; empty for what is no picture."""
    found = PurePosixPath(urlsplit(url).path).suffix.lower()
    return _SUFFIXES.get(media_type) or (found if found in IMAGE_SUFFIXES else "")
