"""Choose the styles of a bank: cluster paintings by style, take each cluster's medoid.

    python tools/build_bank.py styles --paintings data/paintings --out data/styles

Two paintings' distance is the square root of the style loss of Gatys et al.: DBSCAN's eps is in
it. Only paintings of the training split are taken, and none that is in a test split too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from musicon.datasets import command

if TYPE_CHECKING:
    from musicon.styletransfer.styles import StylesMade


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    add = parser.add_argument
    add("--paintings", type=Path, required=True, metavar="MANIFEST", help="where styles come from")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the styles to make")
    add("--apart-from", type=Path, nargs="+", default=[], metavar="MANIFEST",
        help="data sets whose test pictures (and copies, and painters) are left out")
    add("--encoder", default="auto", metavar="auto|torchvision|random|FILE",
        help="weights of the VGG19 (default: torchvision's, or a random start with a warning)")
    add("--depth", metavar="LAYER", help="deepest layer, such as relu4_1 (default: all there are)")
    add("--layer-weights", nargs="+", type=_weight, default=[], metavar="LAYER=NUMBER",
        help="weights in the style loss (default: all layers alike)")
    add("--side", type=command.count, default=256,
        help="pictures are compared as squares of so many pixels (default: %(default)s)")
    add("--eps", type=_positive, help="DBSCAN's eps (default: the knee of the k-distance curve)")
    add("--min-samples", type=command.count, default=5,
        help="neighbours, itself included, of a core painting (default: %(default)s)")
    add("--noise", choices=("keep", "drop", "nearest"), default="drop",
        help="paintings in no cluster: each a style, none, or counted to the nearest (default: "
             "drop)")
    add("--per-cluster", type=command.count, default=1, metavar="N",
        help="styles of each cluster: its medoid, then the members furthest off (default: 1)")
    add("--random", type=command.count, default=0, metavar="N",
        help="N paintings at random instead, to compare with")
    add("--compare", metavar="ATTRIBUTE",
        help="say how well clusters agree with an attribute, such as movement")
    add("--seed", type=int, default=0, help="default: 0")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--workers", type=command.count, default=2, help="threads that decode (default: 2)")
    add("--quiet", action="store_true", help="no progress bars, no summary")


def run(options: argparse.Namespace) -> int:
    """Make them; 1 when paintings were left out."""
    import torch

    from musicon.styletransfer import agreement, styles

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    made = styles.make_styles(styles.StyleOptions(
        paintings=options.paintings, out=options.out, encoder=options.encoder,
        depth=options.depth, weights=dict(options.layer_weights) or None, side=options.side,
        eps=options.eps, min_samples=options.min_samples, noise=options.noise,
        per_cluster=options.per_cluster, random=options.random,
        apart_from=tuple(options.apart_from), seed=options.seed, device=device,
        workers=options.workers, quiet=options.quiet))
    if not options.quiet:
        print("\n".join(summary(made)))
    if options.compare and made.found is not None:
        agreement.table(made.found, made.items, options.compare, options.seed).print()
    return command.DONE_WITH_REJECTS if made.rejects else command.DONE


def summary(made: StylesMade) -> list[str]:
    """What came of it."""
    aside = ", ".join(f"{count:,} in {name}" for name, count in sorted(made.left.items()) if count)
    lines = [f"paintings: {len(made.items):,} of the training split"
             + (f" (not used: {aside})" if aside else "")]
    if len(made.rejects):
        file, reason = made.rejects.rows[0]
        lines.append(f"left out:  {len(made.rejects):,}, the first {file}: {reason}")
    if made.found is not None:
        found, labels = made.found.clustering, made.found.clustering.labels
        sizes = sorted((int((labels == n).sum()) for n in range(found.count)), reverse=True)
        shown = ", ".join(str(size) for size in sizes[:12]) + (", ..." if len(sizes) > 12 else "")
        lines.append(f"clusters:  {found.count} of {shown or 'nothing'}; in none: "
                     f"{int((labels < 0).sum()):,} (eps {made.found.eps:g}; "
                     f"{found.checked:,} pairs near it computed exactly)")
        if made.found.table:
            table = command.SummaryTable("eps", "clusters", "largest", "in none")
            for row in made.found.table:
                table.add(*row)
            lines += [str(table)]
    if made.advice:
        lines.append(f"note:      {made.advice}")
    lines.append(f"wrote {made.manifest.root}: {command.counted(len(made.manifest), 'style')}"
                 + (f"; look at {', '.join(made.files)}" if made.files else ""))
    return lines


def _weight(text: str) -> tuple[str, float]:
    layer, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no weight; write relu2_1=0.5")
    return layer, value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
