"""benchmark.py copies and manifest: that they measure what they say."""

from __future__ import annotations

import argparse
from multiprocessing import Pipe
from pathlib import Path

import cv2
import numpy as np
import pytest

from musicon.datasets.records import MANIFEST_NAME, Manifest
from musicon.detect.benchmarks import copies, manifest


def options(module: object, *arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args([str(a) for a in arguments])


def painting(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (18, 24, 3)).astype(np.uint8)
    return cv2.resize(noise, (240, 180), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("name", copies.EDITS)
def test_edits_change_the_picture_and_nothing_else(name: str) -> None:
    original = painting(0)
    kept = original.copy()
    first, again = (copies.EDITS[name](original, np.random.default_rng(1)) for _ in range(2))
    assert (original == kept).all() and (first == again).all()
    assert first.dtype == np.uint8 and first.ndim == 3
    assert first.shape != original.shape or (first != original).any()


def test_pairs_are_told_right_from_wrong() -> None:
    prints = [copies.picture_print(painting(seed)) for seed in (0, 1)]
    twins = [*prints, prints[0], prints[1]]
    assert copies.wrong_pairs(twins, originals=2) == (1.0, 0)
    # The same painting twice among the originals: found, and wrong.
    assert copies.wrong_pairs([prints[0], prints[0]], originals=2) == (0.0, 1)


def test_copies_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                          capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), painting(seed))
    monkeypatch.setattr(copies, "EDITS", {"grey": copies.EDITS["black and white"]})
    assert copies.run(options(copies, "--images", tmp_path, "--require", "1", "--quiet")) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["grey", "1", "0"]


def test_manifest_benchmark(tmp_path: Path) -> None:
    manifest.write(tmp_path / MANIFEST_NAME, 300, quiet=True)
    made = Manifest.read(tmp_path)
    assert len(made) == 300 and not made.faults()
    assert {record.split for record in made.images} == {None, "train", "val"}
    ours, theirs = Pipe(duplex=False)
    manifest.measure(str(tmp_path), theirs)
    steps, peak = ours.recv()
    assert [name for name, _, _ in steps] == ["read and validate", "filter", "split"]
    assert all(wall >= 0 for _, wall, _ in steps) and peak > 1 << 20
