"""COCO JSON of every provenance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from musicon.datasets.records import Box, Rejects
from musicon.datasets.sources.base import SourceData, SourceError

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]


def write(file: Path, images: list[Any], annotations: Any = (), categories: Any = None,
          **more: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"images": images, "annotations": list(annotations), "categories": categories or [
        {"id": 3, "name": "Geige"}, {"id": 9, "name": "Person"}], **more}
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30, **more}


def mark(number: int, image: int, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": [1, 2, 10, 20],
            **more}


def test_boxes_extra_keys_and_negatives(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for number in (1, 2, 3):
        draw(f"{number}.jpg")
    write(tmp_path / "manifest.json",
          [row(1, split="valid", hard=True, group=7, attributes={"painter": "Anon", "year": 1650}),
           row(2, labels=None), row(3, labels=[3], width=None)],
          [mark(1, 1, score=0.5, origin="pseudo", note="x"), mark(2, 1, 9, iscrowd=1)],
          info={"license": "CC0"})
    data, rejects = read_source("coco", tmp_path)
    one, two, three = (record for _, record in data.records)
    assert [c.name for c in data.categories] == ["violin", "Person"]
    assert one.boxes == (Box((1, 2, 11, 22), 1, "pseudo", 0.5, extra={"note": "x"}),
                         Box((1, 2, 11, 22), 2, iscrowd=True))
    assert (one.split, one.group, one.extra) == ("val", "7", {"hard": True})
    assert one.attributes == {"painter": "Anon", "year": "1650"}
    assert two.labels is None and three.labels == (1,) and (three.width, three.height) == (0, 0)
    assert data.info["license"] == "CC0" and len(rejects) == 0


def test_classes_that_are_no_instrument(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("1.jpg")
    draw("2.jpg")
    file = write(tmp_path / "a.json", [row(1), row(2)],
                 [mark(1, 1), mark(2, 1, 9), mark(3, 2, 9)])
    for arguments in (["--negatives", "person"], ["--only", "Geige"], ["--unknown", "negative"]):
        data, rejects = read_source("coco", file, *arguments)
        assert [len(r.boxes) for _, r in data.records] == [1, 0]
        assert data.records[1][1].is_negative and len(rejects) == 0
        assert "2 boxes of 'Person' left out: no instrument" in data.notes
    data, rejects = read_source("coco", file, "--unknown", "reject")
    assert [r.file_name for _, r in data.records] == ["1.jpg"]
    assert [reason for _, reason in rejects.rows][-1] == "every class in it is rejected"


@pytest.mark.parametrize(("images", "annotations", "words"), [
    ([row(1), row(1, file_name="2.jpg")], [], "image id 1 is used twice"),
    ([row(1), row(5)], [], "no such file; give --images"),
    ([row(1), row(2, width=-5)], [], "is not positive"),
    ([row(1), row(2, width="wide")], [], "not usable"),
    ([row(1), 17], [], "not a JSON object"),
    ([row(1), row(2, labels=[44])], [], "not all category ids"),
    ([row(1)], [mark(1, 1), mark(1, 1)], "annotation id 1 is used twice"),
    ([row(1)], [mark(1, 1, 77)], "box left out: category_id 77 is not"),
    ([row(1)], [mark(1, 1), {"id": 2, "category_id": 1, "bbox": [1, 1, 2, 2]}],
     "lacks 'image_id'"),
    ([row(1)], [mark(1, 1, bbox=[1, 2])], "no bbox"),
    ([row(1)], [mark(1, 1, bbox=["a", 2, 3, 4])], "could not convert"),
    ([row(1)], [mark(1, 99)], "boxes of image 99, which is not listed"),
    ([row(1)], [mark(1, 1, score=7)], "score 7 is outside"),
    ([row(1)], ["x"], "left out"),
])
def test_bad_rows_are_left_out_one_by_one(tmp_path: Path, draw: Draw, read_source: Reader,
                                          images: list[Any], annotations: list[Any],
                                          words: str) -> None:
    draw("1.jpg")
    draw("2.jpg")
    data, rejects = read_source("coco", write(tmp_path / "a.json", images, annotations))
    assert [r.file_name for _, r in data.records] == ["1.jpg"]
    assert len(rejects) == 1 and words in rejects.rows[0][1]


def test_a_picture_whose_box_is_unusable_is_no_negative(tmp_path: Path, draw: Draw,
                                                        read_source: Reader) -> None:
    draw("1.jpg")
    draw("2.jpg")
    file = write(tmp_path / "a.json", [row(1), row(2)],
                 [mark(1, 1, bbox=None), mark(2, 2, 77)])
    data, rejects = read_source("coco", file)
    assert [r.labels for _, r in data.records] == [(1,), None]
    assert len(rejects) == 2


def test_roboflow_and_coco_layouts(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for folder in ("train", "valid"):
        draw(f"robo/{folder}/1.jpg")
        write(tmp_path / "robo" / folder / "_annotations.coco.json", [row(1)], [mark(1, 1)])
    data, _ = read_source("coco", tmp_path / "robo")
    assert sorted((r.file_name, r.split) for _, r in data.records) == [
        ("train/1.jpg", "train"), ("valid/1.jpg", "val")]
    draw("coco/train2017/1.jpg")
    draw("coco/val2017/2.jpg")
    write(tmp_path / "coco/annotations/instances_train2017.json", [row(1)], [mark(1, 1)])
    write(tmp_path / "coco/annotations/instances_val2017.json", [row(2)])
    data, _ = read_source("coco", tmp_path / "coco")
    assert sorted((r.file_name, r.split) for _, r in data.records) == [
        ("1.jpg", "train"), ("2.jpg", "val")]


def test_pictures_elsewhere(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("pictures/1.jpg")
    file = write(tmp_path / "labels" / "a.json", [row(1)])
    with pytest.raises(SourceError, match="no usable picture"):
        read_source("coco", file)
    assert len(read_source("coco", file, "--images", tmp_path / "pictures")[0].records) == 1


@pytest.mark.parametrize(("content", "words"), [
    ("{", "not a readable JSON"), ("[]", "COCO results"), ("{}", "no list 'images'"),
    ('{"images": []}', "no usable picture"), ('{"images": [], "annotations": 5}', "'annotations'"),
    ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
     "category id 1 is used twice")])
def test_wrong_json(tmp_path: Path, read_source: Reader, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(SourceError, match=words):
        read_source("coco", tmp_path / "a.json")


def test_missing_empty_and_ambiguous(tmp_path: Path, read_source: Reader) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        read_source("coco", tmp_path / "x.json")
    with pytest.raises(SourceError, match="no COCO JSON file in it"):
        read_source("coco", tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(SourceError, match=r"several JSON files \(a.json, b.json\)"):
        read_source("coco", tmp_path)


@pytest.mark.real
def test_artworks_boxed(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("coco", real_fixture / "artworks_boxed")
    records = [record for _, record in data.records]
    assert (len(records), len(data.categories), len(rejects)) == (133, 20, 0)
    assert sum(len(r.boxes) for r in records) == 51
    assert sum(bool(r.boxes) for r in records) == 37 and sum(r.is_negative for r in records) == 96
    assert sum(r.split == "train" for r in records) == 81
    assert len({box.label for r in records for box in r.boxes}) == 16
    assert next(r for r in records if r.file_name.endswith("christian-dirce.jpg")).extra["hard"]


@pytest.mark.real
def test_painted_guitars(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("coco", real_fixture / "pacs" / "boxes_painted_guitars.json")
    assert len(data.records) == 60 and sum(len(r.boxes) for _, r in data.records) == 82
    assert {r.split for _, r in data.records} == {"train", "val"} and len(rejects) == 0
