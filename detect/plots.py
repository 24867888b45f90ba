"""Plots of an evaluation and of a training log, legible with 3 classes and with 60.

Each function returns a Matplotlib figure that no display needs; ``save`` and ``to_png`` turn it
into a picture. Where classes are too many to read, the ones with most true boxes are shown and
the plot says how many were left out.
"""

from __future__ import annotations

import csv
import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from musicon.datasets.records import UserError, write_atomic
from musicon.detect.calibration import Calibration
from musicon.detect.evaluation import Curve, DetectionMetrics

INK = "#22303c"
QUIET = "#8795a1"
GRID = "#e4e7eb"
ACCENT = "#17646b"
PALETTE = ("#c26a1b", "#3b6fb6", "#7a4b94", "#4f8a3c", "#b23a48", "#8c6d1f", "#2a9d8f", "#a3527c")
FALLBACKS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans", "Noto Naskh Arabic",
             "Droid Sans Fallback", "WenQuanYi Zen Hei", "Source Han Sans", "Arial Unicode MS",
             "PingFang SC", "Hiragino Sans", "Microsoft YaHei")
MAX_CURVES = len(PALETTE)
MAX_BARS = 40
MAX_MATRIX = 24
NAME_WIDTH = 22
SMOOTHING = 0.9


def to_png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as the bytes of a PNG file, in letters of every script that is installed."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_fontfamily(_families())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(stream, format="png", dpi=dpi, facecolor="white", bbox_inches="tight",
                       pad_inches=0.15, metadata={"Software": None})
    return stream.getvalue()


@cache
def _families() -> list[str]:
    """Matplotlib's own font, then installed ones that have the letters that it lacks."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG file, atomically."""
    write_atomic(path, to_png(figure))


def plot_precision_recall(metrics: DetectionMetrics) -> Figure:
    """Precision against recall at IoU .5: all instruments as one, and the commonest classes."""
    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    axes = _styled(figure.subplots())
    rows = [row for row in metrics.per_class if row.name in metrics.curves]
    rows.sort(key=lambda row: -row.boxes)
    shown = sorted(rows[:MAX_CURVES], key=lambda row: -(row.ap50 or 0))
    for row, colour in zip(shown, PALETTE, strict=False):
        axes.plot(*_reached(metrics.curves[row.name]), color=colour, linewidth=1.3, alpha=0.9,
                  label=f"{_short(row.name)}  {row.ap50:.2f}  ({row.boxes})")
    if metrics.agnostic_ap50 is not None:
        axes.plot(*_reached(metrics.curves[""]), color=INK, linewidth=2.6,
                  label=f"any instrument  {metrics.agnostic_ap50:.2f}  ({metrics.coverage.boxes})")
        if metrics.found.precision is not None and metrics.found.recall is not None:
            axes.plot(metrics.found.recall, metrics.found.precision, "o", color=INK, markersize=8,
                      label=f"at threshold {metrics.threshold:.2f}")
    else:
        _say_nothing(axes, "no true boxes: nothing to find")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall: share of the instruments found",
             ylabel="precision: share of the boxes that are right")
    _title(axes, "Precision and recall at IoU .5",
           _cut_note(len(shown), len(rows), "AP50 and number of true boxes beside each name"))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        first = len(shown)  # all instruments and the threshold, then the classes, best first
        axes.legend(handles[first:] + handles[:first], labels[first:] + labels[:first],
                    loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    return figure


def _reached(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision up to the highest recall, where the curve drops to 0."""
    last = int((curve.precision > 0).sum())
    return (np.append(curve.recall[:last], curve.recall[max(last - 1, 0)]),
            np.append(curve.precision[:last], 0.0))


def plot_class_ap(metrics: DetectionMetrics) -> Figure:
    """AP50 and AP of each class, best first."""
    rows = [row for row in metrics.per_class if row.ap50 is not None]
    shown = sorted(rows, key=lambda row: -row.boxes)[:MAX_BARS]
    shown.sort(key=lambda row: ((row.ap50 or 0), (row.ap or 0), row.name))
    figure = Figure(figsize=(7.6, 1.5 + 0.27 * max(3, len(shown))), layout="constrained")
    axes = _styled(figure.subplots(), grid="x")
    place = np.arange(len(shown))
    ap50 = [row.ap50 or 0.0 for row in shown]
    axes.barh(place, ap50, height=0.66, color="#9cc5c3", label="AP50")
    axes.barh(place, [row.ap or 0.0 for row in shown], height=0.3, color=ACCENT, label="AP")
    for at, value in zip(place, ap50, strict=True):
        axes.text(value + 0.012, float(at), f"{value:.2f}", va="center", fontsize=8.5, color=INK)
    axes.set_yticks(place, [f"{_short(row.name)} ({row.boxes})" for row in shown], fontsize=9)
    axes.set(xlim=(0, 1.08), ylim=(-0.7, max(len(shown), 3) - 0.3), xlabel="average precision")
    axes.set_xticks(np.linspace(0, 1, 6))
    if shown:
        axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    else:
        _say_nothing(axes, "no class with true boxes")
    _title(axes, "How well each instrument is found and named",
           _cut_note(len(shown), len(rows), "true boxes in brackets"))
    return figure


def plot_confusion(metrics: DetectionMetrics) -> Figure:
    """True class by given name at the threshold; rare classes are summed up in one row."""
    matrix, names = _fold(metrics.confusion, metrics.confusion_names)
    side = max(4.0, 0.36 * len(names) + 2.2)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    _matrix(axes, share, matrix)
    given = [*names[:-1], "not found"]
    true = [*names[:-1], "no instrument"]
    axes.set_xticks(range(len(names)), [_short(n) for n in given], rotation=55, ha="right",
                    rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(names)), [_short(n) for n in true], fontsize=9)
    for edge in (-0.5, len(names) - 1.5):
        axes.axhline(edge, color=QUIET, linewidth=0.8)
        axes.axvline(edge, color=QUIET, linewidth=0.8)
    _title(axes, f"Confusion at threshold {metrics.threshold:.2f}",
           "boxes; darker: larger share of the row"
           + ("; mix-ups among the other classes count as right here"
              if len(names) > MAX_MATRIX + 1 else ""))
    return figure


def plot_labels(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """True class by most probable class, (L, L): counts, and shares of each true class."""
    folded, kept = _fold(np.pad(matrix, ((0, 1), (0, 1))), [*names, ""])
    counts, kept = folded[:-1, :-1], kept[:-1]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.6, 0.4 * len(kept) + 1.8)
    figure = Figure(figsize=(2 * side + 0.8, side + 0.6), layout="constrained")
    for axes, title, note, texts in zip(
            figure.subplots(1, 2), ("Works", "Shares of each true class"),
            ("darker: larger share of the row", "in percent"),
            (counts, (100 * share).round().astype(np.int64)), strict=True):
        _matrix(axes, share, texts)
        axes.set_xticks(range(len(kept)), [_short(n) for n in kept], rotation=55, ha="right",
                        rotation_mode="anchor", fontsize=9)
        axes.set_yticks(range(len(kept)), [_short(n) for n in kept], fontsize=9)
        _title(axes, title, note)
    return figure


def _matrix(axes: Axes, share: NDArray[np.float64], texts: NDArray[np.int64]) -> None:
    """Cells shaded by share, each with its number unless that is 0."""
    colours = LinearSegmentedColormap.from_list("paper", ["#fbfaf7", "#9cc5c3", ACCENT, "#0b353a"])
    axes.imshow(share, cmap=colours, vmin=0, vmax=1)
    size = 9 if len(share) <= 14 else 7.5
    for (row, column), value in np.ndenumerate(texts):
        if value:
            axes.text(float(column), float(row), f"{value}", ha="center", va="center",
                      fontsize=size, color="white" if share[row, column] > 0.55 else INK)
    axes.set_xlabel("the model says", color=INK)
    axes.set_ylabel("it is", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)


def plot_reliability(calibration: Calibration, title: str = "Is the score a probability?",
                     ) -> Figure:
    """Share that is right against confidence, and how many predictions each bin holds."""
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    _styled(upper)
    _styled(lower)
    width = np.diff(calibration.edges)
    left = calibration.edges[:-1]
    filled = calibration.counts > 0
    upper.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1.2, label="perfectly calibrated")
    upper.bar(left[filled], calibration.accuracy[filled], width[filled], align="edge",
              color="#9cc5c3", edgecolor="white", label="share that is right")
    upper.plot(calibration.confidence[filled], calibration.accuracy[filled], "o-", color=ACCENT,
               markersize=4.5, linewidth=1.4)
    lower.bar(left, calibration.counts, width, align="edge", color=QUIET, edgecolor="white")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
    lower.set(xlabel="score", ylabel="predictions")
    if calibration.error is None:
        _say_nothing(upper, "no predictions")
        note = ""
    else:
        upper.legend(loc="upper left", frameon=False, fontsize=9)
        note = (f"expected calibration error {calibration.error:.3f}, "
                f"{calibration.total} predictions")
    _title(upper, title, note)
    return figure


def plot_curves(log: str | Path, out: str | Path) -> None:
    """Draw a training log: losses, validation figures and learning rate against the step.

    Args:
        log: CSV with a header: ``step`` (or ``epoch``), ``lr``, ``loss``, parts of the loss
            (in every row), validation figures. Empty cells are values not measured at that
            step; columns without any number, and ``seconds``, are not drawn.
        out: PNG file, written atomically.

    Raises:
        UserError: The log has no step column or no row.
    """
    steps, columns = _read_log(Path(log))
    rates = {k: v for k, v in columns.items() if _is_rate(k)}
    # Parts of the loss are measured at every step, validation figures now and then.
    losses = {k: v for k, v in columns.items() if "loss" in k.lower()
              or ("loss" in columns and k not in rates and np.isfinite(v).all())}
    scores = {k: v for k, v in columns.items()
              if k not in losses and k not in rates and _in_unit_range(v)}
    panels = [(name, group) for name, group in
              (("Loss", losses), ("Validation", scores), ("Learning rate", rates)) if group]
    figure = Figure(figsize=(8.4, 0.6 + 2.6 * max(1, len(panels))), layout="constrained")
    grid = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, group) in zip(grid, panels, strict=False):
        _styled(axes)
        _log_panel(axes, steps, group, smooth=name == "Loss")
        _title(axes, name, "")
    if not panels:
        _say_nothing(_styled(grid[0]), "no values yet")
    grid[-1].set_xlabel("step")
    save(figure, out)


def _log_panel(axes: Axes, steps: NDArray[np.float64],
               group: Mapping[str, NDArray[np.float64]], smooth: bool) -> None:
    colours = (ACCENT, *PALETTE)
    for i, (name, values) in enumerate(group.items()):
        known = np.isfinite(values)
        colour = colours[i % len(colours)]
        dense = smooth and known.sum() > 50
        if dense:
            axes.plot(steps[known], values[known], color=colour, alpha=0.22, linewidth=0.8)
        axes.plot(steps[known], _smoothed(values[known]) if dense else values[known],
                  color=colour, linewidth=1.8, label=name,
                  marker="o" if known.sum() <= 40 else "", markersize=3.5)
    if smooth and all((v[np.isfinite(v)] > 0).all() for v in group.values()):
        largest = max(np.nanmax(v) for v in group.values())
        least = min(np.nanmin(v) for v in group.values())
        if largest / least > 100:
            axes.set_yscale("log")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential moving average without the bias of its start."""
    out = np.empty_like(values)
    mean = 0.0
    for i, value in enumerate(values):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(value)
        out[i] = mean / (1 - SMOOTHING ** (i + 1))
    return out


def _read_log(file: Path) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise UserError(f"{file}: no such training log") from None
    key = next((k for k in ("step", "epoch") if rows and k in rows[0]), None)
    if key is None:
        raise UserError(f"{file}: not a training log: expected a header with 'step' and a row")
    columns = {}
    for name in rows[0]:
        values = np.array([_number(row.get(name)) for row in rows])
        if name and name not in (key, "seconds") and np.isfinite(values).any():
            columns[name] = values
    return np.array([_number(row[key]) for row in rows]), columns


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan


def _is_rate(name: str) -> bool:
    words = name.lower().replace("/", "_").split("_")
    return "lr" in words or "rate" in words


def _in_unit_range(values: NDArray[np.float64]) -> bool:
    """Leaves out counters, seconds and the like, which would flatten the figures."""
    known = values[np.isfinite(values)]
    return bool((known >= -1).all() and (known <= 1).all())


def _fold(matrix: NDArray[np.int64], names: Sequence[str],
          ) -> tuple[NDArray[np.int64], list[str]]:
    """Keep the classes that occur; sum up the rarest beyond ``MAX_MATRIX`` as one."""
    count = len(names) - 1
    involved = matrix.sum(axis=1)[:count] * 1_000_000 + matrix.sum(axis=0)[:count]
    order = [int(i) for i in np.argsort(-involved, kind="stable") if involved[i]]
    kept = sorted(order[:MAX_MATRIX], key=lambda i: names[i])
    rest = order[MAX_MATRIX:]
    groups = [[i] for i in kept] + ([rest] if rest else []) + [[count]]
    folded = np.array([[matrix[np.ix_(a, b)].sum() for b in groups] for a in groups])
    labels = [names[i] for i in kept]
    labels += [f"{len(rest)} other classes"] if rest else []
    return folded, [*labels, names[count]]


def _cut_note(shown: int, total: int, note: str) -> str:
    if shown == total:
        return note
    return f"{note}; the {shown} commonest of {total} classes, the rest in the table"


def _short(name: str) -> str:
    name = name.replace("_", " ")
    if len(name) <= NAME_WIDTH:
        return name
    return textwrap.shorten(name, NAME_WIDTH, placeholder="…") if " " in name \
        else name[:NAME_WIDTH - 1] + "…"


def _styled(axes: Axes, grid: str = "both") -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    return axes


def _title(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK,
                   pad=20 if note else 8)
    if note:
        axes.annotate(note, (0, 1), xycoords="axes fraction", xytext=(0, 5),
                      textcoords="offset points", fontsize=9, color=QUIET, va="bottom")


def _say_nothing(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET,
              fontsize=11)

