"""Open Images' tables in the shape of its releases (first lines recorded from them)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets.records import Rejects
from musicon.datasets.sources.base import SourceData, SourceError

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]

BOXES = ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,"
         "IsGroupOf,IsDepiction,IsInside\n")
LABELS = "ImageID,Source,LabelName,Confidence\n"
ABOUT = ("ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
         "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n")
CC = "https://creativecommons.org/licenses/by/2.0/"


@pytest.fixture
def release(tmp_path: Path, draw: Draw) -> Path:
    for name in ("000a", "000b", "000c", "000d", "000e"):
        draw(f"images/{name}.jpg", 200, 100)
    (tmp_path / "oidv6-train-annotations-bbox.csv").write_text(
        BOXES + "000a,xclick,/m/07y_7,1,0.1,0.5,0.2,0.6,1,0,0,1,0\n"
        "000a,xclick,/m/01g317,1,0,1,0,1,0,0,0,0,0\n"  # a person
        "000a,activemil,/m/026t6,1,0.5,1,0,0.25,-1,-1,1,0,0\n"
        "fff0,xclick,/m/0342h,1,0,1,0,1,0,0,0,0,0\n")
    (tmp_path / "validation-annotations-human-imagelabels-boxable.csv").write_text(
        LABELS + "000b,verification,/m/0342h,1\n000b,verification,/m/04szw,1\n"
        "000b,crowdsource-verification,/m/026t6,0\n000c,verification,/m/04szw,0\n"
        "000d,verification,/m/0342h,0\nfff1,verification,/m/0342h,0\n")
    (tmp_path / "train-images-boxable-with-rotation.csv").write_text(
        ABOUT + f'000a,train,u,https://flickr/a,{CC},p,"Ann, B.",Old fiddle,9,m,t,90.0\n')
    return tmp_path


def test_boxes_groups_and_verified_labels(release: Path, read_source: Reader) -> None:
    data, rejects = read_source("openimages", release)
    records = {Path(r.file_name).stem: r for _, r in data.records}
    names = {c.id: c.name for c in data.categories}
    assert set(records) == {"000a", "000b", "000c", "000d"} and len(rejects) == 0
    violin, drums = records["000a"].boxes
    assert (names[violin.label], names[drums.label]) == ("violin", "drum")
    assert violin.xyxy == pytest.approx((20, 20, 100, 60)) and not violin.iscrowd
    assert violin.extra == {"occluded": 1, "depiction": 1}
    assert drums.xyxy == pytest.approx((100, 0, 200, 25)) and drums.iscrowd and not drums.extra
    assert [names[i] for i in records["000b"].labels or ()] == ["guitar"]
    assert records["000b"].extra == {"absent": ["drum"]}
    assert records["000c"].is_negative and records["000d"].labels is None
    assert [records[name].split for name in ("000a", "000b")] == ["train", "val"]
    assert records["000a"].source_url == "https://flickr/a" and records["000a"].rights == CC
    assert records["000a"].attributes == {"title": "Old fiddle", "author": "Ann, B.",
                                          "rotation": "90.0"}


def test_choices(release: Path, read_source: Reader) -> None:
    data, _ = read_source("openimages", release, "--absent-is-negative")
    assert sum(r.is_negative for _, r in data.records) == 2
    data, _ = read_source("openimages", release, "--depictions", "only")
    assert [r.file_name for _, r in data.records] == ["images/000a.jpg"]
    data, _ = read_source("openimages", release, "--depictions", "none")
    first = data.records[0][1]
    assert [b.iscrowd for b in first.boxes] == [True]
    assert len(first.labels or ()) == 2  # the painted violin is there, though not boxed


def test_missing_pictures_are_listed(release: Path, read_source: Reader) -> None:
    data, _ = read_source("openimages", release, "--list-missing", release / "todo.txt")
    assert (release / "todo.txt").read_text() == "train/fff0\n"
    assert data.notes[0].startswith(f"not in {release.name}: 1 listed picture (")


def test_a_table_that_was_cut_off(release: Path, read_source: Reader) -> None:
    boxes = release / "oidv6-train-annotations-bbox.csv"
    with boxes.open("a") as stream:
        stream.write("000b,xclick,/m/0342h,1,0.2,x,0.3,0.4,0,0,0,0,0\n000c,xclick,/m/0342h,1,0.2")
    data, rejects = read_source("openimages", release)
    assert {Path(r.file_name).stem: len(r.boxes) for _, r in data.records} == {
        "000a": 2, "000b": 0, "000c": 0, "000d": 0}
    assert rejects.rows == [(str(boxes), f"line {line} is cut off or damaged; download it again")
                            for line in (6, 7)]


def test_layout_of_fiftyones_zoo(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("validation/data/00aa.jpg", 100, 100)
    for name, text in (("labels/detections", BOXES + "00aa,x,/m/07gql,1,0,1,0,1,0,0,0,0,0\n"),
                       ("labels/classifications", LABELS + "00aa,v,/m/07y_7,0\n"),
                       ("metadata/classes", "/m/07gql,Trumpet\n/m/07y_7,Violin\n"),
                       ("metadata/image_ids", ABOUT + f"00aa,validation,u,l,{CC},p,A,T,1,m,t,\n")):
        file = tmp_path / f"validation/{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    draw("train/data/00bb.jpg", 100, 100)
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/detections.csv").write_text(
        BOXES + "00bb,x,/m/07gql,1,0,1,0,1,0,0,0,0,0\n")
    data, _ = read_source("openimages", tmp_path)
    assert {(r.split, len(r.boxes), r.rights) for _, r in data.records} == {
        ("train", 1, None), ("val", 1, CC)}


def test_unusable(tmp_path: Path, draw: Draw, release: Path, read_source: Reader) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no table of boxes"):
        read_source("openimages", tmp_path / "empty")
    with pytest.raises(SourceError, match="none of the 3 listed pictures"):
        read_source("openimages", release, "--images", tmp_path / "empty")


def test_download_without_fiftyone(release: Path, read_source: Reader,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone.utils", None)
    with pytest.raises(ImportError, match="pip install 'musicon\\[review\\]'"):
        read_source("openimages", release, "--download", "3")
