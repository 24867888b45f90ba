from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import write_networks

from musicon.styletransfer.benchmarks import bank
from musicon.styletransfer.benchmarks.plain_adain import PlainAdaIN
from musicon.styletransfer.methods import build
from musicon.styletransfer.methods.adain import AdaIN


@pytest.mark.parametrize("reflects", [True, False])
@pytest.mark.parametrize("depth", ["relu2_1", "relu4_1"])
def test_the_plain_loop_gives_the_same_pictures(tmp_path: Path, depth: str, reflects: bool) -> None:
    method = build("adain", write_networks(tmp_path, depth, reflects=reflects))
    assert isinstance(method, AdaIN)
    content, style = torch.rand(1, 3, 40, 64), torch.rand(1, 3, 48, 32)
    torch.testing.assert_close(method(content, style), PlainAdaIN(method)(content, style)
                               .clamp(0, 1), rtol=1e-3, atol=1e-4)


def test_shares_are_of_one_whole() -> None:
    # 10 seconds of transfer hold 3 of encoding and 5 of decoding; of 2 for styles, 1.5 encode.
    seconds = {"read": 1.0, "styles": 2.0, "encode": 4.5, "decode": 5.0, "transfer": 10.0,
               "JPEG": 7.0}
    assert bank.shares_of(seconds) == [5, 22, 12, 25, 35]
    assert bank.shares_of({"read": 1.0, "styles": 0.0, "transfer": 2.0, "JPEG": 1.0}) == [
        25, None, 50, None, 25]


def test_benchmark_runs_and_prints_its_tables(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for folder, number in (("content", 3), ("styles", 2)):
        (tmp_path / folder).mkdir()
        for index in range(number):
            picture = rng.integers(0, 256, (40 + index, 50, 3), np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{index}.png"), picture)
    parser = argparse.ArgumentParser()
    bank.add_arguments(parser)
    networks = write_networks(tmp_path)
    options = parser.parse_args([
        "--content", str(tmp_path / "content"), "--styles", str(tmp_path / "styles"),
        "--encoder", networks["encoder"], "--decoder", networks["decoder"], "--size", "32", "48",
        "--per-image", "2", "--rounds", "1", "--quiet", "--precision", "float32", "bfloat16"])
    assert bank.run(options) in (0, 1)
    printed = capsys.readouterr().out
    assert "3 contents in 2 styles each" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith("adain")]
    assert [row[1:3] for row in rows[:4]] == [
        ["float32", "32"], ["bfloat16", "32"], ["float32", "48"], ["bfloat16", "48"]]
    assert all(float(row[3]) > 0 and float(row[5]) > 0 for row in rows[:4])
