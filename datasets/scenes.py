"""Composed scenes as a data set: cut-outs of photos pasted into paintings, boxes and all.

Each scene depends on the seed, its number and the pictures alone, so that a run that was cut off
goes on and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import Xyxy
from musicon.datasets.composites import BLENDS, Cutout, Scene, compose, cut_out, distractor
from musicon.datasets.files import UserError, write_atomic
from musicon.datasets.foreground import find_foreground
from musicon.datasets.loading import ImageStore, resize_longer
from musicon.datasets.pixels import fitted
from musicon.datasets.records import MANIFEST_NAME, Box, ImageRecord, Manifest

MADE_BY = "musicon scenes"
WORKING_SIDE = 640
MAX_OBJECTS = 3
DISTRACTORS = 0.5
TRIES = 30
Bar = Callable[[Iterable[Any], "int | None", str], Iterator[Any]]


class SceneError(UserError):
    """Scenes that cannot be composed; the message says what is missing."""


class Composer:
    """Makes scenes from photos of single instruments and instrument-free pictures.

    Only the training splits are used. Photos without a plain ground can't be cut out and are
    passed over.
    """

    def __init__(self, photos: Manifest, grounds: Manifest, side: int, *,
                 blends: Sequence[str] = BLENDS[:1], keep_faces: bool = False) -> None:
        """Look at what there is.

        Args:
            photos: Photos of single instruments; what is transparent in a file is its ground.
            grounds: Pictures without instruments.
            side: Longer side of a scene in pixels.
            blends: Ways of ``composites.BLENDS`` to choose from.
            keep_faces: Paste nothing over faces.

        Raises:
            SceneError: Nothing to cut out, or to paste into.
        """
        self._blends, self._keep_faces = tuple(blends), keep_faces
        self.photos = [r for r in photos.select(split="train").images if len(r.known_labels) == 1]
        self.grounds = [r for r in grounds.select(split="train").images if r.is_negative]
        if not self.photos:
            raise SceneError(f"{photos.root}: no photo of one instrument in the training split to "
                             "cut out")
        if not self.grounds:
            raise SceneError(f"{grounds.root}: no picture known to hold no instrument in the "
                             "training split to paste into")
        self._photo_path, self._ground_path, self.side = photos.path, grounds.path, side
        self._by_label: dict[int, list[ImageRecord]] = {}
        for record in self.photos:
            self._by_label.setdefault(record.known_labels[0], []).append(record)
        self._store = ImageStore(WORKING_SIDE)

    def scene(self, seed: int, number: int) -> Scene:
        """The scene of this number, its longer side ``side`` pixels."""
        rng = np.random.default_rng([seed, number])
        count = int(rng.integers(1, MAX_OBJECTS + 1))
        cutouts = [c for c in (self._cutout(rng) for _ in range(count)) if c is not None]
        for _ in range(int(rng.binomial(count, DISTRACTORS))):
            cutouts.insert(int(rng.integers(len(cutouts) + 1)), distractor(self._ground(rng), rng))
        ground = self._ground(rng)
        return compose(ground, cutouts, rng, blends=self._blends,
                       keep_off=faces(ground) if self._keep_faces else ())

    def _cutout(self, rng: np.random.Generator) -> Cutout | None:
        for _ in range(TRIES):
            label = int(rng.choice(sorted(self._by_label)))
            record = self._by_label[label][int(rng.integers(len(self._by_label[label])))]
            path = self._photo_path(record)
            if record.extra.get("alpha"):
                found = _transparent(path, label)
                if found is not None:
                    return found
            image, _ = self._store.get(path)
            foreground = find_foreground(image)
            if foreground is not None:
                found = cut_out(image, foreground.mask, label)
                if found is not None:
                    return found
        return None

    def _ground(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        record = self.grounds[int(rng.integers(len(self.grounds)))]
        image, _ = self._store.get(self._ground_path(record))
        height, width = image.shape[:2]
        h, w = (max(8, round(size * rng.uniform(0.5, 1))) for size in (height, width))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return resize_longer(np.ascontiguousarray(image[top:top + h, left:left + w]), self.side)


def _transparent(path: Path, label: int) -> Cutout | None:
    """The cut-out that a file with transparency is; None where nothing of it is see-through."""
    rgba = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if rgba is None or rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8:
        return None
    size = fitted((rgba.shape[1], rgba.shape[0]), WORKING_SIDE)
    if size != (rgba.shape[1], rgba.shape[0]):
        rgba = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)
    alpha = (rgba[..., 3] / 255).astype(np.float32)
    if alpha.mean() > 0.98:
        return None
    return cut_out(np.ascontiguousarray(rgba[..., 2::-1]).astype(np.uint8), alpha, label)


def faces(image: NDArray[np.uint8]) -> list[Xyxy]:
    """Boxes of frontal faces in an RGB picture, as OpenCV's own cascade finds them."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found = _face_finder().detectMultiScale(grey, scaleFactor=1.1, minNeighbors=4,
                                            minSize=(24, 24))
    return [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in found]


@cache
def _face_finder() -> cv2.CascadeClassifier:
    """Read once: the cascade is a file of a megabyte, and every scene asks for it."""
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))


def make_scenes(photos: Manifest, grounds: Manifest, out: Path, *, count: int, side: int = 512,
                seed: int = 0, bar: Bar | None = None) -> Manifest:
    """Compose scenes into a folder of PNG files with a manifest; those that are there are kept.

    Args:
        photos: Photos of single instruments, cut out.
        grounds: Pictures without instruments, pasted into.
        out: Folder.
        count: Scenes.
        side: Longer side in pixels.
        seed: Another seed gives other scenes.
        bar: Draws a progress bar.

    Returns:
        The manifest: split ``train``, boxes of origin ``composite``.

    Raises:
        SceneError: Nothing to cut out, or to paste into.
    """
    told = json.dumps([photos.to_coco(), grounds.to_coco(), count, side, seed], sort_keys=True)
    key = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
    if (out / MANIFEST_NAME).exists():
        earlier = Manifest.read(out)
        if earlier.info.get("key") == key and all(earlier.path(r).exists() for r in earlier.images):
            return earlier
    composer = Composer(photos, grounds, side)
    domain = composer.grounds[0].domain
    numbers: Iterable[int] = range(count)
    if bar is not None:
        numbers = bar(numbers, count, "composing scenes")
    records = [write_scene(composer.scene(seed, number), out, seed, number, domain)
               for number in numbers]
    manifest = Manifest(out, photos.categories, tuple(records), {
        "description": f"{count} scenes of {photos.root.resolve().name} in "
                       f"{grounds.root.resolve().name}", "made_by": MADE_BY,
        "seed": seed, "key": key})
    manifest.write(out)
    return manifest


def write_scene(scene: Scene, out: Path, seed: int, number: int,
                domain: str | None) -> ImageRecord:
    """Write a scene below ``out/images`` unless the same is there, and return its record."""
    name = f"images/{number // 1000:03}/scene-{seed}-{number:06}.png"
    done, buffer = cv2.imencode(".png", np.ascontiguousarray(scene.image[..., ::-1]))
    if not done:
        raise SceneError(f"{out / name}: the scene cannot be written as PNG")
    payload = buffer.tobytes()
    file = out / name
    if not file.exists() or file.read_bytes() != payload:
        write_atomic(file, payload)
    height, width = scene.image.shape[:2]
    boxes = tuple(Box((float(b[0]), float(b[1]), float(b[2]), float(b[3])), int(label),
                      "composite")
                  for b, label in zip(scene.boxes, scene.labels, strict=True))
    return ImageRecord(number + 1, name, width, height, boxes,
                       labels=tuple(sorted({box.label for box in boxes})), split="train",
                       domain=domain, sha256=hashlib.sha256(payload).hexdigest())
