"""What is in a data set, in tables that fit a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from musicon.datasets.command import SummaryTable
from musicon.datasets.records import SPLITS, ImageRecord, Manifest, Rejects

_NUMBERS = re.compile(r"-?\d[\d,.]*(?:e[+-]?\d+)?")
_SHOWN = 30


def naming_table(rows: Sequence[tuple[str, str, str]], shown: int = 70) -> str:
    """Name in source -> instrument (how); what needs a look comes first."""
    doubtful = [row for row in rows if row[1].endswith((" (kept)", "(rejected)"))
                or row[2].startswith("spelling")]
    table = SummaryTable("name in source", "became", "how")
    ordered = [*doubtful, *(row for row in rows if row not in doubtful)]
    for row in ordered[:shown]:
        table.add(*row)
    more = f"\n... and {len(rows) - shown} more names" if len(rows) > shown else ""
    return f"{table}{more}"


def splits_table(manifest: Manifest) -> str:
    """Pictures and boxes of each split, and what is known of the pictures."""
    table = SummaryTable("split", "images", "with boxes", "boxes", "labelled only", "no instrument",
                         "unlabelled")
    found = Counter(record.split for record in manifest.images)
    for split in (*SPLITS, None):
        if found[split]:
            table.add(split or "(none)",
                      *_counts([r for r in manifest.images if r.split == split]))
    table.add("all", *_counts(manifest.images))
    return str(table)


def _counts(records: Sequence[ImageRecord]) -> tuple[int, ...]:
    return (len(records), sum(bool(r.boxes) for r in records), sum(len(r.boxes) for r in records),
            sum(bool(r.labels) and not r.boxes for r in records),
            sum(r.is_negative for r in records),
            sum(r.labels is None and not r.boxes for r in records))


def classes_table(manifest: Manifest, shown: int = _SHOWN) -> str:
    """Pictures (of each split) and boxes of each class, the most frequent first."""
    images: Counter[int] = Counter()
    boxes: Counter[int] = Counter()
    splits: Counter[tuple[int, str | None]] = Counter()
    for record in manifest.images:
        images.update(record.known_labels)
        boxes.update(box.label for box in record.boxes)
        splits.update((label, record.split) for label in record.known_labels)
    table = SummaryTable("class", "group", "images", *SPLITS, "boxes")
    ordered = sorted(manifest.categories, key=lambda c: (-images[c.id], c.name))
    for category in ordered[:shown]:
        table.add(category.name, category.supercategory, images[category.id],
                  *(splits[category.id, split] for split in SPLITS), boxes[category.id])
    more = f"\n... and {len(ordered) - shown} more classes" if len(ordered) > shown else ""
    return f"{table}{more}"


def rejects_table(rejects: Rejects, shown: int = 12) -> str:
    """Kinds of reasons, how often, and one example of each."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for file, reason in rejects.rows:
        kind = _NUMBERS.sub("#", reason)
        kind = re.sub(r"(same content as ).*?(, but|$)", r"\1...\2", kind)
        kinds.setdefault(kind, []).append((file, reason))
    table = SummaryTable("left out", "why (first case)", "first file")
    for rows in sorted(kinds.values(), key=len, reverse=True)[:shown]:
        table.add(len(rows), _cut(rows[0][1], 70), _cut(rows[0][0], 60, end=True))
    more = f"\n... and {len(kinds) - shown} more reasons" if len(kinds) > shown else ""
    return f"{table}{more}"


def _cut(text: str, width: int, end: bool = False) -> str:
    if len(text) <= width:
        return text
    return f"...{text[3 - width:]}" if end else f"{text[:width - 3]}..."
