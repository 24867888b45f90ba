"""A folder a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets.records import Rejects
from musicon.datasets.sources import base
from musicon.datasets.sources.base import SourceData, SourceError

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]


def labels(data: base.SourceData) -> dict[str, tuple[str, ...] | None]:
    names = {category.id: category.name for category in data.categories}
    return {record.file_name: None if record.labels is None else tuple(
        names[i] for i in record.labels) for _, record in data.records}


def test_classes_are_instruments(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in ("acordian/1.jpg", "Geige/2.jpg", "saxaphone/3.jpg", "viool/deep/4.jpg",
                 "Wobblephone/5.jpg", "none/6.jpg", "no_instrument/7.jpg"):
        draw(name)
    data, rejects = read_source("folder", tmp_path)
    assert labels(data) == {
        "acordian/1.jpg": ("accordion",), "Geige/2.jpg": ("violin",),
        "saxaphone/3.jpg": ("saxophone",), "viool/deep/4.jpg": ("violin",),
        "Wobblephone/5.jpg": ("Wobblephone",), "none/6.jpg": (), "no_instrument/7.jpg": ()}
    how = {row[0]: row[1:] for row in data.naming}
    assert how["acordian"] == ("accordion", "spelling")
    assert how["Geige"] == ("violin", "language:de")
    assert how["Wobblephone"][0] == "Wobblephone (kept)"
    assert how["none"] == ("(no instrument)", "negative")
    assert "'Geige' and 'viool' are one class: violin" in data.notes
    violin = next(c for c in data.categories if c.name == "violin")
    assert violin.supercategory == "strings" and violin.mimo
    assert violin.extra["source_names"] == ["Geige", "viool"]
    assert [c.id for c in data.categories] == list(range(1, len(data.categories) + 1))
    assert len(rejects) == 0


@pytest.mark.parametrize(("policy", "expected", "left_out"), [
    ("keep", ("Wobblephone",), 0), ("negative", (), 0), ("reject", "absent", 1)])
def test_unknown_names(tmp_path: Path, draw: Draw, read_source: Reader, policy: str,
                       expected: object, left_out: int) -> None:
    draw("Wobblephone/5.jpg")
    draw("harp/1.jpg")
    data, rejects = read_source("folder", tmp_path, "--unknown", policy)
    assert labels(data).get("Wobblephone/5.jpg", "absent") == expected
    assert len(rejects) == left_out
    assert all("'Wobblephone' is no known instrument" in reason for _, reason in rejects.rows)


def test_renaming(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in ("Klasse 7/1.jpg", "B/2.jpg", "C/3.jpg", "D/4.jpg"):
        draw(name)
    file = tmp_path / "names.yaml"
    file.write_text("Klasse 7: Laute\nb: null\nC: reject\nD: my own thing\nE: harp\n",
                    encoding="utf-8")
    data, rejects = read_source("folder", tmp_path, "--rename", file)
    assert labels(data) == {
        "Klasse 7/1.jpg": ("lute",), "B/2.jpg": (), "D/4.jpg": ("my own thing",)}
    assert [Path(name).name for name, _ in rejects.rows] == ["3.jpg"]
    assert "--rename: 'e' is not a name in this source" in data.notes
    assert ("Klasse 7", "lute", "renamed to Laute, language:de") in data.naming


@pytest.mark.parametrize(("text", "words"), [
    ("a: [1]", "expected one name"), ("- a", "expected lines"), ("", "expected lines"),
    ("a: 'x", "not a readable YAML")])
def test_bad_rename_file(tmp_path: Path, draw: Draw, read_source: Reader, text: str,
                         words: str) -> None:
    draw("harp/1.jpg")
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_source("folder", tmp_path, "--rename", tmp_path / "names.yaml")
    with pytest.raises(ValueError, match="no such file"):
        read_source("folder", tmp_path, "--rename", tmp_path / "missing.yaml")


def test_negatives_and_numbered_folders(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("159.People/1.jpg")
    draw("136.mandolin/2.jpg")
    data, _ = read_source("folder", tmp_path, "--negatives", "people", "horses")
    assert labels(data) == {"159.People/1.jpg": (), "136.mandolin/2.jpg": ("mandolin",)}
    assert data.notes == ("--negatives: 'horses' is not a name in this source",)


def test_one_class_for_all(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("x/1.jpg")
    draw("2.jpg")
    assert set(labels(read_source("folder", tmp_path, "--class", "Harfe")[0]).values()) == {
        ("harp",)}
    assert set(labels(read_source("folder", tmp_path, "--class", "negative")[0]).values()) == {()}
    assert set(labels(read_source("folder", tmp_path, "--class", "unlabelled")[0]).values()) == {
        None}


def test_split_folders_above_classes(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in ("train/harp/1.jpg", "valid/harp/2.jpg", "test/lute/3.jpg"):
        draw(name)
    data, _ = read_source("folder", tmp_path)
    assert [record.split for _, record in data.records] == ["test", "train", "val"]
    assert labels(data)["valid/harp/2.jpg"] == ("harp",)


def test_loose_pictures_and_other_files(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("harp/1.jpg")
    loose = draw("2.jpg")
    (tmp_path / "harp" / "readme.txt").write_text("hello")
    (tmp_path / "lute").mkdir()
    data, rejects = read_source("folder", tmp_path)
    assert [file for file, _ in rejects.rows] == [str(loose)]
    assert "no pictures in: lute" in data.notes and "1 file passed over: no pictures" in data.notes


def test_a_class_folder_that_may_not_be_read_is_a_reject(
        tmp_path: Path, draw: Draw, read_source: Reader, permissions_count: None) -> None:
    draw("harp/1.jpg")
    draw("lute/2.jpg")
    (tmp_path / "lute").chmod(0)
    data, rejects = read_source("folder", tmp_path)
    assert list(labels(data)) == ["harp/1.jpg"]
    assert rejects.rows == [(str(tmp_path / "lute"),
                             "no permission to read this folder; change its permissions")]
    (tmp_path / "lute").chmod(0o755)


def test_boxes_from_text(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("lute/a b.jpg")
    draw("none/n.jpg")
    (tmp_path / "boxes.txt").write_text(
        "a b.jpg 1 2 10 20\nn.jpg 1 1 2 2\nmissing.jpg 1 1 2 2\na b.jpg x 1 1 1\n")
    data, rejects = read_source("folder", tmp_path, "--boxes", tmp_path / "boxes.txt")
    assert [box.xyxy for _, r in data.records for box in r.boxes] == [(1, 2, 11, 22)]
    assert [reason.split(":")[0] for _, reason in rejects.rows] == ["line 4", "1 boxes left out"]
    assert "1 box left out: their picture's class is no instrument" in data.notes


def test_transparent_pictures_can_be_rejected(tmp_path: Path, draw: Draw,
                                              read_source: Reader) -> None:
    from PIL import Image

    draw("lute/a.jpg")
    Image.new("RGBA", (4, 4)).save(tmp_path / "lute" / "b.png")
    assert len(read_source("folder", tmp_path)[0].records) == 2
    data, rejects = read_source("folder", tmp_path, "--alpha", "reject")
    assert len(data.records) == 1 and "transparency" in rejects.rows[0][1]


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: None, "no such folder"),
    (lambda p: p.write_text("x"), "a file, but a folder was expected"),
    (lambda p: p.mkdir(), "no pictures in it"),
    (lambda p: (p.mkdir(), (p / "a.jpg").write_bytes(b"x")), "none in a folder of its class"),
])
def test_unusable(tmp_path: Path, read_source: Reader, make: object, words: str) -> None:
    make(tmp_path / "photos")  # type: ignore[operator]
    with pytest.raises(SourceError, match=words):
        read_source("folder", tmp_path / "photos")


def test_unknown_source_lists_those_that_exist() -> None:
    with pytest.raises(SourceError, match="there are: atelier, coco, .*folder, .*voc, yolo"):
        base.load("cocco")


def test_level_of_the_class_folder(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("photo/lute/a.jpg")
    draw("painting/harp/old/b.jpg")
    draw("painting/c.jpg")
    data, rejects = read_source("folder", tmp_path, "--level", "2")
    assert [c.name for c in data.categories] == ["harp", "lute"]
    assert [Path(file).name for file, _ in rejects.rows] == ["c.jpg"]


@pytest.mark.real
def test_photos_kaggle30(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("folder", real_fixture / "photos_kaggle30")
    assert (len(data.records), len(data.categories), len(rejects)) == (1500, 30, 0)
    assert set(Counter(r.labels for _, r in data.records).values()) == {50}
    became = {row[0]: row[1] for row in data.naming}
    assert (became["acordian"], became["marakas"], became["saxaphone"]) == (
        "accordion", "maracas", "saxophone")


@pytest.mark.real
@pytest.mark.parametrize("domain", ["art_painting", "photo"])
def test_pacs(real_fixture: Path, read_source: Reader, domain: str) -> None:
    data, rejects = read_source("folder", real_fixture / "pacs" / domain,
                                "--negatives", "house", "person")
    assert len(data.records) == 180 and len(rejects) == 0
    assert sum(r.is_negative for _, r in data.records) == 120
    assert [c.name for c in data.categories] == ["guitar"]


@pytest.mark.real
def test_pacs_whole(real_fixture: Path, read_source: Reader) -> None:
    data, rejects = read_source("folder", real_fixture / "pacs", "--level", "2",
                                "--negatives", "house", "person")
    assert len(data.records) == 360 and len(rejects) == 0
    assert Counter(r.labels for _, r in data.records) == {(1,): 120, (): 240}


@pytest.mark.real
def test_photoart50(real_fixture: Path, read_source: Reader) -> None:
    folder = real_fixture / "photoart50"
    data, rejects = read_source("folder", folder, "--boxes", folder / "gt_bb", "--negatives",
                                "horse", "people", "teapot", "umbrella")
    assert len(data.records) == 175 and len(rejects) == 0
    mandolins = [r for _, r in data.records if r.labels]
    assert len(mandolins) == 55 and all(r.boxes for r in mandolins)
    assert sum("a_" in r.file_name for r in mandolins) == 25


def test_folders_that_tell_attributes(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in ("Kubismus/Braque/1.jpg", "Kubismus/Gris/1.jpg", "印象派/Monet/x/2.jpg",
                 "violin/Nobody/3.jpg", "Kubismus/loose.jpg"):
        draw(name)
    data, rejects = read_source("folder", tmp_path, "--attribute", "movement,painter")
    assert {r.file_name: dict(r.attributes) for _, r in data.records} == {
        "Kubismus/Braque_1.jpg": {"movement": "Kubismus", "painter": "Braque"},
        "Kubismus/Gris_1.jpg": {"movement": "Kubismus", "painter": "Gris"},
        "印象派/Monet_x_2.jpg": {"movement": "印象派", "painter": "Monet"},
        "violin/Nobody_3.jpg": {"movement": "violin", "painter": "Nobody"}}
    assert data.categories == () and all(r.labels is None for _, r in data.records)
    assert [reason for _, reason in rejects.rows] == ["not in a folder for each of movement, "
                                                      "painter"]


def test_attributes_below_split_folders(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in ("train/Rococo/1.jpg", "test/Rococo/1.jpg"):
        draw(name)
    data, _ = read_source("folder", tmp_path, "--attribute", "movement")
    assert sorted((r.split or "", r.attributes["movement"]) for _, r in data.records) == [
        ("test", "Rococo"), ("train", "Rococo")]
    with pytest.raises(SourceError, match="leave out --class and --boxes"):
        read_source("folder", tmp_path, "--attribute", "movement", "--class", "violin")


def test_unknown_names_that_may_be_one_are_told(tmp_path: Path, draw: Draw,
                                                read_source: Reader) -> None:
    for name in ("wobblephone/1.jpg", "woblephone/2.jpg", "harp/3.jpg", "harps/4.jpg"):
        draw(name)
    data, _ = read_source("folder", tmp_path)
    assert [note for note in data.notes if "two classes" in note] == [
        "'wobblephone' and 'woblephone' are two classes; one, if --rename FILE says "
        "'wobblephone: woblephone'"]
    rules = tmp_path / "rules.yaml"
    rules.write_text("wobblephone: woblephone")
    data, _ = read_source("folder", tmp_path, "--rename", rules)
    assert sorted(c.name for c in data.categories) == ["harp", "woblephone"]


def test_names_of_files_tell_the_class(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    for name in ("brass/trumpet_b_flat_01.png", "harp1_ganson.png", "x/treble_clef.png",
                 "lute and harp.png"):
        draw(name)
    data, rejects = read_source("folder", tmp_path, "--by-name")
    assert labels(data) == {"brass/trumpet_b_flat_01.png": ("trumpet",),
                            "harp1_ganson.png": ("harp",)}
    assert {Path(file).name: reason for file, reason in rejects.rows} == {
        "treble_clef.png": "its name tells no instrument",
        "lute and harp.png": "its name tells harp and lute"}
    with pytest.raises(SourceError, match=r"none called after one instrument.*--class NAME"):
        read_source("folder", tmp_path / "x", "--by-name")
