"""Pascal VOC, dirt included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets.records import Rejects
from musicon.datasets.sources.base import SourceData, SourceError

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]

BOX = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>20</xmax><ymax>15</ymax></bndbox>"


def xml(file: Path, *objects: tuple[str, str], size: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    items = "".join(f"<object><name>{name}</name>{box}</object>" for name, box in objects)
    file.write_text(f"<annotation>{size}{items}</annotation>", encoding="utf-8")


def test_boxes_count_from_one(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("a.jpg")
    xml(tmp_path / "a.xml", ("fiddle", BOX + "<difficult>1</difficult><truncated>1</truncated>"),
        size="<size><width>40</width><height>30</height></size>")
    data, rejects = read_source("voc", tmp_path)
    (_, record), = data.records
    # Pixel columns 11..20 counted from 1 are 10..19 counted from 0: half-open 10 to 20.
    assert record.boxes[0].xyxy == (10, 5, 20, 15)
    assert record.boxes[0].extra == {"difficult": 1, "truncated": 1}
    assert (record.width, record.height) == (40, 30) and len(rejects) == 0


@pytest.mark.parametrize(("picture", "annotation"), [
    ("a.jpg", "a.xml"), ("a.jpg", "a.jpg.xml"), ("JPEGImages/a.jpg", "Annotations/a.xml"),
    ("JPEGImages/Cubism/a b.jpg", "Annotations/Cubism/a b.jpg.xml"),
    ("train/images/a.jpg", "train/annotations/a.xml"),
    ("x/St. John, 1510.jpg", "x/St. John, 1510.xml")])
def test_where_annotations_lie(tmp_path: Path, draw: Draw, read_source: Reader, picture: str,
                               annotation: str) -> None:
    draw(picture)
    xml(tmp_path / annotation, ("lute", BOX))
    data, rejects = read_source("voc", tmp_path)
    assert [len(r.boxes) for _, r in data.records] == [1] and len(rejects) == 0


def test_same_name_in_two_folders(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for folder, name in (("A", "lute"), ("B", "harp")):
        draw(f"JPEGImages/{folder}/1.jpg")
        xml(tmp_path / "Annotations" / folder / "1.xml", (name, BOX))
    data, _ = read_source("voc", tmp_path)
    names = {c.id: c.name for c in data.categories}
    assert [names[r.boxes[0].label] for _, r in data.records] == ["lute", "harp"]


def test_unannotated_pictures(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("a.jpg")
    draw("b.jpg")
    xml(tmp_path / "a.xml", ("lute", BOX))
    for policy, expected in (("unlabelled", [()] + [None]), ("negative", [(), ()])):
        data, rejects = read_source("voc", tmp_path, "--unannotated", policy)
        assert [r.labels for _, r in data.records] == expected and len(rejects) == 0
        assert any("1 picture without an annotation file" in note for note in data.notes)
    data, rejects = read_source("voc", tmp_path, "--unannotated", "reject")
    assert len(data.records) == 1 and "expected b.xml" in rejects.rows[0][1]


def test_classes_that_are_no_instrument(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("a.jpg")
    draw("b.jpg")
    xml(tmp_path / "a.xml", ("lute", BOX), ("person", BOX))
    xml(tmp_path / "b.xml", ("person", BOX))
    for arguments in (["--negatives-from", "person"], ["--only", "lute"]):
        data, _ = read_source("voc", tmp_path, *arguments)
        assert [len(r.boxes) for _, r in data.records] == [1, 0]
        assert data.records[1][1].is_negative
        assert "2 boxes of 'person' left out: no instrument" in data.notes


def test_empty_annotation_is_a_negative(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("a.jpg")
    xml(tmp_path / "a.xml")
    assert read_source("voc", tmp_path)[0].records[0][1].is_negative


@pytest.mark.parametrize(("box", "words"), [
    ("", "no <bndbox>"), (BOX.replace("11", "eleven"), "'eleven', not a number"),
    ("<bndbox><xmin>1</xmin></bndbox>", "no <bndbox> with <ymin>")])
def test_bad_boxes(tmp_path: Path, draw: Draw, read_source: Reader, box: str, words: str) -> None:
    draw("a.jpg")
    xml(tmp_path / "a.xml", ("lute", box))
    data, rejects = read_source("voc", tmp_path)
    assert words in rejects.rows[0][1]
    assert data.records[0][1].labels == (1,), "there is a lute in it, wherever"


def test_nameless_box(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("a.jpg")
    xml(tmp_path / "a.xml", (" ", BOX))
    data, rejects = read_source("voc", tmp_path)
    assert "it has no name" in rejects.rows[0][1] and data.records[0][1].labels is None


def test_broken_files(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in "abcd":
        draw(f"{name}.jpg")
    (tmp_path / "a.xml").write_text("<annotation><object>")
    (tmp_path / "b.xml").write_text("<html></html>")
    (tmp_path / "c.xml").write_text("")
    xml(tmp_path / "d.xml", size="<size><width>nan</width></size>")
    xml(tmp_path / "lost.xml")
    data, rejects = read_source("voc", tmp_path)
    assert [r.file_name for _, r in data.records] == ["d.jpg"]
    reasons = {Path(file).name: reason for file, reason in rejects.rows}
    assert "not readable XML" in reasons["a.jpg"] and "no VOC file" in reasons["b.jpg"]
    assert "not readable XML" in reasons["c.jpg"]
    assert reasons["lost.xml"] == "annotation without its picture"


def test_image_sets(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    sets = tmp_path / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for name, split in (("a.b", "train"), ("c", "val")):
        draw(f"JPEGImages/{name}.jpg")
        xml(tmp_path / "Annotations" / f"{name}.xml")
        (sets / f"{split}.txt").write_text(f"{name} 1\n" if name == "c" else f"{name}.jpg\n")
    data, _ = read_source("voc", tmp_path)
    assert {r.file_name: r.split for _, r in data.records} == {
        "JPEGImages/a.b.jpg": "train", "JPEGImages/c.jpg": "val"}


@pytest.mark.parametrize("line", ["{}", "{}.JPG", "{}  1", "{} -1", "folder/{}.jpg"])
def test_image_sets_name_pictures_with_dots_and_blanks(
        tmp_path: Path, draw: Draw, read_source: Reader, line: str) -> None:
    names = {"Inv. 12.5": "train", "lute 1": "val", "a lute": "test", "12.34": "test"}
    for name, split in names.items():
        draw(f"JPEGImages/{name}.jpg")
        xml(tmp_path / "Annotations" / f"{name}.xml")
        sets = tmp_path / "ImageSets" / "Main" / f"{split}.txt"
        sets.parent.mkdir(parents=True, exist_ok=True)
        with sets.open("a") as stream:
            stream.write(line.format(name) + "\n\n")
    data, _ = read_source("voc", tmp_path)
    assert {Path(r.file_name).stem: r.split for _, r in data.records} == names


def test_a_lone_train_folder_is_no_split(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("train/a.jpg")
    xml(tmp_path / "train" / "a.xml")
    data, _ = read_source("voc", tmp_path)
    assert data.records[0][1].split is None and any(
        "marked train" in note for note in data.notes)


def test_unusable(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        read_source("voc", tmp_path / "x")
    with pytest.raises(SourceError, match="no pictures in it"):
        read_source("voc", tmp_path)
    draw("a.jpg")
    with pytest.raises(SourceError, match="1 pictures but no .xml"):
        read_source("voc", tmp_path)


@pytest.mark.real
def test_paintings_peopleart(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("voc", real_fixture / "paintings_peopleart", "--negatives",
                                "person", "--unannotated", "negative")
    assert len(data.records) == 480 and len(rejects) == 0
    assert all(r.is_negative for _, r in data.records)
    data, _ = read_source("voc", real_fixture / "paintings_peopleart")
    counts = Counter(("boxed" if r.boxes else r.labels) for _, r in data.records)
    # 113 have an annotation file; eight of those files say that nobody is there.
    assert counts == {"boxed": 105, (): 8, None: 367}


@pytest.mark.real
def test_icons_byzart(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("voc", real_fixture / "icons_byzart")
    assert (len(data.records), len(data.naming), len(rejects)) == (100, 62, 0)
    assert len(data.categories) == 62
    hints = [note for note in data.notes if "are two classes" in note]
    assert [note.partition(" are")[0] for note in hints] == [
        "'christ_crucifiction' and 'christ_crucifixion'", "'saint_george' and 'st_george'"]
    assert sum(len(r.boxes) for _, r in data.records) == 1087
