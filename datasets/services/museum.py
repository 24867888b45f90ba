"""What museums tell of an object and its pictures, whatever the format they tell it in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

_KEYWORD = re.compile(r"InstrumentsKeywords/(\d+)")


@dataclass(frozen=True)
class Picture:
    """A link to a picture, and on what terms it may be used."""

    url: str
    rights: str | None = None


@dataclass(frozen=True)
class MuseumObject:
    """One object of a museum.

    Attributes:
        identifier: Unique in its source.
        keywords: MIMO keyword numbers, as text.
        terms: What the museum calls it, in any language.
        pictures: Its photos, best size of each.
        attributes: title, maker, date, place, institution, inventory.
        page: Where people read about it.
    """

    identifier: str
    keywords: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    attributes: Mapping[str, str] | None = None
    page: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> MuseumObject:
        """The object that ``to_json`` wrote."""
        return cls(row["identifier"], tuple(row["keywords"]), tuple(row["terms"]),
                   tuple(Picture(**picture) for picture in row["pictures"]), row["attributes"],
                   row["page"])


def keywords_in(texts: Iterable[str]) -> tuple[str, ...]:
    """MIMO keyword numbers from addresses such as ``.../InstrumentsKeywords/3573``."""
    return tuple(dict.fromkeys(number for text in texts for number in _KEYWORD.findall(text)))
