"""Leakage-safe splits: seeded, by group, balanced by label, the same whatever the input order.

A group (a painter, an object with many photos, copies of one picture) is never divided. Within
that, every label gets its share of each split as nearly as whole groups allow: groups are dealt
out label by label, the rarest first, each to the split that is furthest behind (after
Sechidis et al., On the Stratification of Multi-Label Data, 2011, with whole groups as units).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from musicon.datasets.files import uncollected
from musicon.datasets.records import SPLITS, ImageRecord, UserError

DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)
_NEGATIVE, _UNLABELLED = 0, -1


@dataclass(frozen=True)
class _Unit:
    """What is dealt out whole: a group, or one image without a group."""

    key: str
    records: tuple[ImageRecord, ...]
    labels: frozenset[int]


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Shares of train, val and test from ``70/10/20`` or ``0.7/0.1/0.2``.

    Raises:
        UserError: Not three numbers from 0 that sum to 100 (or 1), or no share for train.
    """
    advice = f"--split {text!r}: give train/val/test as three numbers that sum to 100: 70/10/20"
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        raise UserError(advice) from None
    total = sum(parts)
    if len(parts) != 3 or not all(part >= 0 for part in parts) or parts[0] == 0 \
            or not any(abs(total - whole) < whole * 1e-3 for whole in (1.0, 100.0)):
        raise UserError(advice)
    return parts[0] / total, parts[1] / total, parts[2] / total


@uncollected()
def assign_splits(records: Sequence[ImageRecord],
                  fractions: tuple[float, float, float] = DEFAULT_FRACTIONS, *,
                  seed: int = 0, resplit: bool = False) -> list[ImageRecord]:
    """The records, in their order, each with a split.

    Args:
        records: Images; ``group`` and ``known_labels`` steer the split, ``file_name`` names an
            image without a group.
        fractions: Shares of train, val, test; a share of 0 leaves that split empty.
        seed: Another seed gives another split.
        resplit: Forget the splits that records have already. By default they are kept, images
            without one follow their group where it has one, and only the rest is dealt out, so
            that the whole comes near the shares.
    """
    if resplit:
        records = [replace(record, split=None) for record in records]
    chosen: dict[str, str] = {}
    open_units: list[_Unit] = []
    taken: dict[int, Counter[str]] = defaultdict(Counter)
    units = _units(records)
    frequency = Counter(label for unit in units for label in unit.labels
                        for _ in unit.records)
    for unit in units:
        given = Counter(record.split for record in unit.records if record.split is not None)
        if given:
            # Most of the group's images decide; SPLITS' order breaks a tie.
            chosen[unit.key] = max(SPLITS, key=lambda name: given[name])
            taken[_stratum(unit, frequency)][chosen[unit.key]] += len(unit.records)
        else:
            open_units.append(unit)
    chosen |= _deal(open_units, taken, frequency, fractions, seed)
    return [record if record.split is not None
            else replace(record, split=chosen[_key(record)]) for record in records]


def divided_groups(records: Sequence[ImageRecord]) -> list[str]:
    """Groups whose images are in more than one split, sorted: leaks in the given splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.group is not None and record.split is not None:
            splits[record.group].add(record.split)
    return sorted(group for group, found in splits.items() if len(found) > 1)


def _key(record: ImageRecord) -> str:
    return f"file {record.file_name}" if record.group is None else f"group {record.group}"


def _units(records: Sequence[ImageRecord]) -> list[_Unit]:
    members: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        members[_key(record)].append(record)
    units = []
    for key in sorted(members):
        labels: set[int] = set()
        for record in members[key]:
            unlabelled = record.labels is None and not record.boxes
            labels.update(record.known_labels
                          or ((_UNLABELLED,) if unlabelled else (_NEGATIVE,)))
        units.append(_Unit(key, tuple(members[key]), frozenset(labels)))
    return units


def _stratum(unit: _Unit, frequency: Counter[int]) -> int:
    """The unit's rarest label: the one that is hardest to spread."""
    return min(unit.labels, key=lambda label: (frequency[label], label))


def _deal(units: Sequence[_Unit], taken: dict[int, Counter[str]], frequency: Counter[int],
          fractions: tuple[float, float, float], seed: int) -> dict[str, str]:
    """Split of each unit's key. What one label gets too much of is carried to the next."""
    shares = {name: share for name, share in zip(SPLITS, fractions, strict=True) if share > 0}
    strata: dict[int, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[_stratum(unit, frequency)].append(unit)
    chosen: dict[str, str] = {}
    behind = dict.fromkeys(shares, 0.0)
    for label in sorted(strata, key=lambda label: (frequency[label], label)):
        size = sum(len(unit.records) for unit in strata[label]) + taken[label].total()
        for name, share in shares.items():
            behind[name] += share * size - taken[label][name]
        for unit in sorted(strata[label], key=lambda u: (-len(u.records), _shuffled(u, seed))):
            name = max(shares, key=lambda name: behind[name])
            behind[name] -= len(unit.records)
            chosen[unit.key] = name
        # Splits given beforehand can be far off; another label must not pay for that.
        limit = max(len(unit.records) for unit in strata[label])
        behind = {name: min(max(lag, -limit), limit) for name, lag in behind.items()}
    return chosen


def _shuffled(unit: _Unit, seed: int) -> str:
    """An order that looks random and depends on nothing but the seed and the unit's name."""
    return hashlib.sha256(f"{seed} {unit.key}".encode("utf-8", "surrogatepass")).hexdigest()
