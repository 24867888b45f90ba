"""Figures as benchmarks show them."""

from __future__ import annotations

import math

from musicon.detect.benchmarks.tables import markdown, mean_and_spread, table, with_spread


def test_a_value_with_its_spread() -> None:
    assert with_spread(0.51249, 0.02) == "0.512 ± 0.020"
    assert with_spread(0.5, math.nan) == with_spread(0.5) == "0.500"


def test_mean_and_spread_by_hand() -> None:
    assert mean_and_spread([0.1, 0.2, 0.3]) == "0.200 ± 0.100"
    assert (mean_and_spread([0.25]), mean_and_spread([])) == ("0.250", "")


def test_a_table_in_markdown() -> None:
    shown = table(("test", "figure"), [("art", "0.5"), ("photos", 1)])
    assert markdown(shown) == ("| test | figure |\n|---|---|\n| art | 0.5 |\n| photos | 1 |")
    assert markdown(table(["test"], ())) == "| test |\n|---|"
