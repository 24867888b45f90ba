"""Fetching over HTTP, politely, and only what is new.

Everything fetched is kept in a *store*: a folder with the files and a small database of what each
server said about them. A second run asks with the server's own ETag or date and gets "not
modified"; a file that was cut off goes on where it stopped; a link that was dead stays dead until
``--refetch``. Requests to one host keep their distance, wait as long as the host asks them to
(Retry-After), and stop when it does not answer.

Keys come from the environment or from ``~/.netrc`` and travel in headers, to their own host alone:
they are in no URL, and so in no file, log or error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from musicon.datasets.addresses import ApiKey, FetchError, Params, full_url, suffix
from musicon.datasets.fetch_store import Store
from musicon.datasets.files import UserError
from musicon.datasets.http_session import KeyedSession, reason, retry_after
from musicon.datasets.pace import Pace

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that mean "not now"."""
GONE = frozenset({404, 410})
"""Answers that are remembered: the next run does not ask again."""
MAX_BYTES = 1 << 30
"""A larger answer is no picture and no document; it is refused."""
GIVE_UP = 5
"""Failures in a row after which a host is left alone until the next run."""
_BLOCK = 1 << 16


class _AgainError(Exception):
    """This request may be tried again, after ``wait`` seconds if the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _TooLargeError(Exception):
    """An answer that is no picture and no document."""


@dataclass(frozen=True)
class Manners:
    """How the fetcher behaves.

    Attributes:
        per_second: Requests a second to one host.
        tries: Requests for one thing before it is given up.
        back_off: Seconds before the second try; doubled for each further one, up to a minute.
        longest_wait: Seconds; a host that asks for more is left alone until the next run.
        timeout: Seconds without an answer.
        workers: Hosts' answers waited for at the same time.
        max_age: Days for which a fetched file is taken as it is, without asking.
        contact: Address told to the servers, so that they can complain.
        offline: Take everything from the store and ask nobody.
        refetch: Ask again for what was gone.
    """

    per_second: float = 2.0
    tries: int = 5
    back_off: float = 1.0
    longest_wait: float = 300.0
    timeout: float = 60.0
    workers: int = 4
    max_age: float = 0.0
    contact: str = ""
    offline: bool = False
    refetch: bool = False


@dataclass(frozen=True)
class Fetched:
    """A file of the store.

    Attributes:
        url: What was asked for.
        path: The file.
        media_type: As the server said, such as ``image/jpeg``.
        changed: New, or other than before.
    """

    url: str
    path: Path
    media_type: str
    changed: bool

    def json(self) -> Any:
        """The JSON document.

        Raises:
            FetchError: It is something else.
        """
        try:
            return json.loads(self.path.read_bytes())
        except (ValueError, RecursionError):
            start = self.path.read_bytes()[:40].decode("utf-8", "replace")
            raise FetchError(self.url, f"expected JSON, found {start!r}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every source that fetches."""
    manners = Manners()
    group = parser.add_argument_group("fetching")
    group.add_argument("--store", type=Path, metavar="FOLDER",
                       help="where fetched files are kept between runs (default: OUT-store)")
    group.add_argument("--rate", type=float, default=manners.per_second, metavar="N",
                       help=f"requests a second to one host (default {manners.per_second:g})")
    group.add_argument("--max-age", type=float, default=0.0, metavar="DAYS",
                       help="do not even ask whether files fetched within so many days have "
                            "changed (default 0)")
    group.add_argument("--contact", default=os.environ.get("MUSICON_CONTACT", ""), metavar="MAIL",
                       help="your address for the servers' operators (or MUSICON_CONTACT)")
    group.add_argument("--offline", action="store_true",
                       help="take what the store has; fetch nothing")
    group.add_argument("--refetch", action="store_true",
                       help="ask again for what was gone (404) in an earlier run")


def from_options(options: argparse.Namespace, keys: Iterable[ApiKey] = ()) -> Fetcher:
    """The fetcher that ``add_arguments`` describes.

    Raises:
        UserError: A rate that is not positive.
    """
    if options.rate <= 0:
        raise UserError(f"--rate {options.rate:g}: give requests a second, above 0")
    return Fetcher(store_folder(options), Manners(
        per_second=options.rate, max_age=options.max_age, contact=options.contact,
        offline=options.offline, refetch=options.refetch), keys)


def store_folder(options: argparse.Namespace) -> Path:
    """``--store``, or the folder ``NAME-store`` beside the data set NAME."""
    if options.store is not None:
        return Path(os.path.abspath(options.store))
    out = Path(os.path.abspath(options.out))
    return out.with_name(f"{out.name}-store")


class Fetcher:
    """Fetches files into a store. Use it in a ``with`` block; safe from many threads."""

    def __init__(self, folder: Path, manners: Manners | None = None,
                 keys: Iterable[ApiKey] = ()) -> None:
        self.manners = manners or Manners()
        self.store = Store(folder)
        self.requests = 0
        self._keys = {key.host: key for key in keys}
        self._pace = Pace(self.manners.per_second)
        self._failures: Counter[str] = Counter()
        self._own = threading.local()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._pace.stopped.set()
        self.store.close()

    def get(self, url: str, params: Params | None = None, *,
            lasting: bool = False, current: bool = False) -> Fetched:
        """One file, from the store where the server says that it has not changed.

        Args:
            url: http or https.
            params: Added to its query.
            lasting: What never changes under its address, such as a picture: where the server
                gives neither ETag nor date to ask with, the file is taken as it is.
            current: What changes from run to run: never taken from the store.

        Raises:
            FetchError: It cannot be had; where an earlier run got it and the server fails now,
                the earlier file is returned instead (unless ``current``).
        """
        url = full_url(url, params)
        row = self.store.find(url)
        known = None if current else self._known(url, row)
        if known is not None and (self.manners.offline or self._fresh(row, lasting)):
            return known
        if self.manners.offline:
            raise FetchError(url, "not in the store (--offline)", temporary=True)
        if row.get("fault") and not self.manners.refetch:
            raise FetchError(url, f"{row['fault']}, in an earlier run (--refetch asks again)")
        try:
            return self._try(url, row, known)
        except FetchError as error:
            if known is not None and error.temporary:
                return known
            raise

    def forget(self, fetched: Fetched) -> None:
        """Remove a file that is of no further use."""
        fetched.path.unlink(missing_ok=True)
        self.store.keep(fetched.url, file=None)

    def get_all(self, urls: Iterable[str], *,
                lasting: bool = True) -> Iterator[Fetched | FetchError]:
        """Many files, several at a time, in the order of the addresses."""
        def one(url: str) -> Fetched | FetchError:
            try:
                return self.get(url, lasting=lasting)
            except FetchError as error:
                return error

        window: deque[Future[Fetched | FetchError]] = deque()
        pool = ThreadPoolExecutor(self.manners.workers)
        try:
            for url in urls:
                window.append(pool.submit(one, url))
                if len(window) >= 8 * self.manners.workers:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        except BaseException:  # Ctrl-C, or the caller stopped: no thread may sleep on
            self._pace.stopped.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _known(self, url: str, row: Mapping[str, Any]) -> Fetched | None:
        if not row.get("file") or not (self.store.folder / row["file"]).is_file():
            return None
        return Fetched(url, self.store.folder / row["file"], row["media_type"] or "", False)

    def _fresh(self, row: Mapping[str, Any], lasting: bool) -> bool:
        age = (time.time() - (row["checked"] or 0)) / 86_400
        return 0 <= age < self.manners.max_age or (
            lasting and not row["etag"] and not row["modified"])

    def _try(self, url: str, row: Mapping[str, Any], known: Fetched | None) -> Fetched:
        """Ask until there is an answer, a refusal, or no hope."""
        host = urlsplit(url).netloc
        last = "not asked"
        for attempt in range(self.manners.tries):
            if self._failures[host] >= GIVE_UP:
                raise FetchError(url, "its host does not answer; left alone in this run",
                                 temporary=True)
            self._pace.wait(host)
            try:
                fetched = self._ask(url, row, known)
            except _AgainError as again:
                last = str(again)
                wait = self._back_off(attempt) if again.wait is None else again.wait
                if wait > self.manners.longest_wait:
                    self._failures[host] = GIVE_UP
                    raise FetchError(url, f"{last}; the host asks to wait for {wait / 60:.0f} "
                                     "minutes: run the same command again then",
                                     temporary=True) from None
                self._pace.hold(host, wait)
                row = self.store.find(url)
            else:
                self._failures[host] = 0
                return fetched
        self._failures[host] += 1
        raise FetchError(url, f"{last}, {self.manners.tries} times; run the same command again "
                              "later", temporary=True)

    def _back_off(self, attempt: int) -> float:
        """Seconds before the next try; at random, lest many runs come back at once."""
        return min(60.0, self.manners.back_off * 2**attempt) * random.uniform(0.75, 1.25)

    def _ask(self, url: str, row: Mapping[str, Any], known: Fetched | None) -> Fetched:
        """One request."""
        part = self.store.place(url, ".part")
        headers = {"Accept-Encoding": "identity"}  # so that byte ranges are those of the file
        offset = part.stat().st_size if row.get("part") and part.exists() else 0
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": str(row["part"])}
        elif known is not None:
            headers |= {name: row[key] for name, key in
                        (("If-None-Match", "etag"), ("If-Modified-Since", "modified")) if row[key]}
        self.requests += 1
        session = self._session()
        try:
            with session.get(url, headers=headers, stream=True, auth=session.key_for(url),
                                     timeout=(min(10.0, self.manners.timeout),
                                              self.manners.timeout)) as answer:
                if answer.status_code == 304 and known is not None:
                    self.store.keep(url, checked=time.time())
                    return known
                self._refuse(url, answer, part)
                return self._receive(url, answer, part, offset)
        except (requests.Timeout, requests.ConnectionError,
                requests.exceptions.ChunkedEncodingError) as error:
            if isinstance(error, requests.exceptions.SSLError):
                raise FetchError(url, "its certificate is not trusted") from None
            raise _AgainError(reason(error)) from None
        except requests.RequestException as error:
            raise FetchError(url, reason(error)) from None

    def _refuse(self, url: str, answer: requests.Response, part: Path) -> None:
        """Raise what an answer other than the file means."""
        status = answer.status_code
        words = f"HTTP {status} {answer.reason or ''}".strip()
        if status == 416:  # the rest of a file that has changed or was whole already
            part.unlink(missing_ok=True)
            raise _AgainError(words, 0.0)
        if status in BUSY:
            raise _AgainError(words, retry_after(answer.headers.get("Retry-After")))
        if status in GONE:
            part.unlink(missing_ok=True)
            self.store.keep(url, fault=words, checked=time.time())
        if status not in (200, 206):
            asks = {401: "; it wants a key or a password (environment or ~/.netrc)",
                    403: "; access refused: check the key and its rights"}.get(status, "")
            raise FetchError(url, f"{words}{asks}")

    def _receive(self, url: str, answer: requests.Response, part: Path, offset: int) -> Fetched:
        """Write the body; a broken connection leaves a part that the next request continues."""
        going_on = answer.status_code == 206
        begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if going_on and (begins is None or int(begins[1]) != offset):
            part.unlink(missing_ok=True)
            raise _AgainError("an answer for another part of the file", 0.0)
        etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        # A weak ETag does not promise the same bytes, so a part under it cannot be continued.
        validator = modified if etag is None or etag.startswith("W/") else etag
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            validator = None  # ranges would be those of the packed bytes
        part.parent.mkdir(parents=True, exist_ok=True)
        self.store.keep(url, part=validator)
        try:
            _write(answer, part, going_on)
        except _TooLargeError:
            part.unlink()
            raise FetchError(url, f"larger than {MAX_BYTES >> 20} MB") from None
        except BaseException:
            if validator is None:  # the next request would begin anew
                part.unlink(missing_ok=True)
            raise
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        file = self.store.place(url, suffix(url, media_type))
        os.replace(part, file)
        self.store.keep(url, file=file.relative_to(self.store.folder).as_posix(), etag=etag,
                        modified=modified, media_type=media_type, checked=time.time(), fault=None,
                        part=None)
        return Fetched(url, file, media_type, True)

    def _session(self) -> KeyedSession:
        if not hasattr(self._own, "session"):
            self._own.session = KeyedSession(self._keys, self.manners.contact)
        found: KeyedSession = self._own.session
        return found


def _write(answer: requests.Response, part: Path, going_on: bool) -> None:
    """The body, to the disk itself.

    Raises:
        _TooLargeError: The file would be larger than ``MAX_BYTES``.
    """
    with part.open("ab" if going_on else "wb") as stream:
        for block in answer.iter_content(_BLOCK):
            stream.write(block)
            if stream.tell() > MAX_BYTES:
                raise _TooLargeError
        stream.flush()
        os.fsync(stream.fileno())
