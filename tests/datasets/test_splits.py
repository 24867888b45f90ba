"""Splits: groups stay whole, labels are balanced, the input's order does not matter."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicon.datasets.records import SPLITS, Box, ImageRecord, UserError
from musicon.datasets.splits import assign_splits, divided_groups, parse_fractions


@st.composite
def collections(draw: st.DrawFn) -> list[ImageRecord]:
    count = draw(st.integers(0, 60))
    groups = draw(st.integers(1, 20))
    return [ImageRecord(
        number, f"{number}.jpg", 10, 10,
        boxes=tuple(Box((0, 0, 5, 5), label)
                    for label in draw(st.lists(st.integers(1, 5), max_size=2))),
        labels=draw(st.none() | st.just(()) | st.just((draw(st.integers(1, 5)),))),
        group=draw(st.none() | st.integers(1, groups).map(str)),
        split=draw(st.sampled_from([None, None, None, *SPLITS])),
    ) for number in range(count)]


FRACTIONS = st.sampled_from([(0.7, 0.1, 0.2), (0.8, 0.2, 0.0), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0)])


@given(collections(), FRACTIONS, st.integers(0, 3))
def test_laws(records: list[ImageRecord], fractions: tuple[float, float, float],
              seed: int) -> None:
    out = assign_splits(records, fractions, seed=seed, resplit=True)
    assert [replace(r, split=None) for r in out] == [replace(r, split=None) for r in records]
    assert all(r.split in SPLITS for r in out), "every picture has one split"
    assert divided_groups(out) == [], "groups are never divided"
    given_share = {name for name, share in zip(SPLITS, fractions, strict=True) if share}
    assert {r.split for r in out} <= given_share
    shuffled = random.Random(seed).sample(records, len(records))
    again = {r.id: r.split for r in assign_splits(shuffled, fractions, seed=seed, resplit=True)}
    assert again == {r.id: r.split for r in out}, "the input's order does not matter"


@given(collections(), st.integers(0, 3))
def test_given_splits_are_kept(records: list[ImageRecord], seed: int) -> None:
    out = assign_splits(records, seed=seed)
    for before, after in zip(records, out, strict=True):
        assert before.split in (None, after.split)
    mixed = set(divided_groups(records))
    assert set(divided_groups(out)) == mixed, "no further group is divided"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), FRACTIONS, st.integers(0, 5))
def test_single_pictures_meet_their_shares(
        sizes: list[int], fractions: tuple[float, float, float], seed: int) -> None:
    records = [ImageRecord(0, f"{label}/{n}.jpg", 1, 1, labels=(label,))
               for label, size in enumerate(sizes, start=1) for n in range(size)]
    out = assign_splits(records, fractions, seed=seed)
    for name, share in zip(SPLITS, fractions, strict=True):
        assert abs(sum(r.split == name for r in out) - share * len(out)) <= 1
        for label, size in enumerate(sizes, start=1):
            count = sum(r.split == name and r.labels == (label,) for r in out)
            assert abs(count - share * size) <= 2, "each label by itself, too"


@given(st.lists(st.integers(1, 8), min_size=5, max_size=60), st.integers(0, 5))
def test_groups_meet_their_shares_to_within_one_group(sizes: list[int], seed: int) -> None:
    records = [ImageRecord(0, f"{g}-{n}", 1, 1, group=str(g))
               for g, size in enumerate(sizes) for n in range(size)]
    out = assign_splits(records, seed=seed)
    for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert abs(sum(r.split == name for r in out) - share * len(out)) <= max(sizes)


def test_worked_example() -> None:
    """50 of each of 30 classes at 70/10/20 are 35, 5 and 10 of each."""
    records = [ImageRecord(0, f"{c}/{n}", 1, 1, labels=(c,)) for c in range(1, 31)
               for n in range(50)]
    table: dict[int, Counter[str | None]] = defaultdict(Counter)
    for record in assign_splits(records):
        table[record.known_labels[0]][record.split] += 1
    assert all(c == {"train": 35, "val": 5, "test": 10} for c in table.values())


def test_tiny_classes_do_not_starve_a_split() -> None:
    records = [ImageRecord(0, f"{c}/{n}", 1, 1, labels=(c,)) for c in range(1, 31)
               for n in range(3)]
    counts = Counter(r.split for r in assign_splits(records))
    assert counts == {"train": 63, "val": 9, "test": 18}


def test_seeds_differ() -> None:
    records = [ImageRecord(0, str(n), 1, 1) for n in range(50)]
    one, two = (tuple(r.split for r in assign_splits(records, seed=s)) for s in (0, 1))
    assert one != two


def test_open_pictures_follow_their_group() -> None:
    records = [ImageRecord(0, "a", 1, 1, group="g", split="test"),
               ImageRecord(1, "b", 1, 1, group="g")]
    assert [r.split for r in assign_splits(records)] == ["test", "test"]


def test_the_rest_is_dealt_so_that_the_whole_meets_the_shares() -> None:
    records = [ImageRecord(0, str(n), 1, 1, labels=(1,), split="train" if n < 20 else None)
               for n in range(50)]
    counts = Counter(r.split for r in assign_splits(records))
    assert counts == {"train": 35, "val": 5, "test": 10}


def test_divided_groups_are_found() -> None:
    records = [ImageRecord(0, "a", 1, 1, group="g", split="test"),
               ImageRecord(1, "b", 1, 1, group="g", split="train")]
    assert divided_groups(records) == ["g"]
    assert divided_groups(assign_splits(records, resplit=True)) == []


def test_nothing_to_split() -> None:
    assert assign_splits([]) == []


@pytest.mark.parametrize(("text", "fractions"), [
    ("70/10/20", (0.7, 0.1, 0.2)), ("0.8/0.2/0", (0.8, 0.2, 0)), ("100/0/0", (1, 0, 0))])
def test_parse_fractions(text: str, fractions: tuple[float, float, float]) -> None:
    assert parse_fractions(text) == pytest.approx(fractions)


@pytest.mark.parametrize("text", ["", "70/30", "a/b/c", "70/10/10", "-10/50/60", "0/50/50",
                                  "nan/1/0", "70/10/20/0"])
def test_bad_fractions_say_what_to_type(text: str) -> None:
    with pytest.raises(UserError, match="70/10/20"):
        parse_fractions(text)
