"""The taxonomy as SKOS (W3C, 2009) in Turtle, for cataloguing systems and linked data.

Instruments, families and kin are one concept scheme, the Hornbostel-Sachs classes another. Links
go to MIMO's own addresses and to Wikidata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from musicon.datasets.files import UserError
from musicon.datasets.hornbostel_sachs import HsClass
from musicon.datasets.taxonomy import Instrument, Taxonomy

BASE = "urn:musicon:"
KEYWORDS = "http://www.mimo-db.eu/InstrumentsKeywords/"
CLASSES = "http://www.mimo-db.eu/HornbostelAndSachs/"
WIKIDATA = "http://www.wikidata.org/entity/"
_BASE = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:([^\s<>"{}|^`\\]*[/#:])?')
_SKOS = "http://www.w3.org/2004/02/skos/core#"

Statement = tuple[str, str]
"""Property without its prefix, and the value as Turtle writes it."""


def turtle(taxonomy: Taxonomy, base: str = BASE) -> Iterator[str]:
    """The document, a concept at a time.

    Args:
        taxonomy: What to write.
        base: What our own concepts' addresses begin with, such as ``https://example.org/``.

    Raises:
        UserError: A base that no address can begin with.
    """
    if not _BASE.fullmatch(base):
        raise UserError(f"--base {base}: write an address that ends in /, # or :, such as "
                        "https://example.org/")
    yield f"@prefix skos: <{_SKOS}> .\n"
    schemes = {"instruments": "Musical instruments", "classes": "Hornbostel-Sachs"}
    for scheme, title in schemes.items():
        yield f"<{base}{scheme}> a skos:ConceptScheme ; skos:prefLabel {_text(title, 'en')} .\n"
    for address, statements in (*_circles(taxonomy, base), *(
            (_own(base, "instrument", i.name), _instrument(i, taxonomy, base))
            for i in taxonomy.instruments)):
        yield _concept(address, f"{base}instruments", statements)
    for one in taxonomy.hs_tree.values():
        yield _concept(f"{CLASSES}{one.mimo}", f"{base}classes", _class(one, taxonomy))


def _concept(address: str, scheme: str, statements: Iterable[Statement]) -> str:
    rows = [("inScheme", f"<{scheme}>"), *statements]
    return f"<{address}> a skos:Concept" + "".join(
        f" ;\n    skos:{name} {value}" for name, value in rows) + " .\n"


def _circles(taxonomy: Taxonomy, base: str) -> Iterator[tuple[str, list[Statement]]]:
    """Families below kin below supercategories."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for i in taxonomy.instruments:
        found["group", i.supercategory] = ("", "")
        found["kin", i.kin] = ("group", i.supercategory)
        found["family", i.family] = ("kin", i.kin)
    for (circle, name), (circle_above, above) in sorted(found.items()):
        if name != "unclassified":
            place = [("broader", f"<{_own(base, circle_above, above)}>")] if above else \
                [("topConceptOf", f"<{base}instruments>")]
            yield _own(base, circle, name), [("prefLabel", _text(name, "en")), *place]


def _instrument(i: Instrument, taxonomy: Taxonomy, base: str) -> Iterator[Statement]:
    yield "prefLabel", _text(i.name, "en")
    for language, names in i.names.items():
        for number, name in enumerate(names):
            preferred = number == 0 and language != "en"
            yield "prefLabel" if preferred else "altLabel", _text(name, language)
    above = taxonomy.broader(i)
    if above is not None:
        yield "broader", f"<{_own(base, 'instrument', above.name)}>"
    elif i.family != "unclassified":
        yield "broader", f"<{_own(base, 'family', i.family)}>"
    else:
        yield "broader", f"<{_own(base, 'group', i.supercategory)}>"
    for below in taxonomy.narrower(i):
        yield "narrower", f"<{_own(base, 'instrument', below.name)}>"
    if i.hornbostel_sachs:
        yield "notation", json.dumps(i.hornbostel_sachs)
        for one in taxonomy.ancestors(i)[-1:]:
            yield "broadMatch", f"<{CLASSES}{one.mimo}>"
    for keyword in (i.mimo, *i.also):
        if keyword:
            yield "exactMatch", f"<{KEYWORDS}{keyword}>"
    if i.wikidata:
        yield "exactMatch", f"<{WIKIDATA}{i.wikidata}>"


def _class(one: HsClass, taxonomy: Taxonomy) -> Iterator[Statement]:
    yield "notation", json.dumps(one.number)
    yield "prefLabel", _text(one.label, "en")
    if one.description:
        yield "definition", _text(one.description, "en")
    if one.broader is not None:
        yield "broader", f"<{CLASSES}{taxonomy.hs_tree[one.broader].mimo}>"
    for number in one.narrower:
        yield "narrower", f"<{CLASSES}{taxonomy.hs_tree[number].mimo}>"


def _own(base: str, kind: str, name: str) -> str:
    return f"{base}{kind}/{quote(name, safe='')}"


def _text(text: str, language: str) -> str:
    return f"{json.dumps(text, ensure_ascii=False)}@{language}"
