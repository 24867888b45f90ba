"""Features and fingerprints of works that are kept from run to run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicon.datasets.duplicates import CROPS, SIDE, copy_groups, fingerprint
from musicon.datasets.images import decode_reduced
from musicon.datasets.records import write_atomic
from musicon.detect.rows import RowStore, fill
from musicon.detect.storage import digest, state_hash
from musicon.detect.tasks.models import compute, judge
from musicon.detect.tasks.networks import WorkClassifier, views
from musicon.detect.tasks.settings import TaskConfig
from musicon.detect.tasks.works import Work

DECODED = 640
"""Longer side in pixels at which pictures are decoded, where the network needs no more."""
BATCH = 256


def feature_store(network: WorkClassifier, config: TaskConfig, root: Path) -> RowStore:
    """Where the features of this body and these views are kept: (views, *feature_shape) a work."""
    cfg = config.network
    about = {"features": cfg.backbone or list(cfg.layers), "kind": cfg.features,
             "weights": state_hash(network.body.state_dict()), "image_size": cfg.image_size,
             "view": cfg.view, "views": config.views, "decoded": _decoded(config)}
    return RowStore(root, about, (config.views, *network.feature_shape))


def keep_features(store: RowStore, network: WorkClassifier, config: TaskConfig,
                  works: Sequence[Work], quiet: bool) -> int:
    """Compute the features that are not there yet; returns of how many works."""
    cfg, side = config.network, _decoded(config)
    network.eval()
    return fill(store, [work.sha256 for work in works], [work.path for work in works],
                lambda path: views(decode_reduced(path, side)[0], cfg, config.views),
                lambda pictures: compute(network, np.stack(pictures)), desc="features",
                quiet=quiet)


def rows_of(store: RowStore, works: Sequence[Work]) -> Iterator[NDArray[np.float32]]:
    """The rows of works, in their order, some at a time."""
    table = store.table()
    for start in range(0, len(works), BATCH):
        yield table[store.places([work.sha256 for work in works[start:start + BATCH]])]


def judged(network: WorkClassifier, store: RowStore,
           works: Sequence[Work]) -> tuple[Tensor, Tensor]:
    """Logits (N, L) and likeness (N,) of works whose features are kept."""
    parts = [judge(network, rows) for rows in rows_of(store, works)]
    return torch.cat([logits for logits, _ in parts]), torch.cat([like for _, like in parts])


def copies_among(works: Sequence[Work], root: Path, quiet: bool) -> list[int]:
    """For each work a number that its near-duplicates share; worked out once for a data set."""
    keys = [work.sha256 for work in works]
    store = RowStore(root, {"features": "near-duplicates", "version": 1}, (len(CROPS), SIDE * SIDE))
    file = store.folder / f"groups-{digest({'keys': keys})[:20]}.json"
    if not file.is_file():
        fill(store, keys, [work.path for work in works], lambda path: decode_reduced(path, 256)[0],
             lambda pictures: np.stack([fingerprint(picture) for picture in pictures]),
             desc="looking for copies", quiet=quiet)
        write_atomic(file, json.dumps(copy_groups(list(store.table()[store.places(keys)]))))
    return [int(group) for group in json.loads(file.read_text(encoding="ascii"))]


def _decoded(config: TaskConfig) -> int:
    return max(DECODED, 2 * config.network.image_size)
