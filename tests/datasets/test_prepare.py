"""From a source to a data set: checked, mended, split."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from preparing import Draw, tool, tree
from pycocotools.coco import COCO

from musicon.datasets.records import Manifest
from musicon.datasets.sources import base


def coco(folder: Path, images: list[dict[str, Any]], boxes: list[tuple[int, list[float]]]) -> Path:
    file = folder / "labels.json"
    file.write_text(json.dumps({
        "images": images, "categories": [{"id": 5, "name": "Laute"}, {"id": 6, "name": "harp"}],
        "annotations": [{"id": i, "image_id": image, "category_id": 5, "bbox": box}
                        for i, (image, box) in enumerate(boxes, start=1)]}))
    return file


def rejects(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    return {Path(row["file"]).name: row["reason"] for row in rows}


def test_folder_to_data_set(tmp_path: Path, draw: Draw,
                            capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        draw(f"src/Geige/{number}.jpg")
        draw(f"src/none/n{number}.jpg")
    draw("src/Geige/Größe [1] (2).png")
    (tmp_path / "src/Geige/broken.jpg").write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "data" / "mine"
    assert tool("folder", tmp_path / "src", "--out", out, "--domain", "mimo") == 1
    manifest = Manifest.read(out)
    assert len(manifest) == 21 and all(manifest.path(r).is_file() for r in manifest.images)
    assert [r.id for r in manifest.images] == list(range(1, 22))
    assert {r.domain for r in manifest.images} == {"mimo"}
    assert all(r.split and len(r.sha256 or "") == 64 and (r.width, r.height) == (40, 30)
               for r in manifest.images)
    assert sum(r.is_negative for r in manifest.images) == 10
    assert list(rejects(out)) == ["broken.jpg"]
    assert os.stat(out / "images/Geige/0.jpg").st_ino == os.stat(
        tmp_path / "src/Geige/0.jpg").st_ino, "linked, not copied"
    printed = capsys.readouterr().out
    for words in ("Geige", "violin", "language:de", "no instrument", "1 left out"):
        assert words in printed
    assert COCO(out / "manifest.json").getImgIds() == list(range(1, 22))
    assert sorted(os.listdir(out.parent)) == ["mine"], "nothing is left beside it"


def test_twice_is_the_same(tmp_path: Path, draw: Draw) -> None:
    for number in range(8):
        draw(f"src/harp/{number}.jpg")
    tool("folder", tmp_path / "src", "--out", tmp_path / "a")
    tool("folder", tmp_path / "src", "--out", tmp_path / "b", "--workers", 1, "--copy")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    first = tree(tmp_path / "a")
    assert tool("folder", tmp_path / "src", "--out", tmp_path / "a") == 0
    assert tree(tmp_path / "a") == first


def test_boxes_are_mended_or_rejected(tmp_path: Path, draw: Draw) -> None:
    for number in range(1, 9):
        draw(f"{number}.jpg", 40, 30)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in range(1, 7)]
    images += [{"id": 7, "file_name": "7.jpg", "width": 80, "height": 60},
               {"id": 8, "file_name": "8.jpg", "width": 30, "height": 99}]
    boxes: list[tuple[int, list[float]]] = [
        (1, [30, 20, 12, 11]), (2, [-3, -3, 43.5, 36]), (3, [100, 100, 5, 5]), (4, [5, 5, 0, 5]),
        (5, [35, 5, 40, 5]), (6, [5, 5, 0.5, 9]), (7, [20, 20, 40, 20]), (8, [1, 1, 5, 5])]
    file = coco(tmp_path, images, boxes)
    out = tmp_path / "out"
    assert tool("coco", file, "--out", out, "--in-place") == 1
    found = {r.file_name: r for r in Manifest.read(out).images}
    assert found["../1.jpg"].boxes[0].xyxy == (30, 20, 40, 30)
    assert found["../2.jpg"].boxes[0].xyxy == (0, 0, 40, 30)
    assert found["../7.jpg"].boxes[0].xyxy == (10, 10, 30, 20), "listed at twice its size"
    for name in "3456":
        record = found[f"../{name}.jpg"]
        assert record.boxes == () and record.labels == (1,), "a lute all the same: no negative"
    why = rejects(out)
    assert "lies outside the 40x30 picture" in why["3.jpg"]
    assert "empty or reversed" in why["4.jpg"] and "mostly outside" in why["5.jpg"]
    assert "too small" in why["6.jpg"] and "but the file has 40x30" in why["8.jpg"]


def test_boxes_drawn_on_a_picture_that_lies_on_its_side(tmp_path: Path) -> None:
    """Tools that know nothing of EXIF list the stored size and box the stored pixels."""
    stored = np.zeros((40, 20, 3), np.uint8)  # 20 wide, 40 high
    stored[5:15, 2:6] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    file = coco(tmp_path, [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 40}],
                [(1, [2, 5, 4, 10])])
    assert tool("coco", file, "--out", tmp_path / "out", "--in-place") == 0
    record = Manifest.read(tmp_path / "out").images[0]
    assert (record.width, record.height) == (40, 20)
    from musicon.datasets.images import decode

    x0, y0, x1, y1 = (int(v) for v in record.boxes[0].xyxy)
    picture = decode(tmp_path / "a.jpg")
    assert picture[y0:y1, x0:x1].mean() > 230 and (x1 - x0, y1 - y0) == (10, 4)


def test_copies(tmp_path: Path, draw: Draw) -> None:
    draw("src/harp/a.png", seed=1)
    draw("src/harp/b.png", seed=1)
    draw("src/harp/c.png", seed=2)
    draw("src/lute/d.png", seed=2)
    draw("src/lute/e.png", seed=3)
    out = tmp_path / "out"
    assert tool("folder", tmp_path / "src", "--out", out) == 1
    assert [r.file_name for r in Manifest.read(out).images] == ["images/harp/a.png",
                                                                "images/lute/e.png"]
    assert rejects(out) == {
        "b.png": "same content as harp/a.png",
        "c.png": "same content as lute/d.png, but labelled otherwise: keep the right one",
        "d.png": "same content as harp/c.png, but labelled otherwise: keep the right one"}


def test_a_copy_leaves_the_split_that_is_learnt_from(
        tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]) -> None:
    for split, seeds in {"train": (1, 2, 3, 4), "val": (2, 3, 5), "test": (3, 6)}.items():
        for seed in seeds:
            draw(f"src/{split}/harp/{split}{seed}.png", seed=seed)
    out = tmp_path / "out"
    assert tool("folder", tmp_path / "src", "--out", out) == 1
    assert {Path(r.file_name).name: r.split for r in Manifest.read(out).images} == {
        "train1.png": "train", "train4.png": "train", "val2.png": "val", "val5.png": "val",
        "test3.png": "test", "test6.png": "test"}
    assert rejects(out) == {"train2.png": "same content as val/harp/val2.png",
                            "train3.png": "same content as test/harp/test3.png",
                            "val3.png": "same content as test/harp/test3.png"}
    assert ("note: 2 pictures given to several splits: kept for the test, else for val\n"
            in capsys.readouterr().out)


def test_joined_data_sets_are_the_same_in_any_order(tmp_path: Path, draw: Draw) -> None:
    """Also where two of them dealt the same picture differently."""
    for seed in range(12):
        for part in ("a", "b"):
            draw(f"{part}/harp/{seed}.png", seed=seed)
    draw("c/rebec/0.png", seed=99)
    for part, share in (("a", "50/0/50"), ("b", "60/20/20"), ("c", "100/0/0")):
        tool("folder", tmp_path / part, "--split", share, "--out", tmp_path / f"dealt_{part}")

    def joined(parts: str) -> dict[str | None, str | None]:
        out = tmp_path / f"joined_{parts}"
        assert tool("coco", *(tmp_path / f"dealt_{part}" for part in parts), "--out", out) == 1
        return {r.sha256: r.split for r in Manifest.read(out).images if "rebec" not in r.file_name}

    given = joined("ab")
    assert given == joined("ba") == joined("cba")
    assert len(given) == 12


def test_a_labelled_copy_takes_the_place_of_one_to_be_tested_on(tmp_path: Path,
                                                                draw: Draw) -> None:
    for split, seeds in {"train": (1, 2), "test": (1, 3)}.items():
        for seed in seeds:
            draw(f"src/images/{split}/{split}{seed}.png", seed=seed)
    for name in ("train/train1", "train/train2", "test/test3"):  # nobody labelled test1
        file = tmp_path / f"src/labels/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0 0.5 0.5 0.5 0.5")
    out = tmp_path / "out"
    assert tool("yolo", tmp_path / "src", "--names", "harp", "--out", out) == 1
    assert {Path(r.file_name).name: r.split for r in Manifest.read(out).images} == {
        "train1.png": "test", "train2.png": "train", "test3.png": "test"}
    assert rejects(out) == {"test1.png": "same content as images/train/train1.png"}


def test_an_earlier_data_set_is_brought_up_to_date(tmp_path: Path, draw: Draw) -> None:
    for number in range(20):
        draw(f"src/harp/{number}.jpg")
    out = tmp_path / "out"
    tool("folder", tmp_path / "src", "--out", out)
    before = {r.sha256: r.split for r in Manifest.read(out).images}
    (out / "my notes.txt").write_text("mine")
    (tmp_path / "src/harp/3.jpg").unlink()
    for number in range(20, 40):
        draw(f"src/harp/{number}.jpg")
    assert tool("folder", tmp_path / "src", "--out", out) == 0
    after = Manifest.read(out)
    assert len(after) == 39
    assert all(before.get(r.sha256, r.split) == r.split for r in after.images), "splits are kept"
    assert not (out / "images/harp/3.jpg").exists()
    assert (out / "my notes.txt").read_text() == "mine"
    assert (tmp_path / "src/harp/4.jpg").exists()


def test_a_data_set_that_somebody_tidied_up_is_brought_up_to_date(tmp_path: Path,
                                                                  draw: Draw) -> None:
    for name in ("harp/1", "lute/1", "lute/2"):
        draw(f"src/{name}.jpg")
    tool("folder", tmp_path / "src", "--out", tmp_path / "out")
    shutil.rmtree(tmp_path / "src/lute")
    shutil.rmtree(tmp_path / "out/images/lute")
    assert tool("folder", tmp_path / "src", "--out", tmp_path / "out") == 0
    assert [r.file_name for r in Manifest.read(tmp_path / "out").images] == ["images/harp/1.jpg"]


def test_splits_of_the_source_are_kept(tmp_path: Path, draw: Draw) -> None:
    rows = []
    for number in range(1, 11):
        draw(f"{number}.jpg")
        rows.append({"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30,
                     "split": "val" if number > 5 else "train"})
    file = coco(tmp_path, rows, [])
    tool("coco", file, "--out", tmp_path / "out", "--in-place")
    kept = {r.file_name: r.split for r in Manifest.read(tmp_path / "out").images}
    assert kept == {f"../{r['file_name']}": r["split"] for r in rows}
    tool("coco", file, "--out", tmp_path / "out", "--in-place", "--resplit")
    assert {r.split for r in Manifest.read(tmp_path / "out").images} == {"train", "val", "test"}
    tool("coco", file, "--out", tmp_path / "out", "--in-place", "--as-split", "test")
    assert {r.split for r in Manifest.read(tmp_path / "out").images} == {"test"}


def test_attributes_and_groups_from_names(tmp_path: Path, draw: Draw) -> None:
    for painter in "abcdefgh":
        for number in range(3):
            draw(f"src/Cubism/{painter}_{number}.jpg")
    out = tmp_path / "out"
    assert tool("folder", tmp_path / "src", "--class", "negative", "--out", out, "--pattern",
                "(?P<movement>[^/]+)/(?P<painter>[^_/]+)_", "--group-by", "painter") == 0
    splits: dict[str, set[str | None]] = {}
    for record in Manifest.read(out).images:
        assert record.attributes["movement"] == "Cubism"
        assert record.group == record.attributes["painter"]
        splits.setdefault(record.group, set()).add(record.split)
    assert len(splits) == 8 and all(len(found) == 1 for found in splits.values())


def test_altered_copies_of_a_picture_stay_together(tmp_path: Path, draw: Draw) -> None:
    for name in ("a_jpg.rf.0123456789abcdef", "a_jpg.rf.fedcba9876543210", "b"):
        draw(f"src/harp/{name}.jpg")
    tool("folder", tmp_path / "src", "--out", tmp_path / "out")
    assert [r.group for r in Manifest.read(tmp_path / "out").images] == ["a_jpg", "a_jpg", None]


def test_matching(tmp_path: Path, draw: Draw) -> None:
    draw("src/harp/1a_x.jpg")
    draw("src/harp/1p_x.jpg")
    tool("folder", tmp_path / "src", "--out", tmp_path / "out", "--match", "*/*a_*")
    assert [r.file_name for r in Manifest.read(tmp_path / "out").images] == ["images/harp/1a_x.jpg"]


def test_joining_two_data_sets(tmp_path: Path, draw: Draw) -> None:
    for place in "ab":
        draw(f"{place}/src/harp/1.jpg")
        draw(f"{place}/src/{'lute' if place == 'a' else 'drum'}/2.jpg")
        tool("folder", tmp_path / place / "src", "--out", tmp_path / place / "set")
    out = tmp_path / "both"
    assert tool("coco", tmp_path / "a/set", tmp_path / "b/set", "--out", out) == 0
    manifest = Manifest.read(out)
    assert len(manifest) == 4 and {c.name for c in manifest.categories} == {"harp", "lute", "drum"}
    assert all(manifest.path(r).is_file() for r in manifest.images)


@pytest.mark.parametrize(("arguments", "words"), [
    (["folder", "missing", "--out", "o"], "missing: no such folder"),
    (["folder", "src", "--out", "foreign"], "not empty, and not made by this command"),
    (["folder", "src", "--out", "theirs"], "was not made by this command"),
    (["folder", "src", "--out", "file"], "a file of that name is in the way"),
    (["folder", "src", "--out", "src/out"], "lies in the source"),
    (["folder", "src", "--out", "."], "in the way|not empty|lies in the source"),
    (["folder", "src"], "no target given; add --out"),
    (["folder", "src", "--out", "o", "--split", "70/20"], "70/10/20"),
    (["folder", "src", "--out", "o", "--pattern", "("], "not a regular expression"),
    (["folder", "src", "--out", "o", "--pattern", "x"], "no named part"),
    (["folder", "src", "--out", "o", "--pattern", "(?P<split>[^/]+)/"],
     "the split of harp/1.jpg is 'harp'; expected train, val or test"),
    (["folder", "src", "--out", "o", "--group-by", "painter"], "no picture has it"),
    (["folder", "broken", "--out", "o"], "none of 1 pictures can be used; the first"),
    (["folder", "src", "--out", "/proc/nothing/here"], "/proc/nothing"),
    (["coco", "src/labels.json", "--out", "o"], "no such file or folder"),
    (["coco", "bad.json", "--out", "o"], "not a readable JSON"),
])
def test_what_cannot_be_done_is_one_sentence(
        tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    draw("src/harp/1.jpg")
    (tmp_path / "broken/harp").mkdir(parents=True)
    (tmp_path / "broken/harp/x.jpg").write_bytes(b"no")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.txt").write_text("precious")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/manifest.json").write_text('{"images": []}')
    for name in ("file", "bad.json"):
        (tmp_path / name).write_text("{")
    before = tree(tmp_path)
    assert tool(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(words, error)
    assert tree(tmp_path) == before, "nothing half-written"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_names_never_meet() -> None:
    from musicon.datasets.prepare import free_name

    taken: set[str] = set()
    names = ["images/a.jpg", "a.jpg", "../A.JPG", "/x/../a.jpg", "x\\b.jpg"]
    assert [free_name(name, taken) for name in names] == [
        "a.jpg", "a_2.jpg", "A_3.JPG", "x/a.jpg", "x/b.jpg"]


@pytest.mark.parametrize("source", base.available())
def test_help_of_every_source(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        tool(source, "--help")
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "--out FOLDER" in printed and "--seed" in printed


def test_unknown_source(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        tool("cocoo", "x")
    assert done.value.code == 2
    assert "folder" in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.parametrize(("arguments", "images", "boxes", "negatives"), [
    (["folder", "photos_kaggle30"], 1500, 0, 0),
    (["coco", "artworks_boxed"], 133, 51, 96),
    (["coco", "pacs/boxes_painted_guitars.json"], 60, 82, 0),
    (["voc", "icons_byzart"], 100, 1087, 0),
    (["voc", "paintings_peopleart", "--unannotated", "negative", "--only", "lute"], 480, 0, 480),
    (["yolo", "guitars_yolo", "--names", "guitar"], 100, 94, 11),
])
def test_real_collections(real_fixture: Path, tmp_path: Path, arguments: list[str], images: int,
                          boxes: int, negatives: int) -> None:
    source, path, *more = arguments
    assert tool(source, real_fixture / path, *more, "--out", tmp_path / "out") == 0
    manifest = Manifest.read(tmp_path / "out")
    assert len(manifest) == images
    assert sum(len(r.boxes) for r in manifest.images) == boxes
    assert sum(r.is_negative for r in manifest.images) == negatives
    opened = COCO(tmp_path / "out" / "manifest.json")
    assert (len(opened.getImgIds()), len(opened.getAnnIds())) == (images, boxes)
