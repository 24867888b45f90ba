"""Heat maps over their pictures, contact sheets of feature maps, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from musicon.datasets.files import write_atomic
from musicon.detect.explanations import TITLES
from musicon.detect.explanations.feature_maps import Layer
from musicon.detect.plots import INK, QUIET
from musicon.detect.report import TEMPLATES

if TYPE_CHECKING:
    from musicon.detect.explain import Part

TILE = 4.0
"""Inches, width of one picture in a row."""
GAMMA = 0.5
"""Exponent of the heat as it is drawn: products of many maps fall off steeply."""
MAPS_SHOWN = 16
"""Feature maps of a layer on a contact sheet, in rows of 8."""


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Heat over a picture: the picture is darkened to grey where it is cold.

    Args:
        image: uint8 RGB (H, W, 3).
        heat: (H, W) in 0..1.
    """
    shown = np.clip(heat, 0, 1)[..., None] ** GAMMA
    colours = colormaps["inferno"](shown[..., 0])[..., :3]
    grey = (image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255)[..., None]
    mixed = (1 - 0.75 * shown) * (0.15 + 0.6 * grey) + 0.75 * shown * colours
    return np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8)


def draw_explanations(image: NDArray[np.uint8], parts: Sequence[Part], methods: Sequence[str],
                      title: str) -> Figure:
    """One row a part: the picture, then the heat of each method over what the classifier saw."""
    rows, columns = max(1, len(parts)), 1 + len(methods)
    ratio = min(max(image.shape[0] / image.shape[1], 0.5), 1.5)
    figure = Figure(figsize=(TILE * columns + 0.2, (TILE * ratio + 0.6) * rows + 0.5),
                    layout="constrained")
    _head(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    if not parts:
        grid[0, 0].imshow(image)
        _label(grid[0, 0], "nothing found")
    for axes, part in zip(grid, parts, strict=False):
        axes[0].imshow(image)
        if part.kind != "picture":
            x0, y0, x1, y1 = part.box
            for colour, width in (("black", 4.0), ("#ffd54a", 2.0)):
                axes[0].add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False,
                                            edgecolor=colour, linewidth=width))
        _label(axes[0], caption(part))
        for place, method in zip(axes[1:], methods, strict=True):
            heat, (left, top, right, bottom) = part.over(method, image)
            place.imshow(overlay(image[top:bottom, left:right], heat))
            nothing = "" if heat.any() else ": nothing speaks for it"
            _label(place, TITLES[method] + nothing)
    return figure


def caption(part: Part) -> str:
    """What a part is and what the classifier says of it."""
    kind = {"picture": "whole picture", "detected": "found box", "given": "given box"}[part.kind]
    score = "" if part.score is None else f", score {part.score:.0%}"
    return (f"{kind}{score}\n{part.name} {part.probability:.0%} "
            f"(no instrument {part.negative:.0%})")


def draw_feature_maps(layers: Sequence[Layer], title: str) -> Figure:
    """A contact sheet: for each layer its most active maps, each in its own range."""
    across = 8
    down = [-(-min(len(layer.maps), MAPS_SHOWN) // across) for layer in layers]
    figure = Figure(figsize=(across * 1.5, sum(1.75 * d + 0.4 for d in down) + 0.5),
                    layout="constrained")
    _head(figure, title)
    blocks = figure.subfigures(len(layers), 1, height_ratios=down, squeeze=False)
    for block, layer, rows in zip(blocks[:, 0], layers, down, strict=True):
        count, height, width = layer.maps.shape
        shown = min(count, MAPS_SHOWN)
        block.suptitle(f"convolution {layer.number} ({layer.module.removeprefix('network.')}): "
                       f"{shown} most active of {count} maps, {width} × {height}",
                       color=INK, fontsize=10, x=0.01, ha="left")
        grid = block.subplots(rows, across, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, one, channel, activity in zip(grid.flat, layer.maps[:MAPS_SHOWN],
                                                layer.channels, layer.activity, strict=False):
            axes.imshow(one, cmap="magma", interpolation="nearest")
            axes.set_title(f"map {channel}: {activity:.2f}", fontsize=7, color=QUIET, pad=2)
    return figure


def write_page(path: Path, rows: Sequence[Mapping[str, Any]], methods: Sequence[str],
               rejects: Sequence[tuple[str, str]]) -> None:
    """The page of all pictures, which it shows from the folders beside it."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"address": lambda name: quote(name.encode("utf-8", "surrogateescape"))}
    page = environment.get_template("explanations.html").render(
        rows=rows, methods=methods, rejects=rejects)
    write_atomic(path, page.encode("utf-8", "replace"))


def _head(figure: Figure, title: str) -> None:
    """A file name may hold anything: dollar signs are no formula, foreign bytes no letters."""
    figure.suptitle(title.encode("utf-8", "replace").decode(), color=INK, fontsize=12, x=0.01,
                    ha="left", parse_math=False)


def _label(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=11, color=INK, loc="left", pad=4, parse_math=False)
