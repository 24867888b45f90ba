"""IIIF: what a manifest shows (Presentation 2 and 3), and how to ask for its images (Image 1 to 3).

A canvas keeps its id and size, so that boxes found in an image can go back as annotations on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from musicon.datasets.files import UserError

_TAGS = re.compile(r"<[^>]+>")
_FRAGMENT = re.compile(r"#xywh=(?:pixel:)?([\d.]+),([\d.]+),([\d.]+),([\d.]+)")
_PARTS = ("collections", "manifests", "members", "items")


class IiifError(UserError):
    """A document that is no usable IIIF; the message says what was expected."""


@dataclass(frozen=True)
class Canvas:
    """One view of an object, and the image painted on it.

    Attributes:
        identifier: The canvas's id.
        manifest: Its manifest's id.
        title: Of the object.
        label: Of the view, such as ``fol. 12r``.
        size: (width, height) of the canvas, in its own units.
        region: (x, y, width, height) of the canvas that the image covers; None for all of it.
        image: Address of the image as it is published.
        service: Base address of its Image API service, or None.
        rights: Licence and attribution.
        metadata: What the museum tells besides.
    """

    identifier: str
    manifest: str
    title: str
    label: str
    size: tuple[int, int]
    region: tuple[float, float, float, float] | None
    image: str
    service: str | None
    rights: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)


def kind(document: Any) -> str:
    """``manifest`` or ``collection``.

    Raises:
        IiifError: It is neither.
    """
    name = str(_get(document, "type", "@type") or "") if isinstance(document, Mapping) else ""
    for wanted in ("manifest", "collection"):
        if name.lower().removeprefix("sc:") == wanted:
            return wanted
    raise IiifError("expected a IIIF manifest or collection (Presentation 2 or 3), found "
                    f"{name or type(document).__name__!r}")


def members(collection: Mapping[str, Any]) -> list[str]:
    """Addresses of a collection's manifests and collections, in its order."""
    found: list[str] = []
    for name in _PARTS:
        for row in _list(collection.get(name)):
            address = row if isinstance(row, str) else _get(row, "id", "@id")
            if address:
                found.append(str(address))
    following = _get(collection, "first", "next")  # a collection in pages (Presentation 2)
    if isinstance(following, Mapping):
        following = _get(following, "id", "@id")
    return list(dict.fromkeys([*found, *([str(following)] if following else [])]))


def canvases(manifest: Mapping[str, Any]) -> Iterator[Canvas]:
    """The views of a manifest that show an image."""
    identifier, title = str(_get(manifest, "id", "@id") or ""), text(manifest.get("label"))
    rights, metadata = _rights(manifest), _metadata(manifest)
    views = [*_list(manifest.get("items")), *(
        view for sequence in _list(manifest.get("sequences"))[:1]
        for view in _list(sequence.get("canvases")))]
    for view in views:
        found = _painting(view)
        if found is None:
            continue
        target, resource = found
        image = str(_get(resource, "id", "@id") or "")
        service = _service(resource)
        if image or service:
            fragment = _FRAGMENT.search(target)
            region = tuple(float(v) for v in fragment.groups()) if fragment else None
            yield Canvas(
                str(_get(view, "id", "@id") or ""), identifier, title, text(view.get("label")),
                (int(view.get("width") or 0), int(view.get("height") or 0)),
                None if region is None else (region[0], region[1], region[2], region[3]),
                image, service, _rights(view) or rights, metadata)


def image_url(info: Mapping[str, Any], side: int | None) -> str:
    """The address of a whole image at a size that its service offers.

    Args:
        info: The service's ``info.json``.
        side: Pixels that the longer side shall have; an image is never enlarged. None for the
            largest. A service of fixed sizes gives the next larger one, or its largest.

    Raises:
        IiifError: The document has no size.
    """
    base, version = str(_get(info, "id", "@id") or "").rstrip("/"), _version(info)
    try:
        width, height = int(info["width"]), int(info["height"])
    except (KeyError, TypeError, ValueError):
        raise IiifError(f"{base or 'info.json'}: no width and height") from None
    profile = _list(info.get("profile"))
    words = {str(word) for entry in (info, *profile) if isinstance(entry, Mapping)
             for word in [*_list(entry.get("supports")), *_list(entry.get("extraFeatures"))]}
    level = next((int(n) for entry in profile if isinstance(entry, str)
                  for n in re.findall(r"level(\d)", entry)), 0)
    most = _largest(info, width, height)
    share = min(1.0, most, side / max(width, height) if side else 1.0)
    name = "max" if version == 3 else "full"
    wide = max(1, round(width * share))
    if level == 0 and "sizeByW" not in words:
        listed = sorted((int(s["width"]), int(s["height"])) for s in _list(info.get("sizes")))
        large = [size for size in listed if side and max(size) >= min(side, max(width, height))]
        best = large[0] if large else listed[-1] if listed else None
        if best is not None and (side or share < 1):
            name = f"{best[0]},{best[1]}" if version == 3 else f"{best[0]},"
    elif share < 1:
        name = f"{wide},"
    return f"{base}/full/{name}/0/{'native' if version == 1 else 'default'}.jpg"


def _largest(info: Mapping[str, Any], width: int, height: int) -> float:
    """The share of the full size that the service gives at the most."""
    limits: dict[str, float] = {}
    for entry in (info, *_list(info.get("profile"))):
        if isinstance(entry, Mapping):
            limits |= {k: float(entry[k]) for k in ("maxWidth", "maxHeight", "maxArea")
                       if entry.get(k)}
    shares = [1.0]
    if "maxWidth" in limits:
        shares += [limits["maxWidth"] / width,
                   limits.get("maxHeight", limits["maxWidth"]) / height]
    if "maxArea" in limits:
        shares.append((limits["maxArea"] / (width * height)) ** 0.5)
    return min(shares)


def _version(info: Mapping[str, Any]) -> int:
    told = " ".join(str(value) for value in (
        info.get("@context"), info.get("type"), info.get("@type"), info.get("profile")))
    if "image/3" in told or "ImageService3" in told:
        return 3
    return 1 if "image-api/1" in told or "image/1" in told or "image-api/compliance" in told else 2


def _painting(view: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Target and image of the first annotation that paints one on the canvas."""
    rows = [row for page in _list(view.get("items")) for row in _list(page.get("items"))]
    for row in (*rows, *_list(view.get("images"))):
        body = _get(row, "body", "resource")
        for entry in _list(body):
            resource = _image(entry)
            if resource is not None:
                target = _get(row, "target", "on")
                target = _get(target, "id", "@id", "source") if isinstance(target, Mapping) \
                    else target
                return str(target or ""), resource
    return None


def _image(body: Any) -> Mapping[str, Any] | None:
    """The image resource of a body: itself, the first choice, or what it is a part of."""
    if not isinstance(body, Mapping):
        return None
    name = str(_get(body, "type", "@type") or "").lower()
    if name.endswith("choice"):
        choices = (*_list(body.get("default")), *_list(body.get("items")),
                   *_list(body.get("item")))
        return next((found for entry in choices if (found := _image(entry)) is not None), None)
    if name == "specificresource" or "full" in body:
        return _image(_get(body, "source", "full"))
    return body if name.endswith("image") or not name else None


def _service(resource: Mapping[str, Any]) -> str | None:
    for service in _list(resource.get("service")):
        told = f"{_get(service, 'type', '@type')} {service.get('@context')} " \
               f"{service.get('profile')}".lower()
        if "image" in told:
            address = _get(service, "id", "@id")
            return str(address).rstrip("/") if address else None
    return None


def _rights(resource: Mapping[str, Any]) -> str | None:
    statement = resource.get("requiredStatement") or {}
    parts = [*(str(value) for value in _list(_get(resource, "rights", "license"))),
             text(resource.get("attribution")),
             text(statement.get("value")) if isinstance(statement, Mapping) else ""]
    return "; ".join(dict.fromkeys(part for part in parts if part)) or None


def _metadata(manifest: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in _list(manifest.get("metadata")):
        if isinstance(row, Mapping):
            name = re.sub(r"\W+", "_", text(row.get("label")).lower()).strip("_")
            value = text(row.get("value"))
            if name and value:
                found.setdefault(name, value)
    return found


def text(value: Any) -> str:
    """Plain words of a label in any of its forms, English first."""
    if isinstance(value, Mapping):
        if "@value" in value:
            return text(value["@value"])
        order = sorted(value, key=lambda language: (language not in ("en", "none", "@none"),
                                                    language))
        return text(value[order[0]]) if order else ""
    if isinstance(value, list):
        tagged = [row for row in value if isinstance(row, Mapping)]
        english = [row for row in tagged if row.get("@language") == "en"]
        rows = (english or tagged)[:1] if tagged else value
        return "; ".join(part for row in rows if (part := text(row)))
    return " ".join(_TAGS.sub(" ", str(value)).split()) if value is not None else ""


def is_address(word: str) -> bool:
    """True for a web address, as against a file."""
    return urlsplit(word).scheme.lower() in ("http", "https")


def _get(row: Any, *names: str) -> Any:
    """The first of these properties that is there (2 and 3 name them differently)."""
    if not isinstance(row, Mapping):
        return None
    return next((row[name] for name in names if row.get(name) is not None), None)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
