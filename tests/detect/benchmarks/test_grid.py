"""What is refused before a grid's first variant is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from musicon.datasets.files import sha256
from musicon.datasets.records import Category, ImageRecord, Manifest, UserError
from musicon.detect.benchmarks.grid import check, read_grid


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., None]:
    """Checks a grid on eight photos, of which two are of the test split; ``keys`` replace its."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(1, 9):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
        records.append(ImageRecord(i, f"{i}.png", 8, 8, labels=(1,),
                                   sha256=sha256(tmp_path / f"{i}.png"),
                                   split="train" if i < 5 else "val" if i < 7 else "test"))
    Manifest(tmp_path, (Category(1, "harp"),), tuple(records)).write(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(
        {"stages": {"mimo": {"manifest": str(tmp_path)}}}))

    def checked(**keys: object) -> None:
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump({
            "base": str(tmp_path / "base.yaml"), "tests": {"photos": str(tmp_path)},
            "variants": {"a": []}, "output": "out", **keys}))
        check(read_grid(tmp_path / "grid.yaml"), "a")

    return checked


def copied(root: Path, folder: str, images: slice) -> Path:
    """Some of the pictures once more, in a folder of their own, all of the test split."""
    manifest = Manifest.read(root)
    target = root / folder
    target.mkdir()
    chosen = manifest.images[images]
    for record in chosen:
        shutil.copy(root / record.file_name, target)
    Manifest(target, manifest.categories, tuple(
        ImageRecord(r.id, r.file_name, 8, 8, labels=(1,), sha256=r.sha256, split="test")
        for r in chosen)).write(target)
    return target


def test_a_grid_that_can_be_run_passes(made: Callable[..., None], tmp_path: Path) -> None:
    made()
    made(tests={"photos": str(copied(tmp_path, "tests", slice(6, 8)))}, whole=["photos"])


def test_what_would_stop_it_after_hours_is_told_at_once(made: Callable[..., None],
                                                        tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such manifest"):
        made(tests={"photos": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="is named 'mino'; did you mean mimo"):
        made(stages=["mino"])
    gone = f"stages.mimo.backgrounds=[{tmp_path / 'gone'}]"
    with pytest.raises(UserError, match="gone .*which is not there"):
        made(variants={"a": [gone]})
    manifest = Manifest.read(tmp_path)
    (tmp_path / "untested").mkdir()
    Manifest(tmp_path / "untested", manifest.categories, manifest.images[:6]).write(
        tmp_path / "untested")
    with pytest.raises(UserError, match="no image of split 'test'"):
        made(tests={"photos": str(tmp_path / "untested")})


def test_pictures_that_were_learnt_from_are_no_test_wherever_they_lie(
        made: Callable[..., None], tmp_path: Path) -> None:
    copy = copied(tmp_path, "copy", slice(3, 8))  # one of train, two of val, two of test
    with pytest.raises(UserError, match=r"whole: 3 pictures of photos are in .*mimo\.manifest"):
        made(tests={"photos": str(copy)}, whole=["photos"])


def test_data_without_a_training_split_teach_nothing(made: Callable[..., None],
                                                     tmp_path: Path) -> None:
    copy = copied(tmp_path, "copy", slice(3, 8))
    with pytest.raises(UserError, match="none of its images .5. is in the split 'train'"):
        made(variants={"a": [f"stages.mimo.backgrounds=[{copy}]"]})
