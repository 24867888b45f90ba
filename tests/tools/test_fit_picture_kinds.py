"""``tools/fit_picture_kinds.py`` as it is called: a fit, the same fit again, what can be wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from musicon.datasets import command, picture_kinds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("fit_kinds", ROOT / "tools/fit_picture_kinds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(folder: Path, colour: tuple[int, int, int], seed: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(3):
        noise = rng.integers(0, 60, (64, 64, 3)) + np.array(colour)
        cv2.imwrite(str(folder / f"{number}.png"), noise.clip(0, 255).astype(np.uint8))


def test_a_fit_tells_its_kinds_apart_and_comes_out_the_same(
        tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(picture_kinds, "HEAD_FILE", tmp_path / "kinds.npz")
    arguments = []
    for number, kind in enumerate(picture_kinds.KINDS):
        draw(tmp_path / kind, ((200, 0, 0), (0, 200, 0), (0, 0, 200), (190, 190, 190))[number],
             number)
        arguments += [f"--{kind}", str(tmp_path / kind)]
    arguments += ["--check", str(tmp_path / "painting"), str(tmp_path / "photo")]
    assert command.run(tool.main, tool.parser(), arguments) == command.DONE
    first = (tmp_path / "kinds.npz").read_bytes()
    assert command.run(tool.main, tool.parser(), arguments) == command.DONE
    assert (tmp_path / "kinds.npz").read_bytes() == first
    lines = [line.split()[-2:] for line in capsys.readouterr().out.splitlines()]
    assert lines.count(["3", "0"]) == lines.count(["3", "1"]) == 2
    monkeypatch.undo()
    picture_kinds._head.cache_clear()


@pytest.mark.parametrize("arguments", [[], ["--painting", "a"]])
def test_half_a_fit_is_refused(tool: Any, capsys: pytest.CaptureFixture[str],
                               arguments: list[str]) -> None:
    assert command.run(tool.main, tool.parser(), arguments) == command.UNUSABLE
    assert "give examples of every kind" in capsys.readouterr().err
