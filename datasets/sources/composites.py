"""Composed scenes: instruments cut out of photos or transparent PNG files, pasted into paintings.

    python tools/prepare_data.py composites data/mimo --grounds data/paintings --out data/scenes

Only training splits are used, so that nothing of a test is learnt from. Boxes are tight around what
can be seen; faces are left free.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from musicon.datasets import command
from musicon.datasets.composites import BLENDS
from musicon.datasets.records import Manifest
from musicon.datasets.scenes import Composer, write_scene
from musicon.datasets.sources.base import Progress, SourceData


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    parser.add_argument("path", type=Path, help="data set of photos, one instrument each")
    parser.add_argument("--grounds", type=Path, required=True, metavar="DATASET",
                        help="data set whose instrument-free pictures are pasted into")
    parser.add_argument("--count", type=command.count, default=500, help="scenes (default: 500)")
    parser.add_argument("--side", type=command.count, default=512, metavar="PIXELS",
                        help="longer side of a scene (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other scenes")
    parser.add_argument("--blends", nargs="+", choices=BLENDS, default=list(BLENDS),
                        help="how cut-outs meet their ground (default: each in turn by chance)")
    parser.add_argument("--over-faces", action="store_true", help="faces may be covered, too")


def generate(options: argparse.Namespace, folder: Path, progress: Progress) -> SourceData:
    """Compose below ``folder``; what an earlier run left there is kept, not composed again.

    Raises:
        SceneError: Nothing to cut out, or to paste into.
        ManifestError: Not a data set.
    """
    photos, grounds = Manifest.read(options.path), Manifest.read(options.grounds)
    composer = Composer(photos, grounds, options.side, blends=options.blends,
                        keep_faces=not options.over_faces)
    domain = composer.grounds[0].domain
    records = []
    for number in progress(range(options.count), options.count, "composing scenes"):
        record = write_scene(composer.scene(options.seed, number), folder, options.seed, number,
                             domain)
        records.append((folder / record.file_name, record))
    return SourceData(photos.categories, records, {
        "layout": "composites", "seed": options.seed, "photos": photos.root.resolve().name,
        "grounds": grounds.root.resolve().name})
