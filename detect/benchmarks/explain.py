"""Are heat maps right? Pointing, heat on the instrument, deletion and insertion, each method.

On boxed artworks the boxes say where the instrument is, on photos its silhouette on the plain
ground does. Every method explains the true instrument, beside a map that is just hottest in the
middle. A second table asks how much of the heat falls on the instrument and how much elsewhere,
on whole pictures and on crops; below each photo a colour panel is drawn for that, as museum
photos have.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets.command import DONE, SummaryTable, count, progress
from musicon.datasets.files import write_atomic
from musicon.datasets.foreground import find_foreground
from musicon.datasets.images import decode_reduced
from musicon.datasets.loading import crop_square, square_around
from musicon.datasets.records import Category, ImageRecord, Manifest, UserError
from musicon.detect.alignment import align
from musicon.detect.benchmarks.tables import markdown, table, with_spread
from musicon.detect.classifier import CropClassifier
from musicon.detect.explain import in_picture
from musicon.detect.explanations import METHODS, NEEDS_CAPTUM, TITLES, heat, require_captum
from musicon.detect.explanations.scoring import (
    Region,
    area_under,
    centre_map,
    curves,
    points_at,
    share_in,
)

SIDE = 800
"""Pixels of a picture's longer side; the classifier sees less."""
PHOTOS, CENTRE, AREA = "photos", "centre", "area"
NAMES = {**TITLES, CENTRE: "centre point", AREA: "(share of the area)"}
SCORES = {"points": "points at it", "share": "heat on it", "insertion": "insertion",
          "deletion": "deletion"}
PLACES = ("instrument", "panel", "elsewhere")
PATCHES = ((34, 60, 140), (60, 150, 200), (40, 130, 60), (240, 215, 40), (200, 40, 45),
           (190, 60, 140), (245, 245, 245), (120, 85, 60), (30, 30, 30))
"""Colours of a panel: blue, cyan, green, yellow, red, magenta, white, brown, black."""


@dataclass(frozen=True)
class Case:
    """A picture with an instrument whose place is known.

    Attributes:
        image: uint8 RGB (H, W, 3).
        instrument: bool (H, W), where it is.
        output: The classifier's output for it.
        box: float32 (4,), what is cropped, xyxy in pixels.
        panel: bool (H, W), where a colour panel is; None without one.
    """

    image: NDArray[np.uint8]
    instrument: Region
    output: int
    box: NDArray[np.float32]
    panel: Region | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``benchmark.py explain``."""
    add = parser.add_argument
    add("--model", type=Path, help="model or run folder (default: the newest trained)")
    add("--artworks", type=Path, help="manifest with boxes; its test split is used")
    add("--photos", type=Path, help="manifest of photos of single instruments; likewise")
    add("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    add("--limit", type=count, default=24, help="pictures of each, drawn by seed (default: 24)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("results/benchmark-explain"))
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--quiet", action="store_true", help="no progress bars")


def run(options: argparse.Namespace) -> int:
    """Measure; print tables, write ``explain.json``, ``explain.md`` and ``explain.png``."""
    from musicon.detect.checkpoints import find_newest, load_model
    from musicon.detect.devices import pick_device

    if not (options.artworks or options.photos):
        raise UserError("nothing to measure on; give --artworks, --photos or both")
    if NEEDS_CAPTUM & set(options.methods):
        require_captum()
    model = load_model(options.model or find_newest(), pick_device(options.device))
    classifier = model.classifier.eval()
    methods = [method for method in METHODS if method in options.methods]
    sets = {name: read(Manifest.read(manifest), model.categories, options.limit, options.seed)
            for name, manifest, read in (("artworks", options.artworks, boxed_cases),
                                         (PHOTOS, options.photos, photo_cases))
            if manifest is not None}
    document: dict[str, Any] = {"scores": {}, "curves": {}, "shares": {}, "cases": {}}
    for name, cases in sets.items():
        rows = [score(classifier, case, methods)
                for case in progress(cases, desc=name, quiet=options.quiet)]
        document["cases"][name] = len(cases)
        document["scores"][name] = _over_cases([row[0] for row in rows])
        document["curves"][name] = {
            method: {kind: np.mean([row[1][method][kind] for row in rows], axis=0).tolist()
                     for kind in ("deletion", "insertion")} for method in (*methods, CENTRE)}
        margin = model.config.fusion.crop_margin
        document["shares"][name] = _over_cases([
            share_out(classifier, with_panel(case) if name == PHOTOS else case, methods, margin)
            for case in progress(cases, desc=f"{name}, cropped", quiet=options.quiet)])
    _write(options.out, document)
    tables = "\n\n".join(str(table) for table in (_scores(document), _shares(document)))
    print(f"{tables}\n\nwritten: {options.out / 'explain.md'}, .json, .png")
    return DONE


def boxed_cases(manifest: Manifest, categories: Sequence[Category], limit: int,
                seed: int) -> list[Case]:
    """Pictures of the test split and the boxes of one instrument each that the model knows.

    Raises:
        UserError: There are none.
    """
    outputs = _outputs(manifest, categories)
    cases = []
    for record in _drawn(manifest, [r for r in manifest.images if any(
            box.label in outputs for box in r.boxes)], limit, seed):
        image, (width, _) = decode_reduced(manifest.path(record), SIDE)
        for label in sorted({box.label for box in record.boxes} & set(outputs)):
            boxes = np.array([box.xyxy for box in record.boxes if box.label == label], np.float32)
            boxes *= image.shape[1] / width
            inside = np.zeros(image.shape[:2], bool)
            for x0, y0, x1, y1 in np.rint(boxes).astype(int):
                inside[y0:y1, x0:x1] = True
            largest = np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
            cases.append(Case(image, inside, outputs[label], boxes[largest]))
    return cases


def photo_cases(manifest: Manifest, categories: Sequence[Category], limit: int,
                seed: int) -> list[Case]:
    """Photos of the test split whose one instrument the model knows and whose ground is plain.

    Raises:
        UserError: There are none.
    """
    outputs = _outputs(manifest, categories)
    cases = []
    for record in _drawn(manifest, [r for r in manifest.images if len(r.labels or ()) == 1
                                    and (r.labels or ())[0] in outputs], None, seed):
        image, _ = decode_reduced(manifest.path(record), SIDE)
        found = find_foreground(image)
        if found is not None:
            cases.append(Case(image, found.mask > 0.5, outputs[(record.labels or ())[0]],
                              np.array(found.xyxy, np.float32)))
        if len(cases) == limit:
            break
    if not cases:
        raise UserError(f"{manifest.root}: no test photo has a plain ground")
    return cases


def with_panel(case: Case) -> Case:
    """The same photo, longer by a strip of its ground with a colour panel on it."""
    height, width = case.image.shape[:2]
    strip, card = round(0.16 * height), round(0.1 * height)
    image = cv2.copyMakeBorder(case.image, 0, strip, 0, 0, cv2.BORDER_REPLICATE)
    top, left = height + (strip - card) // 2, round(0.05 * width)
    patch = min(card, round(0.9 * width) // len(PATCHES))
    panel = np.zeros(image.shape[:2], bool)
    for i, colour in enumerate(PATCHES):
        place = slice(top, top + card), slice(left + i * patch, left + (i + 1) * patch)
        image[place], panel[place] = colour, True
    inside = np.pad(case.instrument, ((0, strip), (0, 0)))
    return Case(image, inside, case.output, case.box, panel)


def score(classifier: CropClassifier, case: Case, methods: Sequence[str],
          ) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, NDArray[np.float64]]]]:
    """Figures of ``SCORES`` and the two curves of each method, on the whole picture."""
    box = np.array([0, 0, case.image.shape[1], case.image.shape[0]], np.float32)
    figures: dict[str, dict[str, float]] = {AREA: {"share": float(case.instrument.mean())}}
    lines = {}
    crop, found = _look(classifier, case, box, 0, methods)
    for method, whole in found.items():
        seen, _ = in_picture(whole, square_around(box, 0), case.instrument.shape)
        drawn = curves(classifier, crop, whole, case.output)
        lines[method] = {"deletion": drawn.deletion, "insertion": drawn.insertion}
        figures[method] = {"points": float(points_at(seen, case.instrument)),
                           "share": share_in(seen, case.instrument),
                           **{kind: area_under(curve) for kind, curve in lines[method].items()}}
    return figures, lines


def share_out(classifier: CropClassifier, case: Case, methods: Sequence[str],
              margin: float) -> dict[str, dict[str, float]]:
    """Share of each method's heat on ``PLACES``, for the whole picture and for the crop."""
    panel = np.zeros_like(case.instrument) if case.panel is None else case.panel
    regions = (case.instrument, panel, ~(case.instrument | panel))
    whole = np.array([0, 0, case.image.shape[1], case.image.shape[0]], np.float32)
    figures: dict[str, dict[str, float]] = {}
    for view, box, around in (("whole", whole, 0.0), ("crop", case.box, margin)):
        _, found = _look(classifier, case, box, around, methods)
        even = np.ones((classifier.image_size,) * 2, np.float32)
        for method, one in {**found, AREA: even}.items():
            seen, (x0, y0, x1, y1) = in_picture(one, square_around(box, around), panel.shape)
            figures.setdefault(method, {}).update({
                f"{view} {place}": share_in(seen, region[y0:y1, x0:x1])
                for place, region in zip(PLACES, regions, strict=True)})
    return figures


def _outputs(manifest: Manifest, categories: Sequence[Category]) -> dict[int, int]:
    """The data's category id -> the classifier's output, of instruments that both know."""
    alignment = align(categories, manifest.categories)
    outputs = {alignment.to_common[c.id]: k for k, c in enumerate(categories, start=1)}
    return {label: k for label, k in outputs.items() if label in alignment.shared}


def _drawn(manifest: Manifest, records: Sequence[ImageRecord], limit: int | None,
           seed: int) -> list[ImageRecord]:
    """Some records of the test split, in an order that the seed gives."""
    test = [record for record in records if record.split == "test"]
    if not test:
        raise UserError(f"{manifest.root}: its test split has no picture of an instrument that "
                        "the model knows and whose place is known; give another manifest")
    order = np.random.default_rng(seed).permutation(len(test))
    return [test[i] for i in order[:limit]]


def _look(classifier: CropClassifier, case: Case, box: NDArray[np.float32], margin: float,
          methods: Sequence[str]) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """What the classifier sees of a box, and the heat of every method and of the centre."""
    crop = crop_square(case.image, box, margin, classifier.image_size)
    batch, output = torch.from_numpy(crop).permute(2, 0, 1)[None], torch.tensor([case.output])
    found = {method: heat(method, classifier, batch, output)[0].numpy() for method in methods}
    return crop, {**found, CENTRE: centre_map(*crop.shape[:2]).astype(np.float32)}


def _over_cases(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Method -> figure -> mean and standard error, over the cases that have the figure."""
    found: dict[str, Any] = {}
    for method in rows[0]:
        for figure in rows[0][method]:
            values = [v for row in rows if not math.isnan(v := row[method][figure])]
            spread = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            found.setdefault(method, {})[figure] = [mean(values) if values else math.nan, spread]
    return found


def _lines(document: Mapping[str, Any], part: str, columns: Sequence[str]) -> Iterator[list[str]]:
    for name, methods in document[part].items():
        for method, figures in methods.items():
            yield [f"{name} ({document['cases'][name]})", NAMES[method],
                   *(with_spread(*figures[column]) if column in figures else ""
                     for column in columns)]


def _scores(document: Mapping[str, Any]) -> SummaryTable:
    return table(("pictures", "method", *SCORES.values()), _lines(document, "scores", [*SCORES]))


def _shares(document: Mapping[str, Any]) -> SummaryTable:
    columns = [f"{view} {place}" for view in ("whole", "crop") for place in PLACES]
    head = [column.replace("whole", "whole:").replace("crop", "crop:") for column in columns]
    return table(("pictures", "method", *head), _lines(document, "shares", columns))


def _write(out: Path, document: Mapping[str, Any]) -> None:
    text = [markdown(shown) for shown in (_scores(document), _shares(document))]
    write_atomic(out / "explain.json", json.dumps(_without_nan(document), indent=1))
    write_atomic(out / "explain.md", "\n\n".join(text) + "\n")
    write_atomic(out / "explain.png", _plot(document["curves"]))


def _without_nan(value: Any) -> Any:
    """The same with None for what could not be measured: JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_without_nan(below) for below in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _plot(curves_of: Mapping[str, Any]) -> bytes:
    """A row a set of pictures: deletion to the left, insertion to the right."""
    from matplotlib.figure import Figure

    from musicon.detect.plots import INK, PALETTE, QUIET, to_png

    figure = Figure(figsize=(10, 3.6 * len(curves_of)), layout="constrained")
    grid = figure.subplots(len(curves_of), 2, squeeze=False)
    for row, (name, methods) in zip(grid, curves_of.items(), strict=True):
        for axes, kind in zip(row, ("deletion", "insertion"), strict=True):
            for colour, (method, lines) in zip((*PALETTE[:len(methods) - 1], QUIET),
                                               methods.items(), strict=True):
                axes.plot(np.linspace(0, 1, len(lines[kind])), lines[kind], color=colour,
                          label=f"{NAMES[method]}  {area_under(np.array(lines[kind])):.3f}")
            axes.set_title(f"{name}: {kind} ({'lower' if kind == 'deletion' else 'higher'} is "
                           "better)", loc="left", fontsize=10, color=INK)
            axes.set(xlabel="share of the pixels, the hottest first", xlim=(0, 1), ylim=(0, None),
                     ylabel="probability of the instrument")
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
    return to_png(figure, 110)
