"""Which content gets which style, and under which file name: decided before anything is made.

Draws depend on the seed and on what the pictures are, not on their order: a new content or style
leaves most other draws as they were, and more styles an image leave all of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.pixels import fitted
from musicon.datasets.records import ImageRecord
from musicon.styletransfer.weights import StyleError

_WORD = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class BankStyle:
    """A style of a bank.

    Attributes:
        name: Of the style.
        group: What draws are balanced over.
        path: Its picture; None where the look is in the method's weights.
        sha256: Of the picture.
    """

    name: str
    group: str
    path: Path | None
    sha256: str


@dataclass(frozen=True)
class Content:
    """A picture that is to be given styles.

    Attributes:
        path: The file.
        record: What is known of it.
        sha256: Of the file.
        source: Name of the data set that it is from.
        size: (width, height) of what is made of it.
    """

    path: Path
    record: ImageRecord
    sha256: str
    source: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One picture to be made: content and style by position, strength, name below the bank."""

    content: int
    style: int
    alpha: float
    file_name: str


@dataclass(frozen=True)
class Look:
    """What else decides a picture's bytes.

    Attributes:
        method: ``StyleMethod.describe()`` without where its files lie.
        alpha: Range that strengths are drawn from.
        size: Longer side in pixels at most; pictures are never enlarged.
        format: ``jpg`` or ``webp``.
        quality: 1 to 100.
    """

    method: Mapping[str, Any]
    alpha: tuple[float, float] = (1.0, 1.0)
    size: int = 512
    format: str = "jpg"
    quality: int = 90


def sized(record: ImageRecord, size: int) -> tuple[int, int]:
    """(width, height) with the longer side at most ``size`` pixels."""
    return fitted((record.width, record.height), size)


def plan(contents: Sequence[Content], styles: Sequence[BankStyle], per_image: int, seed: int,
         look: Look) -> list[Job]:
    """All pictures of a bank, in the order of the contents.

    Raises:
        StyleError: Fewer styles than each image is to have.
    """
    if per_image > len(styles):
        raise StyleError(f"--per-image {per_image}: there are {len(styles)} styles; give a smaller "
                         "number, or make more styles (--per-cluster, --noise keep, --random)")
    keys = [f"{content.sha256} {content.source}/{content.record.file_name}"
            for content in contents]
    drawn = draw(keys, [style.group for style in styles], [style.name for style in styles],
                 per_image, seed)
    jobs = []
    for at, (content, chosen) in enumerate(zip(contents, drawn, strict=True)):
        for number in chosen:
            alpha = _alpha(keys[at], styles[number].name, seed, look.alpha)
            name = _file_name(content, styles[number], alpha, keys[at], look)
            jobs.append(Job(at, number, alpha, name))
    return jobs


def draw(keys: Sequence[str], groups: Sequence[str], names: Sequence[str], per_image: int,
         seed: int) -> list[list[int]]:
    """Different styles for each key, in rounds; in every round all groups are drawn equally often.

    Each key ranks the groups by a hash. It takes the first that still has room in this round and
    that it has used least; of the group's styles, the first by another hash that it has not.

    Args:
        keys: One for each content.
        groups: Each style's group.
        names: Each style's name, unique.
        per_image: Rounds, at most the number of styles.
        seed: Another seed draws otherwise.

    Returns:
        For each key the positions of its styles.
    """
    group_names = sorted(set(groups))
    members = [[i for i, group in enumerate(groups) if group == name] for name in group_names]
    group_hashes, style_hashes = _hashes(group_names, seed), _hashes(names, seed)
    key_hashes = _hashes(keys, seed)
    order = np.argsort(key_hashes, kind="stable")
    drawn: list[list[int]] = [[] for _ in keys]
    used = np.zeros((len(keys), len(group_names)), np.int32)
    for turn in range(per_image):
        room = np.full(len(group_names), len(keys) // len(group_names))
        spare = len(keys) % len(group_names)
        for at in order.tolist():
            rank = _mixed(group_hashes, key_hashes[at], turn)
            full = (room < 0) | ((room == 0) & (spare <= 0))
            empty = np.array([used[at, g] >= len(m) for g, m in enumerate(members)])
            # Full groups only where every other one is used up for this key.
            group = int(np.lexsort((rank, used[at], full, empty))[0])
            spare -= int(room[group] <= 0)
            room[group] -= 1
            used[at, group] += 1
            left = [i for i in members[group] if i not in drawn[at]]
            best = _mixed(style_hashes[left], key_hashes[at], turn)
            drawn[at].append(left[int(np.argmin(best))])
    return drawn


def _hashes(texts: Sequence[str], seed: int) -> NDArray[np.uint64]:
    return np.array([int.from_bytes(hashlib.sha256(f"{seed} {text}".encode(
        "utf-8", "surrogatepass")).digest()[:8], "big") for text in texts], np.uint64)


def _mixed(hashes: NDArray[np.uint64], key: np.uint64, turn: int) -> NDArray[np.uint64]:
    """A number for each pair that looks random (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        z = hashes ^ (key + np.uint64(turn + 1) * np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _alpha(key: str, style: str, seed: int, between: tuple[float, float]) -> float:
    low, high = between
    share = int(_hashes([f"alpha {key} {style}"], seed)[0]) / float(int(_WORD))
    return round(low + (high - low) * share, 3)


def _file_name(content: Content, style: BankStyle, alpha: float, key: str, look: Look) -> str:
    """A name that changes when, and only when, something changes that the pixels depend on."""
    decides = json.dumps([key, style.sha256, dict(look.method), alpha, look.size, look.format,
                          look.quality], sort_keys=True)
    code = hashlib.sha256(decides.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    stem = re.sub(r"[^\w.-]+", "-", Path(content.record.file_name).stem)[:60]
    return f"images/{code[:2]}/{stem}-{style.name}-{code}.{look.format}"
