"""How benchmarks show their figures: a value with its spread, a table in Markdown too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from musicon.datasets.command import SummaryTable


def with_spread(value: float, spread: float = math.nan) -> str:
    """``0.512 ± 0.023``; the value alone where its spread is not a number."""
    return f"{value:.3f}" if math.isnan(spread) else f"{value:.3f} ± {spread:.3f}"


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and, of several values, their standard deviation; nothing of none."""
    if not values:
        return ""
    return with_spread(mean(values), stdev(values) if len(values) > 1 else math.nan)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> SummaryTable:
    """A table of these columns and rows."""
    made = SummaryTable(*head)
    for row in rows:
        made.add(*row)
    return made


def markdown(shown: SummaryTable) -> str:
    """The table as Markdown has it, without a line break at its end."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (shown.header, *shown.rows)]
    return "\n".join((lines[0], f"|{'---|' * len(shown.header)}", *lines[1:]))
