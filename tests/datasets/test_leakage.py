"""Test pictures stay out of training: held-out splits, twins, and works by the same hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from musicon.datasets.leakage import apart_from, hold_out, labels_only
from musicon.datasets.records import Box, Category, ImageRecord, Manifest, Rejects


def record(number: int, **options: object) -> ImageRecord:
    return ImageRecord(number, f"{number}.png", 8, 8, **options)  # type: ignore[arg-type]


def test_hold_out_turns_one_split_into_the_test_and_forgets_the_others() -> None:
    items = [(Path(f"{i}.png"), record(i, split=split, group=group)) for i, (split, group) in
             enumerate([("val", "goya"), ("train", "goya"), ("train", "manet"), (None, None)])]
    assert [r.split for _, r in hold_out(items, "val")] == ["test", "test", None, None]
    assert [r.split for _, r in items] == ["val", "train", "train", None]


def test_apart_from_leaves_out_twins_names_and_painters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held, own = tmp_path / "held", tmp_path / "own"
    for folder in (held, own):
        folder.mkdir()
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(held / f"{i}.png")
    for i in range(3, 6):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(own / f"{i}.png")
    Image.open(held / "1.png").resize((128, 96)).save(own / "1.png")
    (own / "3.png").write_bytes((held / "0.png").read_bytes())
    test = Manifest(held, (), (record(0, split="test", attributes={"painter": "juan-gris"}),
                               record(1, split="test"),
                               record(2, split="train", attributes={"painter": "manet"})))
    items = [(own / "1.png", record(1)), (own / "3.png", record(3)),
             (own / "4.png", record(4, attributes={"painter": "juan-gris"})),
             (own / "5.png", record(5, attributes={"painter": "manet"}))]
    rejects = Rejects()
    kept = apart_from(items, [test], rejects)
    assert [r.id for _, r in kept] == [5]
    reasons = dict(rejects.rows)
    assert reasons[str(own / "1.png")] == (
        "same file name and looks as the test picture held/1.png")
    assert "same content" in reasons[str(own / "3.png")]
    assert "juan gris" in reasons[str(own / "4.png")]


def test_apart_from_keeps_other_pictures_of_the_same_name(tmp_path: Path) -> None:
    """Every folder of scans has its ``img001.jpg``."""
    rng = np.random.default_rng(0)
    for folder in ("held", "own/lutes", "own/harps"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(
            tmp_path / folder / "img001.png")
    test = Manifest(tmp_path / "held", (), tuple(
        replace(record(i), file_name=name, sha256=f"{i:064}", split="test")
        for i, name in enumerate(("img001.png", "lost/img001.png"))))
    items = [(tmp_path / "own" / name, replace(record(7), file_name=name))
             for name in ("lutes/img001.png", "harps/img001.png", "gone/img001.png")]
    rejects = Rejects()
    assert apart_from(items, [test], rejects) == items and not rejects.rows


def test_works_of_unknown_painters_are_not_of_one_hand(tmp_path: Path) -> None:
    painters = ("Anonymous, Flemish", "unknown-artist", "Unbekannt", "Jan Steen")
    test = Manifest(tmp_path, (), tuple(
        record(i, split="test", sha256=f"{i:064}", attributes={"painter": painter})
        for i, painter in enumerate(painters)))
    items = [(tmp_path / f"own-{i}.png", replace(record(i + 9), attributes={"painter": painter}))
             for i, painter in enumerate(painters)]
    rejects = Rejects()
    assert apart_from(items, [test], rejects) == items[:3]
    assert [Path(file).name for file, _ in rejects.rows] == ["own-3.png"]


def test_apart_from_leaves_unreadable_files_to_the_check(tmp_path: Path) -> None:
    test = Manifest(tmp_path, (), (record(0, split="test", sha256="0" * 64),))
    items = [(tmp_path / "gone.png", record(7))]
    rejects = Rejects()
    assert apart_from(items, [test], rejects) == items
    assert not rejects.rows


def test_labels_only_keeps_what_and_forgets_where() -> None:
    boxed = record(1, boxes=(Box((1, 1, 4, 4), 2), Box((2, 2, 5, 5), 1)), labels=(3,))
    unknown = replace(boxed, boxes=(), labels=None)
    (_, first), (_, second) = labels_only([(Path("a"), boxed), (Path("b"), unknown)])
    assert first.boxes == () and first.labels == (1, 2, 3)
    assert second.labels is None


def test_prepare_holds_out_for_real(tmp_path: Path) -> None:
    import argparse

    from musicon.datasets.prepare import add_arguments, prepare
    from musicon.datasets.sources import coco

    rng = np.random.default_rng(1)
    source = tmp_path / "source"
    source.mkdir()
    records = []
    for i in range(1, 21):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(source / f"{i}.png")
        records.append(record(i, split="val" if i <= 8 else "train",
                              boxes=(Box((1, 1, 5, 5), 1),)))
    Manifest(source, (Category(1, "harp"),), tuple(records)).write(source)
    parser = argparse.ArgumentParser()
    coco.add_arguments(parser)
    add_arguments(parser)
    options = parser.parse_args([str(source), "--out", str(tmp_path / "out"), "--quiet",
                                 "--hold-out", "val", "--split", "75/25/0", "--labels-only"])
    made = prepare("coco", options).manifest
    splits = {r.file_name.rsplit("/", 1)[-1]: r.split for r in made.images}
    assert {n for n, s in splits.items() if s == "test"} == {f"{i}.png" for i in range(1, 9)}
    assert sorted(splits.values()).count("train") == 9
    assert all(not r.boxes and r.labels == (1,) for r in made.images)
