"""The benchmark over seeds: runs that share a folder add to one table."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml

from musicon.detect.benchmarks import stages

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty generated pictures, and settings that train one stage on them for a step."""
    folder = tmp_path_factory.mktemp("benchmark")
    data = folder / "data"
    subprocess.run([sys.executable, str(ROOT / "tools" / "prepare_data.py"), "atelier", "--size",
                    "60", "--workers", "1", "--quiet", "--out", str(data)], check=True,
                   stdout=subprocess.DEVNULL)
    fit = {"steps": 1, "batch_size": 2, "augmentation": "none", "ema_decay": None}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({
        "classifier": {"image_size": 32, "weights": "none"},
        "detector": {"family": "ssdlite", "image_size": 128, "anchor_sizes": [32]},
        "stages": {"cytomine": {"manifest": f"{data}/cytomine", "classifier": fit,
                                "detector": fit}}}))
    return file


def run(settings: Path, output: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    stages.add_arguments(parser)
    test = settings.parent / "data" / "cytomine"
    return stages.run(parser.parse_args(["--config", str(settings), "--output", str(output),
                                         "--test", f"scenes={test}", "--quiet", *words]))


def seeds(output: Path) -> dict[str, stages.Figures]:
    found: dict[str, stages.Figures] = json.loads((output / "stages.json").read_text())["seeds"]
    return found


def test_runs_with_other_seeds_add_to_the_table(settings: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings, tmp_path, "--seeds", "1") == 0
    first = seeds(tmp_path)
    assert run(settings, tmp_path, "--seeds", "0") == 0
    both = seeds(tmp_path)
    assert list(both) == ["0", "1"] and both["1"] == first["1"]
    values = [both[seed]["cytomine"]["training"]["minutes"] for seed in ("0", "1")]
    cell = f"{mean(values):.3f} ± {stdev(values):.3f}"
    assert f"| training | minutes | {cell} |" in (tmp_path / "stages.md").read_text()
    assert cell in capsys.readouterr().out
    assert both["0"]["cytomine"]["scenes"].keys() >= {"agnostic_ap50", "false_alarms"}
    # Other settings make another table; the figures of the first are put aside.
    assert run(settings, tmp_path, "--seeds", "0", "--set", "fusion.rule=detector") == 0
    assert list(seeds(tmp_path)) == ["0"]
    assert json.loads((tmp_path / "stages-previous.json").read_text())["seeds"] == both


def test_it_says_what_each_seed_does(settings: Path, tmp_path: Path) -> None:
    test = settings.parent / "data" / "cytomine"
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "benchmark.py"), "stages",
                           "--config", str(settings), "--output", str(tmp_path), "--test",
                           f"scenes={test}", "--seeds", "0", "1"],
                          capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("seed ")]
    assert [lines[number] for number in starts] == ["seed 0", "seed 1"]
    for part in (lines[starts[0]:starts[1]], lines[starts[1]:]):
        assert sum(line.startswith("stage cytomine: ") and "classes, starts from" in line
                   for line in part) == 1


def test_runs_side_by_side_lose_no_figure(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:  # a file's lock keeps threads apart as it does processes
        for i in range(4):
            pool.submit(_add_five, tmp_path, 5 * i)
    assert {int(seed): found["mimo"]["photos"]["recall"] for seed, found in
            seeds(tmp_path).items()} == {seed: seed / 20 for seed in range(20)}


def _add_five(output: Path, first: int) -> None:
    for seed in range(first, first + 5):
        stages._add(output, "the same", seed, {"mimo": {"photos": {"recall": seed / 20}}})
