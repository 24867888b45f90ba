"""Found boxes sent by Cytomine's own client, and read back by the source."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cytomine_server import PRIVATE, PUBLIC, Cytomine, running

from musicon.datasets import command
from musicon.datasets.records import Box, Category, ImageRecord, Manifest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cytomine]:
    pytest.importorskip("cytomine.models")
    monkeypatch.setenv("CYTOMINE_PUBLIC_KEY", PUBLIC)
    monkeypatch.setenv("CYTOMINE_PRIVATE_KEY", PRIVATE)
    with running() as made:
        made.add_image(100, 400, 200)
        made.draw(100, "POLYGON ((40 20, 140 20, 140 80, 40 80, 40 20))", [31])
        yield made


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Tool:
    monkeypatch.chdir(tmp_path)

    def call(name: str, *arguments: object) -> tuple[int, str]:
        spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        code = command.run(tool.main, tool.parser(), [str(a) for a in arguments])
        return code, "".join(capsys.readouterr())

    return call


def predictions(file: Path, data: Manifest, *boxes: Box) -> None:
    """What ``infer.py`` writes of the first picture."""
    record = data.images[0]
    found = ImageRecord(1, record.file_name, record.width, record.height, boxes)
    document = Manifest(data.root, (Category(1, "lute"), Category(2, "harp")), (found,),
                        {"threshold": 0.1}).to_coco()
    document["images"][0]["file_name"] = str(data.path(record))
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document))


def test_there_and_back(server: Cytomine, run: Tool, tmp_path: Path) -> None:
    code, said = run("prepare_data", "cytomine", server.url, "5", "--size", "200", "--out", "data")
    assert code == 0, said
    data = Manifest.read(tmp_path / "data")
    predictions(tmp_path / "found/detections.json", data,
                Box((20, 60, 70, 90), 1, "pseudo", 0.875), Box((0, 0, 50, 25), 2, "pseudo", 0.5),
                Box((1, 0, 50, 25), 2, "pseudo", 0.4), Box((100, 0, 150, 25), 1, "pseudo", 0.05))
    upload = ("upload", "--data", "data", "--predictions", "found", "--host", server.url,
              "--project", "Instruments", "--threshold", "0.1")
    code, said = run(*upload)
    assert code == 1 and "no such term" in said, said
    assert "sent 1 box to the layer of musicon" in said
    sent = server.annotations[-1]
    assert sent["location"] == "POLYGON ((40 20, 140 20, 140 80, 40 80, 40 20))"
    assert (sent["term"], sent["user"]) == ([31], 53)
    score = server.properties[0]
    assert (score["annotation"], score["key"], score["value"]) == (
        sent["id"], "musicon score", "0.875")
    code, said = run(*upload, "--create-terms")
    assert code == 0 and "terms added: harp" in said
    assert "sent 1 box " in said and "1 were sent before" in said
    assert server.annotations[-1]["location"].startswith("POLYGON ((0 150, 100 150, 100 200")
    assert "sent 0 boxes" in run(*upload)[1] and len(server.annotations) == 3


def test_pictures_of_another_source(server: Cytomine, run: Tool, tmp_path: Path) -> None:
    record = ImageRecord(1, "a.jpg", 40, 30)
    data = Manifest(tmp_path / "other", (Category(1, "lute"),), (record,))
    data.write(tmp_path / "other")
    predictions(tmp_path / "found/detections.json", data, Box((1, 1, 9, 9), 1, "pseudo", 0.9))
    code, said = run("upload", "--data", "other", "--predictions", "found", "--host", server.url,
                     "--project", "5")
    assert code == 2 and "do not come from Cytomine" in said
