"""Fewer classes for a task: merged by rules, and rare ones given to what stands above them.

A rule file says ``group: [instruments]``; ``family:violins`` and ``kin:brass`` stand for all of one
(docs/taxonomy.md). A rare class never vanishes: it becomes the plainer instrument that it is a kind
of, or joins the other rare ones of its family, its kin, its supercategory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musicon.datasets.records import Category, ImageRecord, UserError
from musicon.datasets.taxonomy import Instrument, Taxonomy

Item = tuple[Path, ImageRecord]
UNCLASSIFIED = "unclassified"


@dataclass(frozen=True)
class _Aim:
    """What a class becomes: its name and what the manifest says of it."""

    name: str
    category: Category


def read_rules(path: Path) -> dict[str, list[str]]:
    """``group: [names]`` of a YAML file.

    Raises:
        UserError: No such file, or another form.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file "
                        f"({' '.join(str(error).split())}) (--merge)") from None
    if not isinstance(document, Mapping) or not document:
        raise UserError(f"{path}: expected lines 'group: [instrument, instrument]' (--merge)")
    return {str(group): [str(name) for name in (names if isinstance(names, list) else [names])]
            for group, names in document.items()}


def fewer(categories: Sequence[Category], items: Sequence[Item], rules: Mapping[str, list[str]],
          least: int) -> tuple[tuple[Category, ...], list[Item], list[str]]:
    """The categories and items with merged classes and none rarer than can be helped.

    Args:
        categories: Classes of the data set.
        items: Its pictures.
        rules: Group -> instruments, as ``read_rules`` gives them.
        least: Pictures that a class should be in; 0 leaves rare ones alone.

    Returns:
        Categories with ids from 1, the items, and sentences on what became what.
    """
    taxonomy = Taxonomy.load()
    aims = _merged(categories, rules, taxonomy)
    notes = [f"{group}: {', '.join(names)}" for group, names in _changed(categories, aims).items()]
    if least > 1:
        before = dict(aims)
        for level in (_plainer, _of("family"), _of("kin"), _of("supercategory")):
            aims = _raised(aims, items, least, level, taxonomy)
        notes += [f"rare, in fewer than {least} pictures: {_listed(names)} became {name}"
                  for name, names in _changed_between(before, aims).items()]
        rare = [name for name, count in _counts(aims, items).items() if 0 < count < least]
        notes += [f"still in fewer than {least} pictures: {', '.join(sorted(rare))}"] \
            if rare else []
    return *_applied(categories, items, aims), notes


def _merged(categories: Sequence[Category], rules: Mapping[str, list[str]],
            taxonomy: Taxonomy) -> dict[int, _Aim]:
    groups = taxonomy.merge(rules)
    aims = {}
    for category in categories:
        name = groups.get(category.name)
        aims[category.id] = _Aim(category.name, category) if name is None else _Aim(
            name, _category(name, category, taxonomy))
    return aims


def _category(name: str, member: Category, taxonomy: Taxonomy) -> Category:
    """What the manifest says of a group: the instrument of that name, or a member's circle."""
    if name in taxonomy:
        return Taxonomy.to_category(taxonomy[name], member.id)
    return Category(member.id, name, member.supercategory)


def _counts(aims: Mapping[int, _Aim], items: Sequence[Item]) -> Counter[str]:
    """Class name -> pictures that show it."""
    counts = Counter(dict.fromkeys((aim.name for aim in aims.values()), 0))
    for _, record in items:
        counts.update({aims[label].name for label in record.known_labels})
    return counts


def _raised(aims: Mapping[int, _Aim], items: Sequence[Item], least: int,
            level: Callable[[Instrument, Taxonomy], str | None],
            taxonomy: Taxonomy) -> dict[int, _Aim]:
    """The rare classes one level up, where there is one."""
    counts = _counts(aims, items)
    raised = dict(aims)
    for key, aim in aims.items():
        origin = aim.category.name if aim.category.name in taxonomy else None
        if not 0 < counts[aim.name] < least or origin is None:
            continue  # what no picture shows is not rare but absent
        above = level(taxonomy[origin], taxonomy)
        if above is not None:
            # What it is stays known: the next level asks for the instrument, not for the group.
            raised[key] = _Aim(above, aim.category)
    return raised


def _plainer(instrument: Instrument, taxonomy: Taxonomy) -> str | None:
    broader = taxonomy.broader(instrument)
    return None if broader is None else broader.name


def _of(circle: str) -> Callable[[Instrument, Taxonomy], str | None]:
    def above(instrument: Instrument, _: Taxonomy) -> str | None:
        name = str(getattr(instrument, circle))
        return None if name in (UNCLASSIFIED, "other") else f"other {name}"
    return above


def _applied(categories: Sequence[Category], items: Sequence[Item], aims: Mapping[int, _Aim]
             ) -> tuple[tuple[Category, ...], list[Item]]:
    taxonomy = Taxonomy.load()
    number = {name: i for i, name in enumerate(
        dict.fromkeys(aims[category.id].name for category in categories), start=1)}
    made: list[Category] = []
    for name, i in number.items():
        members = [c for c in categories if aims[c.id].name == name]
        sources = [source for c in members for source in c.extra.get("source_names", [c.name])]
        same = next((c for c in members if c.name == name), None)
        base = same or _category(name, members[0], taxonomy)
        extra = {**base.extra, "source_names": sources} if sources != [name] else base.extra
        made.append(replace(base, id=i, name=name, extra=extra))
    to = {category.id: number[aims[category.id].name] for category in categories}
    out = [(path, replace(
        record, boxes=tuple(replace(box, label=to[box.label]) for box in record.boxes),
        labels=None if record.labels is None else tuple(sorted({to[i] for i in record.labels}))))
        for path, record in items]
    return tuple(made), out


def _changed(categories: Sequence[Category], aims: Mapping[int, _Aim]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for category in categories:
        if aims[category.id].name != category.name:
            found[aims[category.id].name].append(category.name)
    return dict(found)


def _changed_between(before: Mapping[int, _Aim], after: Mapping[int, _Aim]
                     ) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key, aim in after.items():
        if aim.name != before[key].name:
            found[aim.name].append(before[key].name)
    return dict(found)


def _listed(names: Sequence[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
