"""Pictures of the target domain: the training split of manifests, labelled or not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.files import sha256
from musicon.datasets.loading import ImageStore
from musicon.datasets.records import Manifest, UserError
from musicon.detect.config import AdaptationConfig
from musicon.detect.material import working_side
from musicon.detect.training import StageContext

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
STORE_BYTES = 500_000_000


@dataclass(frozen=True)
class Target:
    """One picture.

    Attributes:
        path: The file.
        labels: Labels (from 1) of all instruments in it, () for none; None where nobody looked,
            or where some are of classes that the stage does not know.
        styled: Versions of it in a style bank.
    """

    path: Path
    labels: tuple[int, ...] | None
    styled: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Window:
    """A part of a target picture, to be looked at in several ways.

    Attributes:
        target: The picture.
        part: x0, y0, x1, y1 as shares of its width and height.
        mirrored: Left and right exchanged.
    """

    target: Target
    part: NDArray[np.float64]
    mirrored: bool


class Targets:
    """The target pictures of one adaptation method in one stage."""

    def __init__(self, ctx: StageContext, cfg: AdaptationConfig) -> None:
        """List the pictures; validation and test images are never among them.

        Raises:
            UserError: No manifest has an image in its training split, or the bank is of others.
        """
        self.least = cfg.window
        self.styled_share = cfg.bank.probability if cfg.bank else 0.0
        self.store = ImageStore(working_side(ctx.config), STORE_BYTES)
        self.items = tuple(item for path in cfg.targets for item in _listed(ctx, path, cfg))
        if not self.items:
            raise UserError(f"{', '.join(map(str, cfg.targets))}: no image is in the split "
                            "'train', so there is nothing to adapt to; give other targets, or "
                            "prepare the data again with --split 70/10/20")
        known = sum(item.labels is not None for item in self.items)
        styled = sum(len(item.styled) for item in self.items)
        if cfg.bank and not styled:
            raise UserError(f"{cfg.bank.path}: the bank holds no styled version of a target "
                            "picture; make it from them: python tools/build_bank.py make --content "
                            f"{cfg.targets[0]} ...")
        log.info("%s, %s: %d target pictures, %d of them with known labels%s", ctx.name, cfg.name,
                 len(self.items), known, f", {styled} styled versions" if styled else "")

    def draw(self, rng: np.random.Generator) -> Window:
        """A random window of a random picture."""
        target = self.items[int(rng.integers(len(self.items)))]
        size = rng.uniform(self.least, 1, 2)
        corner = rng.uniform(0, 1 - size)
        return Window(target, np.concatenate([corner, corner + size]), bool(rng.random() < 0.5))

    def look(self, window: Window, rng: np.random.Generator) -> Image:
        """The window, uint8 RGB (H, W, 3); by the bank's probability of a styled version."""
        versions, version = window.target.styled, None
        if versions and rng.random() < self.styled_share:
            version = versions[int(rng.integers(len(versions)))]
        return self.plain(window, version)

    def plain(self, window: Window, version: Path | None = None) -> Image:
        """The window, uint8 RGB (H, W, 3), of the picture or of another version of it."""
        image, _ = self.store.get(version or window.target.path)
        height, width = image.shape[:2]
        x0, y0, x1, y1 = (window.part * (width, height, width, height)).round().astype(int)
        part = image[y0:max(y1, y0 + 1), x0:max(x1, x0 + 1)]
        return np.array(part[:, ::-1] if window.mirrored else part)


def _listed(ctx: StageContext, path: Path, cfg: AdaptationConfig) -> list[Target]:
    manifest = Manifest.read(path)
    labels = ctx.labels_of(manifest.categories)
    styled: dict[str, list[Path]] = {}
    if cfg.bank is not None:
        bank = Manifest.read(cfg.bank.path)
        for record in bank.select(split="train").images:
            styled.setdefault(str(record.extra.get("content_sha256")), []).append(bank.path(record))
    found = []
    for record in manifest.select(split="train").images:
        here = [labels.get(i) for i in record.known_labels]
        known = cfg.use_labels and None not in here and (bool(here) or record.is_negative)
        file = manifest.path(record)
        found.append(Target(file, tuple(i for i in here if i is not None) if known else None,
                            tuple(styled.get(sha256(file), ())) if styled else ()))
    return found
