"""The stand-ins of all paintings, made once: a run that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from musicon.datasets.files import write_atomic
from musicon.styletransfer.encoder import Encoder
from musicon.styletransfer.gram_vectors import GramVectors
from musicon.styletransfer.sketch import Floats, Points, Sketch, projection

SAMPLE = 384
"""Paintings whose vectors give the main directions; they are held in memory at once."""
CHUNK = 64
Bar = Callable[[Iterable[Any], "int | None", str], Iterator[Any]]


def encoder_key(encoder: Encoder) -> str:
    """Check sum of what decides an encoder's features."""
    digest = hashlib.sha256(f"{encoder.layers} {encoder.pooling}".encode())
    for name, value in encoder.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def embed(vectors: GramVectors, contents: list[str], folder: Path, seed: int, bar: Bar) -> Points:
    """Stand-ins of all pictures; what an earlier run with the same settings made is used again.

    Args:
        vectors: The pictures.
        contents: Check sum of each picture's file.
        folder: Where stand-ins are kept; those of other settings are removed at the end.
        seed: Of the sample and the random projection.
        bar: Draws a progress bar.
    """
    settings = [encoder_key(vectors.encoder), vectors.side, vectors.weights, seed, contents]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / key
    starts = range(0, len(vectors), CHUNK)
    found = {start: part for start in starts
             if (part := _load(place / f"part-{start:08}.npz", "main", "rest")) is not None}
    if len(found) < len(starts):
        sketch = _sketch(vectors, place / "directions.npz", seed, bar)
        missing = [start for start in starts if start not in found]
        for start in bar(missing, len(missing), "style features"):
            rows = np.arange(start, min(start + CHUNK, len(vectors)))
            main, rest = sketch.project(vectors(rows))
            _save(place / f"part-{start:08}.npz", main=main, rest=rest)
            found[start] = main, rest
    for other in folder.iterdir():
        if other != place and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
    return Points(np.concatenate([found[start][0] for start in starts]),
                  np.concatenate([found[start][1] for start in starts]))


def _sketch(vectors: GramVectors, file: Path, seed: int, bar: Bar) -> Sketch:
    """The map to stand-ins, kept: one made anew could turn the axes."""
    held = _load(file, "centre", "directions")
    if held is not None:
        return Sketch(held[0], held[1], projection(vectors.dimension, seed=seed))
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False))
    chunks = [rows[i:i + CHUNK] for i in range(0, len(rows), CHUNK)]
    sketch = Sketch.fit(np.concatenate([
        vectors(part) for part in bar(chunks, len(chunks), "main directions")]), seed)
    _save(file, centre=sketch.centre, directions=sketch.directions)
    return sketch


def _save(file: Path, **arrays: Floats) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_atomic(file, stream.getvalue())


def _load(file: Path, *names: str) -> tuple[Floats, ...] | None:
    try:
        with np.load(file) as held:
            return tuple(held[name] for name in names)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
