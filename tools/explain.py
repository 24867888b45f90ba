"""Show what the model looked at: heat maps over pictures and boxes, and feature maps."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from musicon.datasets import command
from musicon.detect import explain, inference, summary
from musicon.detect.explanations import METHODS, NEEDS_CAPTUM, require_captum

FEATURE_MAPS = "feature-maps"


def main(options: argparse.Namespace) -> int:
    """Explain, write, say where; 1 when some files could not be read."""
    from musicon.detect.checkpoints import find_newest, load_model

    if NEEDS_CAPTUM & set(options.method):
        require_captum()
    out = options.out or Path("results") / f"{summary.results_name(options.images, None)}-explained"
    inference.check_out(out)
    listing = inference.list_images(options.images, out, options.limit)
    model = options.model or find_newest()
    boxes = options.box or []
    chosen = explain.ExplainOptions(
        methods=[m for m in METHODS if m in options.method],
        on=options.on or (() if boxes else ("picture", "detected")), boxes=boxes,
        instrument=options.instrument, threshold=options.threshold, quiet=options.quiet,
        layers=options.layers if FEATURE_MAPS in options.method else ())
    explainer = explain.Explainer(load_model(model), chosen, options.device)
    if not options.quiet:
        print(f"explaining {command.counted(len(listing.files), 'image')} with {model}")
    done = explain.explain_images(explainer, listing, out)
    if not options.quiet:
        print(f"{command.counted(done.images, 'image')} explained, "
              f"{command.counted(len(done.rejects), 'file')} left out; open {done.page}")
        if options.method != [FEATURE_MAPS]:
            print("in the review: python tools/review.py --predictions RESULTS --heatmaps "
                  f"{shlex.quote(str(out))}, where RESULTS is what infer.py wrote for them")
    return command.DONE_WITH_REJECTS if len(done.rejects) else command.DONE


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    add = made.add_argument
    add("--images", nargs="+", required=True, metavar="DIR|FILE|GLOB", help="what to explain")
    add("--model", type=Path, help="model or run folder (default: the newest trained in runs/)")
    add("--out", type=Path, help="results (default: results/NAME-explained)")
    add("--method", nargs="+", choices=(*METHODS, FEATURE_MAPS), default=["visualbackprop"],
        help="side by side (default: visualbackprop)")
    add("--class", dest="instrument", metavar="NAME",
        help="explain this instrument (default: the box's, or the likeliest)")
    add("--on", nargs="+", choices=("picture", "detected"),
        help="the whole picture, the boxes found in it (default: both; with --box neither)")
    add("--box", nargs=4, type=float, action="append", metavar=("X0", "Y0", "X1", "Y1"),
        help="explain this part of each picture, in pixels; may be given again")
    add("--layers", nargs="+", type=command.count, default=list(explain.LAYERS), metavar="N",
        help="convolutions of the feature maps, from 1 (default: 1 3 4)")
    add("--threshold", type=command.share, help="lowest score of a box (default: the model's own)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--limit", type=command.count, help="only the first N images")
    add("--quiet", action="store_true", help="no progress bar, no summary")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
