"""One finished work: which instruments, which master, which split, all from (seed, domain, index).

Work ``i`` of a domain depends on nothing else, so a larger set begins with the smaller one and
any work can be drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.atelier import backdrops, frames, scenes, styles
from musicon.datasets.atelier.brushwork import to_bytes
from musicon.datasets.atelier.canvas import Array, Layer
from musicon.datasets.atelier.kinds import KINDS, Kind, label_of
from musicon.datasets.atelier.picture import Picture
from musicon.datasets.records import SPLITS

DOMAINS = ("mimo", "google", "cytomine")
MASTERS = 77
"""Masters a domain: every style with every split."""
_SPLITS = ("train", "train", "val", "train", "train", "test", "train")
TRIES = 5
"""Times a work is begun anew."""
LEAST_VISIBLE = 0.2
"""Share of an instrument that must be visible for a person to box it."""
Rng = np.random.Generator
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Work:
    """A drawn picture and what is in it.

    Attributes:
        rgb: uint8 (height, width, 3).
        labels: Category ids present, sorted.
        boxes: Human-style boxes (label, (x0, y0, x1, y1)); only the domain ``cytomine`` has them.
        true_boxes: Tight boxes of what is visible, every domain.
        split: train, val or test.
        group: Leakage group: the master, or None.
        attributes: Movement, painter, medium.
    """

    rgb: NDArray[np.uint8]
    labels: tuple[int, ...]
    boxes: tuple[tuple[int, Bounds], ...]
    true_boxes: tuple[tuple[int, Bounds], ...]
    split: str
    group: str | None
    attributes: dict[str, str]


def stream(seed: int, domain: str, index: int, purpose: int = 0) -> Rng:
    """The random stream of one work."""
    return np.random.default_rng([seed, DOMAINS.index(domain), index, purpose])


@lru_cache(maxsize=4096)
def _shuffled(seed: int, domain: str, block: int, purpose: int) -> tuple[int, ...]:
    return tuple(int(i) for i in stream(seed, domain, block, purpose).permutation(10))


def turn_of(seed: int, domain: str, place: int, purpose: int) -> int:
    """The ``place``-th number of an endless list whose every block of ten holds 0..9 once."""
    return _shuffled(seed, domain, place // 10, purpose)[place % 10]


def split_of(seed: int, domain: str, index: int) -> str:
    """The split of a work: dealt by image within each class, or by master (``cytomine``)."""
    if domain == "cytomine":
        return _SPLITS[index % len(_SPLITS)]
    return _SPLITS[(index // 10 + turn_of(seed, domain, index, 1)) % len(_SPLITS)]


def leading(seed: int, domain: str, index: int) -> int | None:
    """Category id of a work's leading instrument; None for a work without any.

    Within each split of ``cytomine``, three works of ten have none, and the classes take turns
    in the others.
    """
    if domain != "cytomine":
        return turn_of(seed, domain, index, 1) + 1
    cycle, offset = divmod(index, len(_SPLITS))
    split = _SPLITS[offset]
    place = cycle * _SPLITS.count(split) + _SPLITS[:offset].count(split)
    salt = 2 + SPLITS.index(split)
    if turn_of(seed, domain, place, salt) < 3:
        return None
    block = _shuffled(seed, domain, place // 10, salt)
    positive = place // 10 * 7 + sum(slot >= 3 for slot in block[: place % 10])
    return turn_of(seed, domain, positive, salt + 3) + 1


def master_of(seed: int, domain: str, index: int) -> styles.Master:
    """Who painted a work; in ``cytomine`` the split hangs on it."""
    number = index if domain == "cytomine" else int(stream(seed, domain, index).integers(MASTERS))
    return styles.master(seed, domain, number % MASTERS)


def draw_work(seed: int, domain: str, index: int) -> Work:
    """Draw work ``index`` of a domain; anew where its leading instrument ended up hidden."""
    lead, split = leading(seed, domain, index), split_of(seed, domain, index)
    master = master_of(seed, domain, index)
    for attempt in range(TRIES):
        work = _begin(domain, lead, split, master, stream(seed, domain, index, 100 + attempt))
        if lead is None or any(label == lead for label, _ in work.true_boxes):
            break
    return work


def _begin(domain: str, lead: int | None, split: str, master: styles.Master, rng: Rng) -> Work:
    kind = None if lead is None else KINDS[lead - 1]
    if domain == "cytomine" or kind is None:
        return _cytomine(kind, split, master, rng)
    return _mimo(kind, split, rng) if domain == "mimo" else _google(kind, split, master, rng)


def _pick_size(rng: Rng, wide: bool | None = None) -> tuple[int, int]:
    long, ratio = int(rng.integers(440, 641)), float(rng.uniform(0.68, 0.95))
    short = int(long * ratio)
    wide = bool(rng.uniform() < 0.5) if wide is None else wide
    return (long, short) if wide else (short, long)


def _mimo(kind: Kind, split: str, rng: Rng) -> Work:
    tall = kind.half[1] > kind.half[0]
    width, height = _pick_size(rng, not tall if rng.uniform() < 0.8 else None)
    paper, _ = backdrops.museum_paper(width, height, rng)
    picture = Picture(paper)
    scenes.single(picture, kind, rng, scenes.random_light(rng))
    furniture = Layer(width, height)
    backdrops.museum_furniture(furniture, rng)
    picture.place(furniture)
    rgb = backdrops.photo_finish(picture.rgb, rng)
    about = {"medium": "photograph"}
    return Work(to_bytes(rgb), (label_of(kind),), (), _true(picture), split, None, about)


def _google(kind: Kind, split: str, master: styles.Master, rng: Rng) -> Work:
    width, height = _pick_size(rng)
    picture, floor = scenes.background(width, height, rng)
    way = rng.uniform()
    if way < 0.45:
        scenes.portrait(picture, kind, rng)
    elif way < 0.75 and scenes.fits_table(kind):
        scenes.still_life(picture, [kind], rng, int(rng.integers(1, 5)))
    elif way < 0.9:
        scenes.concert(
            picture, [kind], rng, floor, int(rng.integers(0, 2)), int(rng.integers(0, 3))
        )
    else:
        scenes.single(picture, kind, rng, scenes.random_light(rng))
    picture = _painted(picture, master, rng)
    if rng.uniform() < 0.22:
        picture = frames.framed(picture, rng)
    rgb, label = to_bytes(picture.rgb), label_of(kind)
    return Work(rgb, (label,), (), _true(picture), split, None, _about(master))


def _cytomine(lead: Kind | None, split: str, master: styles.Master, rng: Rng) -> Work:
    kinds = [] if lead is None else [lead, *_company(rng)]
    width, height = _pick_size(rng, bool(rng.uniform() < 0.65))
    picture, floor = scenes.background(width, height, rng)
    things = int(rng.integers(1, 5)) + (2 if not kinds else 0)
    if rng.uniform() < 0.4 and all(scenes.fits_table(kind) for kind in kinds):
        scenes.still_life(picture, kinds, rng, things)
    elif len(kinds) == 1 and rng.uniform() < 0.3:
        scenes.portrait(picture, kinds[0], rng)
    else:
        people = int(rng.integers(0, 3)) + (1 if not kinds else 0)
        scenes.concert(picture, kinds, rng, floor, people, things // 2)
    picture = _painted(picture, master, rng)
    true = _true(picture)
    boxes = tuple((label, human_box(box, width, height, rng)) for label, box in true)
    labels = tuple(sorted({label for label, _ in true}))
    rgb = to_bytes(picture.rgb)
    return Work(rgb, labels, boxes, true, split, master.name, _about(master))


def _company(rng: Rng) -> list[Kind]:
    """None to three more instruments."""
    more = int(rng.choice(4, p=[0.38, 0.3, 0.2, 0.12]))
    return [KINDS[int(i)] for i in rng.integers(0, len(KINDS), more)]


def _about(master: styles.Master) -> dict[str, str]:
    medium = styles.STYLES[master.movement].medium
    return {"movement": master.movement, "painter": master.name, "medium": medium}


def _painted(picture: Picture, master: styles.Master, rng: Rng) -> Picture:
    rgb, masks = styles.paint(
        _lit(picture.rgb, rng), [owned.mask for owned in picture.owned], master, rng
    )
    return picture.replaced(rgb, masks)


def _lit(rgb: Array, rng: Rng) -> Array:
    """Light that falls from one side across the whole scene."""
    height, width = rgb.shape[:2]
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * float(rng.normal(0, 0.28))
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * float(
        rng.uniform(-0.25, 0.1)
    )
    return rgb * (1 + across + down)[..., None]


def _true(picture: Picture) -> tuple[tuple[int, Bounds], ...]:
    return tuple((label, box) for label, box, _ in picture.boxes(LEAST_VISIBLE))


def human_box(box: Bounds, width: int, height: int, rng: Rng) -> Bounds:
    """A box as a person draws it: a little loose, sides off by 1 to 3%, inside the image."""
    x0, y0, x1, y1 = box
    wide, tall = x1 - x0, y1 - y0
    loose = rng.normal(0.012, 0.012, 4).clip(-0.015, 0.04)
    drawn = (
        x0 - loose[0] * wide - 0.5,
        y0 - loose[1] * tall - 0.5,
        x1 + loose[2] * wide + 0.5,
        y1 + loose[3] * tall + 0.5,
    )
    return (
        max(0.0, round(drawn[0], 1)),
        max(0.0, round(drawn[1], 1)),
        min(float(width), round(drawn[2], 1)),
        min(float(height), round(drawn[3], 1)),
    )
