"""Instruments: names in many languages, museum keywords, Hornbostel-Sachs classes, kin.

The data are the tables in ``tables/`` (see docs/taxonomy.md). A name is found exactly, through
a synonym, in another language, as a plural, or by a small misspelling; :class:`Match` says
which, and what is only near or has two meanings is a suggestion, never a result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from musicon.datasets import naming
from musicon.datasets.hornbostel_sachs import HsClass, chain, read_classes
from musicon.datasets.naming import Hit, NameIndex, normalise
from musicon.datasets.records import Category, UserError
from musicon.datasets.taxonomy_table import LANGUAGES, SEPARATOR, TABLES, read_families, read_tsv

Kinship = Literal["same", "family", "kin", "supercategory"]

_QUALIFIED = re.compile(r"^(.*\S)\s*[(\[（](.*)[)\]）]\s*$")
_MUSICAL = frozenset(
    "instrument|musical instrument|music|musical|musikinstrument|instrument de musique|"
    "strumento musicale|instrumento musical|muziekinstrument|s|es".split("|")
)
_BOTH = re.compile(r"\s+(?:or|oder|ou)\s+|\s*[/|;]\s*|_or_", re.I)


@dataclass(frozen=True)
class Instrument:
    """One instrument.

    Attributes:
        name: Canonical English name, singular, lower case (``violin``); unique.
        supercategory: One of ``records.SUPERCATEGORIES``.
        mimo: Keyword number of the MIMO thesaurus, or None where it lacks the instrument.
        hornbostel_sachs: Class number such as ``321.322-7``, or None where it isn't known.
        family: Such as ``violins``; ``unclassified`` where nothing is known.
        kin: The wider circle, such as ``bowed strings``.
        names: Language code -> names where they differ from the canonical one.
        also: Further MIMO keywords that mean it (the plural entry, a double).
        wikidata: Its item, such as ``Q8355``, or None where it isn't known.
    """

    name: str
    supercategory: str
    mimo: str | None = None
    hornbostel_sachs: str | None = None
    family: str = "unclassified"
    kin: str = "unclassified"
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    also: tuple[str, ...] = ()
    wikidata: str | None = None


@dataclass(frozen=True)
class Match:
    """What a name was found to be, and how.

    Attributes:
        query: The name as given.
        how: ``exact``, ``synonym``, ``language:de``, ``plural`` or ``spelling`` for what was
            found; else ``ambiguous`` (two meanings), ``word`` (an everyday word, even where an
            instrument is called so), ``short`` (too short to tell), ``part`` (of an
            instrument), ``group`` (of instruments), ``contains`` (a longer text), ``unknown``.
        instrument: The instrument, or None unless it is certain.
        candidates: Canonical names that it might mean, likeliest first; empty where it's found.
    """

    query: str
    how: str
    instrument: Instrument | None = None
    candidates: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """True when the instrument may be used without asking a person."""
        return self.instrument is not None

    @property
    def suggestion(self) -> str | None:
        """The nearest known name where nothing certain was found, or None."""
        return self.candidates[0] if self.candidates else None

    def __str__(self) -> str:
        if self.instrument is not None:
            return f"{self.query!r} is {self.instrument.name} ({self.how})"
        if not self.candidates:
            return f"{self.query!r} is not a known instrument ({self.how})"
        return f"{self.query!r} is not certain ({self.how}): {' or '.join(self.candidates[:3])}?"


class Taxonomy:
    """All instruments, and the ways to find one. Get it with :meth:`load`."""

    def __init__(self, rows: Sequence[Mapping[str, str]], synonyms: Sequence[Mapping[str, str]],
                 words: Sequence[Mapping[str, str]], links: Sequence[Mapping[str, str]]) -> None:
        kin = {family.name: family.kin for family in read_families()}
        items = {row["instrument"]: row["wikidata"] for row in links}
        self._kinds = [row["kind"] for row in rows]
        self._all = [_instrument(row, kin, items) for row in rows]
        self.instruments = tuple(
            i for i, kind in zip(self._all, self._kinds, strict=True) if kind == "instrument")
        self._by_name = {i.name: i for i in self.instruments}
        self._by_mimo = {n: i for i in self._all for n in (i.mimo, *i.also) if n}
        self._by_wikidata = {i.wikidata: i for i in self.instruments if i.wikidata}
        self._words = {normalise(row["word"]): row.get("suggestion") or "" for row in words}
        self._index = self._build(synonyms)
        self._found: dict[tuple[str, str | None], Match] = {}

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls) -> Taxonomy:
        """The shipped taxonomy, read once."""
        return cls(*(read_tsv(TABLES / f"{name}.tsv")
                     for name in ("instruments", "synonyms", "words", "wikidata")))

    def __len__(self) -> int:
        return len(self.instruments)

    def __getitem__(self, name: str) -> Instrument:
        """The instrument of this canonical name, as manifests have it."""
        try:
            return self._by_name[name]
        except KeyError:
            match = self.find(name)
            nearest = match.instrument.name if match.instrument else match.suggestion
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            raise UserError(f"{name!r} is not the name of an instrument{hint}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def by_mimo(self, keyword: str | int) -> Instrument | None:
        """The entry of a MIMO keyword number, also of a plural, of a group or of a part."""
        return self._by_mimo.get(str(keyword))

    def by_wikidata(self, item: str) -> Instrument | None:
        """The instrument of a Wikidata item (``Q8355``)."""
        return self._by_wikidata.get(item)

    def find(self, name: str, language: str | None = None) -> Match:
        """Find the instrument that a name means.

        Args:
            name: As people, folders and label files write it, in any language of the table.
            language: ISO 639-1 code that settles homonyms (``de``: "Bass"); without it English
                wins.
        """
        key = (name, language)
        if key not in self._found:
            if len(self._found) > 200_000:
                self._found.clear()
            self._found[key] = self._find(name, language)
        return self._found[key]

    def find_within(self, text: str) -> tuple[Match, ...]:
        """The instruments named inside a longer text (a caption, a query, a file name)."""
        whole = self.find(text)
        return (whole,) if whole.certain else self._parts(text)

    def _parts(self, text: str) -> tuple[Match, ...]:
        found = []
        for part, hits in self._index.within(normalise(text)):
            if part not in self._words and (match := self._decide(part, hits)).certain:
                found.append(match)
        return tuple(found)

    def ancestors(self, instrument: Instrument) -> tuple[HsClass, ...]:
        """The classes it stands in, broadest first, its own last; empty where none is known."""
        return chain(instrument.hornbostel_sachs, self.hs_tree)

    @cached_property
    def hs_tree(self) -> Mapping[str, HsClass]:
        """Hornbostel-Sachs: number -> class."""
        return read_classes()

    def in_class(self, number: str) -> tuple[Instrument, ...]:
        """The instruments of a Hornbostel-Sachs class and of all narrower ones."""
        if number not in self.hs_tree:
            raise UserError(f"{number!r} is no Hornbostel-Sachs class; write it like '321.322'")
        return tuple(i for i in self.instruments
                     if any(c.number == number for c in self.ancestors(i)))

    def broader(self, instrument: Instrument) -> Instrument | None:
        """The plainer instrument that it is a kind of (``alto saxophone``: ``saxophone``)."""
        words = re.split(r"[ -]", re.sub(r" \(.*\)$", "", instrument.name))
        for start in range(1, len(words)):
            other = self._by_name.get(" ".join(words[start:]))
            if other is not None and other != instrument and other.kin == instrument.kin:
                return other
        return None

    def narrower(self, instrument: Instrument) -> tuple[Instrument, ...]:
        """The kinds of it (``saxophone``: ``alto saxophone``, ...), by name."""
        return self._narrower.get(instrument.name, ())

    @cached_property
    def _narrower(self) -> Mapping[str, tuple[Instrument, ...]]:
        found: dict[str, tuple[Instrument, ...]] = {}
        for instrument in self.instruments:
            if (above := self.broader(instrument)) is not None:
                found[above.name] = (*found.get(above.name, ()), instrument)
        return found

    def kin(self, first: Instrument, second: Instrument) -> Kinship | None:
        """How near two instruments are.

        ``same``, ``family`` (violin, cello), ``kin`` (violin, rebec: bowed strings),
        ``supercategory`` (violin, harp: strings), or None.
        """
        if first.name == second.name:
            return "same"
        if first.family == second.family != "unclassified":
            return "family"
        if first.kin == second.kin != "unclassified":
            return "kin"
        same = first.supercategory == second.supercategory != "other"
        return "supercategory" if same else None

    def merge(self, rules: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Instrument name -> group name, for a task that needs fewer classes.

        Args:
            rules: Group name -> names of instruments, in any spelling that :meth:`find` is
                certain of, or ``family:lutes`` / ``kin:brass`` for all of one.

        Raises:
            UserError: A name is not known, or is put in two groups.
        """
        merged: dict[str, str] = {}
        for group, names in rules.items():
            for instrument in (i for name in names for i in self._members(name)):
                if merged.setdefault(instrument.name, group) != group:
                    raise UserError(f"{instrument.name!r} is in two groups, "
                                    f"{merged[instrument.name]!r} and {group!r}: leave one")
        return merged

    @staticmethod
    def to_category(instrument: Instrument, id: int) -> Category:
        """The manifest's category with this number."""
        return Category(id, instrument.name, instrument.supercategory, instrument.mimo,
                        instrument.hornbostel_sachs)

    def _members(self, name: str) -> Iterator[Instrument]:
        scope, colon, value = name.partition(":")
        if colon and scope in ("family", "kin"):
            found = [i for i in self.instruments if getattr(i, scope) == value.strip()]
            if not found:
                known = sorted({getattr(i, scope) for i in self.instruments})
                raise UserError(f"no {scope} {value.strip()!r}; there are {', '.join(known)}")
            yield from found
            return
        match = self.find(name)
        if match.instrument is None:
            raise UserError(str(match))
        yield match.instrument

    def _build(self, synonyms: Sequence[Mapping[str, str]]) -> NameIndex:
        index = NameIndex()
        number = {i.name: position for position, i in enumerate(self._all)}
        for position, instrument in enumerate(self._all):
            index.add(instrument.name, position, "exact", naming.ENGLISH)
            if qualified := _QUALIFIED.match(instrument.name):
                index.add(qualified[1], position, "exact", naming.BARE)
            for language, names in instrument.names.items():
                english = language == "en"
                for name in names:
                    index.add(name, position, "synonym" if english else f"language:{language}",
                              naming.ENGLISH if english else naming.FOREIGN, language)
        for row in synonyms:
            how = {"en": "synonym", naming.TYPO: "spelling"}.get(row["language"],
                                                           f"language:{row['language']}")
            for name in row["instrument"].split(SEPARATOR):
                if name not in number:
                    raise UserError(f"synonyms.tsv: {row['name']!r} means {name!r}, "
                                    "which instruments.tsv does not have")
                same = normalise(row["name"]) == normalise(name)
                index.add(row["name"], number[name], "exact" if same else how, naming.HAND,
                          row["language"])
        index.seal()
        return index

    def _find(self, name: str, language: str | None) -> Match:
        key, stated = normalise(name), False
        if (qualified := _QUALIFIED.match(name)) and not self._index.exact(key):
            stated = normalise(qualified[2]) in _MUSICAL or qualified[2] in ("s", "es")
            if not stated:
                near = self._find(qualified[1], language)
                names = (near.instrument.name,) if near.instrument else near.candidates
                return Match(name, "unknown", None, names)
            key = normalise(qualified[1])
        if not key:
            return Match(name, "unknown")
        free = stated or language is not None
        if not free and (word := self._word(key)) is not None:
            return Match(name, "word", None, word)
        index = self._index
        hits = index.exact(key, language) or index.joined(key, language)
        hits = hits or index.plural(key, language) or index.reordered(key, language)
        if hits:
            return self._decide(name, hits, key=key, free=free)
        return self._several(name) or self._misspelt(name, key)

    def _word(self, key: str) -> tuple[str, ...] | None:
        """What an everyday word might also mean; None where it is no everyday word."""
        for form in (key, *(stem for stem, language in naming.singulars(key) if language == "en")):
            if form in self._words and (form == key or not self._index.exact(key)):
                listed = self._words[form]
                named = [self._all[hit.target].name for hit in self._index.exact(form)
                         if self._kinds[hit.target] == "instrument"]
                return tuple(dict.fromkeys(([listed] if listed else []) + named))
        return None

    def _decide(self, query: str, hits: Sequence[Hit], key: str = "", free: bool = True) -> Match:
        """One target is a result, several are a question."""
        targets = list(dict.fromkeys(hit.target for hit in hits))
        if len(targets) > 1:
            heads = [t for t in targets if self._all[t].also]
            families = {self._all[t].kin for t in targets}
            if len(heads) != 1 or len(families) > 1 or hits[0].rank == naming.HAND:
                ordered = dict.fromkeys(heads + targets)
                return Match(query, "ambiguous", None,
                             tuple(self._all[t].name for t in ordered))
            targets = heads
        hit = next(hit for hit in hits if hit.target == targets[0])
        instrument, kind = self._all[hit.target], self._kinds[hit.target]
        if kind != "instrument":
            return Match(query, kind)
        rare = hit.rank != naming.HAND and not self._well_known(instrument)
        if not free and hit.rank != naming.HAND and naming.is_short(key, 4 if rare else 3):
            return Match(query, "short", None, (instrument.name,))
        if rare and hit.how == "plural":
            return Match(query, "unknown", None, (instrument.name,))
        return Match(query, hit.how, instrument)

    def _several(self, name: str) -> Match | None:
        """``clarinet_oboe``, ``lute or guitar``: two instruments are a question.

        Names of one instrument, written side by side (``Drum / Trom``), are that instrument.
        """
        parts = [part for part in _BOTH.split(name) if part.strip()]
        if len(parts) == 1:
            parts = normalise(name).split()
            if not all(self._index.exact(part) for part in parts):
                return None
        if not 2 <= len(parts) <= 3:
            return None
        matches = [self.find(part) for part in parts]
        found = list(dict.fromkeys(m.instrument for m in matches if m.instrument))
        if len(found) == 1 and all(m.certain for m in matches):
            return Match(name, matches[0].how, found[0])
        if len(found) < 2:
            return None
        return Match(name, "ambiguous", None, tuple(instrument.name for instrument in found))

    def _misspelt(self, name: str, key: str) -> Match:
        """The nearest name where it is near enough and alone; else a suggestion or nothing."""
        edits = 2 if len(key) > 5 else 1 if len(key) > 3 else 0
        near = self._index.near(key, edits) if key.isascii() and edits else []
        near = [n for n in near if self._kinds[n.target] == "instrument"
                and n.key not in self._words]
        best = [n for n in near if n.edits == near[0].edits]
        names = tuple(dict.fromkeys(self._all[n.target].name for n in best))
        if not best:
            inside = self._parts(name)
            known = tuple(dict.fromkeys(m.instrument.name for m in inside if m.instrument))
            return Match(name, "contains" if known else "unknown", None, known)
        target = self._all[best[0].target]
        if len(names) == 1 and self._well_known(target) and any(
                naming.is_misspelling(key, n) for n in best):
            return Match(name, "spelling", target)
        return Match(name, "ambiguous" if len(names) > 1 else "unknown", None, names)

    @staticmethod
    def _well_known(instrument: Instrument) -> bool:
        """True for what has names of its own in other languages.

        A rare loan word is the same everywhere, and nearer to some everyday word than to its own
        plurals and misspellings.
        """
        return any(language not in ("en", "ko", "zh") for language in instrument.names)


def _instrument(row: Mapping[str, str], kin: Mapping[str, str],
                items: Mapping[str, str]) -> Instrument:
    names = {language: tuple(row[language].split(SEPARATOR))
             for language in ("en", *LANGUAGES) if row[language]}
    return Instrument(row["name"], row["supercategory"], row["mimo"] or None,
                      row["hornbostel_sachs"] or None, row["family"] or "unclassified",
                      kin.get(row["family"], "unclassified"), names,
                      tuple(row["also"].split()), items.get(row["name"]))
