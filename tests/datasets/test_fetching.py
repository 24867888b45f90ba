"""Fetching, against a real server on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from musicon.datasets import fetching
from musicon.datasets.addresses import ApiKey, FetchError, find_key, full_url, public_url
from musicon.datasets.fetching import GIVE_UP, Fetched, Fetcher, Manners
from musicon.datasets.files import UserError

FAST = Manners(per_second=500, back_off=0.01, timeout=5)
BODY = bytes(range(256)) * 2000


def fetcher(folder: Path, keys: tuple[ApiKey, ...] = (), **settings: Any) -> Fetcher:
    return Fetcher(folder, Manners(**{**vars(FAST), **settings}), keys)


def test_unchanged_files_are_not_sent_again(tmp_path: Path, website: Any) -> None:
    url = website.file("/a.jpg", BODY)
    with fetcher(tmp_path) as fetch:
        first = fetch.get(url)
    assert first.changed and first.path.read_bytes() == BODY and first.path.suffix == ".jpg"
    with fetcher(tmp_path) as fetch:
        second = fetch.get(url)
    assert not second.changed and second.path == first.path
    assert [asked.conditional for asked in website.asked] == [False, True]
    website.file("/a.jpg", b"other")
    with fetcher(tmp_path) as fetch:
        third = fetch.get(url)
    assert third.changed and third.path.read_bytes() == b"other"


def test_last_modified_is_used_without_an_etag(tmp_path: Path, website: Any) -> None:
    date = formatdate(1e9, usegmt=True)

    def page(asked: Any) -> Any:
        same = asked.headers.get("If-Modified-Since") == date
        return type(website.pages["/x"])(b"" if same else b"x", 304 if same else 200,
                                         {"Last-Modified": date})

    website.file("/x", b"")
    website.pages["/b"] = page
    for changed in (True, False):
        with fetcher(tmp_path) as fetch:
            assert fetch.get(f"{website.url}/b").changed is changed
    assert len(website.asked) == 2


def test_lasting_files_without_validators_are_not_asked_for_again(tmp_path: Path,
                                                                  website: Any) -> None:
    website.file("/c", BODY)
    del website.pages["/c"].headers["ETag"]
    for _ in range(2):
        with fetcher(tmp_path) as fetch:
            fetch.get(f"{website.url}/c", lasting=True)
    assert len(website.asked) == 1
    with fetcher(tmp_path) as fetch:
        fetch.get(f"{website.url}/c")
    assert len(website.asked) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(tmp_path: Path, website: Any, status: int, as_date: bool) -> None:
    website.file("/d.jpg", BODY)
    good = website.pages["/d.jpg"]
    times: list[float] = []

    def page(asked: Any) -> Any:
        times.append(time.time())
        if len(times) > 1:
            return good
        # A date has whole seconds: two from now is at least one away.
        wait = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
        return type(good)(b"slow down", status, {"Retry-After": wait})

    website.pages["/d.jpg"] = page
    with fetcher(tmp_path) as fetch:
        assert fetch.get(f"{website.url}/d.jpg").path.read_bytes() == BODY
    assert len(times) == 2 and 0.9 <= times[1] - times[0] < 4


def test_a_long_wait_ends_the_run_with_advice(tmp_path: Path, website: Any) -> None:
    website.file("/e.jpg", BODY)
    website.pages["/e.jpg"] = type(website.pages["/e.jpg"])(b"", 429, {"Retry-After": "7200"})
    with fetcher(tmp_path) as fetch:
        with pytest.raises(FetchError, match="wait for 120 minutes: run the same command again"):
            fetch.get(f"{website.url}/e.jpg")
        with pytest.raises(FetchError, match="left alone"):
            fetch.get(f"{website.url}/other.jpg")
    assert len(website.asked) == 1


def test_back_off_grows_and_ends(tmp_path: Path, website: Any) -> None:
    website.file("/f", BODY)
    website.pages["/f"] = type(website.pages["/f"])(b"", 500)
    with fetcher(tmp_path, back_off=0.05, tries=4) as fetch:
        start = time.monotonic()
        with pytest.raises(FetchError, match="HTTP 500 .*, 4 times") as caught:
            fetch.get(f"{website.url}/f")
    assert caught.value.temporary
    assert time.monotonic() - start > 0.75 * (0.05 + 0.1 + 0.2)
    assert len(website.asked) == 4


def test_what_the_server_cannot_give_now_is_taken_from_the_store(tmp_path: Path,
                                                                 website: Any) -> None:
    url = website.file("/g.jpg", BODY)
    with fetcher(tmp_path) as fetch:
        fetch.get(url)
        website.pages["/g.jpg"] = type(website.pages["/g.jpg"])(b"", 503)
        assert fetch.get(url).path.read_bytes() == BODY


def test_a_broken_body_goes_on_where_it_stopped(tmp_path: Path, website: Any) -> None:
    url = website.file("/h.jpg", BODY)
    good, calls = website.pages["/h.jpg"], []

    def page(asked: Any) -> Any:
        calls.append(asked)
        return good if len(calls) > 1 else type(good)(BODY, 200, good.headers, cut=300_000)

    website.pages["/h.jpg"] = page
    with fetcher(tmp_path) as fetch:
        assert fetch.get(url).path.read_bytes() == BODY
    begin = int(calls[1].headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin <= 300_000
    assert calls[1].headers["If-Range"] == good.headers["ETag"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_of_a_changed_file_is_thrown_away(tmp_path: Path, website: Any) -> None:
    url = website.file("/i.jpg", BODY)
    good = website.pages["/i.jpg"]
    website.pages["/i.jpg"] = type(good)(BODY, 200, good.headers, cut=200_000)
    with fetcher(tmp_path, tries=1) as fetch, pytest.raises(FetchError, match="broke off"):
        fetch.get(url)
    assert [part.stat().st_size > 0 for part in tmp_path.rglob("*.part")] == [True]
    website.file("/i.jpg", BODY[::-1])
    with fetcher(tmp_path) as fetch:
        assert fetch.get(url).path.read_bytes() == BODY[::-1]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, website: Any) -> None:
    url = website.file("/j.jpg", BODY)
    with fetcher(tmp_path) as fetch:
        part = fetch.store.place(url, ".part")
        part.parent.mkdir(parents=True)
        part.write_bytes(BODY + b"more")
        fetch.store.keep(url, part=website.pages["/j.jpg"].headers["ETag"])
        assert fetch.get(url).path.read_bytes() == BODY


def test_a_part_that_cannot_be_continued_is_removed(tmp_path: Path, website: Any,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    url = website.file("/o.jpg", BODY)
    good = website.pages["/o.jpg"]
    with fetcher(tmp_path, tries=1) as fetch:
        website.pages["/o.jpg"] = type(good)(BODY, 200, {"ETag": 'W/"weak"'}, cut=200_000)
        with pytest.raises(FetchError, match="broke off"):
            fetch.get(url)
        assert not list(tmp_path.rglob("*.part")), "a weak ETag promises no bytes"
        website.pages["/o.jpg"] = good
        monkeypatch.setattr(fetching, "MAX_BYTES", 1 << 18)
        with pytest.raises(FetchError, match="larger than 0 MB"):
            fetch.get(url)
        assert not list(tmp_path.rglob("*.part")), "too large stays too large"
        monkeypatch.undo()
        website.pages["/o.jpg"] = type(good)(BODY, 200, good.headers, cut=200_000)
        with pytest.raises(FetchError, match="broke off"):
            fetch.get(url)
        assert list(tmp_path.rglob("*.part"))
        del website.pages["/o.jpg"]
        with pytest.raises(FetchError, match="404"):
            fetch.get(url)
        assert not list(tmp_path.rglob("*.part")), "a file that is gone has no rest"


KILLED = """
import sys
from pathlib import Path
from musicon.datasets.fetching import Fetcher, Manners
with Fetcher(Path(sys.argv[1]), Manners(per_second=500)) as fetch:
    for got in fetch.get_all(sys.argv[2:]):
        print(got.path, flush=True)
"""


def test_a_killed_run_goes_on(tmp_path: Path, website: Any) -> None:
    urls = [website.file(f"/{n}.jpg", BODY + bytes([n])) for n in range(12)]
    good, killed = website.pages["/7.jpg"], threading.Event()

    def hang(asked: Any) -> Any:
        killed.wait(60)
        return good

    website.pages["/7.jpg"] = hang
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "s"), *urls],
                           stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for _ in range(7):
        run.stdout.readline()
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    killed.set()
    website.pages["/7.jpg"] = good
    first = len(website.asked)
    with fetcher(tmp_path / "s") as fetch:
        got = list(fetch.get_all(urls))
    assert [g.path.read_bytes() for g in got if isinstance(g, Fetched)] == [
        BODY + bytes([n]) for n in range(12)]
    fresh = [asked.path for asked in website.asked[first:] if not asked.conditional]
    assert "/7.jpg" in fresh and not {f"/{n}.jpg" for n in range(7)} & set(fresh)


def test_dead_links_are_remembered(tmp_path: Path, website: Any) -> None:
    url = f"{website.url}/dead.jpg"
    for settings, count in (({}, 1), ({}, 1), ({"refetch": True}, 2)):
        with fetcher(tmp_path, **settings) as fetch, pytest.raises(FetchError, match="HTTP 404"):
            fetch.get(url)
        assert len(website.asked) == count


def test_a_silent_host_is_left_alone(tmp_path: Path, website: Any) -> None:
    address = website.url
    website.close()
    with fetcher(tmp_path, tries=2, workers=1) as fetch:
        found = list(fetch.get_all(f"{address}/{n}" for n in range(GIVE_UP + 3)))
        assert fetch.requests == 2 * GIVE_UP
    reasons = [error.reason for error in found if isinstance(error, FetchError)]
    assert len(reasons) == GIVE_UP + 3
    assert "no connection" in reasons[0] and "left alone" in reasons[-1]


def test_requests_keep_their_distance(tmp_path: Path, website: Any) -> None:
    urls = [website.file(f"/{n}", b"x") for n in range(6)]
    with fetcher(tmp_path, per_second=20, workers=4) as fetch:
        start = time.monotonic()
        assert len(list(fetch.get_all(urls))) == 6
    assert time.monotonic() - start >= 5 / 20


def test_offline_asks_nobody(tmp_path: Path, website: Any) -> None:
    url = website.file("/k.jpg", BODY)
    with fetcher(tmp_path) as fetch:
        fetch.get(url)
    with fetcher(tmp_path, offline=True) as fetch:
        assert fetch.get(url).path.read_bytes() == BODY
        with pytest.raises(FetchError, match="--offline"):
            fetch.get(f"{website.url}/l.jpg")
    with fetcher(tmp_path, max_age=1.0) as fetch:
        assert not fetch.get(url).changed
    assert len(website.asked) == 1


def test_a_key_stays_with_its_host(tmp_path: Path, website: Any,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    other = website.url.replace("127.0.0.1", "localhost")
    website.file("/m", b"m")
    website.pages["/go"] = type(website.pages["/m"])(b"", 302, {"Location": f"{other}/m"})
    website.pages["/closed"] = type(website.pages["/m"])(b"", 403)
    key = ApiKey("127.0.0.1", "X-Api-Key", "s3cret")
    with fetcher(tmp_path / "s", (key,)) as fetch:
        fetch.get(f"{website.url}/go")
        with pytest.raises(FetchError, match="check the key") as caught:
            fetch.get(f"{website.url}/closed")
    assert [asked.headers.get("X-Api-Key") for asked in website.asked] == [
        "s3cret", None, "s3cret"]
    kept = b"".join(file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file())
    assert b"s3cret" not in kept and "s3cret" not in str(caught.value)


def test_keys_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(UserError, match="set A_KEY, or add 'machine api.test login key") as caught:
        find_key("A_KEY", "api.test", "Free at api.test.")
    assert str(caught.value).endswith("Free at api.test.")
    file.write_text("machine api.test login key password from-file\n")
    assert find_key("A_KEY", "api.test", "") == "from-file"
    monkeypatch.setenv("A_KEY", "from-environment")
    assert find_key("A_KEY", "api.test", "") == "from-environment"
    monkeypatch.delenv("A_KEY")
    file.write_text("machine api.test password s3cret oops\n")
    with pytest.raises(UserError, match="netrc") as caught:
        find_key("A_KEY", "api.test", "")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("url", "shown"), [
    ("https://a.test/x?b=1", "https://a.test/x?b=1"),
    ("https://me:pw@a.test/x?b=1", "https://a.test/x?b=1"),
    ("https://a.test/x?b=1&api_key=S&Signature=T", "https://a.test/x?b=1&api_key=...&Signature=..."),
    ("https://[", "(unreadable address)")])
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert public_url(url) == shown
    assert str(FetchError(url, "gone")) == f"{shown}: gone"


def test_addresses_are_made_whole() -> None:
    assert full_url(" https://a.test/Bild ä.jpg ", {"q": "viola da gamba", "qf": ["a:b", "c"]}) == \
        "https://a.test/Bild%20%C3%A4.jpg?q=viola+da+gamba&qf=a%3Ab&qf=c"
    assert full_url("https://a.test/x%20y?z=1#top") == "https://a.test/x%20y?z=1"
    for wrong in ("file:lute.jpg", "ftp://a.test/x", "violin.jpg", "", "http://"):
        with pytest.raises(FetchError, match="not an http or https address"):
            full_url(wrong)


def test_a_store_serves_one_run_at_a_time(tmp_path: Path) -> None:
    with fetcher(tmp_path), pytest.raises(UserError, match="another run is using it"):
        fetcher(tmp_path)


def test_notes_are_kept(tmp_path: Path) -> None:
    with fetcher(tmp_path) as fetch:
        fetch.store.set_notes({"oai/a": {"x": 1}, "oai/b": [2], "other": 3})
        fetch.store.set_notes({"oai/a": None})
    with fetcher(tmp_path) as fetch:
        assert fetch.store.notes("oai/") == {"b": [2]}
        assert fetch.store.note("other") == 3 and fetch.store.note("oai/a") is None


def test_ctrl_c_does_not_wait_for_a_sleeping_thread(tmp_path: Path, website: Any) -> None:
    website.file("/slow", BODY)
    website.pages["/slow"] = type(website.pages["/slow"])(b"", 503, {"Retry-After": "60"})
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "s"),
                            f"{website.url}/slow"], stderr=subprocess.DEVNULL)
    while not website.asked:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(10) != 0
