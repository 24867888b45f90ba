"""What leaks between data sets, and how it is kept from leaking."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_copies import picture

from musicon.datasets import command
from musicon.datasets.records import ImageRecord, Manifest

TOOL = Path(__file__).resolve().parents[2] / "tools/prepare_data.py"


def tool(*arguments: object) -> int:
    spec = importlib.util.spec_from_file_location("prepare_data_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return command.run(module.main, module.parser(), [str(a) for a in arguments])


def data_set(folder: Path, *rows: tuple[str, np.ndarray, str | None, str]) -> Path:
    """Rows (name, pixels, split, painter)."""
    folder.mkdir()
    records = []
    for number, (name, pixels, split, painter) in enumerate(rows, start=1):
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name, quality=90)
        records.append(ImageRecord(
            number, name, pixels.shape[1], pixels.shape[0], split=split,
            attributes={"painter": painter} if painter else {}))
    return Manifest(folder, (), tuple(records)).write(folder).parent


def test_check_prints_what_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = data_set(tmp_path / "a", ("one.jpg", picture(1), "train", ""),
                 ("two.jpg", picture(2), "train", "jan-steen"),
                 ("six.jpg", picture(6), "val", ""))
    b = data_set(tmp_path / "b", ("crop.jpg", picture(1)[30:210, 50:], "test", ""),
                 ("three.jpg", picture(3), "test", "Jan Steen"),
                 ("four.jpg", picture(4), "test", ""), ("same.jpg", picture(4)[::-1][::-1], "test",
                                                        ""),
                 ("seven.jpg", picture(6)[:, ::-1], None, ""))
    assert tool("check", a, b, "--out", tmp_path / "leaks.jsonl") == 1
    rows = [json.loads(line) for line in (tmp_path / "leaks.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["first"], r["first_split"], r["second"], r["second_split"])
            for r in rows] == [
        ("same picture", "b/crop.jpg", "test", "a/one.jpg", "train"),
        ("same picture", "a/six.jpg", "val", "b/seven.jpg", "train"),
        ("same painter or group", "b/three.jpg", "test", "a/two.jpg", "train")]
    said = capsys.readouterr().out
    assert "8 pictures; 2 leak into a test, 1 between train and val; 3 copies" in said
    assert "jan steen" in said


def test_painter_and_group_are_one_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data_set(tmp_path / "a", ("one.jpg", picture(1), "train", "jan-steen"),
                      ("two.jpg", picture(2), "test", "jan-steen"))
    manifest = Manifest.read(folder)
    replace(manifest, images=tuple(replace(r, group="album 7") for r in manifest.images)
            ).write(folder)
    assert tool("check", folder) == 1
    assert "2 pictures; 1 leak into a test" in capsys.readouterr().out


def test_check_of_clean_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = data_set(tmp_path / "a", ("one.jpg", picture(1), "train", "x"))
    b = data_set(tmp_path / "b", ("two.jpg", picture(2), "test", "y"))
    assert tool("check", a, b) == 0
    assert "2 pictures; 0 leak into a test" in capsys.readouterr().out


def test_copies_are_grouped_and_kept_from_other_tests(tmp_path: Path) -> None:
    test = data_set(tmp_path / "test", ("t.jpg", picture(9), "test", ""))
    source = tmp_path / "source/lute"
    source.mkdir(parents=True)
    for seed in range(8):
        Image.fromarray(picture(seed)).save(source / f"{seed}.jpg")
        Image.fromarray(np.ascontiguousarray(picture(seed)[20:230, 30:])).save(
            source / f"{seed}-crop.jpg")
    Image.fromarray(np.ascontiguousarray(picture(9)[:, 40:])).save(source / "t-crop.jpg")
    code = tool("folder", source.parent, "--out", tmp_path / "out", "--copies", "--apart-from",
                test, "--split", "50/25/25")
    made = Manifest.read(tmp_path / "out")
    splits: dict[str, set[str | None]] = {}
    for record in made.images:
        splits.setdefault(Path(record.file_name).stem.split("-")[0], set()).add(record.split)
    assert code == 1 and len(made) == 16 and len(splits) == 8
    assert all(len(found) == 1 for found in splits.values())
    assert {record.split for record in made.images} == {"train", "val", "test"}
    (reject,) = (tmp_path / "out/rejects.jsonl").read_text().splitlines()
    assert "t-crop.jpg" in reject and "a copy of the test picture test/t.jpg" in reject
