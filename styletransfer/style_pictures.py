"""What style clusters look like: the k-distance curve, a map, a contact sheet of each cluster."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from musicon.datasets.contact_sheet import Cell, contact_sheet, grid
from musicon.datasets.images import decode_reduced
from musicon.datasets.loading import resize_longer
from musicon.styletransfer.clusters import NOISE, Clustering
from musicon.styletransfer.sketch import Floats, Indices, Points

INK, QUIET, GRID, ACCENT = "#22303c", "#8795a1", "#e4e7eb", "#17646b"
MAX_MAP = 2000
"""Paintings drawn on the map."""
MAX_SHOWN = 60
"""Paintings on a contact sheet."""
MAX_THUMBNAILS = 16


def plot_k_distances(curve: Floats, k: int, eps: float, chosen: str) -> bytes:
    """The k-distance curve with eps, as a PNG file."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    share = np.linspace(0, 100, len(curve))
    axes.plot(share, curve, color=ACCENT, linewidth=2)
    axes.axhline(eps, color="#c26a1b", linewidth=1.3)
    axes.annotate(f"eps {eps:g} ({chosen})", (1, eps), xytext=(4, 4), textcoords="offset points",
                  color="#c26a1b", fontsize=10)
    # The last few are outliers, many times further off; a logarithm keeps the rest legible.
    axes.set_yscale("log")
    axes.set(xlabel="paintings, in % (those with the nearest neighbours first)",
             ylabel=f"distance to neighbour {k - 1} (square root of the style loss)")
    axes.grid(True, color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"Distance to the {k - 1} nearest paintings", loc="left", color=INK, fontsize=12,
                   fontweight="bold")
    return _png(figure)


def plot_map(points: Points, clustering: Clustering, styles: Sequence[tuple[int, Path]],
             seed: int = 0) -> bytes:
    """Paintings on a plane, near ones near each other, coloured by cluster, as a PNG file.

    t-SNE of the main coordinates; of many paintings a random sample, with all styles.

    Args:
        points: The paintings.
        clustering: Their clusters.
        styles: Position and file of each style.
        seed: Of sample and layout.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(points))[:MAX_MAP]
    rows = np.unique(np.concatenate([rows, np.array([at for at, _ in styles[:MAX_MAP]], np.int64)]))
    place = _plane(points.main[rows], seed)
    labels = clustering.labels[rows]
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    noise = labels == NOISE
    axes.scatter(place[noise, 0], place[noise, 1], s=14, color="#c9d0d6",
                 label=f"noise ({int(noise.sum())})")
    for label in range(clustering.count):
        mine = labels == label
        if mine.any():
            axes.scatter(place[mine, 0], place[mine, 1], s=22, color=_colour(label),
                         label=f"cluster {label} ({int(mine.sum())})")
    where = {int(row): at for at, row in enumerate(rows)}
    for at, file in styles[:MAX_THUMBNAILS]:
        picture = OffsetImage(resize_longer(decode_reduced(file, 160)[0], 56), zoom=0.8)
        label = int(clustering.labels[at])
        edge = "#8795a1" if label == NOISE else _colour(label)
        axes.add_artist(AnnotationBbox(
            picture, tuple(place[where[at]]), pad=0.12, bboxprops={"edgecolor": edge,
                                                                   "linewidth": 2}))
    axes.set(xticks=[], yticks=[])
    axes.set_title("Paintings by style: near on the map is near in style", loc="left", color=INK,
                   fontsize=12, fontweight="bold")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[:20], names[:20], loc="upper left", bbox_to_anchor=(1.0, 1.0),
                frameon=False, fontsize=9)
    return _png(figure)


def cluster_sheet(files: Sequence[Path], points: Points, members: Indices, title: str,
                  centre: int | None = None) -> bytes:
    """A cluster's paintings, the nearest to its medoid first, as a PNG file."""
    order = members
    if centre is not None:
        distance = points.take(members).distances(points.take(np.array([centre])))[0]
        order = members[np.argsort(distance, kind="stable")]
        order = np.concatenate([np.array([centre]), order[order != centre]])
    shown = order[:MAX_SHOWN]
    cells = [Cell(decode_reduced(files[i], 300)[0], files[i].stem) for i in shown]
    if len(members) > len(shown):
        title += f" (the first {len(shown)} of {len(members):,})"
    return contact_sheet(grid(cells, min(10, max(3, math.ceil(len(cells) ** 0.5)))), title)


def _plane(main: Floats, seed: int) -> Floats:
    if len(main) < 5 or main.shape[1] < 2:
        flat = np.zeros((len(main), 2), np.float32)
        flat[:, :min(2, main.shape[1])] = main[:, :2]
        return flat
    from sklearn.manifold import TSNE

    # Outliers are many times further off than the rest: only the order of distances is drawn.
    reach = np.linalg.norm(main - np.median(main, 0), axis=1, keepdims=True)
    near = np.float32(np.median(reach)) or np.float32(1)
    drawn = main / np.maximum(1, reach / (3 * near))
    made = TSNE(2, perplexity=min(30, (len(main) - 1) / 3), init="pca", random_state=seed)
    return np.asarray(made.fit_transform(drawn), np.float32)


def _colour(label: int) -> tuple[float, float, float]:
    import colorsys

    # Steps by the golden ratio around the circle of hues: neighbours differ, none repeats.
    return colorsys.hls_to_rgb((0.55 + label * 0.618034) % 1, (0.38, 0.5, 0.3)[label % 3], 0.65)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=110, facecolor="white", bbox_inches="tight",
                   metadata={"Software": None})
    return stream.getvalue()
