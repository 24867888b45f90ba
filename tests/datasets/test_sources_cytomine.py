"""Cytomine's own client against a server that speaks its API."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cytomine_server import PRIVATE, PUBLIC, Cytomine, running
from PIL import Image

from musicon.datasets.records import Rejects, UserError
from musicon.datasets.sources import cytomine as source
from musicon.datasets.sources.base import SourceData, SourceError

Reader = Callable[..., tuple[SourceData, Rejects]]


def test_without_the_client(monkeypatch: pytest.MonkeyPatch, read_source: Reader) -> None:
    monkeypatch.setitem(sys.modules, "cytomine.models", None)
    with pytest.raises(ImportError, match="pip install 'musicon\\[cytomine\\]'"):
        read_source("cytomine", "localhost", "5")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cytomine]:
    pytest.importorskip("cytomine.models")
    monkeypatch.setenv("CYTOMINE_PUBLIC_KEY", PUBLIC)
    monkeypatch.setenv("CYTOMINE_PRIVATE_KEY", PRIVATE)
    monkeypatch.setattr(source, "PATIENCE", 0.01)
    with running() as made:
        made.add_image(100, 400, 200)
        made.add_image(101, 300, 300)
        # Its lower left corner is (40, 20), y pointing up from the lower edge of 200 pixels.
        made.draw(100, "POLYGON ((40 20, 140 20, 140 60, 90 80, 40 60, 40 20))", [31])
        yield made


@pytest.fixture
def fetch(server: Cytomine, read_source: Reader, tmp_path: Path) -> Reader:
    def run(*arguments: object) -> tuple[SourceData, Rejects]:
        return read_source("cytomine", server.url, "instruments", "--store", tmp_path / "store",
                           *arguments)
    return run


def test_polygon_becomes_a_tight_box_with_y_down(fetch: Reader) -> None:
    data, rejects = fetch("--size", "200")
    (path, record), (_, silent) = data.records
    assert (record.width, record.height) == (200, 100) and not rejects.rows
    assert [c.name for c in data.categories] == ["lute"]
    # y 20..80 up from 200 is 120..180 down; at half size everything is halved.
    assert record.boxes[0].xyxy == (20, 60, 70, 90)
    assert silent.labels is None and silent.boxes == ()
    assert record.group == "cytomine 100" and record.extra["cytomine"]["part"] == [0, 0, 400, 200]
    assert path.name == "100_Painting 100_200.jpg" and "image/100" in (record.source_url or "")


def test_second_run_fetches_no_picture_again(fetch: Reader, server: Cytomine) -> None:
    fetch()
    pictures = [path for path in server.asked if "thumb" in path]
    assert len(pictures) == 2
    server.draw(101, "POLYGON ((0 0, 30 0, 30 30, 0 30, 0 0))", [32])
    data, _ = fetch()
    assert [path for path in server.asked if "thumb" in path] == pictures
    assert data.records[1][1].boxes[0].xyxy == (0, 270, 30, 300)


def test_windows_hold_their_share(fetch: Reader) -> None:
    data, _ = fetch("--window", "100", "--size", "100", "--unannotated", "reject")
    records = [(path, r) for path, r in data.records if r.group == "cytomine 100"]
    parts = [r.extra["cytomine"]["part"] for _, r in records]
    assert {p[0] for p in parts} == {0, 75, 150, 225, 300} and {p[1] for p in parts} == {0, 50, 100}
    boxes = {tuple(r.extra["cytomine"]["part"]): r.boxes for _, r in records}
    # The box is (40, 120, 140, 180): 60 % of it in the first window, 65 % in the second.
    assert boxes[0, 100, 100, 200][0].xyxy == (40, 20, 100, 80)
    assert boxes[75, 100, 175, 200][0].xyxy == (0, 20, 65, 80)
    assert boxes[0, 50, 100, 150][0].iscrowd and boxes[300, 0, 400, 100] == ()
    path, record = next(row for row in records if row[1].extra["cytomine"]["part"][0] == 300)
    red = np.asarray(Image.open(path))[:, 0, 0].mean()
    assert red == pytest.approx(255 * 300 / 399, abs=3)  # the window is where it says


def test_reviews_take_the_place_of_what_they_review(fetch: Reader, server: Cytomine) -> None:
    drawn = server.annotations[0]
    server.draw(100, "POLYGON ((50 50, 90 50, 90 90, 50 90, 50 50))", [32], user=52,
                parentIdent=drawn["id"])
    server.draw(101, "POLYGON ((0 0, 30 0, 30 30, 0 30, 0 0))", [31])
    counts = {}
    for choice in ("prefer", "only", "ignore"):
        data, _ = fetch("--reviews", choice)
        names = {c.id: c.name for c in data.categories}
        counts[choice] = [[names[b.label] for b in r.boxes] for _, r in data.records]
    assert counts == {"prefer": [["violin"], ["lute"]], "only": [["violin"], []],
                      "ignore": [["lute"], ["lute"]]}


def test_users(fetch: Reader, server: Cytomine) -> None:
    server.draw(100, "POLYGON ((41 20, 140 20, 140 80, 41 80, 41 20))", [31], user=52)
    server.draw(100, "POLYGON ((200 20, 240 20, 240 80, 200 80, 200 20))", [31], user=52)
    data, _ = fetch()
    assert len(data.records[0][1].boxes) == 2 and "drawn twice" in data.notes[0]
    data, _ = fetch("--users", "bob")
    assert [b.extra["user"] for b in data.records[0][1].boxes] == [52, 52]
    with pytest.raises(SourceError, match="--users eve: not a user of the project; there are: ann"):
        fetch("--users", "eve")


def test_unusable_outlines_are_listed(fetch: Reader, server: Cytomine) -> None:
    server.draw(101, "POINT (20 30)", [31])
    server.draw(101, "POLYGON ((0 0, 30 0, 30 30, 0 30, 0 0))", [])
    server.add_image(102, 50, 50, reviewed=True)
    data, rejects = fetch()
    reasons = [reason for _, reason in rejects.rows]
    assert any("a POINT without width" in r for r in reasons)
    assert any("it has no term" in r for r in reasons)
    spoilt, looked_at = data.records[1][1], data.records[2][1]
    assert spoilt.labels is None and looked_at.is_negative


def test_original_files_and_a_busy_server(fetch: Reader, server: Cytomine) -> None:
    server.failures = 2
    data, rejects = fetch("--original")
    assert data.records[0][0].name == "100_Painting 100.jpg" and not rejects.rows
    assert data.records[0][1].boxes[0].xyxy == (40, 120, 140, 180)


def test_what_the_server_keeps_refusing_is_left_out(fetch: Reader, server: Cytomine) -> None:
    server.failures = source.TRIES
    data, rejects = fetch()
    assert len(data.records) == 1 and "refused or failed 4 times" in rejects.rows[0][1]


def test_windows_go_on_where_one_is_refused(fetch: Reader, server: Cytomine) -> None:
    whole, _ = fetch("--window", "250", "--size", "50", "--unannotated", "negative")
    server.failures = source.TRIES
    data, rejects = fetch("--window", "250", "--size", "60", "--unannotated", "negative")
    assert len(data.records) == len(whole.records) - 1
    ((file, reason),) = rejects.rows
    assert file == "Painting 100.jpg"
    assert reason.startswith("window from 0, 0 to 250, 200: the server refused or failed 4 times")


@pytest.mark.parametrize("status", [401, 403])
def test_what_the_account_may_not_have_is_asked_for_once(fetch: Reader, server: Cytomine,
                                                         status: int) -> None:
    server.refused = {100: status}
    data, rejects = fetch("--window", "250", "--size", "50", "--unannotated", "negative")
    assert {record.group for _, record in data.records} == {"cytomine 101"}
    assert sum("imageinstance/100/window" in path for path in server.asked) == 1
    assert [reason.partition(": ")[0] for _, reason in rejects.rows] == [
        "window from 0, 0 to 250, 200", "window from 150, 0 to 400, 200"]  # none unlisted
    for _, reason in rejects.rows:
        assert f"refuses this to your account (HTTP {status}" in reason
        assert "ask the project's manager for the right" in reason
    (_, reason), = fetch("--original")[1].rows
    assert reason.endswith("run the same command again, or leave --original out")


def test_an_account_without_any_right_is_told_what_to_do(fetch: Reader, server: Cytomine) -> None:
    server.refused = {100: 403, 101: 403}
    with pytest.raises(SourceError, match="no picture that can be used; Painting 101.jpg: .* ask "
                                          "the project's manager for the right"):
        fetch()


def test_no_key_is_ever_shown(fetch: Reader, server: Cytomine, monkeypatch: pytest.MonkeyPatch,
                              capfd: pytest.CaptureFixture[str],
                              caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    fetch()
    monkeypatch.setenv("CYTOMINE_PRIVATE_KEY", "wrong-secret")
    with pytest.raises(SourceError, match="does not know these keys") as refused:
        fetch()
    shown = "".join(capfd.readouterr()) + caplog.text + str(refused.value)
    assert PUBLIC not in shown and PRIVATE not in shown and "wrong-secret" not in shown
    assert "CYTOMINE " not in shown  # the authorization header


def test_unusable(fetch: Reader, server: Cytomine, read_source: Reader, tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="no such project .* there are: 5 Instruments"):
        read_source("cytomine", server.url, "Birds", "--store", tmp_path)
    with pytest.raises(SourceError, match="no Cytomine server answers"):
        read_source("cytomine", "http://127.0.0.1:9", "5", "--store", tmp_path)
    monkeypatch.delenv("CYTOMINE_PUBLIC_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match="set CYTOMINE_PUBLIC_KEY"):
        fetch()
