"""Why the model says what it says: heat maps of whole pictures, found boxes and given ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets.command import progress
from musicon.datasets.files import Rejects, tables_to_json, write_atomic
from musicon.datasets.images import ImageError, decode_reduced
from musicon.datasets.loading import crop_square, square_around
from musicon.datasets.records import Category, UserError
from musicon.datasets.taxonomy import Taxonomy
from musicon.detect.annotated import MAX_NAME_BYTES
from musicon.detect.checkpoints import LoadedModel
from musicon.detect.explanation_pictures import draw_explanations, draw_feature_maps, write_page
from musicon.detect.explanations import TITLES, heat
from musicon.detect.explanations.feature_maps import Layer, feature_maps
from musicon.detect.explanations.tracing import ExplanationError
from musicon.detect.inference import Listing
from musicon.detect.outputs import EXPLANATIONS_NAME, REJECTS_NAME
from musicon.detect.pipeline import WORKING_SIDE, ArtworkDetector
from musicon.detect.plots import to_png

MAX_BOXES = 6
"""Found boxes explained in one picture, the surest first."""
DPI = 100
"""Pixels an inch of the pictures."""
AT_ONCE = 4
"""Crops that go through the network together."""
PICTURES, HEAT, FEATURE_MAPS, PAGE = "pictures", "heat", "feature_maps", "index.html"
LAYERS = (1, 3, 4)
"""Convolutions whose maps are shown, counted from 1."""

Picture = NDArray[np.uint8]
Heat = NDArray[np.float32]


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain, and how; see ``tools/explain.py`` for what each means."""

    methods: Sequence[str] = ("visualbackprop",)
    on: Sequence[str] = ("picture", "detected")
    boxes: Sequence[Sequence[float]] = ()
    instrument: str | None = None
    layers: Sequence[int] = ()
    threshold: float | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a picture that the classifier looked at.

    Attributes:
        kind: ``picture``, ``detected`` or ``given``.
        box: float32 (4,), xyxy in pixels of the picture in memory.
        square: x0, y0, x1, y1 of what the classifier saw of it, which may reach beyond the
            picture.
        crop: uint8 RGB (S, S, 3), the square as the classifier saw it.
        output: The classifier's output that is explained.
        name: The instrument of that output.
        probability: What the classifier gives it, 0 to 1.
        negative: Probability of "no instrument".
        score: The fused score of a detected box.
        heats: Method -> map over ``square``, float32 (S, S) in 0..1.
    """

    kind: str
    box: NDArray[np.float32]
    square: tuple[int, int, int, int]
    crop: Picture
    output: int
    name: str
    probability: float
    negative: float
    score: float | None = None
    heats: dict[str, Heat] = field(default_factory=dict)

    def over(self, method: str, image: Picture) -> tuple[Heat, tuple[int, int, int, int]]:
        """The heat over the part of the square that lies in the picture, and where that is."""
        return in_picture(self.heats[method], self.square, image.shape[:2])


@dataclass(frozen=True)
class Explained:
    """What was written.

    Attributes:
        images: Pictures explained.
        parts: Whole pictures and boxes in them.
        rejects: Files left out.
        page: The HTML page.
    """

    images: int
    parts: int
    rejects: Rejects
    page: Path


class Explainer:
    """Explains what a model's classifier says of pictures and of boxes in them."""

    def __init__(self, model: LoadedModel, options: ExplainOptions, device: str = "auto") -> None:
        """Take a loaded model.

        Raises:
            UserError: An instrument that the model doesn't know, a box without area, or a
                device that is not there.
        """
        for box in options.boxes:
            if not (np.isfinite(box).all() and box[2] > box[0] >= 0 and box[3] > box[1] >= 0):
                given = " ".join(f"{v:g}" for v in box)
                raise UserError(f"--box {given}: not a box; write left, top, right, bottom in "
                                "pixels, such as --box 10 20 110 220")
        self.detector = ArtworkDetector(model.classifier, model.detector, model.config,
                                        model.categories, device, rescorer=model.rescorer)
        self.classifier = model.classifier
        self.categories = model.categories
        self.margin = model.config.fusion.crop_margin
        self.options = options
        self.output = (None if options.instrument is None
                       else output_of(options.instrument, model.categories))

    def explain(self, image: Picture, scale: float = 1.0) -> list[Part]:
        """The parts of one picture with their heat maps: the whole first, then the boxes.

        Args:
            image: uint8 RGB (H, W, 3).
            scale: Its pixels for one pixel of ``options.boxes``.

        Raises:
            ImageError: A given box lies outside the picture.
            ExplanationError: The network cannot be explained so.
        """
        found = list(self._parts(image, scale))
        for start in range(0, len(found), AT_ONCE):
            some = found[start:start + AT_ONCE]
            crops = torch.from_numpy(np.stack([part.crop for part in some])).permute(0, 3, 1, 2)
            outputs = torch.tensor([part.output for part in some])
            for method in self.options.methods:
                for part, one in zip(some, heat(method, self.classifier, crops, outputs),
                                     strict=True):
                    part.heats[method] = one.numpy()
        return found

    def layers(self, image: Picture) -> list[Layer]:
        """The chosen layers' maps of the whole picture."""
        whole = crop_square(image, _whole(image), 0, self.classifier.image_size)
        batch = torch.from_numpy(whole).permute(2, 0, 1)[None].to(self.detector.device)
        return feature_maps(self.classifier, batch, self.options.layers)

    def _parts(self, image: Picture, scale: float) -> Iterator[Part]:
        if "picture" in self.options.on:
            yield self._part("picture", image, _whole(image), 0)
        if "detected" in self.options.on:
            found = self.detector.predict([image], self.options.threshold)[0]
            ids = [c.id for c in self.categories]
            for i in range(min(len(found), MAX_BOXES)):
                output = ids.index(int(found.labels[i])) + 1
                yield self._part("detected", image, found.boxes[i], self.margin, output,
                                 float(found.scores[i]))
        for given in self.options.boxes:
            height, width = image.shape[:2]
            box = np.clip(np.array(given, np.float32) * scale, 0, [width, height] * 2)
            box = box.astype(np.float32)
            if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                raise ImageError("", "the box given with --box lies outside this picture of "
                                     f"{round(width / scale)} x {round(height / scale)} pixels")
            yield self._part("given", image, box, self.margin)

    def _part(self, kind: str, image: Picture, box: NDArray[np.float32], margin: float,
              output: int | None = None, score: float | None = None) -> Part:
        """One part, and what the classifier says of it; by default its likeliest instrument."""
        crop = crop_square(image, box, margin, self.classifier.image_size)
        given = self.classifier.classify_crops([crop])[0]
        chosen = self.output or output or int(given[1:].argmax()) + 1
        return Part(kind, box, square_around(box, margin), crop, chosen,
                    self.categories[chosen - 1].name, float(given[chosen]), float(given[0]), score)


def explain_images(explainer: Explainer, listing: Listing, out: Path) -> Explained:
    """Explain every image of a listing; write pictures, heat maps and a page.

    Raises:
        UserError: No image could be read, or the network cannot be explained.
        OSError: No space, no permission.
    """
    options, rejects, rows = explainer.options, Rejects(), []
    files = [file for file in listing.files if not _below(file, out)]
    for number, file in enumerate(progress(files, desc="explaining", quiet=options.quiet)):
        try:
            image, (width, _) = decode_reduced(file, WORKING_SIDE)
            scale = image.shape[1] / width
            found = explainer.explain(image, scale)
        except ImageError as error:
            rejects.add(file, error.reason)
            continue
        relative = os.path.relpath(file, listing.root)
        written = _write(explainer, image, found, out, relative, number)
        rows.append({"name": relative, "file": os.path.relpath(file, out), **written,
                     "parts": [_row(part, scale) for part in found]})
    rejects.write(out / REJECTS_NAME)
    if not rows:
        reason = f" (the first: {rejects.rows[0][1]})" if rejects.rows else ""
        raise UserError(f"none of the {len(files)} files could be explained{reason}; all are "
                        f"listed in {out / REJECTS_NAME}")
    write_atomic(out / EXPLANATIONS_NAME,
                 tables_to_json({"methods": list(options.methods), "images": rows}))
    write_page(out / PAGE, rows, [TITLES[m] for m in options.methods], rejects.rows)
    return Explained(len(rows), sum(len(row["parts"]) for row in rows), rejects, out / PAGE)


def _write(explainer: Explainer, image: Picture, found: Sequence[Part], out: Path, relative: str,
           number: int) -> dict[str, Any]:
    """The files of one picture: addresses below ``out``."""
    folder, name = os.path.split(relative)
    if len(os.fsencode(name)) + len(".png") > MAX_NAME_BYTES:
        name = f"{name[:50]}~{number}"

    def save(kind: str, data: bytes) -> str:
        write_atomic(out / kind / folder / f"{name}.png", data)
        return os.path.join(kind, folder, f"{name}.png")

    pictures, heats = [], {}
    if methods := explainer.options.methods:
        pictures.append(save(PICTURES, to_png(draw_explanations(image, found, methods, relative),
                                              DPI)))
        heats = {method: save(os.path.join(HEAT, method), _grey(method, image, found))
                 for method in methods}
    if explainer.options.layers:
        instrument = found[0].name if found else "none"
        sheet = draw_feature_maps(explainer.layers(image), f"{relative}: {instrument}")
        pictures.append(save(os.path.join(FEATURE_MAPS, instrument), to_png(sheet, DPI)))
    return {"pictures": pictures, "heat": heats}


def _row(part: Part, scale: float) -> dict[str, Any]:
    """A part for ``explanations.json``, its box in pixels of the upright original."""
    return {"kind": part.kind, "box": [round(float(v) / scale, 1) for v in part.box],
            "instrument": part.name, "probability": part.probability,
            "no_instrument": part.negative, "score": part.score}


def in_picture(heat: Heat, square: tuple[int, int, int, int],
               image_hw: tuple[int, ...]) -> tuple[Heat, tuple[int, int, int, int]]:
    """Stretch a map (S, S) over its square; what lies in the picture, and where that is (xyxy)."""
    left, top, right, bottom = square
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(right, image_hw[1]), min(bottom, image_hw[0])
    whole = cv2.resize(heat, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    return whole[y0 - top:y1 - top, x0 - left:x1 - left], (x0, y0, x1, y1)


def output_of(name: str, categories: Sequence[Category]) -> int:
    """The classifier's output for an instrument, by its name in any language.

    Raises:
        ExplanationError: The model doesn't know it; the message lists those that it knows.
    """
    names = [category.name.casefold() for category in categories]
    wanted: list[Callable[[], str | None]] = [
        lambda: name.strip().casefold(),
        lambda: instrument.name if (instrument := Taxonomy.load().find(name).instrument) else None]
    for find in wanted:
        if (known := find()) in names:
            return names.index(known) + 1
    raise ExplanationError(f"--class {name!r}: this model doesn't know it; it knows "
                           f"{', '.join(category.name for category in categories)}")


def _whole(image: Picture) -> NDArray[np.float32]:
    return np.array([0, 0, image.shape[1], image.shape[0]], np.float32)


def _below(file: str, folder: Path) -> bool:
    return os.path.realpath(file).startswith(os.path.realpath(folder) + os.sep)


def _grey(method: str, image: Picture, parts: Sequence[Part]) -> bytes:
    """The heat of all parts, as a grey PNG of the picture's size: the greatest wins."""
    canvas = np.zeros(image.shape[:2], np.float32)
    for part in parts:
        one, (x0, y0, x1, y1) = part.over(method, image)
        canvas[y0:y1, x0:x1] = np.maximum(canvas[y0:y1, x0:x1], one)
    encoded: NDArray[np.uint8] = cv2.imencode(".png", np.rint(canvas * 255).astype(np.uint8))[1]
    return encoded.tobytes()
