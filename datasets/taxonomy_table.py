"""Makes the shipped table of instruments from a museum thesaurus and the hand-made corrections.

The thesaurus (MIMO keywords in up to twelve languages, and the Hornbostel-Sachs classes with
the labels filed under each) is CC0. What is wrong with it is mended here, in the open: plural
entries join their singular, homonyms are told apart, names that slipped a row are dropped,
placeholders are removed. The result is ``tables/instruments.tsv``, one instrument a line.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicon.datasets.records import UserError, write_atomic

TABLES = Path(__file__).parent / "tables"
LANGUAGES = ("de", "fr", "it", "es", "nl", "sv", "pl", "ca", "eu", "zh", "ko")
"""Languages of the table beside English; earlier ones win where a name is in several."""
COLUMNS = ("name", "kind", "mimo", "also", "hornbostel_sachs", "supercategory", "family", "en",
           *LANGUAGES)
SEPARATOR = " | "

_PROPER = frozenset(
    "Aeolian Appalachian Baschet Chemnitzer Dupré English Forveille French Giorgi Halle Hardanger "
    "Hawaiian Highland Irish Jew's Korean Lorraine Martenot MIDI Milanese Neapolitan Northumbrian "
    "Ondes Picco Poitou Portuguese Provence Russian Swanee Turkish Uganda UPIC Vermeulen Wagner "
    "Vosges Flandres".split()
)
_SLIPPED = {"es": range(8297, 8337)}
"""Keyword numbers whose names belong to other rows of the thesaurus (all names shifted)."""


@dataclass(frozen=True)
class Row:
    """One line of the table. ``names`` maps a language to its names, English included."""

    name: str
    mimo: str = ""
    kind: str = "instrument"
    also: tuple[str, ...] = ()
    hornbostel_sachs: str = ""
    supercategory: str = "other"
    family: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One line of ``families.tsv``."""

    name: str
    kin: str
    supercategory: str
    keywords: tuple[range, ...] = ()
    classes: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table with a header; lines that start with ``#`` are comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); reinstall musicon") from None
    rows = [line for line in lines if line and not line.startswith("#")]
    reader = csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
    return [dict(row) for row in reader]


def read_families(path: Path = TABLES / "families.tsv") -> tuple[Family, ...]:
    """The families with their ranges of keyword numbers and their classes."""
    return tuple(
        Family(row["family"], row["kin"], row["supercategory"],
               tuple(_range(text) for text in row["keywords"].split()),
               tuple(row["classes"].split()),
               tuple(name for name in row["members"].split(", ") if name))
        for row in read_tsv(path)
    )


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def make_table(vocabulary: Path) -> list[Row]:
    """All rows of the table, sorted by name.

    Args:
        vocabulary: Folder with ``translations.json`` and ``hornbostelSachs.json``.

    Raises:
        UserError: The folder lacks one of them, or it is not what it should be.
    """
    entries = _load(vocabulary / "translations.json", list)
    classes = _classes_by_label(_load(vocabulary / "hornbostelSachs.json", dict), entries)
    corrections = read_tsv(TABLES / "corrections.tsv")
    by_keyword = {row["keyword"]: row for row in corrections if row["keyword"].isdigit()}
    families = read_families()
    labels = {entry["Label"].casefold() for entry in entries}
    rows, plurals = {}, {}
    for entry in entries:
        row = _row(entry, by_keyword.get(entry["MIMOPage"], {}), classes, labels)
        rows[row.mimo] = _with_family(row, entry["Label"], by_keyword.get(row.mimo, {}), families)
        if (merge := by_keyword.get(row.mimo, {}).get("merge")):
            plurals[row.mimo] = merge
    for keyword, row in rows.items():
        singular = _singular_keyword(row, rows)
        if singular and keyword not in plurals and row.kind == "instrument":
            plurals[keyword] = singular
    merged = _merge(rows, plurals)
    merged += [_own(row, families) for row in corrections if row["keyword"].startswith("+")]
    return sorted(_unique(merged), key=lambda row: (row.name.casefold(), row.mimo))


def write_table(rows: Iterable[Row], path: Path = TABLES / "instruments.tsv") -> None:
    """Write the table; a name that equals the English one is left out of its column."""
    head = ("# Instruments by name; from the MIMO thesaurus (CC0) by tools/make_taxonomy.py: "
            "mend corrections.tsv, not this file.")
    lines = [head, "\t".join(COLUMNS)]
    for row in rows:
        fields = [row.name, row.kind, row.mimo, " ".join(row.also), row.hornbostel_sachs,
                  row.supercategory, row.family]
        fields += [SEPARATOR.join(row.names.get(lang, ())) for lang in ("en", *LANGUAGES)]
        lines.append("\t".join(fields).rstrip("\t"))
    write_atomic(path, "\n".join(lines) + "\n")


def write_classes(vocabulary: Path, path: Path = TABLES / "hornbostel_sachs.tsv") -> int:
    """Write the tree of classes: number, MIMO page, label, description; returns their count."""
    classes = _load(vocabulary / "hornbostelSachs.json", dict)
    lines = ["# Hornbostel-Sachs classes as revised by the MIMO consortium (CC0).",
             "number\tmimo\tlabel\tdescription"]
    for number, entry in classes.items():
        description = str(entry["Description"] or "").removesuffix("(en)")
        cells = (number, entry["MIMOPage"], entry["Label"], description)
        lines.append("\t".join(re.sub(r"\s+", " ", str(cell)).strip() for cell in cells))
    write_atomic(path, "\n".join(lines) + "\n")
    return len(classes)


def _load(path: Path, kind: type) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable vocabulary file ({error})") from None
    if not isinstance(document, kind) or not document:
        raise UserError(f"{path}: expected a filled JSON {kind.__name__}; is it the MIMO export?")
    return document


def _classes_by_label(classes: Mapping[str, Any], entries: Sequence[Any]) -> dict[str, list[str]]:
    """Label -> class numbers; ``instrumentskeywords:N`` stands for the label of keyword N."""
    label_of = {entry["MIMOPage"]: entry["Label"] for entry in entries}
    found: dict[str, list[str]] = defaultdict(list)
    for number, entry in classes.items():
        for label in entry["Instruments"]:
            label = label_of.get(label.removeprefix("instrumentskeywords:"), label)
            if number not in found[label]:
                found[label].append(number)
    return found


def _row(entry: Mapping[str, Any], correction: Mapping[str, str],
         classes: Mapping[str, list[str]], labels: set[str]) -> Row:
    label, keyword = entry["Label"], entry["MIMOPage"]
    name = correction.get("name") or _lower(label)
    names: dict[str, tuple[str, ...]] = {}
    plain = re.sub(r" \(.*\)$", "", name)
    if _lower(label) != name and re.sub(r" \(.*\)$", "", label).casefold() != plain.casefold():
        names["en"] = (_lower(label),)
    for language in LANGUAGES:
        text = entry["Translations"].get(language) or ""
        if int(keyword) in _SLIPPED.get(language, ()):
            continue
        kept = [part for part in _clean(text)
                if part.casefold() not in (label.casefold(), name.casefold(), plain.casefold())
                and not (language == "pl" and part.casefold() in labels)]
        if kept:
            names[language] = tuple(kept)
    return Row(name, keyword, correction.get("kind") or "instrument", (),
               correction.get("hornbostel_sachs") or _common_class(classes.get(label, [])),
               names=names)


def _lower(label: str) -> str:
    words = re.split(r"([ -])", label)
    return "".join(word if word in _PROPER else word.lower() for word in words)


def _clean(text: str) -> list[str]:
    """The names in one cell: alternatives apart, remarks and broken characters removed."""
    text = re.sub(r"（[^）]*）", "", text)
    text = re.sub(r"\((to be [a-z]+|[？?])\)|[？?]$|\[.*?\]|^.*用语\]", "", text, flags=re.I)
    if re.search(r"[?？]", text) or not text.strip():
        return []
    parts = [part.strip(" ()") if part.count("(") != part.count(")") else part.strip()
             for part in re.split(r"\s+/\s+|;\s+|,\s+", text)]
    return [part for part in dict.fromkeys(parts) if part]


def _common_class(numbers: Sequence[str]) -> str:
    """The class itself, or the longest class that all the numbers share; empty without one."""
    if len(numbers) < 2:
        return numbers[0] if numbers else ""
    stems = [re.split(r"[-+]", number)[0].replace(".", "") for number in numbers]
    shared = ""
    for digits in zip(*stems, strict=False):
        if len(set(digits)) > 1:
            break
        shared += digits[0]
    groups = [shared[i:i + 3] for i in range(0, len(shared), 3)]
    return ".".join(groups)


def _with_family(row: Row, label: str, correction: Mapping[str, str],
                 families: Sequence[Family]) -> Row:
    family = _family(row, label, correction.get("family", ""), families)
    if family is None:
        return replace(row, family="unclassified")
    return replace(row, family=family.name, supercategory=family.supercategory)


def _family(row: Row, label: str, wanted: str, families: Sequence[Family]) -> Family | None:
    """By hand, by label, by keyword number, else by the longest prefix of the class."""
    keyword = int(row.mimo) if row.mimo else 0
    for family in families:
        if wanted == family.name or (not wanted and label in family.members):
            return family
    for family in families:
        if not wanted and any(keyword in numbers for numbers in family.keywords):
            return family
    best = [(len(prefix), index) for index, family in enumerate(families)
            for prefix in family.classes if _has_prefix(row.hornbostel_sachs, prefix)]
    return families[max(best)[1]] if best else None


def _has_prefix(number: str, prefix: str) -> bool:
    """``422.112+422.22`` has ``422.112+``, ``321.322-71`` has ``321.322-7``, ``31x`` has ``31``."""
    return bool(number) and number.startswith(prefix)


def _singular_keyword(row: Row, rows: Mapping[str, Row]) -> str | None:
    """The keyword of the singular where the row is only its plural ("violins")."""
    name = row.name
    guesses = {name[:-1] if name.endswith("s") else "", name[:-2] if name.endswith("es") else "",
               name[:-3] + "y" if name.endswith("ies") else ""} - {""}
    if int(row.mimo) > 4500 and row.name != "reed organs":
        return None
    for other in rows.values():
        label = (other.names.get("en") or (other.name,))[0]
        if (other.name in guesses or label in guesses) and other.kind == "instrument":
            return other.mimo
    return None


def _merge(rows: Mapping[str, Row], plurals: Mapping[str, str]) -> list[Row]:
    """Rows without the plural ones, whose keyword and names go to the singular."""
    kept = {keyword: row for keyword, row in rows.items() if keyword not in plurals}
    for keyword, target in plurals.items():
        row, plural = kept[target], rows[keyword]
        names = {language: row.names.get(language, ()) + plural.names.get(language, ())
                 for language in ("en", *LANGUAGES)}
        if plural.name != row.name:
            names["en"] += (plural.name,)
        kept[target] = replace(row, also=(*row.also, keyword), names={
            language: tuple(dict.fromkeys(values)) for language, values in names.items() if values})
    return list(kept.values())


def _own(correction: Mapping[str, str], families: Sequence[Family]) -> Row:
    """An instrument that the thesaurus lacks."""
    row = Row(correction["name"], hornbostel_sachs=correction["hornbostel_sachs"])
    return _with_family(row, row.name, correction, families)


def _unique(rows: Sequence[Row]) -> list[Row]:
    """Tell homonyms apart.

    Two instruments of one name get their keyword as a qualifier; an old label that has become
    the name of another row is dropped.
    """
    count: dict[str, int] = defaultdict(int)
    for row in rows:
        count[row.name.casefold()] += 1
    unique = []
    for row in rows:
        labels = tuple(n for n in row.names.get("en", ()) if not count[n.casefold()])
        names = {**row.names, "en": labels} if labels else {
            language: n for language, n in row.names.items() if language != "en"}
        name = f"{row.name} ({row.mimo})" if count[row.name.casefold()] > 1 else row.name
        unique.append(replace(row, name=name, names=names))
    return unique
