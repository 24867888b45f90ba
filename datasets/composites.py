"""Cut-outs pasted into paintings: boxed scenes from photos that carry no box.

"Cut, paste and learn" (Dwibedi et al. 2017): what a detector needs of a scene is the seam
between an instrument and everything else, and that can be made. Each cut-out is rotated, scaled,
given some of the colours of the place where it lands, softened at its outline and in part
covered again; its box is that of the pixels that can still be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import Xyxy
from musicon.datasets.foreground import tight_box

MIN_VISIBLE = 0.45
"""Share of a cut-out that must stay visible; one that is covered more is taken back out."""

BLENDS = ("alpha", "gaussian", "poisson")
"""How a cut-out meets its ground: its own soft outline, a softer one, or half its gradients."""

COVERED = 0.1
"""Share of a face that may be covered."""

DISTRACTOR = 0
"""Label of something pasted that is no instrument: it gets no box."""


@dataclass(frozen=True)
class Cutout:
    """An instrument without its ground.

    Attributes:
        rgba: uint8 (H, W, 4), cropped to the instrument.
        label: Category id, or ``DISTRACTOR``.
    """

    rgba: NDArray[np.uint8]
    label: int


@dataclass(frozen=True)
class Scene:
    """A composed scene.

    Attributes:
        image: uint8 RGB (H, W, 3).
        boxes: float32 (N, 4), xyxy pixels, tight around what is visible of each instrument.
        labels: int64 (N,), category ids.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def cut_out(image: NDArray[np.uint8], mask: NDArray[np.float32], label: int) -> Cutout | None:
    """Crop an RGB image (H, W, 3) by a soft mask (H, W) in [0, 1]; None when the mask is empty."""
    box = tight_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = (int(v) for v in box)
    alpha = (mask[y0:y1, x0:x1] * 255).astype(np.uint8)
    return Cutout(np.dstack([image[y0:y1, x0:x1], alpha]), label)


def distractor(image: NDArray[np.uint8], rng: np.random.Generator) -> Cutout:
    """A blob of a painting, to be pasted like an instrument without being one.

    A detector that only ever sees instruments pasted learns to find seams; these have the same
    seams and no box.
    """
    height, width = image.shape[:2]
    side = max(8, round(min(height, width) * rng.uniform(0.2, 0.6)))
    w, h = side, max(6, round(side * np.exp(rng.uniform(-1.3, 0))))
    if rng.random() < 0.5:
        w, h = h, w
    left, top = int(rng.integers(max(1, width - w))), int(rng.integers(max(1, height - h)))
    patch = image[top:top + h, left:left + w]
    h, w = patch.shape[:2]
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(rng.normal(0, 0.35 / k) * np.cos(k * turns + rng.uniform(0, 6.3))
                for k in range(2, 6))
    radius = 0.46 * np.clip(1 + waves, 0.25, None) / max(1.0, float(np.max(1 + waves)))
    points = np.stack([(0.5 + radius * np.cos(turns)) * w, (0.5 + radius * np.sin(turns)) * h], 1)
    alpha = np.zeros((h, w), np.uint8)
    cv2.fillPoly(alpha, [points.round().astype(np.int32)], 255)
    return Cutout(np.dstack([patch, alpha]), DISTRACTOR)


def compose(ground: NDArray[np.uint8], cutouts: Sequence[Cutout], rng: np.random.Generator, *,
            scale: tuple[float, float] = (0.12, 0.8), harmonise: float = 0.7,
            occlude: float = 0.35, blends: Sequence[str] = BLENDS[:1],
            keep_off: Sequence[Xyxy] = ()) -> Scene:
    """Paste cut-outs into a painting.

    Args:
        ground: RGB (H, W, 3), not changed.
        cutouts: Pasted in this order; later ones may cover earlier ones.
        rng: Source of all chance.
        scale: Range of the pasted longer side, as shares of the ground's shorter side.
        harmonise: Chance that a cut-out takes on the colours of where it lands.
        occlude: Chance that a patch of the painting is laid back over it.
        blends: Ways of ``BLENDS`` to choose from for each cut-out.
        keep_off: Boxes of the ground (faces) that nothing may cover by more than a tenth.

    Returns:
        The scene, with boxes only around cut-outs that stay visible enough.
    """
    canvas = ground.astype(np.float32)
    visible: list[NDArray[np.float32]] = []
    sizes: list[float] = []
    labels: list[int] = []
    for cutout in cutouts:
        before, before_visible = canvas.copy(), [alpha.copy() for alpha in visible]
        layer, alpha = _place(cutout, ground.shape[:2], rng, scale)
        size = float(alpha.sum())
        if size < 16 or any(_covered(alpha, box) > COVERED for box in keep_off):
            continue
        if rng.random() < harmonise:
            layer = _harmonise(layer, alpha, canvas, rng)
        canvas = _blend(layer, alpha, canvas, blends[int(rng.integers(len(blends)))])
        visible = [other * (1 - alpha) for other in visible] + [alpha]
        if rng.random() < occlude:
            cover = _patch(alpha, rng)
            canvas = before * cover[..., None] + canvas * (1 - cover[..., None])
            visible[-1] = visible[-1] * (1 - cover)
        shown = [float(a.sum()) / s for a, s in zip(visible, [*sizes, size], strict=True)]
        if min(shown) < MIN_VISIBLE:
            canvas, visible = before, before_visible
            continue
        sizes.append(size)
        labels.append(cutout.label)
    boxes = [tight_box(alpha, 0.35) for alpha in visible]
    kept = [i for i, box in enumerate(boxes) if box is not None and labels[i] != DISTRACTOR]
    return Scene(
        canvas.round().clip(0, 255).astype(np.uint8),
        np.array([boxes[i] for i in kept], np.float32).reshape(-1, 4),
        np.array([labels[i] for i in kept], np.int64),
    )


def _covered(alpha: NDArray[np.float32], box: Xyxy) -> float:
    """Share of a box that the layer hides."""
    x0, y0, x1, y1 = (max(0, int(v)) for v in box)
    part = alpha[y0:y1, x0:x1]
    return float(part.mean()) if part.size else 0.0


def _blend(layer: NDArray[np.float32], alpha: NDArray[np.float32], canvas: NDArray[np.float32],
           how: str) -> NDArray[np.float32]:
    """The canvas with the layer on it.

    Poisson (Perez et al. 2003): the layer's gradients, the ground's colours along the outline;
    in half, for what has no gradients of its own would vanish and keep its box.
    """
    plain = layer * alpha[..., None] + canvas * (1 - alpha[..., None])
    if how == "poisson":
        mask = (alpha > 0.5).astype(np.uint8) * 255
        mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = 0
        x, y, wide, high = cv2.boundingRect(mask)
        if wide > 2 and high > 2:
            source, ground = (a.round().clip(0, 255).astype(np.uint8) for a in (layer, canvas))
            cloned = cv2.seamlessClone(source, ground, mask, (x + wide // 2, y + high // 2),
                                       cv2.NORMAL_CLONE)
            return np.asarray((plain + cloned.astype(np.float32)) / 2, np.float32)
    if how == "gaussian":
        soft = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 2.0), np.float32)[..., None]
        return layer * soft + canvas * (1 - soft)
    return plain


def _place(cutout: Cutout, canvas_hw: tuple[int, int], rng: np.random.Generator,
           scale: tuple[float, float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Warp a cut-out onto a canvas: colours (H, W, 3) in 0..255 and alpha (H, W) in [0, 1]."""
    height, width = canvas_hw
    h, w = cutout.rgba.shape[:2]
    side = min(height, width) * np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1])))
    zoom = side / max(h, w)
    stretch = np.exp(rng.normal(0, 0.12))
    angle = rng.normal(0, 25) if rng.random() < 0.75 else rng.uniform(-180, 180)
    turn = np.deg2rad(angle)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shear = rng.normal(0, 0.12)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = np.array([[flip * zoom * stretch, zoom * shear], [0, zoom / stretch]])
    matrix = rotation @ shape
    centre = np.array([rng.uniform(0.08, 0.92) * width, rng.uniform(0.08, 0.92) * height])
    offset = centre - matrix @ np.array([w / 2, h / 2])
    affine = np.column_stack([matrix, offset])
    source = _shrink(cutout.rgba, zoom)
    affine[:, :2] *= [w / source.shape[1], h / source.shape[0]]
    premultiplied = source.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    warped = cv2.warpAffine(premultiplied, affine, (width, height), flags=cv2.INTER_LINEAR)
    alpha = warped[..., 3] / 255
    colours = warped[..., :3] / np.maximum(alpha, 1e-3)[..., None]
    softness = rng.uniform(0, 1.2)
    if softness > 0.3:
        alpha = cv2.GaussianBlur(alpha, (0, 0), softness)
    return colours.clip(0, 255), alpha


def _shrink(rgba: NDArray[np.uint8], zoom: float) -> NDArray[np.uint8]:
    """Area-average before a strong reduction, which linear interpolation would alias."""
    if zoom >= 0.7:
        return rgba
    size = (max(1, round(rgba.shape[1] * zoom)), max(1, round(rgba.shape[0] * zoom)))
    return cv2.resize(rgba, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], 4)


def _harmonise(layer: NDArray[np.float32], alpha: NDArray[np.float32],
               canvas: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Shift a layer's mean and contrast towards the ground it covers (Reinhard et al. 2001)."""
    box = tight_box(alpha, 0.05)
    if box is None:
        return layer
    x0, y0, x1, y1 = (int(v) for v in box)
    inside = alpha[y0:y1, x0:x1] > 0.5
    if inside.sum() < 8:
        return layer
    own = layer[y0:y1, x0:x1][inside]
    around = canvas[y0:y1, x0:x1].reshape(-1, 3)
    mean, deviation = own.mean(0), own.std(0) + 1e-3
    towards = rng.uniform(0.05, 0.55)
    target_mean = mean + towards * (around.mean(0) - mean)
    wanted = np.maximum(around.std(0), 18)
    target_deviation = deviation * (wanted / deviation) ** (0.6 * towards)
    out = (layer - mean) * (target_deviation / deviation) + target_mean
    return out.clip(0, 255)


def _patch(alpha: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A soft blob (H, W) in [0, 1] over a part of the cut-out, like a hand or a sleeve."""
    box = tight_box(alpha, 0.2)
    cover = np.zeros(alpha.shape, np.float32)
    if box is None:
        return cover
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    centre = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
    turns = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = side * rng.uniform(0.08, 0.3) * rng.uniform(0.6, 1.4, 9)
    points = centre + np.stack([np.cos(turns), np.sin(turns)], 1) * radius[:, None]
    cv2.fillPoly(cover, [points.round().astype(np.int32)], 1.0)
    return cv2.GaussianBlur(cover, (0, 0), 1.0)
