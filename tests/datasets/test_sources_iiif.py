"""IIIF manifests of both versions, and an image service on this machine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musicon.datasets import command, prepare
from musicon.datasets.records import Manifest
from musicon.datasets.services import iiif

Run = Callable[..., int]


class Service:
    """An Image API server of seeded noise images, at level 2 or with fixed sizes (level 0)."""

    def __init__(self, website: Any, version: int = 2, level: int = 2) -> None:
        website.file("/_", b"")
        self.answer = type(website.pages["/_"])
        self.url, self.version, self.level = website.url, version, level
        self.asked: list[str] = []
        self.website = website

    def add(self, name: str, width: int, height: int, **more: Any) -> str:
        base = f"{self.url}/{name}"
        info: dict[str, Any] = {
            "@context": f"http://iiif.io/api/image/{self.version}/context.json",
            "width": width, "height": height, **more}
        if self.version == 3:
            info |= {"id": base, "type": "ImageService3", "profile": f"level{self.level}"}
        else:
            info |= {"@id": base, "profile": [f"http://iiif.io/api/image/2/level{self.level}.json"]}
        self.website.pages[f"/{name}/info.json"] = self.answer(
            json.dumps(info).encode(), headers={"ETag": f'"{name}"'})
        full = "max" if self.version == 3 else "full"
        sizes = {full: (width, height)}
        for wide in (80, 100, 200):
            size = (wide, round(height * wide / width))
            sizes[f"{size[0]},{size[1]}" if self.level == 0 and self.version == 3
                  else f"{wide},"] = size
        for text, size in sizes.items():
            stream = io.BytesIO()
            rng = np.random.default_rng(sum(name.encode()))
            Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(
                stream, "JPEG")
            self.website.pages[f"/{name}/full/{text}/0/default.jpg"] = self.answer(
                stream.getvalue(),
                headers={"ETag": f'"{name}{text}"', "Content-Type": "image/jpeg"})
        return base


def manifest_2(base: str, url: str) -> dict[str, Any]:
    return {
        "@context": "http://iiif.io/api/presentation/2/context.json", "@type": "sc:Manifest",
        "@id": f"{url}/m2.json", "label": {"@value": "Psalter", "@language": "en"},
        "license": "https://creativecommons.org/publicdomain/zero/1.0/",
        "attribution": "<b>A library</b>",
        "metadata": [{"label": "Date", "value": "c. 1320"},
                     {"label": [{"@value": "Auteur", "@language": "fr"},
                                {"@value": "Creator", "@language": "en"}], "value": ["Unknown"]}],
        "sequences": [{"@type": "sc:Sequence", "canvases": [
            {"@id": f"{url}/canvas/1", "@type": "sc:Canvas", "label": "fol. 1r", "width": 4000,
             "height": 3000, "images": [{"@type": "oa:Annotation", "motivation": "sc:painting",
              "on": f"{url}/canvas/1#xywh=0,100,4000,2800", "resource": {
                  "@id": f"{base}/full/full/0/default.jpg", "@type": "dctypes:Image",
                  "service": {"@context": "http://iiif.io/api/image/2/context.json", "@id": base,
                              "profile": "http://iiif.io/api/image/2/level2.json"}}}]},
            {"@id": f"{url}/canvas/2", "@type": "sc:Canvas", "label": "cover", "width": 1,
             "height": 1, "images": []}]}]}


def manifest_3(base: str, url: str, name: str = "m3") -> dict[str, Any]:
    return {
        "@context": "http://iiif.io/api/presentation/3/context.json", "type": "Manifest",
        "id": f"{url}/{name}.json", "label": {"de": ["Engel"], "en": ["Angels"]},
        "rights": "http://rightsstatements.org/vocab/NoC-NC/1.0/",
        "requiredStatement": {"label": {"en": ["Credit"]}, "value": {"en": ["A museum"]}},
        "items": [{"id": f"{url}/{name}/1", "type": "Canvas", "label": {"none": ["1"]},
                   "width": 400, "height": 300, "items": [{"type": "AnnotationPage", "items": [{
                       "type": "Annotation", "motivation": "painting",
                       "target": f"{url}/{name}/1", "body": {"type": "Choice", "items": [{
                           "id": f"{base}/full/max/0/default.jpg", "type": "Image",
                           "service": [{"id": f"{base}/", "type": "ImageService3",
                                        "profile": "level2"}]}]}}]}]}]}


@pytest.mark.parametrize(("info", "side", "expected"), [
    ({"profile": ["http://iiif.io/api/image/2/level2.json"]}, 1000, "full/1000,/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level1.json"]}, None, "full/full/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level2.json"]}, 9000, "full/full/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level1.json", {"maxWidth": 800}]}, None,
     "full/800,/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level1.json", {"maxArea": 3_000_000}]}, None,
     "full/2000,/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level0.json"], "sizes": [
        {"width": 500, "height": 375}, {"width": 1000, "height": 750}]}, 600,
     "full/1000,/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level0.json"], "sizes": [
        {"width": 500, "height": 375}]}, 600, "full/500,/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level0.json"]}, 600, "full/full/0/default"),
    ({"profile": ["http://iiif.io/api/image/2/level0.json", {"supports": ["sizeByW"]}]}, 600,
     "full/600,/0/default"),
    ({"@context": "http://iiif.io/api/image/3/context.json", "profile": "level1"}, 600,
     "full/600,/0/default"),
    ({"@context": "http://iiif.io/api/image/3/context.json", "profile": "level0", "sizes": [
        {"width": 1000, "height": 750}]}, 600, "full/1000,750/0/default"),
    ({"@context": "http://iiif.io/api/image/3/context.json", "profile": "level2"}, None,
     "full/max/0/default"),
    ({"profile": "http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level1"}, 600,
     "full/600,/0/native")])
def test_image_addresses(info: dict[str, Any], side: int | None, expected: str) -> None:
    whole = {"@id": "https://i.example/a/", "width": 4000, "height": 3000, **info}
    assert iiif.image_url(whole, side) == f"https://i.example/a/{expected}.jpg"


def test_canvases_of_version_2() -> None:
    found = list(iiif.canvases(manifest_2("https://i.example/a", "https://m.example")))
    assert found == [iiif.Canvas(
        "https://m.example/canvas/1", "https://m.example/m2.json", "Psalter", "fol. 1r",
        (4000, 3000), (0.0, 100.0, 4000.0, 2800.0), "https://i.example/a/full/full/0/default.jpg",
        "https://i.example/a", "https://creativecommons.org/publicdomain/zero/1.0/; A library",
        {"date": "c. 1320", "creator": "Unknown"})]


def test_canvases_of_version_3() -> None:
    found = list(iiif.canvases(manifest_3("https://i.example/a", "https://m.example")))
    assert found == [iiif.Canvas(
        "https://m.example/m3/1", "https://m.example/m3.json", "Angels", "1", (400, 300), None,
        "https://i.example/a/full/max/0/default.jpg", "https://i.example/a",
        "http://rightsstatements.org/vocab/NoC-NC/1.0/; A museum", {})]


def test_a_collection_becomes_a_data_set(run: Run, tmp_path: Path, website: Any) -> None:
    two, three = Service(website), Service(website, 3, 0)
    first = two.add("a", 400, 300)
    second = three.add("b", 400, 300, sizes=[{"width": 100, "height": 75},
                                             {"width": 400, "height": 300}])
    answer, url = two.answer, website.url
    website.file("/plain.jpg", website.pages["/a/full/80,/0/default.jpg"].body)
    plain = manifest_3("", url, "m4")
    plain["items"][0]["items"][0]["items"][0]["body"] = {
        "id": f"{url}/plain.jpg", "type": "Image"}
    for name, document in (("m2", manifest_2(first, url)), ("m3", manifest_3(second, url)),
                           ("m4", plain), ("broken", {"type": "Range"})):
        website.pages[f"/{name}.json"] = answer(json.dumps(document).encode(),
                                                headers={"ETag": f'"{name}"'})
    top = tmp_path / "top.json"
    top.write_text(json.dumps({
        "type": "Collection", "id": "x", "label": {"en": ["all"]}, "items": [
            {"id": f"{url}/m2.json", "type": "Manifest"}, {"id": f"{url}/m3.json"},
            {"id": f"{url}/m4.json"}, {"id": f"{url}/broken.json"}, {"id": f"{url}/m2.json"},
            {"id": f"{url}/gone.json"}]}))
    arguments = ["iiif", top, "--side", 100, "--rate", 500, "--out", tmp_path / "out", "--quiet"]
    assert run(*arguments) == command.DONE_WITH_REJECTS
    manifest = Manifest.read(tmp_path / "out")
    images = {r.attributes["title"] + r.group[-7:-5]: r for r in manifest.images if r.group}
    assert {name: (r.width, r.height) for name, r in images.items()} == {
        "Psalterm2": (100, 75), "Angelsm3": (100, 75), "Angelsm4": (80, 60)}
    psalter = images["Psalterm2"]
    assert psalter.labels is None and psalter.rights and psalter.rights.endswith("A library")
    assert psalter.extra["iiif"] == {
        "canvas": f"{url}/canvas/1", "manifest": f"{url}/m2.json", "canvas_size": [4000, 3000],
        "service": first, "region": [0.0, 100.0, 4000.0, 2800.0]}
    assert psalter.attributes["page"] == "fol. 1r" and psalter.attributes["date"] == "c. 1320"
    reasons = (tmp_path / "out" / prepare.REJECTS_NAME).read_text()
    assert "found 'Range'" in reasons and "HTTP 404" in reasons
    before = len(website.asked)
    run(*arguments)
    again = [a for a in website.asked[before:] if a.path != "/broken.json"]
    assert len(again) == 8 and all(asked.conditional for asked in again)


def test_a_manifest_of_one_class(run: Run, tmp_path: Path, website: Any) -> None:
    base = Service(website, 3).add("a", 200, 100)
    file = tmp_path / "m.json"
    file.write_text(json.dumps(manifest_3(base, website.url)))
    for name, expected in (("Laute", ["lute"]), ("negative", [])):
        assert run("iiif", file, "--class", name, "--side", 0, "--rate", 500, "--out",
                   tmp_path / name, "--quiet") == command.DONE
        manifest = Manifest.read(tmp_path / name)
        assert [[manifest.names[i] for i in r.labels or ()] for r in manifest.images] == [expected]
        assert manifest.images[0].width == 200


@pytest.mark.parametrize(("text", "words"), [
    ("[1]", "expected a IIIF manifest or collection"), ("{", "not a readable JSON file"),
    ('{"type": "Manifest", "items": []}', "no images in what was named")])
def test_what_is_no_iiif(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                         text: str, words: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert run("iiif", tmp_path / "x.json", "--out", tmp_path / "out") == command.UNUSABLE
    assert words in capsys.readouterr().err
