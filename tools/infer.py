"""Find and name the musical instruments in pictures: boxes, a table, drawn pictures, a review."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from musicon.datasets import command
from musicon.datasets.records import UserError
from musicon.detect import inference, summary, tiling


def main(options: argparse.Namespace) -> int:
    """Search, write, sum up, load the review; 1 when some files could not be read."""
    from musicon.detect.checkpoints import find_newest
    from musicon.detect.pipeline import ArtworkDetector
    from musicon.detect.tasks.models import load_all

    out = options.out or Path("results") / summary.results_name(options.images, options.name)
    inference.check_out(out)
    listing = inference.list_images(options.images, out, options.limit)
    attributes = load_all(options.attributes, options.device) if options.attributes else ()
    detector: ArtworkDetector | inference.NoDetector
    if options.boxes:
        model = options.model or find_newest()
        detector = ArtworkDetector.load(model, options.device, options.precision,
                                        tiling.TestTime(options.flip, tuple(options.zoom)))
    elif attributes:
        model, detector = ", ".join(str(one.folder) for one in attributes), inference.NoDetector()
    else:
        raise UserError("--no-boxes: say what to look for instead, with --attributes")
    if not options.quiet:
        print(f"searching {command.counted(len(listing.files), 'image')} with {model}")
        for note in summary.doubts(model) if options.boxes else ():
            print(note)
    settings = inference.InferenceOptions(
        threshold=options.threshold, batch_size=options.batch_size, workers=options.workers,
        annotated=options.annotated, quiet=options.quiet, attributes=attributes)
    done = inference.run_inference(detector, listing, out, settings)
    if not options.quiet:
        print("\n".join(summary.lines(done)))
        if options.boxes and options.threshold is None:
            print(summary.hint(detector.threshold))
    if options.review:
        print(summary.load_review(out, options.name, options.quiet))
    return command.DONE_WITH_REJECTS if done.counts.rejected else command.DONE


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    add = made.add_argument
    add("--images", nargs="+", required=True, metavar="DIR|FILE|GLOB", help="what to search")
    add("--model", type=Path, help="model or run folder (default: the newest trained in runs/)")
    add("--attributes", metavar="NAME[=DIR],...",
        help="label whole works too, such as movement,painter,medium; each by its newest model, or "
             "the one in DIR")
    add("--no-boxes", dest="boxes", action="store_false",
        help="with --attributes: look for no instruments")
    add("--out", type=Path, help="results (default: results/NAME, after the images' folder)")
    add("--threshold", type=command.share, help="lowest score, 0 to 1 (default: the model's own)")
    add("--batch-size", type=command.count, default=8, help="images at once (default: 8)")
    add("--workers", type=command.count, default=min(8, os.cpu_count() or 2),
        help="threads that decode and draw (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--precision", choices=("32", "bf16", "fp16"), default="32", help="default: 32")
    tiling.add_arguments(made)
    add("--no-annotated", dest="annotated", action="store_false", help="draw no pictures")
    add("--no-review", dest="review", action="store_false", help="load nothing into FiftyOne")
    add("--name", help="name of the FiftyOne data set (default: after the results' folder)")
    add("--limit", type=command.count, help="search only the first N images")
    add("--quiet", action="store_true", help="no progress bar, no summary")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
