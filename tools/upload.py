"""Send found boxes to a Cytomine project, with their scores, to be reviewed there.

    python tools/infer.py --images data/cytomine/images --out results/new
    python tools/upload.py --data data/cytomine --predictions results/new --host URL --project P

The keys come from CYTOMINE_PUBLIC_KEY and CYTOMINE_PRIVATE_KEY; the boxes become that account's
layer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from musicon.datasets import command, summary
from musicon.datasets.records import Manifest


def main(options: argparse.Namespace) -> int:
    """Upload and sum up; 1 when boxes were left out."""
    from musicon.detect.prediction import read_predictions
    from musicon.detect.review.cytomine_upload import upload

    data = Manifest.read(options.data)
    file = options.predictions
    notes = (file if file.is_dir() else file.parent) / "uploaded.jsonl"
    done = upload(data, read_predictions(file, data), options.host, options.project, notes,
                  threshold=options.threshold, create_terms=options.create_terms,
                  quiet=options.quiet)
    if not options.quiet:
        print(f"sent {command.counted(done.sent, 'box', 'boxes')} to the layer of {done.user}")
        if done.earlier:
            print(f"{done.earlier:,} were sent before ({notes})")
        if done.terms:
            print(f"terms added: {', '.join(done.terms)}")
    if len(done.rejects):
        print(summary.rejects_table(done.rejects))
    return command.DONE_WITH_REJECTS if len(done.rejects) else command.DONE


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--data", type=Path, required=True, metavar="MANIFEST",
        help="what prepare_data.py cytomine made")
    add("--predictions", type=Path, required=True, metavar="DIR|FILE", help="what infer.py wrote")
    add("--host", required=True, help="the server's address")
    add("--project", required=True, help="number or name of the project")
    add("--threshold", type=command.share, default=0.0, metavar="SCORE",
        help="least score of a box that is sent (default: all that the predictions have)")
    add("--create-terms", action="store_true", help="add instruments that the project lacks")
    add("--quiet", action="store_true", help="no progress bar, no summary")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
