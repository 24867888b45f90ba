"""The Hornbostel-Sachs classification, as the MIMO consortium revised it: a tree of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musicon.datasets.taxonomy_table import TABLES, read_tsv


@dataclass(frozen=True)
class HsClass:
    """One class; ``broader`` is the number of the class above it, ``narrower`` of those below.

    ``mimo`` is the number of its page in MIMO's own publication.
    """

    number: str
    mimo: str
    label: str
    description: str
    broader: str | None
    narrower: tuple[str, ...] = ()


def read_classes() -> dict[str, HsClass]:
    """The shipped classes by number."""
    rows = {row["number"]: row for row in read_tsv(TABLES / "hornbostel_sachs.tsv")}
    broader = {number: next((n for n in _upwards(number) if n in rows), None) for number in rows}
    narrower: dict[str, list[str]] = {number: [] for number in rows}
    for number, above in broader.items():
        if above is not None:
            narrower[above].append(number)
    return {number: HsClass(number, row["mimo"], row["label"], row["description"],
                            broader[number], tuple(narrower[number]))
            for number, row in rows.items()}


def chain(number: str | None, tree: Mapping[str, HsClass]) -> tuple[HsClass, ...]:
    """The classes that a number stands in, broadest first, its own last."""
    if not number:
        return ()
    return tuple(tree[n] for n in reversed((number, *_upwards(number))) if n in tree)


def _upwards(number: str) -> list[str]:
    """The numbers that it could stand under, nearest first: a sign is dropped at a time."""
    above = []
    while number := number[:-1].rstrip(".-+"):
        above.append(number)
    return above
