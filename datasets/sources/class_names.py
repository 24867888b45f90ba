"""From the class names of a source to instruments; nothing is guessed without saying so.

Every name a source uses gets one row of a table: what it was, what it became, and how. A name
that the taxonomy does not know keeps its own class unless the user decides otherwise.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from musicon.datasets.naming import alike
from musicon.datasets.records import Category, UserError
from musicon.datasets.taxonomy import Match, Taxonomy

NEGATIVE_NAMES = frozenset({
    "negative", "negatives", "none", "background", "no instrument", "no instruments",
    "without instrument", "empty"})
"""Names that mean "no instrument here" in every source."""

UNKNOWN_POLICIES = ("keep", "reject", "negative")
NEGATIVE = "negative"
REJECT = "reject"
_LEADING_NUMBER = re.compile(r"^\d+[\s._-]+(?=\D)")


@dataclass(frozen=True)
class ClassNames:
    """What a source's class names became.

    Attributes:
        categories: Ids from 1, in the order in which the source names them.
        ids: Name in source -> category id, for names that are classes.
        negatives: Names that mean "no instrument".
        rejected: Names whose images or boxes are left out, with the reason.
        rows: (name in source, instrument or decision, how) for the printed table.
        notes: Sentences on merged classes.
    """

    categories: tuple[Category, ...]
    ids: Mapping[str, int]
    negatives: frozenset[str]
    rejected: Mapping[str, str]
    rows: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Draft:
    categories: list[Category] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    negatives: set[str] = field(default_factory=set)
    rejected: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that decide what class names mean."""
    group = parser.add_argument_group("class names")
    group.add_argument(
        "--unknown", choices=UNKNOWN_POLICIES, default="keep",
        help="names that are no known instrument: keep them as classes of their own (default), "
             "reject what they label, or count it as no instrument")
    group.add_argument(
        "--rename", type=Path, metavar="FILE",
        help="YAML file 'name in source: instrument'; 'negative' and 'reject' are decisions too")
    group.add_argument(
        "--negatives", "--negatives-from", nargs="+", default=[], metavar="NAME",
        help="names that mean no instrument, besides negative, none, background, no_instrument")
    group.add_argument(
        "--language", metavar="CODE",
        help="language of the names (de, fr, it, ...), which settles words with two meanings")


def resolve(names: Iterable[str], options: argparse.Namespace) -> ClassNames:
    """Decide what each class name of a source means.

    Args:
        names: The source's names, in its order; repeats count once.
        options: What ``add_arguments`` read.

    Raises:
        UserError: The rename file cannot be used.
    """
    taxonomy = Taxonomy.load()
    renames = _read_renames(options.rename)
    negatives = NEGATIVE_NAMES | {_plain(name) for name in options.negatives}
    only = {_plain(name) for name in getattr(options, "only", None) or ()}
    draft = _Draft()
    used = dict.fromkeys(names)
    for name in used:
        if only and _plain(name) not in only:
            draft.negatives.add(name)
            draft.rows.append((name, "(no instrument)", "not in --only"))
        else:
            _resolve_one(name, renames, negatives, options, taxonomy, draft)
    notes = _absent({"--rename": renames, "--negatives": options.negatives, "--only": only}, used)
    merged: dict[int, list[str]] = defaultdict(list)
    for name, category_id in draft.ids.items():
        merged[category_id].append(name)
    for category in draft.categories:
        sources = merged[category.id]
        if len(sources) > 1:
            notes.append(f"{_listed(sources)} are one class: {category.name}")
    unknown = [c.name for c in draft.categories if c.name not in taxonomy]
    notes += [f"{first!r} and {second!r} are two classes; one, if --rename FILE says "
              f"'{first}: {second}'" for first, second in alike(unknown)]
    categories = tuple(
        c if merged[c.id] == [c.name] else replace(
            c, extra={**c.extra, "source_names": merged[c.id]}) for c in draft.categories)
    return ClassNames(categories, draft.ids, frozenset(draft.negatives), draft.rejected,
                      tuple(draft.rows), tuple(notes))


def _absent(wanted: Mapping[str, Iterable[str]], used: Iterable[str]) -> list[str]:
    """A sentence for each name in an option that the source does not use: often a typing error."""
    known = {_plain(name) for name in used}
    return [f"{option}: {name!r} is not a name in this source"
            for option, names in wanted.items() for name in names if _plain(name) not in known]


def _resolve_one(name: str, renames: Mapping[str, str], negatives: frozenset[str],
                 options: argparse.Namespace, taxonomy: Taxonomy, draft: _Draft) -> None:
    wanted = renames.get(_plain(name))
    how_renamed = f"renamed to {wanted}" if wanted is not None else ""
    plain = _plain(wanted if wanted is not None else name)
    if wanted == REJECT:
        draft.rejected[name] = f"class {name!r} is rejected by --rename"
        draft.rows.append((name, "(rejected)", "--rename"))
    elif plain in negatives:
        draft.negatives.add(name)
        draft.rows.append((name, "(no instrument)", how_renamed or "negative"))
    else:
        match = _find(taxonomy, wanted if wanted is not None else name, options.language)
        if match.instrument is not None:
            category = taxonomy.to_category(match.instrument, len(draft.categories) + 1)
            found = "exact" if plain == _plain(category.name) else match.how
            how = ", ".join(part for part in (how_renamed, found) if part)
            _add(name, category, category.name, how, draft)
        elif wanted is not None:
            _add(name, Category(len(draft.categories) + 1, wanted), wanted, "--rename", draft)
        else:
            _unknown(name, match, options.unknown, draft)


def _unknown(name: str, match: Match, policy: str, draft: _Draft) -> None:
    nearest = " or ".join(match.candidates[:3])
    hint = f"{match.how}; nearest: {nearest}" if nearest else match.how
    if policy == "keep":
        shown = " ".join(name.split())
        _add(name, Category(len(draft.categories) + 1, shown), f"{shown} (kept)", hint, draft)
    elif policy == "reject":
        draft.rejected[name] = f"class {name!r} is no known instrument" + (
            f"; nearest: {nearest}" if nearest else "")
        draft.rows.append((name, "(rejected)", hint))
    else:
        draft.negatives.add(name)
        draft.rows.append((name, "(no instrument)", hint))


def _add(name: str, category: Category, shown: str, how: str, draft: _Draft) -> None:
    """Give the name this category, or the one of the same name that is there already."""
    for known in draft.categories:
        if known.name.casefold() == category.name.casefold():
            draft.ids[name] = known.id
            break
    else:
        draft.categories.append(category)
        draft.ids[name] = category.id
    draft.rows.append((name, shown, how))


def _find(taxonomy: Taxonomy, name: str, language: str | None) -> Match:
    """Look the name up as it stands, then without the number that numbered folders start with."""
    match = taxonomy.find(name, language)
    bare = _LEADING_NUMBER.sub("", name)
    if match.instrument is None and bare != name:
        without = taxonomy.find(bare, language)
        if without.instrument is not None or not match.candidates:
            return without
    return match


def _plain(name: str) -> str:
    """Lower case, single blanks, no leading number: ``159.People`` -> ``people``."""
    bare = _LEADING_NUMBER.sub("", name.strip())
    return " ".join(re.split(r"[\s_-]+", bare)).strip().casefold()


def _listed(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _read_renames(path: Path | None) -> dict[str, str]:
    """The user's decisions, keyed by plain name."""
    if path is None:
        return {}
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (--rename)") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable YAML file ({words})") from None
    if not isinstance(document, Mapping) or not document:
        raise UserError(f"{path}: expected lines 'name in source: instrument'")
    renames = {}
    for old, new in document.items():
        if new is not None and not isinstance(new, (str, int)):
            raise UserError(f"{path}: {old!r}: expected one name, found {new!r}")
        # YAML reads a bare none or ~ as null: the user meant "no instrument".
        renames[_plain(str(old))] = NEGATIVE if new is None else str(new).strip()
    return renames
