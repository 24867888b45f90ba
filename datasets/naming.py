"""Finding a name among many: normal forms, plurals of several languages, misspellings.

Nothing here knows what an instrument is: a :class:`NameIndex` maps names to numbers
(``target``) and says how it got there. :mod:`musicon.datasets.taxonomy` fills and asks it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import OSA

HAND, ENGLISH, BARE, FOREIGN = 0, 1, 2, 3
"""Ranks, best first: hand-made, English, a homonym without its qualifier, other languages."""

TYPO = "typo"
"""Language of listed misspellings: found as they stand, but nothing is a misspelling of one."""

_FOLDED = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ð": "d",
                         "þ": "th", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss",
                         "ı": "i", "'": "", "’": "", "ʼ": "", "`": "", "´": ""})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue",
                          "å": "aa", "Å": "Aa"})
_SUFFIX = re.compile(r"\.(jpe?g|png|gif|bmp|tiff?|webp|svg|txt|xml|json)$", re.I)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[\W_]+")
_NUMBERING = re.compile(r"^(?:(?:gt|cat|class|id|no|n?\d+)\s+)+(?=\D)"
                        r"|(?<=[^\W\d_])\d+\b|(?:\s+\d+)+$")
_LONG = 10
"""Letters from which a name two edits away is worth a question."""
_ENDINGS = {
    "en": (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")),
    "de": (("en", ""), ("n", ""), ("e", ""), ("s", "")),
    "fr": (("x", ""), ("s", "")),
    "it": (("chi", "co"), ("che", "ca"), ("ghi", "go"), ("i", "o"), ("i", "e"), ("e", "a")),
    "es": (("ces", "z"), ("es", ""), ("s", "")),
    "ca": (("es", "a"), ("ns", ""), ("s", "")),
    "nl": (("en", ""), ("s", "")),
    "sv": (("or", "a"), ("ar", ""), ("ar", "e"), ("er", "")),
    "pl": (("y", "a"), ("y", ""), ("i", "a"), ("i", ""), ("e", "")),
    "eu": (("ak", "a"), ("ak", ""), ("k", "")),
    "zh": (("类", ""), ("類", "")),
    "ko": (("류", ""),),
}
_SOUNDS = (("ph", "f"), ("ch", "k"), ("ck", "k"), ("gh", "g"), ("th", "t"), ("qu", "k"),
           ("q", "k"), ("c", "k"), ("z", "s"), ("x", "ks"), ("w", "v"), ("j", "i"), ("y", "i"))


def normalise(name: str) -> str:
    """The normal form that names are compared in: lower case, no accents, one blank apart.

    Numbering before and after the name (``136.mandolin``, ``harp_02``), an image's suffix and
    all punctuation go; letters of other scripts stay.
    """
    text = _SUFFIX.sub("", name.strip())
    text = unicodedata.normalize("NFKD", _CAMEL.sub(" ", text).translate(_FOLDED))
    text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    text = _NOT_WORD.sub(" ", unicodedata.normalize("NFC", text).casefold()).strip()
    return _NUMBERING.sub("", text).strip()


def spellings(name: str) -> set[str]:
    """Normal forms under which a name is known: ``Flöte`` as ``flote`` and ``floete``."""
    composed = unicodedata.normalize("NFC", name)
    return {normalise(name), normalise(composed.translate(_UMLAUTS))} - {""}


def singulars(key: str) -> Iterator[tuple[str, str]]:
    """(normal form, language) of what the last word, or every word, could be the plural of."""
    first, _, last = key.rpartition(" ")
    for language, endings in _ENDINGS.items():
        for plural, singular in endings:
            if last.endswith(plural) and len(last) - len(plural) + len(singular) >= _least(last):
                stem = last[:len(last) - len(plural)] + singular
                yield f"{first} {stem}".strip(), language
                if language == "nl" and len(stem) > 3 and stem[-1] == stem[-2]:
                    yield f"{first} {stem[:-1]}".strip(), language
                if first and language not in ("en", "de", "nl", "sv"):
                    words = [word[:len(word) - len(plural)] + singular
                             if word.endswith(plural) else word for word in key.split()]
                    yield " ".join(words), language


def _least(word: str) -> int:
    return 4 if word.isascii() else 1


def is_short(key: str, letters: int = 3) -> bool:
    """True for so few Latin letters that they name far too much by accident."""
    return len(key.replace(" ", "")) <= letters and key.isascii()


class Hit(NamedTuple):
    """A name found: whose it is, how it was come by, and its rank."""

    target: int
    how: str
    rank: int
    language: str


class Near(NamedTuple):
    """A known name a few edits away."""

    target: int
    key: str
    edits: int


class NameIndex:
    """Names in normal form, and the ways to look one up."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Hit]] = defaultdict(list)
        self._compact: dict[str, set[str]] = {}
        self._reordered: dict[str, set[str]] = {}
        self._buckets: dict[tuple[str, int], list[str]] = {}
        self._tails: dict[str, list[str]] = {}
        self.longest = 1

    def add(self, name: str, target: int, how: str, rank: int, language: str = "en") -> None:
        """Make a name known; the same name may have many targets."""
        for key in spellings(name):
            self._exact[key].append(Hit(target, how, rank, language))

    def seal(self) -> None:
        """Build what look-ups need; call once after the last ``add``."""
        compact: dict[str, set[str]] = defaultdict(set)
        reordered: dict[str, set[str]] = defaultdict(set)
        buckets: dict[tuple[str, int], list[str]] = defaultdict(list)
        tails: dict[str, list[str]] = defaultdict(list)
        for key, hits in self._exact.items():
            words = key.split()
            if len(words) > 1:
                compact["".join(words)].add(key)
                reordered[" ".join(sorted(words))].add(key)
                self.longest = max(self.longest, len(words))
            if key.isascii() and len(key) >= 4 and any(hit.language != TYPO for hit in hits):
                buckets[key[0], len(key)].append(key)
                tails[key[1:]].append(key)
        self._compact, self._reordered = dict(compact), dict(reordered)
        self._buckets, self._tails = dict(buckets), dict(tails)

    def exact(self, key: str, language: str | None = None) -> list[Hit]:
        """Hits of the best rank under this very name; of one language where it is given."""
        hits = self._exact.get(key, [])
        if language is not None:
            hits = [hit for hit in hits if hit.language == language] or hits
        best = min((hit.rank for hit in hits), default=None)
        return [hit for hit in hits if hit.rank == best]

    def joined(self, key: str, language: str | None = None) -> list[Hit]:
        """Hits of names that differ only in blanks and hyphens (``drumset``, ``steeldrum``)."""
        compact = key.replace(" ", "")
        if len(compact) < 6:
            return []
        found = self.exact(compact, language) if compact != key else []
        for other in self._compact.get(compact, ()):
            found += self.exact(other, language)
        return found

    def reordered(self, key: str, language: str | None = None) -> list[Hit]:
        """Hits of names of the same words in another order (``drum, bass``)."""
        words = key.split()
        if len(words) < 2:
            return []
        return [hit for other in self._reordered.get(" ".join(sorted(words)), ())
                for hit in self.exact(other, language)]

    def plural(self, key: str, language: str | None = None) -> list[Hit]:
        """Hits of names that this is a regular plural of, in the name's own language."""
        found: list[Hit] = []
        for stem, tongue in singulars(key):
            if language in (None, tongue):
                found += [hit._replace(how="plural") for hit in self._exact.get(stem, ())
                          if hit.language == tongue and hit.rank != BARE]
        best = min((hit.rank for hit in found), default=None)
        return [hit for hit in found if hit.rank == best]

    def near(self, key: str, edits: int) -> list[Near]:
        """Known names within so many edits (insert, delete, replace, swap), nearest first.

        The first letter must be right for two edits; one edit may be there.
        """
        choices = [other for length in range(len(key) - edits, len(key) + edits + 1)
                   for other in self._buckets.get((key[:1], length), ())]
        choices += self._tails.get(key[1:], ())
        choices += self._tails.get(key, ())
        choices += [other for other in (key[1:], key[1:2] + key[:1] + key[2:])
                    if other in self._exact and other[:1] != key[:1]]
        found = process.extract(key, list(dict.fromkeys(choices)), scorer=OSA.distance,
                                score_cutoff=edits, limit=None)
        return [Near(hit.target, other, int(distance)) for other, distance, _ in
                sorted(found, key=lambda row: (row[1], row[0]))
                for hit in _one_a_target(self.exact(other))]

    def within(self, key: str) -> Iterator[tuple[str, list[Hit]]]:
        """Known names inside a longer text, longest first from the left, never overlapping."""
        words = key.split()
        start = 0
        while start < len(words):
            for end in range(min(len(words), start + self.longest), start, -1):
                part = " ".join(words[start:end])
                if hits := self.exact(part) or self.plural(part):
                    yield part, hits
                    start = end - 1
                    break
            start += 1


def _one_a_target(hits: Iterable[Hit]) -> list[Hit]:
    return list({hit.target: hit for hit in hits}.values())


def is_misspelling(key: str, near: Near) -> bool:
    """True when one is surely the other mistyped: one edit, or two that leave the sound.

    Words of five letters or fewer have too many neighbours to be sure of any; with six, a letter
    too many or too few is sure, another letter is not ("planet" is no "pianet"). The first letter
    is seldom mistyped.
    """
    heard, meant = sound(key), sound(near.key)
    shorter = min(len(key), len(near.key))
    if shorter < 6 or heard[:1] != meant[:1]:
        return False
    if heard == meant:
        return True
    return near.edits == 1 and (shorter > 6 or len(key) != len(near.key))


def alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that may mean one thing: another spelling, number, order or a short form.

    ``st_george`` and ``saint_george`` are, ``christ_child`` and ``christ_kid`` nobody can tell.
    """
    forms = [_Forms(name, key, sorted(key.split()),
                    {stem for stem, language in singulars(key) if language == "en"})
             for name, key in ((name, normalise(name)) for name in dict.fromkeys(names))]
    return [(first.name, second.name) for first, second in combinations(forms, 2)
            if _alike(first, second)]


class _Forms(NamedTuple):
    """A name, and what it is compared by: made once, as pairs may be a million."""

    name: str
    key: str
    words: list[str]
    singulars: set[str]


def _alike(first: _Forms, second: _Forms) -> bool:
    if first.words == second.words or first.key in second.singulars \
            or second.key in first.singulars:
        return True
    edits = OSA.distance(first.key, second.key, score_cutoff=2)
    if edits <= 2 and (min(len(first.key), len(second.key)) >= _LONG
                       or is_misspelling(first.key, Near(0, second.key, edits))):
        return True
    if len(first.words) != len(second.words):
        return False
    differing = [pair for pair in zip(first.key.split(), second.key.split(), strict=True)
                 if pair[0] != pair[1]]
    return (len(first.words) > len(differing) == 1
            and _shortened(*sorted(differing[0], key=len)))


def _shortened(short: str, long: str) -> bool:
    """True for ``st`` and ``saint``: letters left out between the first and the last."""
    letters = iter(long[1:-1])
    return (1 < len(short) < len(long) and short[0] == long[0] and short[-1] == long[-1]
            and all(letter in letters for letter in short[1:-1]))


def sound(key: str) -> str:
    """A coarse form of how a name sounds: doubled letters once, all vowels alike."""
    for letters, one in _SOUNDS:
        key = key.replace(letters, one)
    return re.sub(r"(.)\1+", r"\1", re.sub("[aeiou]", "a", key))
