"""Which works a task learns from: their classes, and which of them stay together in a split."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicon.datasets.files import sha256, tables_to_json
from musicon.datasets.leakage import is_nobody
from musicon.datasets.records import ImageRecord, Manifest, write_atomic
from musicon.datasets.splits import assign_splits
from musicon.detect.outputs import ATTRIBUTE_SCORES
from musicon.detect.tasks import TaskError, TaskKind
from musicon.detect.tasks.settings import TaskConfig

SPLITS_NAME = "splits.json"


@dataclass(frozen=True)
class Work:
    """One work whose class is known.

    Attributes:
        path: Its picture.
        file_name: The same as the manifest has it.
        sha256: Of the picture's file.
        label: Index of its class.
        split: ``train``, ``val`` or ``test``; empty before it was dealt.
        record: All that the manifest says of it.
        group: Number that it shares with the works that it must stay together with.
    """

    path: Path
    file_name: str
    sha256: str
    label: int
    split: str
    record: ImageRecord
    group: int = 0


@dataclass(frozen=True)
class Works:
    """The works of a task.

    Attributes:
        classes: Names in the order of the labels.
        works: Those that belong to a class.
        left_out: Reason -> number of pictures that are not among them.
    """

    classes: tuple[str, ...]
    works: tuple[Work, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def of(self, split: str) -> list[Work]:
        """The works of one split."""
        return [work for work in self.works if work.split == split]


def plain(name: str) -> str:
    """A name without what spellings differ in: ``Pop Art``, ``pop-art`` and ``PopArt`` are one."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]+", "", folded) or folded


def answer(record: ImageRecord, kind: TaskKind) -> str | None:
    """What is known of a work; None where nothing is, or where only a model guessed it."""
    known = {key.casefold(): value for key, value in record.attributes.items()
             if key not in record.extra.get(ATTRIBUTE_SCORES, {})}
    return next((known[key].strip() for key in kind.keys if known.get(key, "").strip()), None)


def collect(manifest: Manifest, kind: TaskKind, config: TaskConfig) -> Works:
    """The works that a task can learn from, not yet dealt into splits.

    Raises:
        TaskError: Fewer than two classes.
    """
    left_out: Counter[str] = Counter()
    spelt: dict[str, Counter[str]] = defaultdict(Counter)
    found: list[tuple[ImageRecord, str]] = []
    wanted = {plain(old): name for name, olds in config.classes.items() for old in (*olds, name)}
    for record in manifest.images:
        said = answer(record, kind)
        if said is None:
            left_out[f"no {kind.name} is known"] += 1
        elif wanted and plain(said) not in wanted:
            left_out[f"their {kind.name} is not among the classes"] += 1
        else:
            name = wanted.get(plain(said), said)
            spelt[plain(name)][name] += 1
            found.append((record, plain(name)))
    many = {key: counts.most_common(1)[0][0] for key, counts in spelt.items()
            if counts.total() >= config.min_works}
    few = sum(counts.total() for key, counts in spelt.items() if key not in many)
    if few:
        left_out[f"their {kind.name} has fewer than {config.min_works} works"] += few
    classes = tuple(sorted(many.values()))
    if len(classes) < 2:
        raise _too_few(manifest, kind, config, classes)
    label = {key: classes.index(name) for key, name in many.items()}
    works = tuple(Work(manifest.path(record), record.file_name,
                       record.sha256 or sha256(manifest.path(record)), label[key], "", record)
                  for record, key in found if key in label)
    return Works(classes, works, dict(left_out))


def _too_few(manifest: Manifest, kind: TaskKind, config: TaskConfig,
             classes: Sequence[str]) -> TaskError:
    there = Counter(key for record in manifest.images for key in record.attributes)
    known = ", ".join(f"{key} ({count:,})" for key, count in there.most_common()) or "none"
    rule = f" of at least {config.min_works} works" + (
        f" among {', '.join(config.classes)}" if config.classes else "")
    return TaskError(
        f"{config.data}: {len(classes)} classes of {kind.name}{rule}, two are needed; its "
        f"attributes are: {known}. Read the {kind.name} from folder names with 'python "
        f"tools/prepare_data.py folder PICTURES --attribute {kind.name} --out {config.data}', or "
        "change min_works or classes with --set")


def deal(works: Works, kind: TaskKind, config: TaskConfig,
         copies: Sequence[int]) -> Works:
    """The works with splits: those of one painter, and copies of one picture, stay together.

    Args:
        works: As ``collect`` found them.
        kind: The task.
        config: Its settings; ``seed`` decides the split.
        copies: For each work a number that it shares with its near-duplicates.

    Raises:
        TaskError: A split is left without any work.
    """
    apart = kind.apart if config.split.apart == "task" else config.split.apart
    groups = _together(works.works, apart, copies)
    records = [ImageRecord(i, work.file_name, 1, 1, labels=(work.label + 1,), group=str(group),
                           split=work.record.split if config.split.given else None)
               for i, (work, group) in enumerate(zip(works.works, groups, strict=True))]
    dealt = [record.split or "" for record in
             assign_splits(records, config.split.shares, seed=config.seed)]
    for split in ("train", "val"):
        if split not in dealt:
            raise TaskError(f"{config.data}: no work is left for {split}; set split.given=false, "
                            "other split.shares, or split.apart=[] to divide works of one painter")
    taught = sorted({work.label for work, split in zip(works.works, dealt, strict=True)
                     if split == "train"})
    if len(taught) < 2:
        raise TaskError(f"{config.data}: training works of one class only; set split.apart=[] to "
                        f"divide works of one {' or '.join(apart) or 'group'}")
    return _only(works, dealt, groups, taught)


def _only(works: Works, splits: Sequence[str], groups: Sequence[int],
          taught: Sequence[int]) -> Works:
    """Set the splits and groups, and leave out classes that training would never see."""
    new = {old: i for i, old in enumerate(taught)}
    left_out = Counter(works.left_out)
    kept = []
    for work, split, group in zip(works.works, splits, groups, strict=True):
        if work.label in new:
            kept.append(replace(work, label=new[work.label], split=split, group=group))
        else:
            left_out["their class has no training work"] += 1
    return Works(tuple(works.classes[i] for i in taught), tuple(kept), dict(left_out))


def _together(works: Sequence[Work], apart: Iterable[str], copies: Sequence[int]) -> list[int]:
    """For each work the number of its group: linked by a shared attribute, copy or record group.

    A record's group that is only another word for one of its attributes is passed over: the task
    decides which attributes keep works together. Anonymous works are of no one hand.
    """
    parent = list(range(len(works)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, work in enumerate(works):
        record = work.record
        told = {key.casefold(): value for key, value in record.attributes.items()}
        keys = [(key, plain(told[key])) for key in apart
                if told.get(key, "").strip() and not is_nobody(told[key])]
        keys += [("copy", str(copies[i])), ("content", work.sha256)]
        if (record.group and record.group not in record.attributes.values()
                and not is_nobody(record.group)):
            keys.append(("group", record.group))
        for key in keys:
            other = first.setdefault(key, i)
            parent[root(i)] = root(other)
    return [root(i) for i in range(len(works))]


def write_splits(folder: Path, kind: TaskKind, works: Works) -> None:
    """Keep which work was in which split: an evaluation must know what the model has seen."""
    rows = [{"file": work.file_name, "sha256": work.sha256, "split": work.split,
             "class": works.classes[work.label]} for work in works.works]
    write_atomic(folder / SPLITS_NAME, tables_to_json(
        {"task": kind.name, "left_out": dict(works.left_out), "works": rows}))


def read_splits(folder: Path) -> dict[str, str]:
    """Check sum -> split of the works that a run was trained with; {} where none was kept."""
    file = folder / SPLITS_NAME
    if not file.is_file():
        return {}
    document: Any = json.loads(file.read_text(encoding="utf-8"))
    return {row["sha256"]: row["split"] for row in document["works"]}
