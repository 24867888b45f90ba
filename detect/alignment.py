"""Which of the model's classes are which of the data's.

A model trained on one collection is scored on another: ids differ, some names are spelt
differently, some classes exist on one side only. Classes are paired by name; what cannot be
compared is listed, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from musicon.datasets.records import Category


@dataclass(frozen=True)
class ClassAlignment:
    """Pairs of classes, under one numbering that both sides share.

    Attributes:
        names: Common id -> name. The data's classes keep their category id and name; classes
            that only the model knows follow behind the largest.
        to_common: The model's category id -> common id.
        shared: Common ids that both sides know: the ones that can be compared by name.
        data_only: Common ids of classes that the model was never taught.
        model_only: Common ids of classes that the data cannot confirm.
        renamed: (name in the model, name in the data) where they differ but mean the same.
    """

    names: dict[int, str]
    to_common: dict[int, int]
    shared: tuple[int, ...]
    data_only: tuple[int, ...]
    model_only: tuple[int, ...]
    renamed: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The names on each side."""
        return {
            "shared": [self.names[i] for i in self.shared],
            "data_only": [self.names[i] for i in self.data_only],
            "model_only": [self.names[i] for i in self.model_only],
            "renamed": [{"model": first, "data": second} for first, second in self.renamed],
        }


def align(model: Sequence[Category] | None, data: Sequence[Category],
          canonical: Callable[[str], str] | None = None) -> ClassAlignment:
    """Pair the model's classes with the data's.

    The same name (whatever its case) comes first, then the same name in museum vocabulary.

    Args:
        model: Categories the predictions' labels refer to; None where they are the data's own.
        data: Categories of the ground truth.
        canonical: Maps a name to the vocabulary's; by default the taxonomy, for sure matches.
    """
    names = {category.id: category.name for category in data}
    if model is None:
        ids = tuple(sorted(names))
        return ClassAlignment(names, {i: i for i in ids}, ids, (), ())
    pairs, renamed = _pair(model, data, canonical or taxonomy_name)
    next_id = max(names, default=0) + 1
    model_only = []
    for category in model:
        if category.id not in pairs:
            pairs[category.id] = next_id
            names[next_id] = category.name
            model_only.append(next_id)
            next_id += 1
    known = set(pairs.values())
    ids = tuple(sorted(category.id for category in data))
    return ClassAlignment(names, pairs, tuple(i for i in ids if i in known),
                          tuple(i for i in ids if i not in known), tuple(model_only),
                          tuple(renamed))


def _pair(model: Sequence[Category], data: Sequence[Category], canonical: Callable[[str], str],
          ) -> tuple[dict[int, int], list[tuple[str, str]]]:
    """The model's id -> the data's id for every pair of names that agree."""
    by_name = {_key(category.name): category.id for category in data}
    pairs = {category.id: by_name[_key(category.name)] for category in model
             if _key(category.name) in by_name}
    left = [category for category in model if category.id not in pairs]
    if not left:
        return pairs, []
    # Classes that nothing has paired with yet go first.
    by_canonical: dict[str, Category] = {}
    for category in sorted(data, key=lambda category: category.id in pairs.values()):
        by_canonical.setdefault(_key(canonical(category.name)), category)
    renamed = []
    for category in left:
        match = by_canonical.get(_key(canonical(category.name)))
        if match is not None:
            pairs[category.id] = match.id
            renamed.append((category.name, match.name))
    return pairs, renamed


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def taxonomy_name(name: str) -> str:
    """The instrument's name in museum vocabulary, or the name itself where it is not certain."""
    # Read only when plain names fail to pair: the table is large.
    from musicon.datasets.taxonomy import Taxonomy

    match = Taxonomy.load().find(name)
    return match.instrument.name if match.instrument is not None and match.certain else name
