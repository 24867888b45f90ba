"""What leaks between data sets: one picture, or one painter, both tested on and learnt from.

``python tools/prepare_data.py check A B ...`` prints what is found; ``prepare_data.py SOURCE
--copies`` keeps copies together and away from the tests of ``--apart-from``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musicon.datasets import command
from musicon.datasets.checking import shown_as
from musicon.datasets.copies import Print, file_prints, groups, pairs
from musicon.datasets.files import to_json, write_atomic
from musicon.datasets.images import ImageError
from musicon.datasets.leakage import hands
from musicon.datasets.records import ImageRecord, Manifest, Rejects

Item = tuple[Path, ImageRecord]
Bar = Callable[..., Iterator[Any]]
SAME_PICTURE, SAME_HAND = "same picture", "same painter or group"


@dataclass(frozen=True)
class Leak:
    """Two pictures of different splits that belong together."""

    kind: str
    first: str
    first_split: str
    second: str
    second_split: str
    detail: str = ""


@dataclass(frozen=True)
class Found:
    """Of a check: leaks, and copies that stay within a split; pictures that cannot be read."""

    leaks: tuple[Leak, ...]
    copies: int
    pictures: int
    rejects: Rejects

    @property
    def of_tests(self) -> tuple[Leak, ...]:
        """The leaks that make a test too good: one of the two pictures is tested on."""
        return tuple(leak for leak in self.leaks if "test" in (leak.first_split,
                                                               leak.second_split))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``prepare_data.py check``."""
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET",
                        help="data sets that are used together: stages, backgrounds, tests")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="write every leak, one JSON object a line")
    parser.add_argument("--workers", type=command.count, default=2, metavar="N",
                        help="threads that decode (default 2)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(options: argparse.Namespace) -> int:
    """Check, print; 1 where something leaks into a test."""
    manifests = [Manifest.read(path) for path in options.datasets]

    def bar(iterable: Any, total: int | None = None, desc: str = "") -> Iterator[Any]:
        return command.progress(iterable, total, desc, options.quiet)

    found = find(manifests, bar, options.workers)
    print(report(found))
    if options.out is not None:
        write_atomic(options.out, "".join(f"{to_json(vars(leak))}\n" for leak in found.leaks))
    return command.DONE_WITH_REJECTS if found.of_tests or len(found.rejects) else command.DONE


def find(manifests: Sequence[Manifest], bar: Bar, workers: int = 2) -> Found:
    """Everything that belongs together across splits, within and between data sets."""
    rejects = Rejects()
    items: list[tuple[str, Path, ImageRecord]] = []
    for manifest in manifests:
        items += [(f"{manifest.root.name}/{record.file_name}", manifest.path(record), record)
                  for record in manifest.images]
    first_of: dict[Any, int] = {}
    looked_at = [first_of.setdefault(record.sha256 or path, i)
                 for i, (_, path, record) in enumerate(items)]
    unique = sorted(set(looked_at))
    prints = _prints([items[i][1] for i in unique], bar, workers, rejects)
    known = [i for i, one in zip(unique, prints, strict=True) if one is not None]
    same = [(known[i], known[j])
            for i, j in pairs([one for one in prints if one is not None], bar)]
    same += [(i, first) for i, first in enumerate(looked_at) if i != first]
    together: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(groups(len(items), same)):
        together[first].append(i)
    leaks = [leak for members in together.values()
             for leak in _between(items, members, SAME_PICTURE)]
    by_hand: dict[str, list[int]] = defaultdict(list)
    for i, (_, _, record) in enumerate(items):
        for hand in hands(record):
            by_hand[hand].append(i)
    seen = {frozenset((leak.first, leak.second)) for leak in leaks}
    for hand, members in sorted(by_hand.items()):
        for leak in _between(items, members, SAME_HAND, hand):
            if frozenset((leak.first, leak.second)) not in seen:  # of painter or group, say one
                seen.add(frozenset((leak.first, leak.second)))
                leaks.append(leak)
    copies = sum(len(members) - 1 for members in together.values())
    return Found(tuple(leaks), copies, len(items), rejects)


def _prints(files: Sequence[Path], bar: Bar, workers: int,
            rejects: Rejects) -> list[Print | None]:
    found: list[Print | None] = []
    for file, one in zip(files, bar(file_prints(files, workers), len(files), "looking at pictures"),
                         strict=True):
        if isinstance(one, ImageError):
            rejects.add(file, one.reason)
        found.append(None if isinstance(one, ImageError) else one)
    return found


def _between(items: Sequence[tuple[str, Path, ImageRecord]], members: Sequence[int], kind: str,
             detail: str = "") -> Iterator[Leak]:
    """One leak for each picture whose like is in a split more to be protected."""
    ordered = sorted(members, key=lambda i: (_ORDER[_split(items[i][2])], items[i][0]))
    if not ordered:
        return
    first = ordered[0]
    for other in ordered[1:]:
        if _split(items[other][2]) != _split(items[first][2]):
            yield Leak(kind, items[first][0], _split(items[first][2]), items[other][0],
                       _split(items[other][2]), detail)


_ORDER = {"test": 0, "val": 1, "train": 2}


def _split(record: ImageRecord) -> str:
    return record.split or "train"  # what has no split is learnt from


def report(found: Found, shown: int = 20) -> str:
    """A table of the first leaks, those into tests first, and the counts."""
    table = command.SummaryTable("split", "picture", "split", "picture", "why")
    first = [*found.of_tests, *(leak for leak in found.leaks if leak not in found.of_tests)]
    for leak in first[:shown]:
        why = f"{leak.kind}: {leak.detail}" if leak.detail else leak.kind
        table.add(leak.first_split, leak.first, leak.second_split, leak.second, why)
    lines = [f"{table}\n"] if len(table) else []
    if len(first) > shown:
        lines.append(f"and {len(first) - shown:,} more (--out FILE writes them all)")
    lines.append(f"{found.pictures:,} pictures; {len(found.of_tests):,} leak into a test, "
                 f"{len(found.leaks) - len(found.of_tests):,} between train and val; "
                 f"{command.counted(found.copies, 'copy', 'copies')} of others in all")
    lines += [f"could not be read: {file} ({reason})" for file, reason in found.rejects.rows[:5]]
    return "\n".join(lines)


def with_copies_grouped(items: Sequence[Item], others: Sequence[Manifest], rejects: Rejects,
                        bar: Bar, workers: int | None = None) -> tuple[list[Item], list[str]]:
    """The pictures with copies in one group, those that tests of ``others`` hold left out.

    Groups that a copy ties together become one, so that the split divides none of them.
    """
    tests = [(f"{m.root.name}/{r.file_name}", m.path(r)) for m in others
             for r in m.select(split="test").images]
    files = [*(path for path, _ in items), *(path for _, path in tests)]
    prints = _prints(files, bar, workers or 2, rejects)
    known = [i for i, one in enumerate(prints) if one is not None]
    ties = [(known[i], known[j]) for i, j in pairs([p for p in prints if p is not None], bar)]
    tested: dict[int, str] = {}
    for i, j in ties:
        if i < len(items) <= j:
            tested[i] = tests[j - len(items)][0]
    for i, name in sorted(tested.items()):
        rejects.add(shown_as(*items[i]), f"a copy of the test picture {name}")
    inner = [(i, j) for i, j in ties if j < len(items) and i not in tested and j not in tested]
    grouped, tied = _joined(items, inner)
    notes = [f"{command.counted(tied, 'picture is', 'pictures are')} copies of others: kept in "
             "one split with them"] if tied else []
    return [item for i, item in enumerate(grouped) if i not in tested], notes


def _joined(items: Sequence[Item], ties: Sequence[tuple[int, int]]) -> tuple[list[Item], int]:
    """The items with one group for all that copies or groups tie together, and how many copies."""
    first_of: dict[str, int] = {}
    links = list(ties)
    for i, (_, record) in enumerate(items):
        if record.group is not None:
            links.append((first_of.setdefault(record.group, i), i))
    together = groups(len(items), links)
    touched = {together[i] for tie in ties for i in tie}
    names: dict[int, str] = {}
    for i, (_, record) in enumerate(items):
        if together[i] in touched and record.group is not None:
            names.setdefault(together[i], record.group)
    out = []
    for i, (path, record) in enumerate(items):
        if together[i] in touched:
            name = names.get(together[i]) or f"copies of {items[together[i]][1].file_name}"
            record = replace(record, group=name)
        out.append((path, record))
    return out, len({max(tie) for tie in ties})
