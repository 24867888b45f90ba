"""MINERVA's tables, in the shape that its own scripts read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets.records import Rejects
from musicon.datasets.sources.base import SourceData, SourceError

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]
HEADER = ",id,image_filename,instrument_name,bounding_box_coordinates,area_of_bounding_box\n"


def table(file: Path, *rows: tuple[str, str, str]) -> None:
    """Rows (picture, instrument, coordinates) as pandas writes them: an index first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'{n},{100 + n},"{name}",{instrument},"{box}",900\n'
             for n, (name, instrument, box) in enumerate(rows)]
    file.write_text(HEADER + "".join(lines), encoding="utf-8")


@pytest.fixture
def release(tmp_path: Path, draw: Draw) -> Path:
    for name in ("1.jpg", "2.jpg", "3.jpg", "St.Cecilia%22.jpg"):
        draw(f"images/{name}")
    splits = tmp_path / "splits/full"
    table(splits / "train.txt", ("1.jpg", "harp", "1,2,11,12"), ("1.jpg", "lute", "5,5,20,20"),
          ("St. Cecilia%22.jpg", "portative organ", "0,0,30,30"), ("gone.jpg", "lute", "1,1,9,9"),
          ("1.jpg", "lute", "1,2"))
    table(splits / "dev.txt", ("2.jpg", "harp", "3,3,13,13"))
    table(splits / "test.txt", ("3.jpg", "lute", "-2,0,10,10"), ("3.jpg", "harp", "2,2,8,8"))
    return tmp_path


def test_boxes_and_splits(release: Path, read_source: Reader) -> None:
    data, rejects = read_source("minerva", release, "--benchmark", "all")
    records = {record.file_name: record for _, record in data.records}
    assert {name: record.split for name, record in records.items()} == {
        "images/1.jpg": "train", "images/2.jpg": "val", "images/3.jpg": "test",
        "images/St.Cecilia%22.jpg": "train"}
    names = {c.id: c.name for c in data.categories}
    assert [(names[b.label], b.xyxy) for b in records["images/1.jpg"].boxes] == [
        ("harp", (1, 2, 11, 12)), ("lute", (5, 5, 20, 20))]
    assert sorted(names.values()) == ["harp", "lute", "portative organ"]
    reasons = dict(rejects.rows)
    assert "no such picture; 1 box left out" in reasons["gone.jpg"]
    assert "'1,2' is not" in reasons["1.jpg"] and "line 6" in reasons["1.jpg"]
    assert data.info["benchmark"] == "minerva all"


def test_single_forgets_the_names(release: Path, read_source: Reader) -> None:
    data, _ = read_source("minerva", release)
    assert [c.name for c in data.categories] == ["instrument"]
    assert sum(len(r.boxes) for _, r in data.records) == 6
    assert "2/1/1 pictures, but 1,857/1,137/1,189 are published" in data.notes[0]


def test_most_frequent_instruments(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("1.jpg")
    names = ["harp"] * 3 + ["lute"] * 3 + [f"{n} drum" for n in "abcd"] + ["fiddle"] * 2
    for part in ("train", "dev", "test"):
        rows = names if part == "train" else []
        table(tmp_path / f"{part}.txt", *(("1.jpg", name, "1,1,9,9") for name in rows))
    data, _ = read_source("minerva", tmp_path, "--benchmark", "top-5")
    kept = Counter(row[0] for row in data.naming)
    assert set(kept) == {"harp", "lute", "fiddle", "a drum", "b drum"}


def test_tables_of_the_benchmark_itself(release: Path, read_source: Reader) -> None:
    for part in ("train", "dev", "test"):
        table(release / f"splits/top10/{part}.txt", ("2.jpg", "harp", "1,1,9,9"),
              *((("1.jpg", "zither", "1,1,9,9"),) if part == "train" else ()))
    data, rejects = read_source("minerva", release, "--benchmark", "top-10")
    assert {r.file_name: r.split for _, r in data.records} == {
        "images/2.jpg": "test", "images/1.jpg": "train"}
    assert data.notes[1] == "not among the published 10 instruments: zither"
    assert [reason.split(" (")[0] for _, reason in rejects.rows] == [
        "box left out: the picture is in test.txt too"] * 2
    data, _ = read_source("minerva", release, "--splits", release / "splits/full")
    assert len(data.records) == 4


def test_unusable(release: Path, read_source: Reader) -> None:
    (release / "splits/full/dev.txt").unlink()
    with pytest.raises(SourceError, match="dev.txt: no such file"):
        read_source("minerva", release)
    (release / "splits/full/dev.txt").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match="no column 'image_filename'"):
        read_source("minerva", release)
    (release / "splits/full/train.txt").unlink()
    with pytest.raises(SourceError, match="no folder with train.txt"):
        read_source("minerva", release)
    with pytest.raises(SourceError, match="no train.txt in it"):
        read_source("minerva", release, "--splits", release)
