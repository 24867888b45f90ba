"""The stages one after the other, over seeds: what each stage adds, on pictures none trained on.

Trains every stage of a configuration once a seed (what is done is kept), evaluates each stage's
model on the test split of each data set, and writes a table of means and spreads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from musicon.datasets.command import DONE, SummaryTable
from musicon.datasets.records import UserError, write_atomic
from musicon.detect.config import Config, load
from musicon.detect.evaluation_run import EvaluationOptions, bar_values, run_evaluation

FIGURES = {"picture_top1": "whole pictures named", "crop_top1": "true boxes named",
           "crop_top3": "true boxes named, top-3", "agnostic_ap50": "AP50, any instrument",
           "ap50": "AP50 by name", "recall": "recall", "precision": "precision",
           "false_alarms": "false alarms an empty work"}
"""Figures of ``bar_values`` that the table shows, where they could be measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py stages``."""
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--test", nargs="+", required=True, metavar="NAME=MANIFEST",
                        help="data sets whose test split is scored")
    parser.add_argument("--output", type=Path, default=Path("runs/stages"))
    parser.add_argument("--quiet", action="store_true")


def run(options: argparse.Namespace) -> int:
    """Train, evaluate, print and write ``stages.json`` and ``stages.md``."""
    tests = dict(_test(text) for text in options.test)
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for seed in options.seeds:
        config = load(options.config, [*options.overrides, f"seed={seed}",
                                       f"output={options.output / f'seed-{seed}'}"])
        for stage, test, figures in _one_seed(config, tests, options.quiet):
            rows = results.setdefault(stage, {}).setdefault(test, {})
            for name, value in figures.items():
                rows.setdefault(name, []).append(value)
        # After every seed: a long benchmark that is cut off has its figures so far.
        _write(options.output, options.seeds[:options.seeds.index(seed) + 1], results)
    print(f"\n{_table(results)}\n\nwritten: {options.output / 'stages.md'}")
    return DONE


def _test(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign or not Path(path).exists():
        raise UserError(f"--test {text}: write NAME=MANIFEST with an existing manifest")
    return name, Path(path)


def _one_seed(config: Config, tests: dict[str, Path],
              quiet: bool) -> list[tuple[str, str, dict[str, float]]]:
    """Train all stages of one seed; (stage, test, figures) of each evaluation."""
    from musicon.detect.stages import train

    rows: list[tuple[str, str, dict[str, float]]] = []
    for result in train(config, config.stage_names(), quiet=quiet):
        rows.append((result.name, "training", {"minutes": result.seconds / 60}))
        for name, manifest in tests.items():
            out = config.output / result.name / "evaluation" / name
            done = run_evaluation(EvaluationOptions(data=manifest, out=out, model=result.folder,
                                                    quiet=quiet))
            values = bar_values(done)
            rows.append((result.name, name, {key: value for key in FIGURES
                                             if (value := values[key]) is not None}))
    return rows


def _write(output: Path, seeds: Sequence[int], results: dict[str, Any]) -> None:
    document = {"seeds": list(seeds), "results": results}
    write_atomic(output / "stages.json", json.dumps(document, indent=1))
    write_atomic(output / "stages.md", f"{_markdown(results)}\n")


def _rows(results: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(data set, figure, one cell a stage) in the order of the tests."""
    tests = list(dict.fromkeys(test for found in results.values() for test in found))
    names = {**FIGURES, "minutes": "minutes"}
    rows = []
    for test in tests:
        for key, label in names.items():
            cells = [_cell(found.get(test, {}).get(key)) for found in results.values()]
            if any(cells):
                rows.append((test, label, cells))
    return rows


def _cell(values: Sequence[float] | None) -> str:
    """Mean and, over several seeds, the standard deviation."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def _table(results: dict[str, Any]) -> str:
    table = SummaryTable("test", "figure", *results)
    for test, label, cells in _rows(results):
        table.add(test, label, *cells)
    return str(table)


def _markdown(results: dict[str, Any]) -> str:
    head = ["test", "figure", *results]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {test} | {label} | {' | '.join(cells)} |"
              for test, label, cells in _rows(results)]
    return "\n".join(lines)
