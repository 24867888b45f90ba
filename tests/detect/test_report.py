"""The report: one file, complete, honest about gaps, safe with odd names."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from colour_model import pictures
from PIL import Image

from musicon.datasets.records import Box, Category, ImageRecord, Manifest, Rejects
from musicon.detect.calibration import crop_metrics
from musicon.detect.detections import Detections
from musicon.detect.evaluation import DetectionMetrics, evaluate
from musicon.detect.examples import COLOURS, FALSE_ALARM, MISNAMED, MISSED, RIGHT, galleries
from musicon.detect.report import Report, cards, render, threshold_rows, write_report


def predicted(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int64), values[:, 4],
                      values[:, 4], (600, 300))


@pytest.fixture
def case(tmp_path: Path) -> tuple[Manifest, DetectionMetrics]:
    """Picture 1 right, 2 misnamed, 3 half missed, 4 with a false alarm."""
    data = pictures(tmp_path / "pictures")
    found = {1: predicted((75, 60, 225, 210, 0.9, 1)), 2: predicted((75, 60, 225, 210, 0.8, 1)),
             3: predicted((75, 60, 225, 210, 0.7, 1)), 4: predicted((10, 10, 90, 90, 0.6, 2))}
    return data, evaluate(data, found, threshold=0.5, bootstrap=50)


class Tags(HTMLParser):
    """Collects what a page would load and checks that its tags close."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1] in ("li", "p", "tr") and tag != self.open[-1]:
            self.open.pop()
        assert self.open.pop() == tag


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_galleries_show_each_kind_of_picture(case: tuple[Manifest, DetectionMetrics]) -> None:
    data, metrics = case
    shown = {gallery.title: [example.record.id for example in gallery.examples]
             for gallery in galleries(data, metrics)}
    assert shown == {"Found and named rightly": [1], "False alarms": [4], "Missed": [3],
                     "Found, but taken for another": [2]}
    kinds = {finding.kind: finding.text for gallery in galleries(data, metrics)
             for example in gallery.examples for finding in example.findings}
    assert kinds == {RIGHT: "lute 70%", MISNAMED: "harp taken for lute 80%",
                     FALSE_ALARM: "false alarm: harp 60%", MISSED: "missed: harp"}


def test_pictures_carry_the_colours_of_their_findings(
        case: tuple[Manifest, DetectionMetrics]) -> None:
    data, metrics = case
    for gallery in galleries(data, metrics):
        for example in gallery.examples:
            image = np.asarray(Image.open(io.BytesIO(example.jpeg)).convert("RGB")).astype(int)
            for finding in example.findings:
                apart = np.abs(image - np.array(COLOURS[finding.kind])).max(axis=2)
                assert (apart < 25).sum() > 100, (gallery.title, finding.kind)


def test_limit_and_unreadable_pictures(case: tuple[Manifest, DetectionMetrics]) -> None:
    data, metrics = case
    Path(data.path(data.images[3])).unlink()
    rejects = Rejects()
    shown = galleries(data, metrics, limit=1, rejects=rejects)
    assert [len(gallery.examples) for gallery in shown] == [1, 0, 1, 1]
    assert "1 in all" in shown[1].note and len(rejects) == 1


def test_page_is_whole_and_loads_nothing(
        case: tuple[Manifest, DetectionMetrics], tmp_path: Path) -> None:
    data, metrics = case
    report = Report(metrics, {"model": "runs/cytomine", "data": "data/x"},
                    crops=crop_metrics([[0.1, 0.8, 0.1]], [1]),
                    galleries=galleries(data, metrics), plots={"curve": b"\x89PNG"},
                    notes=["Mind the gap."])
    write_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = read(page)
    assert tags.addresses and all(a.startswith("data:image/") for a in tags.addresses)
    assert not re.search(r"https?://|@import|url\(", page)
    assert tags.tags.count("img") == 4 + 1 + 1  # pictures, plot, enlarged picture
    jpeg = base64.b64decode(tags.addresses[0].partition(",")[2])
    assert Image.open(io.BytesIO(jpeg)).format == "JPEG"
    for words in ("Mind the gap.", "75%", "3 of 4", "runs/cytomine", "Colour field", "top-3"):
        assert words in page, words


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    categories = (Category(1, "<script>alert(1)</script>"),
                  Category(2, 'lute "à l\'italienne" & co'))
    data = Manifest(tmp_path, categories, (ImageRecord(
        1, "a b.jpg", 600, 300, (Box((75, 60, 225, 210), 1), Box((300, 60, 400, 210), 2))),))
    metrics = evaluate(data, {})
    page = render(Report(metrics, {"model": "</title><b>"}))
    assert "<script>alert" not in page and "</title><b>" not in page
    read(page)


def test_page_of_nothing(tmp_path: Path) -> None:
    metrics = evaluate(Manifest(tmp_path, (), ()), {})
    page = render(Report(metrics, {"model": "x"}))
    assert "None" not in page and "nan" not in page.split("<script>")[0]
    assert [card.value for card in cards(metrics)] == ["–"] * 4
    read(page)


def test_gaps_are_told_in_words(tmp_path: Path) -> None:
    model = (Category(1, "lute"), Category(2, "kazoo"))
    data = pictures(tmp_path)
    metrics = evaluate(data, {1: predicted((75, 60, 225, 210, 0.9, 2))}, threshold=0.5,
                       model_categories=model)
    page = render(Report(metrics, {"model": "x"}))
    for words in ("never taught harp", "confirm kazoo", "1 pictures were left out",
                  "For 3 pictures there is no prediction"):
        assert words in page, words


def test_a_partly_boxed_picture_is_told_and_shows_only_a_persons_boxes(
        case: tuple[Manifest, DetectionMetrics]) -> None:
    data, whole = case
    partly = replace(data, images=(replace(data.images[0], labels=(1, 2)), *data.images[1:]))
    found = {1: predicted((75, 60, 225, 210, 0.9, 1))}
    metrics, whole = (evaluate(d, found, threshold=0.5) for d in (partly, data))
    assert "1 pictures hold more kinds" in render(Report(metrics, {"model": "x"}))
    first, same = (galleries(d, m)[0].examples[0].jpeg
                   for d, m in ((partly, metrics), (data, whole)))
    assert first == same


def test_thresholds_trade_finds_for_alarms(case: tuple[Manifest, DetectionMetrics]) -> None:
    _, metrics = case
    rows = threshold_rows(replace(metrics, threshold=0.65))
    chosen = [row for row in rows if row["chosen"]]
    assert len(chosen) == 1 and chosen[0]["counts"].hits == 3 and chosen[0]["alarms"] == 0
    hits = [row["counts"].hits for row in rows]
    assert hits == sorted(hits, reverse=True) and rows[0]["alarms"] == 1.0
