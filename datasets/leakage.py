"""Keeping the pictures of a final test out of everything that is learnt from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath

from musicon.datasets.duplicates import Fingerprint, fingerprints, nearest_copies
from musicon.datasets.files import sha256
from musicon.datasets.images import ImageError
from musicon.datasets.records import ImageRecord, Manifest, Rejects

Item = tuple[Path, ImageRecord]
_NOBODY = frozenset("anonymous anonym anonyme anoniem anonimo anónimo anonymus unknown unbekannt "
                    "onbekend inconnu ignoto sconosciuto desconocido".split())
"""Words by which a painter's name says that nobody knows him: such works are of many hands."""
_NOT_WORD = re.compile(r"[\W_]+")


def hold_out(items: Sequence[Item], split: str) -> list[Item]:
    """Make one of the source's splits the test split and forget the others, to be dealt anew.

    For sources that publish two splits only: what they call validation is what one is judged
    on, so choosing by it would be choosing by the test. A leakage group follows its test picture.
    """
    held = {record.group for _, record in items if record.split == split and record.group}
    return [(path, replace(record, split="test" if record.split == split or record.group in held
                           else None)) for path, record in items]


def apart_from(items: Sequence[Item], others: Sequence[Manifest],
               rejects: Rejects) -> list[Item]:
    """Leave out what the test splits of other data sets hold too.

    A picture goes when its content is that of a test picture there, or both its file name and its
    looks are, or its painter or leakage group: another work of the same hand is too near to be
    learnt from. A name alone says nothing: every folder has its ``img001.jpg``.
    """
    contents: dict[str | None, str] = {}
    named: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    by_hand: dict[str, str] = {}
    for manifest in others:
        for record in manifest.select(split="test").images:
            where = f"{manifest.root.name}/{record.file_name}"
            contents[record.sha256 or sha256(manifest.path(record))] = where
            named[PurePosixPath(record.file_name).name].append((where, manifest.path(record)))
            for hand in hands(record):
                by_hand[hand] = where

    @cache
    def looks(name: str) -> list[tuple[str, Fingerprint]]:
        return _readable(named.get(name, ()))

    kept = []
    for path, record in items:
        same_hand = next((hand for hand in sorted(hands(record)) if hand in by_hand), None)
        content = _content(path) if contents else None
        if content in contents:
            rejects.add(path, f"same content as the test picture {contents[content]}")
        elif same_hand is not None:
            rejects.add(path, f"same painter or group as the test picture {by_hand[same_hand]}: "
                              f"{same_hand}")
        elif twin := _twin(path, looks(PurePosixPath(record.file_name).name)):
            rejects.add(path, f"same file name and looks as the test picture {twin}")
        else:
            kept.append((path, record))
    return kept


def labels_only(items: Iterable[Item]) -> list[Item]:
    """Forget where instruments are and keep which: boxes become image labels."""
    return [(path, replace(record, boxes=(), labels=None if record.labels is None
                           else record.known_labels)) for path, record in items]


def _readable(tested: Sequence[tuple[str, Path]]) -> list[tuple[str, Fingerprint]]:
    looks = fingerprints([path for _, path in tested])
    return [(where, look) for (where, _), look in zip(tested, looks, strict=True)
            if not isinstance(look, ImageError)]


def _twin(path: Path, tested: Sequence[tuple[str, Fingerprint]]) -> str | None:
    """Which of these pictures it looks like; None too where it cannot be read."""
    if not tested:
        return None
    (look,) = fingerprints([path])
    if isinstance(look, ImageError):
        return None
    at = nearest_copies([look], [theirs for _, theirs in tested])[0]
    return None if at is None else tested[at][0]


def _content(path: Path) -> str | None:
    """The file's check sum; None where it cannot be read, which ``check`` tells later."""
    try:
        return sha256(path)
    except OSError:
        return None


def hands(record: ImageRecord) -> set[str]:
    """Names that tie works together: painter and leakage group.

    Sources spell a painter as ``jan-steen`` or ``Jan Steen``: both are one. ``Anonymous, Flemish``
    is no painter.
    """
    names = (name for name in (record.attributes.get("painter"), record.group) if name)
    return {_words(name) or name for name in names if not is_nobody(name)}


def is_nobody(name: str) -> bool:
    """Whether a painter's name says that nobody knows him, as ``Anonymous, Flemish`` does."""
    return not _NOBODY.isdisjoint(_words(name).split())


def _words(name: str) -> str:
    return _NOT_WORD.sub(" ", name).strip().casefold()
