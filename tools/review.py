"""Open ground truth and predictions in FiftyOne; take what was corrected there back out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from musicon.datasets import command
from musicon.detect.review import fiftyone_app as app
from musicon.detect.review import session


def main(options: argparse.Namespace) -> int:
    """Export, or load and open; 1 when images were left out for a fault."""
    with session.database_watched():
        return review(options)


def review(options: argparse.Namespace) -> int:
    """``main``, whose database may fail."""
    if options.export:
        exported = session.export(options.export, options.name, options.copy, options.quiet)
        print("\n".join(session.export_lines(exported)))
        return command.DONE_WITH_REJECTS if exported.corrected.faulty else command.DONE
    loaded = session.load(options.data, options.predictions, options.name, options.split,
                          options.overwrite, options.quiet, options.heatmaps)
    if loaded is None:
        print("\n".join(session.list_lines()))
        return command.DONE
    if not options.quiet:
        print("\n".join(session.load_lines(loaded)))
    if not options.load_only:
        app.launch(loaded.dataset, options.port, options.browser)
    return command.DONE_WITH_REJECTS if loaded.rejects else command.DONE


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        description=__doc__, epilog="Without arguments: the newest detections.json below results.")
    add = made.add_argument
    add("--data", type=Path, metavar="MANIFEST", help="the labelled data set: file or folder")
    add("--split", choices=("train", "val", "test"), help="only this part of the data set")
    add("--predictions", type=Path, metavar="DIR|FILE", help="what infer.py wrote")
    add("--heatmaps", type=Path, metavar="DIR", help="what explain.py wrote")
    add("--name", help="name of the review (default: after the predictions' or data's folder)")
    add("--overwrite", action="store_true",
        help="begin anew: forget what was corrected in an earlier review of that name")
    add("--load-only", action="store_true", help="load into FiftyOne, don't open the App")
    add("--port", type=int, default=app.PORT, help="of the App (default: %(default)s)")
    add("--no-browser", "--remote", dest="browser", action="store_false",
        help="print the address, open no browser")
    add("--export", type=Path, metavar="FOLDER",
        help="write the corrections as a data set that train_net.py reads")
    add("--copy", action="store_true", help="with --export: copy pictures, make no hard links")
    add("--quiet", action="store_true", help="no progress bars, no summary")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
