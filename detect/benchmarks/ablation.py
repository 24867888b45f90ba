"""What each part contributes: variants of one configuration, over seeds, on the same pictures.

A grid file names the settings that all variants share, what each variant sets otherwise, the
seeds, and the data sets whose test split is scored. Every variant is trained once a seed, and its
last stage's model is scored. What is done is kept, and stages that variants have in common are
trained once (``reuse.py``). Differences are to the first variant, with 95% intervals of a paired
bootstrap: each round draws the same pictures for both variants, and averages over the seeds.
Where two variants know different classes, so that they are asked about other boxes and crops, only
figures that no name goes into have a difference.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.command import DONE, print_heading
from musicon.datasets.files import locked, sha256
from musicon.datasets.records import Manifest, UserError, write_atomic
from musicon.detect.benchmarks.ablation_table import comparison_table, write_comparison
from musicon.detect.benchmarks.grid import Grid, check, read_grid
from musicon.detect.benchmarks.reuse import take_over
from musicon.detect.checkpoints import read_categories, read_lineage
from musicon.detect.config import Config, load
from musicon.detect.evaluation import DetectionMetrics
from musicon.detect.evaluation_run import (
    EvaluationOptions,
    EvaluationResult,
    bar_values,
    run_evaluation,
    select_split,
)
from musicon.detect.matching import (
    PooledBoxes,
    average_precision,
    percentiles,
    pool,
    resamples,
)
from musicon.detect.model_files import CONFIG, LINEAGE
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.prediction import NamedCrops, run_model
from musicon.detect.settings import quoted
from musicon.detect.stage_checks import manifest_file
from musicon.detect.storage import digest

ROUNDS = 1000
NAMING = ("crop_top1", "picture_top1")
"""Figures of the classifier alone: a grid of no others searches no picture."""
NAMELESS = frozenset({"agnostic_ap", "agnostic_ap50", "agnostic_ap10", "precision", "recall", "f1",
                      "false_alarms", "ece", "ece_shown"})
"""Figures that no name goes into."""
KEPT = "scored.json"
FORM = 4
"""Of that file and its figures; what was kept in another is scored anew."""
TABLE, PART = "ablation", "ablation-part"
"""Names of the files with the table of the whole grid, and of some variants or seeds alone."""


@dataclass(frozen=True)
class Naming:
    """Crops, or whole pictures, as the classifier alone names them.

    Attributes:
        right: bool (N,), whether each was named rightly.
        images: (N,), ids of the pictures.
    """

    right: NDArray[np.bool_]
    images: NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """One variant with one seed on one data set.

    Attributes:
        figures: Name -> value, of those that could be measured.
        naming: Figure -> what was named, and how.
        pooled: The found boxes; None where no image is boxed.
        classes: Names of the instruments that the model knows, sorted.
        shares: Figure -> what a share counts and what it is a share of, float64 (2, images).
    """

    figures: Mapping[str, float]
    naming: Mapping[str, Naming]
    pooled: PooledBoxes | None
    classes: tuple[str, ...] = ()
    shares: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def write(self, file: Path, key: str) -> None:
        """Keep it for the next run of the same grid."""
        document = {"key": key, "figures": self.figures, "classes": self.classes,
                    "naming": {figure: {name: value.tolist() for name, value in vars(said).items()}
                               for figure, said in self.naming.items()},
                    "shares": {figure: counts.tolist() for figure, counts in self.shares.items()},
                    "pooled": self.pooled and {name: value.tolist()
                                               for name, value in vars(self.pooled).items()}}
        write_atomic(file, json.dumps(document))

    @classmethod
    def read(cls, file: Path, key: str) -> Scored | None:
        """What was kept; None where that is of another model or other pictures, or nothing."""
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if document["key"] != key:
            return None
        pooled = document["pooled"]
        return cls(document["figures"],
                   {figure: Naming(np.array(said["right"], bool),
                                   np.array(said["images"], np.int64))
                    for figure, said in document["naming"].items()},
                   pooled and PooledBoxes(
                       np.array(pooled["scores"], float), np.array(pooled["hits"], bool),
                       np.array(pooled["image"], np.int64), np.array(pooled["to_find"], np.int64)),
                   tuple(document["classes"]),
                   {figure: np.array(counts, float) for figure, counts
                    in document["shares"].items()})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py ablation``."""
    parser.add_argument("--config", type=Path, required=True, help="grid file")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the grid's")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="train no other variants")
    parser.add_argument("--fresh", action="store_true",
                        help="train these variants and seeds again, from their beginning")
    parser.add_argument("--quiet", action="store_true")


def run(options: argparse.Namespace) -> int:
    """Train, score, compare; print the table, and after each seed write it, its JSON and plot.

    The table of a part of the grid is written beside that of the whole, which stays.
    """
    grid = read_grid(options.config)
    seeds = tuple(options.seeds or grid.seeds)
    names = [name for name in grid.variants if not options.only or name in options.only]
    if unknown := set(options.only or ()) - set(grid.variants):
        raise UserError(f"--only {sorted(unknown)[0]}: the grid's variants are "
                        f"{', '.join(grid.variants)}")
    for name in names:  # now, not after hours
        check(grid, name)
    whole = len(names) == len(grid.variants) and set(seeds) >= set(grid.seeds)
    file = grid.output / (TABLE if whole else PART)
    scored: dict[str, dict[int, dict[str, Scored]]] = {}
    minutes: dict[str, list[float]] = {}
    for seed in seeds:
        for name in names:
            if not options.quiet:
                print_heading(f"{name}, seed {seed}")
            output = grid.output / name / f"seed-{seed}"
            overrides = [*grid.set, *grid.variants[name], f"seed={seed}",
                         quoted("output", output)]
            if options.fresh:
                _remove(output)
            config = load(grid.base, overrides)
            stages = grid.stages_of(config)
            take_over(config, stages, [folder / f"seed-{seed}" for folder in (
                *grid.reuse, *(grid.output / other for other in grid.variants if other != name))])
            taken, found = _one(config, overrides, stages, grid, options.quiet)
            scored.setdefault(name, {})[seed] = found
            minutes.setdefault(name, []).append(taken)
        rows = compare(scored, grid.figures)
        if not rows:
            raise UserError(f"{', '.join(grid.figures)}: none of these figures can be measured on "
                            f"{', '.join(grid.tests)}; give tests that are boxed, or other figures")
        write_comparison(file, rows, minutes, list(scored[names[0]]))
    print(f"\n{comparison_table(rows, minutes)}\n\nwritten: {file}.md, .json, .png")
    return DONE


def _remove(output: Path) -> None:
    """Remove what a variant has trained with one seed.

    Raises:
        UserError: Another training is writing there.
    """
    for stage in sorted(folder for folder in output.glob("*") if folder.is_dir()):
        with locked(stage / ".lock", UserError(f"{stage}: another training is writing here; wait "
                                               "for it, and run again")):
            shutil.rmtree(stage)


def _one(config: Config, overrides: Sequence[str], stages: Sequence[str], grid: Grid,
         quiet: bool) -> tuple[float, dict[str, Scored]]:
    """Train one variant with one seed; minutes of training, and test -> scores."""
    from musicon.detect.stages import train

    results = train(config, stages, quiet=quiet, command=lambda stage: shlex.join(
        ["python", "tools/train_net.py", "--config", str(grid.base), "--stage", stage,
         *(word for override in overrides for word in ("--set", override))]))
    folder, found = results[-1].folder, {}
    for test, manifest in grid.tests.items():
        split = grid.split_of(test)
        out = folder.parent / "evaluation" / test
        naming = set(grid.figures) <= set(NAMING)
        key = digest({"model": [sha256(folder / name) for name in (LINEAGE, CONFIG)],
                      "data": sha256(manifest_file(manifest)), "split": split, "naming": naming,
                      "form": FORM})
        known = Scored.read(out / KEPT, key)
        if known is None:
            known = (_named(folder, manifest, split, quiet) if naming else
                     _scored(run_evaluation(EvaluationOptions(
                         data=manifest, out=out, split=split, model=folder, quiet=quiet))))
            known = replace(known, classes=tuple(sorted(
                category.name for category in read_categories(folder, read_lineage(folder)))))
            known.write(out / KEPT, key)
        found[test] = known
    return sum(result.seconds for result in results) / 60, found


def _named(folder: Path, manifest: Path, split: str, quiet: bool) -> Scored:
    """What the classifier alone names rightly."""
    data = select_split(Manifest.read(manifest), split, manifest)
    said = run_model(ArtworkDetector.load(folder), data, search=False, quiet=quiet)
    naming = _naming(said.crops, said.pictures)
    return Scored({key: float(row.right.mean()) for key, row in naming.items()}, naming, None)


def _scored(result: EvaluationResult) -> Scored:
    values = {key: value for key, value in bar_values(result).items() if value is not None}
    matched = result.metrics.matched
    return Scored(values, _naming(result.named_crops, result.named_pictures),
                  pool(matched) if matched else None, shares=_shares(result.metrics))


def _shares(metrics: DetectionMetrics) -> dict[str, NDArray[np.float64]]:
    """The figures at the threshold that are shares, as counts of each image."""
    shown = [image.shown(metrics.threshold) for image in metrics.matched]
    found = np.array([mask.sum() for mask in shown], float)
    hits = np.array([(image.gt_index[mask] >= 0).sum()
                     for image, mask in zip(metrics.matched, shown, strict=True)], float)
    to_find = np.array([image.to_find for image in metrics.matched], float)
    empty = np.array([image.is_negative for image in metrics.matched], float)
    return {"recall": np.stack([hits, to_find]), "precision": np.stack([hits, found]),
            "f1": np.stack([2 * hits, found + to_find]),
            "false_alarms": np.stack([found * empty, empty])}


def _naming(crops: NamedCrops | None, pictures: NamedCrops | None) -> dict[str, Naming]:
    return {key: Naming(said.probabilities.argmax(axis=1) == said.labels, said.images)
            for key, said in zip(NAMING, (crops, pictures), strict=True)
            if said is not None and len(said.labels)}


def compare(scored: Mapping[str, Mapping[int, Mapping[str, Scored]]],
            figures: Sequence[str]) -> list[dict[str, Any]]:
    """One row a data set, figure and variant: values over seeds, and the difference to the first.

    Args:
        scored: Variant -> seed -> data set -> scores; every variant has the same seeds.
        figures: Names of figures; those that could not be measured have no row, and no difference
            where the first variant lacks them, or has them of other classes.
    """
    first = next(iter(scored))
    rows: list[dict[str, Any]] = []
    tests = dict.fromkeys(t for seeds in scored.values() for found in seeds.values() for t in found)
    for test in tests:
        for figure in figures:
            base = _over_seeds(scored[first], test, figure)
            for variant, seeds in scored.items():
                values = _over_seeds(seeds, test, figure)
                if values is None:
                    continue
                row: dict[str, Any] = {"test": test, "figure": figure, "variant": variant,
                                       "values": values}
                if variant != first:
                    pairs = [(scored[first][seed][test], found[test])
                             for seed, found in seeds.items()]
                    alike = base is not None and all(_comparable(*p, figure) for p in pairs)
                    row["difference"] = mean(values) - mean(base) if base and alike else None
                    row["interval"] = _interval(pairs, figure) if alike else None
                rows.append(row)
    return rows


def _over_seeds(seeds: Mapping[int, Mapping[str, Scored]], test: str,
                figure: str) -> list[float] | None:
    """The figure's value with each seed; None where one lacks it."""
    values = [found[test].figures.get(figure) for found in seeds.values()]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _comparable(before: Scored, after: Scored, figure: str) -> bool:
    """Whether both were asked the same."""
    return figure in NAMELESS or before.classes == after.classes


def _interval(pairs: Sequence[tuple[Scored, Scored]], figure: str) -> list[float] | None:
    """95% interval of the mean difference over seeds; None for figures without a bootstrap."""
    measures = [(_measure(before, figure), _measure(after, figure)) for before, after in pairs]
    count = _count(pairs[0][0], figure)
    if count == 0 or any(a is None or b is None for a, b in measures):
        return None
    differences = []
    for weights in resamples(count, ROUNDS):
        drawn = [(a(weights), b(weights)) for a, b in measures if a is not None and b is not None]
        if all(x is not None and y is not None for x, y in drawn):
            differences.append(mean(y - x for x, y in drawn))  # type: ignore[operator]
    interval = percentiles(differences)
    return list(interval) if interval else None


def _count(scored: Scored, figure: str) -> int:
    """Pictures that a figure is measured on."""
    if figure in scored.naming:
        return len(np.unique(scored.naming[figure].images))
    if figure == "agnostic_ap50" and scored.pooled is not None:
        return len(scored.pooled.to_find)
    return scored.shares[figure].shape[1] if figure in scored.shares else 0


def _measure(scored: Scored, figure: str,
             ) -> Callable[[NDArray[np.int64]], float | None] | None:
    """The figure as a function of how often each picture counts."""
    if figure in scored.naming:
        said = scored.naming[figure]
        place = np.unique(said.images, return_inverse=True)[1]
        return lambda weights: float(np.average(said.right, weights=weights[place]))
    if figure == "agnostic_ap50" and scored.pooled is not None:
        pooled = scored.pooled
        return lambda weights: average_precision(pooled, weights)
    if figure in scored.shares:
        counted, of = scored.shares[figure]
        return lambda weights: (float(counted @ weights / total) if (total := of @ weights)
                                else None)
    return None
