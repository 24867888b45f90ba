"""The stages one after the other, over seeds: what each stage adds, on pictures none trained on.

Trains every stage of a configuration once a seed (what is done is kept), evaluates each stage's
model on the test split of each data set, and writes a table of means and spreads. Runs with other
seeds, one after the other or side by side, add to the same table.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from musicon.datasets.command import DONE, SummaryTable, print_heading
from musicon.datasets.files import UserError, locked, write_atomic
from musicon.detect.benchmarks.tables import markdown, mean_and_spread, table
from musicon.detect.config import Config, load
from musicon.detect.evaluation_run import EvaluationOptions, bar_values, run_evaluation
from musicon.detect.settings import quoted
from musicon.detect.storage import digest

FIGURES = {"picture_top1": "whole pictures named", "crop_top1": "true boxes named",
           "crop_top3": "true boxes named, top-3", "agnostic_ap50": "AP50, any instrument",
           "ap50": "AP50 by name", "recall": "recall", "precision": "precision",
           "false_alarms": "false alarms an empty work"}
"""Figures of ``bar_values`` that the table shows, where they could be measured."""
Figures = dict[str, dict[str, Mapping[str, float]]]
"""Stage -> data set -> figure -> value, of one seed."""
Results = dict[str, Figures]
"""The figures of each seed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py stages``."""
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--test", nargs="+", required=True, metavar="NAME=MANIFEST",
                        help="data sets whose test split is scored")
    parser.add_argument("--output", type=Path, default=Path("runs/stages"))
    parser.add_argument("--fresh", action="store_true",
                        help="train these seeds again, from their beginning")
    parser.add_argument("--quiet", action="store_true")


def run(options: argparse.Namespace) -> int:
    """Train, evaluate, print and write ``stages.json`` and ``stages.md``."""
    tests = dict(_test(text) for text in options.test)
    results: Results = {}
    for seed in options.seeds:
        if not options.quiet:
            print_heading(f"seed {seed}")
        config = load(options.config, [*options.overrides, f"seed={seed}",
                                       quoted("output", options.output / f"seed-{seed}")])
        figures: Figures = {}
        for stage, test, values in _one_seed(config, tests, options.fresh, options.quiet):
            figures.setdefault(stage, {})[test] = values
        # After every seed: a long benchmark that is cut off has its figures so far.
        results = _add(options.output, _settings(config), seed, figures)
    print(f"\n{_table(results)}\n\nwritten: {options.output / 'stages.md'}")
    return DONE


def _test(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign or not Path(path).exists():
        raise UserError(f"--test {text}: write NAME=MANIFEST with an existing manifest")
    return name, Path(path)


def _one_seed(config: Config, tests: dict[str, Path], fresh: bool,
              quiet: bool) -> list[tuple[str, str, dict[str, float]]]:
    """Train all stages of one seed; (stage, test, figures) of each evaluation."""
    from musicon.detect.stages import train

    rows: list[tuple[str, str, dict[str, float]]] = []
    for result in train(config, config.stage_names(), fresh=fresh, quiet=quiet):
        rows.append((result.name, "training", {"minutes": result.seconds / 60}))
        for name, manifest in tests.items():
            out = config.output / result.name / "evaluation" / name
            done = run_evaluation(EvaluationOptions(data=manifest, out=out, model=result.folder,
                                                    quiet=quiet))
            values = bar_values(done)
            rows.append((result.name, name, {key: value for key in FIGURES
                                             if (value := values[key]) is not None}))
    return rows


def _settings(config: Config) -> str:
    """Stands for all settings that the seeds of one table must share."""
    apart = {"seed", "output", "device", "num_workers"}
    return digest(config.model_dump(mode="json", exclude=apart))


def _add(output: Path, settings: str, seed: int, figures: Figures) -> Results:
    """Put one seed's figures beside those that this or another run has written; all of them.

    A table of other settings is put aside as ``stages-previous.json``.
    """
    file = output / "stages.json"
    with locked(output / ".lock"):  # another seed may be writing the table
        results = _read(file, settings)
        if results is None:
            os.replace(file, file.with_name("stages-previous.json"))
            results = {}
        known = results.get(str(seed), {})
        results[str(seed)] = {stage: {**known.get(stage, {}), **tests}
                              for stage, tests in figures.items()}
        results = dict(sorted(results.items(), key=lambda item: int(item[0])))
        write_atomic(file, json.dumps({"settings": settings, "seeds": results}, indent=1))
        write_atomic(output / "stages.md", f"{markdown(_table(results))}\n")
    return results


def _read(file: Path, settings: str) -> Results | None:
    """The figures so far; None where a file holds those of other settings."""
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("settings") != settings:
        return None
    results: Results = document["seeds"]
    return results


def _rows(results: Results) -> list[tuple[str, str, list[str]]]:
    """(data set, figure, one cell a stage) in the order of the tests."""
    stages = _stages(results)
    tests = list(dict.fromkeys(test for found in results.values() for stage in stages
                               for test in found.get(stage, {})))
    names = {**FIGURES, "minutes": "minutes"}
    rows = []
    for test in tests:
        for key, label in names.items():
            cells = [mean_and_spread([
                value for found in results.values()
                if (value := found.get(stage, {}).get(test, {}).get(key)) is not None])
                for stage in stages]
            if any(cells):
                rows.append((test, label, cells))
    return rows


def _stages(results: Results) -> list[str]:
    return list(dict.fromkeys(stage for found in results.values() for stage in found))


def _table(results: Results) -> SummaryTable:
    return table(("test", "figure", *_stages(results)),
                 ((test, label, *cells) for test, label, cells in _rows(results)))
