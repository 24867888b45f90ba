"""LIDO 1.0 and 1.1, the museums' harvesting format: what an object is, its photos, its rights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from musicon.datasets.images import FOREIGN_SUFFIXES, IMAGE_SUFFIXES
from musicon.datasets.services.museum import MuseumObject, Picture, keywords_in

LIDO = "{http://www.lido-schema.org}"
_RDF_ABOUT = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about"
_SKOS_LABEL = "{http://www.w3.org/2004/02/skos/core#}prefLabel"
# How good a representation is, by words in its type (free text, or a term of LIDO's own list).
_SIZES = (("thumb", 0), ("lido00451", 0), ("preview", 1), ("overview", 2), ("lido00464", 3),
          ("provided", 3), ("master", 4))
_NO_IMAGE = ("audio", "video", "sound", "text", "3d", "model")


def parse(record: Element, identifier: str = "") -> MuseumObject:
    """Read one ``lido:lido`` element (or what wraps it).

    Args:
        record: The element.
        identifier: Taken where the record has none of its own.
    """
    root = record if record.tag == f"{LIDO}lido" else next(record.iter(f"{LIDO}lido"), record)
    kinds = [*root.iter(f"{LIDO}objectWorkType"), *root.iter(f"{LIDO}classification")]
    names = [text for kind in kinds for text in _texts(kind, "term", _SKOS_LABEL)]
    rights = _rights(root.find(f".//{LIDO}rightsWorkWrap"))
    pictures = [picture for resource in root.iter(f"{LIDO}resourceSet")
                if (picture := _picture(resource, rights)) is not None]
    return MuseumObject(
        _first(root, "lidoRecID") or identifier, keywords_in(_concepts(kinds)),
        tuple(dict.fromkeys(names)), tuple(dict.fromkeys(pictures)), _attributes(root),
        next((link for link in (_first(root, "recordInfoLink"), _first(root, "objectPublishedID"))
              if link and link.startswith("http")), None))


def _concepts(kinds: Iterable[Element]) -> Iterator[str]:
    for kind in kinds:
        for element in kind.iter():
            yield element.text or ""
            yield element.get(_RDF_ABOUT) or ""


def _texts(element: Element | None, *tags: str) -> list[str]:
    if element is None:
        return []
    wanted = {tag if tag.startswith("{") else LIDO + tag for tag in tags}
    found = (" ".join((e.text or "").split()) for e in element.iter() if e.tag in wanted)
    return [text for text in found if text]


def _first(element: Element | None, path: str) -> str | None:
    """The text of the first element at the end of a path of LIDO names, preferred ones first."""
    if element is None:
        return None
    found = element.findall(".//" + "/".join(LIDO + part for part in path.split("/")))
    found.sort(key=lambda e: e.get(f"{LIDO}pref") != "preferred")
    texts = (" ".join((e.text or "").split()) for e in found)
    return next((text for text in texts if text), None)


def _attributes(root: Element) -> dict[str, str]:
    made = next((event for event in root.iter(f"{LIDO}event")
                 if any(word in " ".join(_texts(event.find(f"{LIDO}eventType"), "term",
                                                _SKOS_LABEL)).lower()
                        for word in ("production", "creation", "making"))), None)
    found = {
        "title": _first(root, "titleSet/appellationValue"),
        "institution": _first(root, "repositorySet/repositoryName/legalBodyName/appellationValue"),
        "inventory": _first(root, "repositorySet/workID"),
        "maker": _first(made, "actorInRole/actor/nameActorSet/appellationValue"),
        "date": _first(made, "eventDate/displayDate") or _first(made, "date/earliestDate"),
        "place": _first(made, "namePlaceSet/appellationValue"),
    }
    return {name: text for name, text in found.items() if text}


def _picture(resource: Element, otherwise: str | None) -> Picture | None:
    """The largest picture of a resource set; None for a sound, a film, or no link at all."""
    kind = " ".join(_texts(resource.find(f"{LIDO}resourceType"), "term")).lower()
    if any(word in kind for word in _NO_IMAGE):
        return None
    best: tuple[tuple[int, float], str] | None = None
    for shown in resource.iter(f"{LIDO}resourceRepresentation"):
        role = (shown.get(f"{LIDO}type") or "").lower()
        size = next((size for word, size in _SIZES if word in role), 2)
        pixels = max((float(text) for text in _texts(shown, "measurementValue")
                      if text.replace(".", "", 1).isdigit()), default=0.0)
        for link in shown.iter(f"{LIDO}linkResource"):
            url = (link.text or "").strip()
            if url and not any(word in role for word in _NO_IMAGE) and _is_image(
                    url, link.get(f"{LIDO}formatResource") or "") and (
                    best is None or (size, pixels) > best[0]):
                best = (size, pixels), url
    if best is None:
        return None
    return Picture(best[1], _rights(resource) or otherwise)


def _is_image(url: str, media_type: str) -> bool:
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    known = IMAGE_SUFFIXES | FOREIGN_SUFFIXES
    if "/" in media_type:
        return media_type.lower().startswith("image/")
    return suffix in known or f".{media_type.lower().lstrip('.')}" in known or len(suffix) != 4


def _rights(element: Element | None) -> str | None:
    """Licence, holder and credit line, in one line."""
    if element is None:
        return None
    parts = []
    for tag in ("rightsResource", "rightsWorkSet"):
        for rights in element.iter(LIDO + tag):
            parts += [*_texts(rights.find(f"{LIDO}rightsType"), "conceptID", "term", _SKOS_LABEL),
                      *(concept.get(_RDF_ABOUT) or "" for concept in rights.iter()),
                      *_texts(rights.find(f"{LIDO}rightsHolder"), "appellationValue"),
                      *_texts(rights, "creditLine")]
    return "; ".join(dict.fromkeys(part for part in parts if part)) or None
