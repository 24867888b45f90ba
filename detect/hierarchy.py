"""How much of a name is sure: the instrument, its family, or only that it is an instrument.

A model that hesitates between lute, theorbo and mandora knows that it sees a lute of some kind.
Where no single name holds enough of the classifier's probability but a family does, the name backs
off to the family, and from there to "musical instrument" (cf. Deng et al., "Hedging Your Bets",
CVPR 2012). Families are the taxonomy's.
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
    """What may be said of a box, and on which of ``LEVELS`` that is."""

    name: str
    level: str


@lru_cache(maxsize=4096)
def family_of(name: str) -> str:
    """The family of an instrument in museum vocabulary (``violin``: ``violins``).

    Where the taxonomy has none, the wider circle (``bowed strings``); of a name that it does not
    know, the name itself, which is then a family of its own.
    """
    # Read only when a name backs off or is scored: the table is large.
    from musicon.datasets.taxonomy import Taxonomy

    instrument = Taxonomy.load().find(name).instrument
    if instrument is None:
        return name
    return next((circle for circle in (instrument.family, instrument.kin) if circle != _UNKNOWN),
                instrument.name)


@dataclass(frozen=True)
class Hierarchy:
    """Classes in label order and their families.

    Attributes:
        names: The L instruments.
        families: The F families, sorted.
        member: bool (L, F), which class is of which family.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    member: NDArray[np.bool_]

    @classmethod
    def of(cls, names: Sequence[str]) -> Hierarchy:
        """The hierarchy of a model's classes."""
        each = [family_of(name) for name in names]
        families = tuple(sorted(set(each)))
        return cls(tuple(names), families, np.array(each)[:, None] == np.array(families)[None]
                   if names else np.zeros((0, 0), bool))

    def back_off(self, probabilities: NDArray[np.floating], labels: NDArray[np.integer],
                 sure: float) -> tuple[SureName, ...]:
        """What is sure of each box.

        Args:
            probabilities: (N, L + 1), column 0 the negative class.
            labels: (N,) from 1, the name that each box has.
            sure: Share of the probability of all instruments that a name must hold.
        """
        instruments = np.asarray(probabilities, np.float64)[:, 1:]
        shares = instruments / np.maximum(instruments.sum(1, keepdims=True), 1e-12)
        by_family = shares @ self.member
        found = []
        for row, group, label in zip(shares, by_family, labels, strict=True):
            if row[label - 1] >= sure:
                found.append(SureName(self.names[label - 1], "leaf"))
            elif group.max() >= sure:
                found.append(SureName(self.families[int(group.argmax())], "family"))
            else:
                found.append(SureName(INSTRUMENT, "instrument"))
        return tuple(found)
