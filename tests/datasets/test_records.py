"""Manifests: COCO tools open them, nothing is lost on the way, every fault is named."""

from __future__ import annotations

import gc
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicon.datasets.files import uncollected
from musicon.datasets.records import (
    ORIGINS,
    SPLITS,
    Box,
    Category,
    ImageRecord,
    Manifest,
    ManifestError,
    Rejects,
    UserError,
    box_fault,
    write_atomic,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
CATEGORIES = (Category(1, "violin", "strings", mimo="3573", hornbostel_sachs="321.322-71"),
              Category(2, "Hümmelchen", "wind", extra={"colour": "red"}))


@st.composite
def box(draw: st.DrawFn, width: int, height: int) -> Box:
    x0, y0 = draw(st.floats(0, width - 0.01)), draw(st.floats(0, height - 0.01))
    return Box((x0, y0, draw(st.floats(x0 + 0.005, width)), draw(st.floats(y0 + 0.005, height))),
               draw(st.sampled_from([1, 2])), draw(st.sampled_from(ORIGINS)),
               draw(st.none() | st.floats(0, 1)), draw(st.booleans()),
               draw(st.dictionaries(st.just("note"), TEXT)))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    images = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        width, height = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
        images.append(ImageRecord(
            number, f"{draw(TEXT)}/{number}.jpg", width, height,
            tuple(draw(st.lists(box(width, height), max_size=3))),
            draw(st.none() | st.sampled_from([(), (1,), (1, 2)])),
            draw(st.none() | st.sampled_from(SPLITS)), draw(st.none() | TEXT),
            draw(st.none() | TEXT), draw(st.dictionaries(TEXT, TEXT, max_size=2)),
            draw(st.none() | TEXT), draw(st.none() | TEXT), draw(st.none() | TEXT),
            draw(st.dictionaries(st.just("hard"), st.booleans()))))
    return Manifest(Path(), CATEGORIES, tuple(images), {"seed": 3})


@given(manifests())
def test_round_trip_keeps_everything(manifest: Manifest) -> None:
    document = json.loads(json.dumps(manifest.to_coco()))
    back = Manifest.from_coco(document, Path())
    assert back.categories == manifest.categories
    assert back.info == manifest.info
    for old, new in zip(manifest.images, back.images, strict=True):
        assert replace(new, boxes=()) == replace(old, boxes=())
        for a, b in zip(old.boxes, new.boxes, strict=True):
            assert b.xyxy == pytest.approx(a.xyxy, abs=0.002)
            assert b.score == pytest.approx(a.score, abs=1e-6)
            assert (b.label, b.origin, b.iscrowd, b.extra) == (a.label, a.origin, a.iscrowd,
                                                               a.extra)
    assert back.to_coco() == document, "a second writing changes nothing"


def document(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20]}],
        "categories": [{"id": 1, "name": "lute"}]}
    return base | changes


def annotation(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20]} | changes]


def image(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50} | changes]


def test_plain_coco_is_enough() -> None:
    record = Manifest.from_coco(document(), Path("here")).images[0]
    assert record.boxes == (Box((10, 10, 30, 30), 1),)
    assert record.known_labels == (1,) and not record.is_negative


@pytest.mark.parametrize(("changes", "words"), [
    ({"images": "none"}, "no list 'images'"),
    ({"annotations": 5}, "'annotations' is not a list"),
    ({"categories": {"1": "lute"}}, "'categories' is not a list"),
    ({"images": image() + image(file_name="b.jpg")}, "image id 7 is used 2 times"),
    ({"images": image() + image(id=8)}, "'a.jpg' is listed 2 times"),
    ({"images": image(width=0)}, "size 0x50 is not positive"),
    ({"images": image(height=-3)}, "size 100x-3 is not positive"),
    ({"images": image(width=float("inf"))}, "not usable"),
    ({"images": image(id=7.5)}, "not a whole number"),
    ({"images": [{"id": 7}]}, "'file_name'"),
    ({"images": image(split="training")}, "split 'training' is not one of train, val, test"),
    ({"images": image(labels=[9])}, "label 9 is not a category id"),
    ({"annotations": annotation(bbox=[90, 10, 20, 20])}, "outside the 100x50 image"),
    ({"annotations": annotation(bbox=[10, 10, -5, 20])}, "empty or reversed"),
    ({"annotations": annotation(bbox=[10, 10, 0, 20])}, "empty or reversed"),
    ({"annotations": annotation(bbox=[10, 10, float("nan"), 20])}, "not a number"),
    ({"annotations": annotation(bbox=[1, 2, 3])}, "bbox is not"),
    ({"annotations": annotation(category_id=4)}, "category 4 is not a category id"),
    ({"annotations": annotation(image_id=99)}, "image 99, which is not listed"),
    ({"annotations": annotation() * 2}, "annotation id 1 is used twice"),
    ({"annotations": annotation(score=1.5)}, "score 1.5 is outside 0..1"),
    ({"annotations": annotation(origin="guess")}, "origin 'guess'"),
    ({"annotations": [7]}, "annotation 7 is not usable"),
    ({"categories": [{"id": 1, "name": "lute"}, {"id": 1, "name": "harp"}]}, "used 2 times"),
    ({"categories": [{"id": 1, "name": "lute"}, {"id": 2, "name": "lute"}]}, "'lute' is used"),
    ({"categories": [{"id": 1, "name": "lute"}, {"id": 0, "name": "harp"}]}, "ids start at 1"),
])
def test_faults_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.from_coco(document(**changes), Path(), "labels.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("labels.json: ")


def test_many_faults_are_counted() -> None:
    rows = [annotation(id=i, bbox=[0, 0, 0, 0])[0] for i in range(30)]
    with pytest.raises(ManifestError, match="and 25 more faults"):
        Manifest.from_coco(document(annotations=rows), Path())


@pytest.mark.parametrize(("content", "words"), [
    (b"{", "not a readable"), (b"\xff\xfe\x00", "not a readable"), (b"", "not a readable"),
    (b"[]", "not a COCO document"), (b"[" * 100_000, "not a readable JSON")])
def test_unreadable_files(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "labels.json"
    file.write_bytes(content)
    with pytest.raises(ManifestError, match=words):
        Manifest.read(file)


def test_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"prepare_data\.py"):
        Manifest.read(tmp_path)


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(document()), encoding="utf-8-sig")
    assert len(Manifest.read(tmp_path)) == 1


def test_pycocotools_opens_a_manifest(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    manifest = Manifest(tmp_path, CATEGORIES, (
        ImageRecord(3, "ä.jpg", 10, 10, (Box((1, 2, 4, 8), 2, score=0.5),), split="val"),
        ImageRecord(5, "b.jpg", 10, 10, labels=None)))
    coco = COCO(manifest.write(tmp_path))
    assert coco.getImgIds() == [3, 5]
    assert coco.loadAnns(coco.getAnnIds(imgIds=[3]))[0]["bbox"] == [1, 2, 3, 6]
    assert coco.loadCats([2])[0]["name"] == "Hümmelchen"


def test_faulty_manifest_is_not_written(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, CATEGORIES, (ImageRecord(1, "a", 5, 5, labels=(9,)),))
    with pytest.raises(ManifestError, match="not written"):
        manifest.write(tmp_path)
    assert not any(tmp_path.iterdir())


def test_extra_keys_cannot_overrule_known_ones() -> None:
    record = ImageRecord(1, "a.jpg", 5, 5, (Box((0, 0, 2, 2), 1, extra={"bbox": []}),),
                         extra={"id": 9, "hard": True})
    out = Manifest(Path(), CATEGORIES, (record,)).to_coco()
    assert out["images"][0]["id"] == 1 and out["images"][0]["hard"] is True
    assert out["annotations"][0]["bbox"] == [0, 0, 2, 2]


def test_numpy_values_can_be_written(tmp_path: Path) -> None:
    import numpy as np

    corners = tuple(np.array([0, 0, 2, 2], np.float32))
    record = ImageRecord(np.int64(1), "a.jpg", np.int32(5), 5,
                         (Box(corners, np.int64(1), score=np.float32(0.5)),))
    file = Manifest(tmp_path, CATEGORIES, (record,)).write(tmp_path)
    assert Manifest.read(file).images[0].boxes[0].score == 0.5


def test_a_sliver_is_not_rounded_to_nothing() -> None:
    record = ImageRecord(1, "a.jpg", 50, 50, (Box((1, 1, 1.0001, 9), 1),))
    document = Manifest(Path(), CATEGORIES, (record,)).to_coco()
    assert document["annotations"][0]["bbox"] == [1, 1, 0.001, 8]
    assert len(Manifest.from_coco(document, Path()).images[0].boxes) == 1


def test_select() -> None:
    images = tuple(ImageRecord(i, f"{i}", 1, 1, split=s, domain=d) for i, (s, d) in enumerate(
        [("train", "mimo"), ("val", "mimo"), ("test", "google"), (None, "google")]))
    manifest = Manifest(Path(), (), images)
    assert [r.id for r in manifest.select(split="val").images] == [1]
    assert [r.id for r in manifest.select(split=["train", "test"]).images] == [0, 2]
    assert [r.id for r in manifest.select(domain="google").images] == [2, 3]
    assert [r.id for r in manifest.select(where=lambda r: r.id > 1, domain="google",
                                          split="test").images] == [2]


def test_negative_is_not_unlabelled() -> None:
    assert ImageRecord(1, "a", 1, 1).is_negative
    assert not ImageRecord(1, "a", 1, 1, labels=None).is_negative
    assert not ImageRecord(1, "a", 1, 1, labels=(1,)).is_negative


@pytest.mark.parametrize(("xyxy", "fault"), [
    ((0, 0, 10, 10), None), ((-1, -1, 11, 11), None), ((-1.1, 0, 5, 5), "outside"),
    ((0, 0, 5, 11.5), "outside"), ((5, 5, 5, 6), "empty"), ((5, 5, 4, 6), "empty"),
    ((float("inf"), 0, 1, 1), "not a number")])
def test_box_fault(xyxy: tuple[float, ...], fault: str | None) -> None:
    found = box_fault(xyxy, 10, 10)
    assert found is None if fault is None else fault in str(found)


def test_write_atomic_keeps_the_old_file_when_the_disk_is_full(tmp_path: Path) -> None:
    import resource
    import signal

    file = tmp_path / "manifest.json"
    write_atomic(file, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_atomic(file, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(file)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"gei\xdfe.jpg")
    file = Manifest(tmp_path, (), (ImageRecord(1, name, 1, 1),)).write(tmp_path)
    assert Manifest.read(file).images[0].file_name == name
    rejects = Rejects()
    rejects.add(name, "why")
    rejects.write(tmp_path / "rejects.jsonl")
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["file"] == name


def test_errors_are_the_users_kind() -> None:
    assert issubclass(ManifestError, UserError) and issubclass(UserError, ValueError)


def test_the_collector_rests_while_many_objects_are_made() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ManifestError):
        Manifest.read("nowhere")
    assert gc.isenabled()
