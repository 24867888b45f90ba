"""The source ``atelier``: a generated sample data set, no downloads, the same for the same seed.

    python tools/prepare_data.py atelier --domain all --size 600 --out data

Three domains with a real gap between them:

* ``mimo``: one instrument on museum paper, with colour panel and scale bar; class labels only.
* ``google``: paintings of one kind of instrument; class labels only.
* ``cytomine``: whole scenes in eleven styles by many masters, several instruments or none
  (three works of ten), other things that look alike, boxes as people draw them. Splits never
  divide a master.

Every image has the extra key ``true_boxes`` (list of ``category_id`` and ``bbox`` as COCO
xywh): the tight boxes of what is visible, for tests and benchmarks, in the domains without
published boxes too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from musicon.datasets.atelier import making, sheets
from musicon.datasets.atelier.kinds import KINDS
from musicon.datasets.atelier.works import DOMAINS
from musicon.datasets.records import Category, ImageRecord
from musicon.datasets.sources.base import Progress, SourceData, SourceError
from musicon.datasets.taxonomy import Taxonomy

SHARES = {"mimo": 0.35, "google": 0.3, "cytomine": 0.35}
"""Share of each domain in ``--domain all``."""
SMALLEST, LARGEST = 60, 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument(
        "--domain",
        choices=(*DOMAINS, "all"),
        default="all",
        help="which kind of pictures; all makes OUT/mimo, OUT/google and OUT/cytomine (default)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=600,
        help="images in all, 60 to 100,000 with --domain all, from 1 otherwise (default: 600)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other pictures (default: 0)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that draw (default: one a core)",
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE",
        help="only draw a sheet of small pictures of one domain to this JPEG file",
    )


def parts(options: argparse.Namespace) -> dict[str, argparse.Namespace]:
    """The options of each domain that ``--domain all`` stands for, by domain.

    Raises:
        SourceError: A size that can't be.
    """
    check(options)
    if options.domain != "all":
        return {options.domain: options}
    mimo, google = (round(options.size * SHARES[name]) for name in ("mimo", "google"))
    sizes = {"mimo": mimo, "google": google, "cytomine": options.size - mimo - google}
    return {
        name: argparse.Namespace(**{**vars(options), "domain": name, "size": size})
        for name, size in sizes.items()
    }


def check(options: argparse.Namespace) -> None:
    """Refuse what can't be drawn.

    Raises:
        SourceError: Size, seed or workers out of range; the message says the range.
    """
    least = SMALLEST if options.domain == "all" else 1
    if not least <= options.size <= LARGEST:
        raise SourceError(
            f"--size {options.size}: give {least} to {LARGEST} images for --domain {options.domain}"
        )
    if options.seed < 0:
        raise SourceError(f"--seed {options.seed}: give a number from 0")
    if options.workers < 1:
        raise SourceError(f"--workers {options.workers}: give at least 1")


def categories() -> tuple[Category, ...]:
    """The instruments that are drawn, under their taxonomy names."""
    taxonomy = Taxonomy.load()
    found = []
    for number, kind in enumerate(KINDS, start=1):
        instrument = taxonomy.find(kind.name).instrument
        found.append(
            Category(number, kind.name)
            if instrument is None
            else taxonomy.to_category(instrument, number)
        )
    return tuple(found)


def generate(options: argparse.Namespace, folder: Path, progress: Progress) -> SourceData:
    """Draw one domain below ``folder``; what an earlier run left there is kept, not redrawn.

    Args:
        options: ``domain`` (not ``all``: see ``parts``), ``size``, ``seed``, ``workers``.
        folder: Where the images go.
        progress: Draws the bar.

    Raises:
        SourceError: Options out of range.
    """
    check(options)
    if options.domain == "all":
        raise SourceError(
            "--domain all makes three data sets; give --domain mimo, google or cytomine for one"
        )
    order = making.Order(options.domain, options.seed, options.size, Path(folder).resolve())
    drawn = _one_by_one(order, options.workers)
    records = [
        (order.folder / record.file_name, record)
        for record in progress(drawn, total=order.size, desc=f"drawing {order.domain}")
    ]
    info = {
        "description": f"atelier, domain {order.domain}: generated sample pictures",
        "seed": order.seed,
        "drawing_code": making.fingerprint(),
        "license": "CC0-1.0",
    }
    return SourceData(categories(), records, info)


def _one_by_one(order: making.Order, workers: int) -> Iterator[ImageRecord]:
    for records in making.make(order, workers):
        yield from records


def contact_sheet(options: argparse.Namespace) -> Path:
    """Write the sheet of small pictures that ``--contact-sheet`` asks for."""
    if options.domain == "all":
        raise SourceError("--contact-sheet shows one domain: add --domain mimo, google or cytomine")
    return sheets.write(options.contact_sheet, options.domain, options.seed)
