"""The table of an ablation, as text, JSON, Markdown and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from musicon.datasets.command import SummaryTable
from musicon.datasets.records import write_atomic
from musicon.detect.benchmarks.stages import FIGURES
from musicon.detect.benchmarks.tables import markdown, mean_and_spread, table

MINUTES = "minutes"
HEAD = ("test", "figure", "variant", "mean ± sd", "difference", "95% interval")


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Mean and spread, difference to the first variant, its interval."""
    difference, interval = row.get("difference"), row.get("interval")
    return (mean_and_spread(row["values"]), "" if difference is None else f"{difference:+.3f}",
            "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}")


def comparison_table(rows: Sequence[Mapping[str, Any]],
                     minutes: Mapping[str, Sequence[float]]) -> SummaryTable:
    """The rows that ``compare`` made, and each variant's minutes of training with each seed."""
    lines = [(row["test"], FIGURES.get(row["figure"], row["figure"]), row["variant"], *_cells(row))
             for row in rows]
    return table(HEAD, [*lines, *(("training", MINUTES, variant, mean_and_spread(taken), "", "")
                                  for variant, taken in minutes.items())])


def write_comparison(file: Path, rows: Sequence[Mapping[str, Any]],
                     minutes: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> None:
    """The table as ``file`` with the endings .json, .md and .png."""
    document = {"seeds": list(seeds), "rows": list(rows), "minutes": dict(minutes)}
    write_atomic(file.with_name(f"{file.name}.json"), json.dumps(document, indent=1))
    text = markdown(comparison_table(rows, minutes))
    write_atomic(file.with_name(f"{file.name}.md"), f"{text}\n")
    write_atomic(file.with_name(f"{file.name}.png"), _plot(rows, minutes))


def _plot(rows: Sequence[Mapping[str, Any]], minutes: Mapping[str, Sequence[float]]) -> bytes:
    """One panel a data set and figure: a bar a variant, a dot a seed, a line the interval.

    The interval is that of the difference, drawn around the first variant's mean: where it holds
    that one's bar end (the dotted line), nothing tells the two apart. The last panel is the cost.
    """
    from matplotlib.figure import Figure

    from musicon.detect.plots import to_png

    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault((row["test"], row["figure"]), []).append(row)
    panels["training", MINUTES] = [{"variant": variant, "values": taken}
                                   for variant, taken in minutes.items()]
    height = 1.0 + 0.32 * max(len(panel) for panel in panels.values())
    figure = Figure(figsize=(9, height * -(-len(panels) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
    for axis, ((test, name), panel) in zip(axes, panels.items(), strict=False):
        first = mean(panel[0]["values"])
        if any(row.get("interval") for row in panel):
            axis.axvline(first, color="#777777", lw=0.8, ls=":")
        for place, row in enumerate(panel):
            axis.barh(place, mean(row["values"]),
                      color="#c9c9c9" if row["variant"] == next(iter(minutes)) else "#9db8d2")
            axis.plot(row["values"], [place] * len(row["values"]), "o", color="#22364a", ms=3,
                      clip_on=False)
            if row.get("interval"):
                axis.plot([first + end for end in row["interval"]], [place + 0.28] * 2,
                          color="#b5532a", lw=1.6, solid_capstyle="butt")
        axis.set_yticks(range(len(panel)), [row["variant"] for row in panel], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(left=0)
        axis.set_title(f"{test}: {FIGURES.get(name, name)}", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes[len(panels):]:
        axis.set_visible(False)
    return to_png(figure)
