"""YOLO, with the names and gaps of real exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets.records import Rejects
from musicon.datasets.sources.base import SourceData, SourceError

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]


def label(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))


def test_boxes_are_shares_of_the_picture(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("images/img (2) [x].jpg", 200, 100)
    label(tmp_path / "labels/img (2) [x].txt", "1 0.5 0.5 0.2 0.4", "")
    data, rejects = read_source("yolo", tmp_path, "--names", "harp", "Geige")
    (_, record), = data.records
    # centre (100, 50), 40 wide, 40 high
    assert record.boxes[0].xyxy == pytest.approx((80, 30, 120, 70))
    assert [c.name for c in data.categories] == ["harp", "violin"] and len(rejects) == 0
    assert record.boxes[0].label == 2


@pytest.mark.parametrize(("name", "text"), [
    ("data.yaml", "names: [harp, lute]"), ("data.yaml", "names:\n  0: harp\n  1: lute"),
    ("classes.txt", "harp\nlute\n"), ("obj.names", "harp\nlute")])
@pytest.mark.parametrize("folder", ["", "train"])
def test_names_files(tmp_path: Path, draw: Draw, read_source: Reader, name: str, text: str,
                     folder: str) -> None:
    draw("images/a.jpg")
    label(tmp_path / "labels/a.txt", "1 0.5 0.5 0.2 0.4")
    label(tmp_path / folder / name, text)
    data, rejects = read_source("yolo", tmp_path)
    assert [c.name for c in data.categories] == ["harp", "lute"] and len(rejects) == 0


def test_a_blank_line_among_the_names_is_a_number(tmp_path: Path, draw: Draw,
                                                  read_source: Reader) -> None:
    draw("images/a.jpg")
    label(tmp_path / "labels/a.txt", "2 0.5 0.5 0.2 0.4")
    label(tmp_path / "classes.txt", "harp\n\nlute\n\n")
    data, _ = read_source("yolo", tmp_path)
    names = {c.id: c.name for c in data.categories}
    assert [names[box.label] for box in data.records[0][1].boxes] == ["lute"]


@pytest.mark.parametrize(("picture", "text"), [
    ("images/a.jpg", "labels/a.txt"), ("train/images/a.jpg", "train/labels/a.txt"),
    ("images/train/a.jpg", "labels/train/a.txt"), ("a.jpg", "a.txt"),
    ("images/x/images/a.jpg", "images/x/labels/a.txt")])
def test_where_labels_lie(tmp_path: Path, draw: Draw, read_source: Reader, picture: str,
                          text: str) -> None:
    draw(picture)
    label(tmp_path / text, "0 0.5 0.5 0.2 0.4")
    data, _ = read_source("yolo", tmp_path, "--names", "harp")
    assert [len(r.boxes) for _, r in data.records] == [1]


def test_empty_is_negative_and_missing_is_not(tmp_path: Path, draw: Draw,
                                              read_source: Reader) -> None:
    for name in "abc":
        draw(f"images/{name}.jpg")
    label(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4")
    label(tmp_path / "labels/b.txt")
    data, _ = read_source("yolo", tmp_path, "--names", "harp")
    assert [(len(r.boxes), r.labels) for _, r in data.records] == [(1, ()), (0, ()), (0, None)]
    data, rejects = read_source("yolo", tmp_path, "--names", "harp", "--unannotated", "reject")
    assert len(data.records) == 2 and "no annotation file (expected c.txt)" in rejects.rows[0][1]


@pytest.mark.parametrize(("policy", "labels"), [("negative", [()]), ("unlabelled", [None]),
                                                ("reject", [])])
def test_empty_files_are_told_and_decided(tmp_path: Path, draw: Draw, read_source: Reader,
                                          policy: str, labels: list[object]) -> None:
    draw("images/a.jpg")
    draw("images/b.jpg")
    label(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4")
    label(tmp_path / "labels/b.txt", " ")
    data, rejects = read_source("yolo", tmp_path, "--names", "harp", "--empty", policy)
    assert [r.labels for _, r in data.records if not r.boxes] == labels
    assert [reason for _, reason in rejects.rows] == (
        ["its annotation file is empty (--empty reject)"] if policy == "reject" else [])
    told = f"1 picture with an empty annotation file: taken as {policy} (--empty)"
    assert (told in data.notes) is (policy != "reject")


def test_outlines_and_confidences(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("images/a.jpg", 100, 100)
    label(tmp_path / "labels/a.txt", "0 .1 .2 .3 .2 .3 .6", "0 .5 .5 .2 .2 .9")
    data, _ = read_source("yolo", tmp_path, "--names", "harp")
    found = [box.xyxy for box in data.records[0][1].boxes]
    assert found == [pytest.approx((10, 20, 30, 60)), pytest.approx((40, 40, 60, 60))]


@pytest.mark.parametrize(("line", "words"), [
    ("0 0.5 0.5", "2 numbers after the class"), ("0 a b c d", "could not convert"),
    ("0 0.5 0.5 0 0.2", "empty or reversed"), ("0 0.5 0.5 -0.1 0.2", "empty or reversed"),
    ("0 120 80 40 30", "outside 0..1 (pixels?"), ("0 nan 0.5 0.1 0.1", "not a number"),
    ("0.5 0.5 0.5 0.1 0.1", "not a whole number"), ("-1 0.5 0.5 0.1 0.1", "not a whole number"),
    ("inf 0.5 0.5 0.1 0.1", "not a whole number"),
    ("lute 0.5 0.5 0.1 0.1", "class 'lute' is not a whole number from 0")])
def test_bad_lines(tmp_path: Path, draw: Draw, read_source: Reader, line: str, words: str) -> None:
    draw("images/a.jpg")
    label(tmp_path / "labels/a.txt", line)
    data, rejects = read_source("yolo", tmp_path, "--names", "harp")
    assert len(rejects) == 1 and "a.txt, line 1: " in rejects.rows[0][1]
    assert words in rejects.rows[0][1]
    record = data.records[0][1]
    assert not record.boxes and not record.is_negative


def test_unreadable_picture_and_orphan(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("images/a.jpg")
    (tmp_path / "images/b.jpg").write_bytes(b"")
    for name in "abc":
        label(tmp_path / f"labels/{name}.txt", "0 0.5 0.5 0.2 0.4")
    data, rejects = read_source("yolo", tmp_path, "--names", "harp")
    assert len(data.records) == 1
    assert {Path(f).name: r for f, r in rejects.rows} == {
        "b.jpg": "empty file (0 bytes)", "c.txt": "label file without its picture"}


def test_splits(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for split in ("train", "valid", "test"):
        draw(f"{split}/images/a.jpg")
        label(tmp_path / split / "labels/a.txt")
    data, _ = read_source("yolo", tmp_path)
    assert [r.split for _, r in data.records] == ["test", "train", "val"]


@pytest.mark.parametrize(("arguments", "text", "words"), [
    ([], None, "no label file"),
    ([], "3 .5 .5 .1 .1", r"a\.txt: no name for class number 3; give the names of classes 0 to 3 "
                          "in order: --names"),
    (["--names", "harp"], "1 .5 .5 .1 .1", r"a\.txt: no name for class number 1, as --names has "
                                           "0 harp; add the name there, or correct")])
def test_unusable(tmp_path: Path, draw: Draw, read_source: Reader, arguments: list[str],
                  text: str | None, words: str) -> None:
    draw("images/a.jpg")
    if text is not None:
        label(tmp_path / "labels/a.txt", text)
    with pytest.raises(SourceError, match=words):
        read_source("yolo", tmp_path, *arguments)


@pytest.mark.parametrize("text", ["names: 5", "a: [", "", "names: {x: harp}"])
def test_bad_names_file(tmp_path: Path, draw: Draw, read_source: Reader, text: str) -> None:
    draw("images/a.jpg")
    label(tmp_path / "labels/a.txt", "0 .5 .5 .1 .1")
    label(tmp_path / "data.yaml", text)
    with pytest.raises(SourceError, match=r"data\.yaml: (expected 'names:'|not a readable YAML)"):
        read_source("yolo", tmp_path)


def test_no_pictures(tmp_path: Path, read_source: Reader) -> None:
    with pytest.raises(SourceError, match="no pictures in it"):
        read_source("yolo", tmp_path)


@pytest.mark.real
def test_guitars_yolo(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("yolo", real_fixture / "guitars_yolo", "--names", "guitar")
    assert len(data.records) == 100 and len(rejects) == 0
    assert sum(r.is_negative for _, r in data.records) == 11
    assert sum(len(r.boxes) for _, r in data.records) == 94
    with pytest.raises(SourceError, match="--names"):
        read_source("yolo", real_fixture / "guitars_yolo")
