"""How much of a name is sure: the instrument, its family, or only that it is an instrument.

A model that hesitates between lute, theorbo and mandora knows that it sees a lute of some kind.
Where no single name holds enough of the classifier's probability but a family does (lutes), the
name backs off to the family, from there to the family's kin (plucked lutes, guitars among them) and
to "musical instrument" (cf. Deng et al., "Hedging Your Bets", CVPR 2012). Families and kin are the
taxonomy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INSTRUMENT = "musical instrument"
LEVELS = ("leaf", "family", "instrument")
_UNKNOWN = "unclassified"


class SureName(NamedTuple):
    """What may be said of a box, and on which of ``LEVELS`` that is; a family's kin is a family."""

    name: str
    level: str


@lru_cache(maxsize=4096)
def circles_of(name: str) -> tuple[str, str]:
    """An instrument's family in museum vocabulary and its kin: ``violins``, ``bowed strings``.

    Where the taxonomy has only one of them, that one twice; of a name without either, and of one
    that it does not know, the name itself, which is then a family of its own.
    """
    # Read only when a name backs off or is scored: the table is large.
    from musicon.datasets.taxonomy import Taxonomy

    instrument = Taxonomy.load().find(name).instrument
    if instrument is None:
        return name, name
    known = [circle for circle in (instrument.family, instrument.kin) if circle != _UNKNOWN]
    known = known or [instrument.name]
    return known[0], known[-1]


def family_of(name: str) -> str:
    """The family of an instrument, as ``circles_of`` has it."""
    return circles_of(name)[0]


def in_words(guess: str, sure: SureName) -> str:
    """``guitar``; ``plucked lutes, guitar?``; ``plucked lutes`` where the guess is none."""
    if sure.level == "leaf":
        return guess
    if sure.level == "family" and sure.name not in circles_of(guess):
        return sure.name
    return f"{sure.name}, {guess}?"


@dataclass(frozen=True)
class Circles:
    """Groups of classes.

    Attributes:
        names: The F groups, sorted.
        member: bool (L, F), which class is of which group.
    """

    names: tuple[str, ...]
    member: NDArray[np.bool_]

    @classmethod
    def of(cls, each: Sequence[str]) -> Circles:
        """The groups that L classes belong to, one each."""
        names = tuple(sorted(set(each)))
        return cls(names, np.array([[group == name for name in names] for group in each], bool)
                   .reshape(len(each), len(names)))

    def sure(self, shares: NDArray[np.float64], least: float) -> str | None:
        """The group that holds at least so much of the classes' shares (L,), if one does."""
        held = shares @ self.member
        return self.names[int(held.argmax())] if held.max() >= least else None


@dataclass(frozen=True)
class Hierarchy:
    """Classes in label order, and the circles that they belong to.

    Attributes:
        names: The L instruments.
        families: Their families.
        kin: The families' kin.
    """

    names: tuple[str, ...]
    families: Circles
    kin: Circles

    @classmethod
    def of(cls, names: Sequence[str]) -> Hierarchy:
        """The hierarchy of a model's classes."""
        each = [circles_of(name) for name in names]
        return cls(tuple(names), Circles.of([family for family, _ in each]),
                   Circles.of([kin for _, kin in each]))

    def back_off(self, probabilities: NDArray[np.floating], labels: NDArray[np.integer],
                 sure: float) -> tuple[SureName, ...]:
        """What is sure of each box; a family need not be that of the likeliest instrument.

        Args:
            probabilities: (N, L + 1), column 0 the negative class.
            labels: (N,) from 1, the name that each box has.
            sure: Share of the probability of all instruments that a name must hold.
        """
        instruments = np.asarray(probabilities, np.float64)[:, 1:]
        shares = instruments / np.maximum(instruments.sum(1, keepdims=True), 1e-12)
        return tuple(self._back_off(row, int(label), sure)
                     for row, label in zip(shares, labels, strict=True))

    def _back_off(self, shares: NDArray[np.float64], label: int, sure: float) -> SureName:
        if shares[label - 1] >= sure:
            return SureName(self.names[label - 1], "leaf")
        circle = self.families.sure(shares, sure) or self.kin.sure(shares, sure)
        return SureName(circle, "family") if circle else SureName(INSTRUMENT, "instrument")
