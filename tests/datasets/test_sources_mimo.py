"""Museum photos from a repository, from Europeana and from a folder, to a data set."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from musicon.datasets import command, prepare
from musicon.datasets.atelier.works import draw_work
from musicon.datasets.records import Manifest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., int]


def jpeg(index: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(draw_work(5, "mimo", index).rgb).save(stream, "JPEG", quality=90)
    return stream.getvalue()


RECORD = """<record><header{deleted}><identifier>oai:m:{n}</identifier></header><metadata>
<lido:lido xmlns:lido="http://www.lido-schema.org"><lido:lidoRecID>M:{n}</lido:lidoRecID>
<lido:descriptiveMetadata><lido:objectClassificationWrap><lido:objectWorkTypeWrap>
<lido:objectWorkType><lido:conceptID>http://www.mimo-db.eu/InstrumentsKeywords/{keyword}
</lido:conceptID></lido:objectWorkType></lido:objectWorkTypeWrap></lido:objectClassificationWrap>
</lido:descriptiveMetadata><lido:administrativeMetadata><lido:resourceWrap><lido:resourceSet>
<lido:resourceRepresentation><lido:linkResource>{url}</lido:linkResource>
</lido:resourceRepresentation><lido:rightsResource><lido:rightsType><lido:term>CC BY 4.0
</lido:term></lido:rightsType></lido:rightsResource></lido:resourceSet></lido:resourceWrap>
</lido:administrativeMetadata></lido:lido></metadata></record>"""


def repository(website: Any, records: str, date: str = "2026-01-01T00:00:00Z") -> str:
    def page(asked: Any) -> Any:
        listed = records if asked.query.get("from", "") <= date else ""
        body = "<Identify><granularity>YYYY-MM-DDThh:mm:ssZ</granularity></Identify>" \
            if asked.query["verb"] == "Identify" else f"<ListRecords>{listed}</ListRecords>" \
            if listed else '<error code="noRecordsMatch"/>'
        return answer(f'<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><responseDate>'
                      f"2026-01-0{2 if date < '2026-01-02' else 5}T00:00:00Z</responseDate>{body}"
                      f"</OAI-PMH>".encode())

    website.file("/_", b"")
    answer = type(website.pages["/_"])
    website.pages["/oai"] = page
    return f"{website.url}/oai"


def records(website: Any, numbers: range, keyword: int) -> str:
    return "".join(RECORD.format(n=n, keyword=keyword, deleted="",
                                 url=website.file(f"/{n}.jpg", jpeg(n))) for n in numbers)


def test_a_harvest_becomes_a_data_set_and_tomorrow_fetches_what_is_new(
        run: Run, tmp_path: Path, website: Any) -> None:
    listed = records(website, range(4), 3573) + records(website, range(4, 7), 3285)
    listed += RECORD.format(n=7, keyword=3285, deleted="", url=f"{website.url}/gone.jpg")
    listed += RECORD.format(n=8, keyword=4455, deleted="", url=f"{website.url}/tuba.jpg")
    address = repository(website, listed)
    arguments = ["mimo", "--oai", address, "--keywords", 3564, 3265, "--rate", 500,
                 "--out", tmp_path / "mimo", "--quiet"]
    assert run(*arguments) == command.DONE_WITH_REJECTS
    manifest = Manifest.read(tmp_path / "mimo")
    assert [c.name for c in manifest.categories] == ["harp", "violin"]
    assert len(manifest) == 7 and {r.domain for r in manifest.images} == {"mimo"}
    first = next(r for r in manifest.images if r.file_name.endswith("violin/M_0_1.jpg"))
    assert first.rights == "CC BY 4.0" and first.source_url == f"{website.url}/0.jpg"
    assert first.group == "M:0" and [box.origin for box in first.boxes] == ["foreground"]
    rejects = [json.loads(line) for line in
               (tmp_path / "mimo" / prepare.REJECTS_NAME).read_text().splitlines()]
    assert [(row["file"], row["reason"][:8]) for row in rejects] == [
        (f"{website.url}/gone.jpg", "HTTP 404")]
    assert not [asked for asked in website.asked if asked.path == "/tuba.jpg"]
    report = tmp_path / "mimo-store" / "report"
    assert sorted(p.name for p in report.iterdir()) == ["harp.png", "quality.csv", "violin.png"]

    before, wrote = len(website.asked), (tmp_path / "mimo/manifest.json").read_bytes()
    assert run(*arguments) == command.DONE_WITH_REJECTS
    again = website.asked[before:]
    assert all(asked.conditional for asked in again if asked.path != "/oai")
    assert len([a for a in again if a.path != "/oai"]) == 7  # the dead link is not asked for
    assert [a.query["from"] for a in again if a.path == "/oai"] == ["2026-01-02T00:00:00Z"]
    assert (tmp_path / "mimo/manifest.json").read_bytes() == wrote

    repository(website, records(website, range(9, 10), 3573), "2026-01-03T00:00:00Z")
    before = len(website.asked)
    assert run(*arguments) == command.DONE_WITH_REJECTS
    assert [a.path for a in website.asked[before:] if not a.conditional and a.path != "/oai"] == [
        "/9.jpg"]
    grown = Manifest.read(tmp_path / "mimo")
    assert len(grown) == 8
    splits = {r.sha256: r.split for r in manifest.images}
    assert all(splits.get(r.sha256, r.split) == r.split for r in grown.images)


def test_europeana_becomes_a_data_set(run: Run, tmp_path: Path, website: Any,
                                      monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    website.file("/_", b"")
    answer = type(website.pages["/_"])
    for n in range(3):
        url = website.file(f"/{n}.jpg", jpeg(n))
        website.pages[f"/record/v2/1/{n}.json"] = answer(json.dumps({"success": True, "object": {
            "about": f"/1/{n}", "aggregations": [{
                "edmIsShownBy": url, "edmRights": {"def": ["http://licence.example/by/"]},
                "edmDataProvider": {"en": ["A museum"]}}],
            "concepts": [{"about": "http://www.mimo-db.eu/InstrumentsKeywords/3573"}],
            "proxies": [{"dcTitle": {"en": [f"Violin {n}"]}}]}}).encode(),
            headers={"ETag": f'"{n}"'})

    def search(asked: Any) -> Any:
        hits = ["/1/0", "/1/1", "/1/2"] if "3573" in asked.query["query"] else []
        return answer(json.dumps({"success": True, "items": [{"id": i} for i in hits]}).encode())

    website.pages["/record/v2/search.json"] = search
    arguments = ["mimo", "--europeana", "--europeana-url", website.url, "--keywords", 3564,
                 "--rate", 500, "--out", tmp_path / "mimo", "--quiet"]
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("EUROPEANA_API_KEY", raising=False)
    assert run(*arguments) == command.UNUSABLE
    assert "set EUROPEANA_API_KEY, or add 'machine 127.0.0.1" in capsys.readouterr().err
    monkeypatch.setenv("EUROPEANA_API_KEY", "s3cret-key")
    assert run(*arguments) == command.DONE
    assert {asked.headers.get("X-Api-Key") for asked in website.asked} == {"s3cret-key"}
    manifest = Manifest.read(tmp_path / "mimo")
    assert [r.attributes["title"] for r in manifest.images] == ["Violin 0", "Violin 1", "Violin 2"]
    assert manifest.images[0].rights == "http://licence.example/by/; A museum"
    said = "".join(capsys.readouterr())
    kept = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    assert "s3cret" not in said and b"s3cret" not in kept
    monkeypatch.delenv("EUROPEANA_API_KEY")
    asked = len(website.asked)
    assert run(*arguments, "--offline") == command.DONE
    assert len(website.asked) == asked


def test_folders_of_numbers_and_names(run: Run, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    for n, folder in enumerate(["3564", "Geige", "3573", "harpe", "2206", "4455"]):
        file = tmp_path / "photos" / folder / f"{n}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(cv2.imencode(".png", draw_work(6, "mimo", n).rgb)[1].tobytes())
    (tmp_path / "photos/loose.png").write_bytes(b"x")
    settings = tmp_path / "classes.yaml"
    settings.write_text("keywords: [3564, 3265, 2206]\nsplit: 50/25/25\nseed: 3\n")
    assert run("mimo", tmp_path / "photos", "--settings", settings, "--out", tmp_path / "out",
               "--quiet") == command.DONE_WITH_REJECTS
    assert ("1 photo passed over, of classes that --keywords does not name: 4455"
            in capsys.readouterr().out)
    manifest = Manifest.read(tmp_path / "out")
    assert [(c.name, c.mimo) for c in manifest.categories] == [
        ("bows", "2206"), ("harp", "3285"), ("violin", "3573")]
    labels = {r.file_name: [manifest.names[i] for i in r.labels or ()] for r in manifest.images}
    assert labels == {
        "images/2206/4.png.jpg": ["bows"], "images/3564/0.png.jpg": ["violin"],
        "images/3573/2.png.jpg": ["violin"], "images/Geige/1.png.jpg": ["violin"],
        "images/harpe/3.png.jpg": ["harp"]}


def test_a_table_of_photos(run: Run, tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
    (tmp_path / "photos.csv").write_text(
        "File;Class;Object;source_url;rights;maker\n"
        "0.jpg;3573;A1;https://me:pw@m.example/0?api_key=S;CC0;Stradivari\n"
        "1.jpg;Harfe;A1;;;\n;harp;;;;\nmissing.jpg;harp;;;;\n", encoding="utf-8")
    assert run("mimo", tmp_path / "photos.csv", "--out", tmp_path / "out", "--whole",
               "--quiet") == command.DONE_WITH_REJECTS
    manifest = Manifest.read(tmp_path / "out")
    violin, harp = manifest.images
    assert violin.attributes == {"maker": "Stradivari"} and violin.rights == "CC0"
    assert violin.source_url == "https://m.example/0?api_key=..."
    assert violin.group == harp.group == "A1" and violin.split == harp.split
    assert len((tmp_path / "out/rejects.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "give one of"), (["--oai", "http://x.example", "--europeana"], "give one of"),
    (["photos", "--keywords", "999999"], "no keyword number"),
    (["--europeana", "--offline"], "needs --keywords"),
    (["--oai", "ftp://x.example"], "not an http or https address"),
    (["photos", "--settings", "wrong.yaml"], "no argument 'klasses'; there are:")])
def test_what_cannot_be_used_says_so(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("wrong.yaml").write_text("klasses: 3\n")
    try:
        assert run("mimo", *arguments, "--out", "out", "--quiet") == command.UNUSABLE
    except SystemExit as done:  # argparse's own way out
        assert done.code == command.UNUSABLE
    assert words in capsys.readouterr().err


def test_the_thesis_has_its_25_classes_and_split() -> None:
    import yaml

    settings = yaml.safe_load((ROOT / "configs/sources/mimo_thesis.yaml").read_text())
    assert len(set(settings["keywords"])) == 25 and sum(settings["keywords"]) == 85_765
    assert settings["split"] == "70/10/20" and settings["seed"] == 0


@pytest.mark.real
def test_real_photos(run: Run, tmp_path: Path, real_fixture: Path) -> None:
    """Looked at: players, rooms and pairs are what the reviews name."""
    source = tmp_path / "in"
    for folder, name in (("violin", "3573"), ("harp", "Harfe"), ("guiro", "guiro")):
        (source / name).mkdir(parents=True)
        for file in sorted((real_fixture / "photos_kaggle30" / folder).iterdir()):
            (source / name / file.name).symlink_to(file)
    run("mimo", source, "--out", tmp_path / "out", "--quiet")
    manifest = Manifest.read(tmp_path / "out")
    assert [c.name for c in manifest.categories] == ["harp", "guiro", "violin"]
    boxed = sum(bool(r.boxes) for r in manifest.images)
    doubtful = sum("review" in r.attributes for r in manifest.images)
    assert len(manifest) > 140 and boxed / len(manifest) > 0.6 and doubtful < 70
    assert np.mean([r.width * r.height for r in manifest.images]) < 224 * 224
