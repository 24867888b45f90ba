"""Ablations: what is compared, with which interval, and what a wrong grid is answered with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from scipy.stats import bootstrap

from musicon.detect.benchmarks.ablation import Naming, Scored, _measure, _shares, compare
from musicon.detect.benchmarks.ablation_table import write_comparison
from musicon.detect.benchmarks.grid import read_grid
from musicon.detect.config import ConfigError
from musicon.detect.matching import (
    FALSE_ALARM,
    MatchedImage,
    PooledBoxes,
    average_precision,
    bootstrap_interval,
)

ROOT = Path(__file__).resolve().parents[3]


def crops(right: np.ndarray, images: np.ndarray | None = None) -> Scored:
    images = np.arange(len(right)) if images is None else images
    return Scored({"crop_top1": float(right.mean())}, {"crop_top1": Naming(right, images)}, None)


def test_the_interval_is_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(400) < 0.3, rng.random(400) < 0.5
    rows = compare({"plain": {0: {"art": crops(before)}}, "bank": {0: {"art": crops(after)}}},
                   ["crop_top1", "agnostic_ap50"])
    assert [row["variant"] for row in rows] == ["plain", "bank"]
    assert "interval" not in rows[0] and "difference" not in rows[0]
    assert rows[1]["difference"] == pytest.approx(after.mean() - before.mean())
    expected = bootstrap((after.astype(float) - before,), np.mean, method="percentile",
                         n_resamples=5000, rng=np.random.default_rng(1)).confidence_interval
    assert rows[1]["interval"] == pytest.approx([expected.low, expected.high], abs=0.012)


def test_a_round_draws_pictures_with_all_their_crops() -> None:
    """Five crops of each of 80 pictures, named alike: they tell no more than one would."""
    rng = np.random.default_rng(2)
    before, after = rng.random(80) < 0.3, rng.random(80) < 0.5
    rows = compare({name: {0: {"art": crops(np.repeat(right, 5), np.repeat(np.arange(80) + 7, 5))}}
                    for name, right in (("plain", before), ("bank", after))}, ["crop_top1"])
    expected = bootstrap((after.astype(float) - before,), np.mean, method="percentile",
                         n_resamples=5000, rng=np.random.default_rng(1)).confidence_interval
    assert rows[1]["interval"] == pytest.approx([expected.low, expected.high], abs=0.03)


def test_a_paired_interval_sees_what_separate_ones_hide(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image = np.repeat(np.arange(80), rng.integers(0, 6, 80))
    hits = rng.random(len(image)) < 0.5
    to_find = np.bincount(image[hits], minlength=80) + rng.integers(0, 2, 80)
    scores = rng.random(len(image)) + 0.3 * hits
    # The second model finds the same and puts a few of the false alarms lower.
    better = np.where(hits | (np.arange(len(hits)) % 3 > 0), scores, scores - 0.5)

    def scored(given: np.ndarray) -> Scored:
        order = np.argsort(-given)
        pooled = PooledBoxes(given[order], hits[order], image[order], to_find)
        return Scored({"agnostic_ap50": average_precision(pooled) or 0.0}, {}, pooled)

    first, second = scored(scores), scored(better)
    rows = compare({"a": {0: {"art": first}}, "b": {0: {"art": second}}}, ["agnostic_ap50"])
    low, high = rows[1]["interval"]
    assert 0 < low < rows[1]["difference"] < high
    write_comparison(tmp_path / "ablation", rows, {"a": [1.0], "b": [2.0]}, [0])
    assert f"| {low:+.3f} to {high:+.3f} |" in (tmp_path / "ablation.md").read_text()
    assert (tmp_path / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    assert first.pooled is not None and second.pooled is not None
    apart = bootstrap_interval(first.pooled), bootstrap_interval(second.pooled)
    assert apart[0] is not None and apart[1] is not None and apart[0][1] > apart[1][0]


def test_variants_that_know_other_classes_have_no_difference() -> None:
    """A model of fewer classes is asked about fewer crops."""
    values = {"ap50": 0.5, "agnostic_ap50": 0.5, "crop_top3": 0.5}
    few = replace(crops(np.array([True, False])), classes=("harp", "lute"))
    other = replace(crops(np.array([True, True])), classes=("harp", "organ"))
    few, other = (replace(s, figures={**s.figures, **values}) for s in (few, other))
    figures = ["crop_top1", "crop_top3", "ap50", "agnostic_ap50"]
    rows = {row["figure"]: row for row in compare(
        {"few": {0: {"art": few}}, "other": {0: {"art": other}}}, figures)
        if row["variant"] == "other"}
    assert {name: row["difference"] for name, row in rows.items()} == {
        "crop_top1": None, "crop_top3": None, "ap50": None, "agnostic_ap50": 0}
    assert rows["crop_top1"]["interval"] is None and rows["crop_top1"]["values"] == [1.0]


def test_seeds_are_averaged_and_the_same_model_differs_by_nothing() -> None:
    pooled = PooledBoxes(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]),
                         np.array([0, 1, 2]), np.array([1, 1, 1]))
    scored = Scored({"agnostic_ap50": 0.5}, {}, pooled)
    rows = compare({name: {s: {"art": scored} for s in (0, 1)} for name in ("a", "b")},
                   ["agnostic_ap50"])
    assert rows[1]["values"] == [0.5, 0.5] and rows[1]["interval"] == [0, 0]


def test_scores_are_kept_for_the_same_model_and_pictures_alone(tmp_path: Path) -> None:
    pooled = PooledBoxes(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]),
                         np.array([0, 1, 2]), np.array([1, 1, 1]))
    scored = Scored({"agnostic_ap50": 0.5}, {"crop_top1": Naming(np.array([True, False]),
                                                         np.array([4, 9]))}, pooled,
                    ("harp", "lute"), {"recall": np.array([[1.0, 0.0], [1.0, 2.0]])})
    assert Scored.read(tmp_path / "scored.json", "a") is None
    scored.write(tmp_path / "scored.json", "a")
    again = Scored.read(tmp_path / "scored.json", "a")
    assert again is not None and again.figures == scored.figures and again.pooled is not None
    assert again.classes == scored.classes
    np.testing.assert_equal(dict(again.shares), dict(scored.shares))
    np.testing.assert_equal(vars(again.pooled), vars(pooled))
    np.testing.assert_equal(vars(again.naming["crop_top1"]), vars(scored.naming["crop_top1"]))
    assert Scored.read(tmp_path / "scored.json", "b") is None


def test_shares_are_drawn_by_pictures_and_are_the_evaluations_own() -> None:
    shown = [np.array([0.9, 0.8]), np.array([0.7, 0.2]), np.zeros(0), np.array([0.6])]
    hits = [np.array([0, FALSE_ALARM]), np.array([FALSE_ALARM, 0]), np.zeros(0, int),
            np.array([FALSE_ALARM])]
    matched = [MatchedImage(i, np.zeros((n, 4)), np.ones(n, int), np.zeros(n, bool),
                            np.zeros((len(scores), 4)), scores, np.ones(len(scores), int), found,
                            is_negative=n == 0)
               for i, (n, scores, found) in enumerate(zip([1, 2, 0, 0], shown, hits, strict=True))]
    shares = _shares(SimpleNamespace(matched=matched, threshold=0.5))  # type: ignore[arg-type]
    # At .5: one of three instruments found, by one of four boxes; one box in two empty works.
    expected = {"recall": 1 / 3, "precision": 1 / 4, "f1": 2 / 7, "false_alarms": 1 / 2}
    for figure, value in expected.items():
        measure = _measure(Scored({}, {}, None, shares=shares), figure)
        assert measure is not None and measure(np.ones(4, int)) == pytest.approx(value)
    alarms = _measure(Scored({}, {}, None, shares=shares), "false_alarms")
    assert alarms is not None and alarms(np.array([2, 1, 0, 1])) == 1
    assert alarms(np.array([2, 2, 0, 0])) is None  # no empty work was drawn


def test_a_figure_that_the_first_variant_lacks_is_compared_with_none(tmp_path: Path) -> None:
    variants = {"a": Scored({}, {}, None), "b": crops(np.array([True, False, False])),
                "c": crops(np.ones(3, bool))}
    rows = compare({name: {0: {"art": scored}} for name, scored in variants.items()},
                   ["crop_top1"])
    assert [(row["variant"], row["difference"], row["interval"]) for row in rows] == [
        ("b", None, None), ("c", None, None)]
    write_comparison(tmp_path / "ablation", rows, {"a": [1.0]}, [0])
    assert (tmp_path / "ablation.md").read_text().splitlines()[2:] == [
        "| art | true boxes named | b | 0.333 |  |  |",
        "| art | true boxes named | c | 1.000 |  |  |", "| training | minutes | a | 1.000 |  |  |"]


@pytest.mark.parametrize(("text", "part"), [
    ("seeds: [0]", "base"), ("[", "not a readable grid"), ("- 1", "the file"),
    ("base: a.yaml\ntests: {}\noutput: x\nvariants: {}", "variants"),
    ("base: a.yaml\ntests: {}\noutput: x\nvariants: {a: []}", "tests"),
    ("base: a.yaml\ntests: {art: m}\noutput: x\nvariants: {a: []}\nfigures: [crop_top_1]",
     "figures: 'crop_top_1' is none of ap, ap50,.* crop_top1"),
    ("base: a.yaml\ntests: {art: m}\noutput: x\nvariants: {a: []}\nseeds: []", "seeds"),
    ("base: a.yaml\ntests: {art: m}\noutput: x\nvariants: {a: []}\nwhole: [arts]",
     "whole: 'arts' is none of art;"),
    ("base: a.yaml\ntests: {art: m}\noutput: x\nvariants: {on: [], off: []}",
     "name of a variant as True; write it in quotes"),
    ("base: a.yaml\ntests: {art: m}\noutput: x\nvariants: {../a: []}", "it may have no slash"),
    ("base: a.yaml\ntests: {art: m}\noutput: x\nvariants: {..: []}", "it may have no slash"),
])
def test_a_wrong_grid_is_one_sentence(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_grid(file)


def test_a_grid_is_trained_scored_and_kept(tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "prepare_data.py"), "atelier", "--size", "60",
            "--workers", "1", "--quiet", "--out", str(tmp_path / "data")]
    subprocess.run(tool, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*tool[:-1], str(tmp_path / "others"), "--seed", "1"], check=True,
                   stdout=subprocess.DEVNULL)
    unread = tmp_path / "others" / "cytomine"
    fit = {"steps": 1, "batch_size": 2, "augmentation": "none", "ema_decay": None}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({
        "classifier": {"image_size": 32, "weights": "none"},
        "detector": {"family": "ssdlite", "image_size": 128},
        "stages": {"cytomine": {"manifest": str(tmp_path / "data" / "cytomine"),
                                "classifier": fit, "detector": {**fit, "steps": 0}}}}))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({
        "base": str(tmp_path / "base.yaml"), "output": str(tmp_path / "out"), "seeds": [0],
        "tests": {"scenes": str(tmp_path / "data" / "cytomine"), "all scenes": str(unread)},
        "whole": ["all scenes"],
        "variants": {"plain": [], "balance: loss #1": [
            "stages.cytomine.classifier.balance=loss"]}}))
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), "ablation", "--quiet",
               "--config", str(tmp_path / "grid.yaml")]
    first = subprocess.run(command, check=True, capture_output=True, text=True)
    document = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert {row["variant"] for row in document["rows"]} == {"plain", "balance: loss #1"}
    assert "true boxes named" in first.stdout
    counts = [json.loads((tmp_path / "out" / "plain" / "seed-0" / "cytomine" / "evaluation" / test
                          / "metrics.json").read_text())["coverage"]["images"]
              for test in ("scenes", "all scenes")]
    assert 0 < counts[0] < counts[1]
    weights = tmp_path / "out" / "plain" / "seed-0" / "cytomine" / "model" / "weights.safetensors"
    made = weights.stat().st_mtime_ns
    report = weights.parents[1] / "evaluation" / "scenes" / "report.html"
    report.unlink()
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert weights.stat().st_mtime_ns == made and again.stdout == first.stdout
    assert not report.exists()  # not scored again
    part = subprocess.run([*command, "--only", "plain"], check=True, capture_output=True, text=True)
    assert f"written: {tmp_path / 'out' / 'ablation-part.md'}" in part.stdout
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == document
    subprocess.run([*command, "--only", "plain", "--fresh"], check=True, capture_output=True)
    assert weights.stat().st_mtime_ns > made and report.exists()
    report.unlink()
    (tmp_path / "grid.yaml").write_text((tmp_path / "grid.yaml").read_text() +
                                        "set: [fusion.rule=detector]\n")
    subprocess.run(command, check=True, capture_output=True, text=True)
    assert report.exists()  # the same weights under another rule are another model
    grid = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**grid, "whole": ["scenes"]}))
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and re.search("whole: [0-9]+ pictures of scenes are in",
                                                 refused.stderr)
    assert "which stages.cytomine.manifest reads" in refused.stderr
