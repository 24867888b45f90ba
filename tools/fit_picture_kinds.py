"""Fit what tells paintings from photos, products and drawings, to pictures of your own.

    python tools/fit_picture_kinds.py --painting art --photo snapshots --product shop \
        --drawing clipart

Folders, files or patterns; the fit replaces datasets/tables/picture_kinds.npz.
"""

from __future__ import annotations

import argparse
import sys

from musicon.datasets import command, picture_kinds
from musicon.datasets.images import ImageError, RgbArray, decode_reduced, find_images


def main(options: argparse.Namespace) -> int:
    """Decode, fit, say on how many."""
    examples = {kind: _pictures(getattr(options, kind), kind) for kind in picture_kinds.KINDS}
    picture_kinds.fit(examples)
    counts = ", ".join(f"{len(rows)} {kind}s" for kind, rows in examples.items())
    print(f"wrote {picture_kinds.HEAD_FILE}, fitted to {counts}")
    return command.DONE


def _pictures(places: list[str], kind: str) -> list[RgbArray]:
    files = [file for place in places for file in find_images(place)]
    found = []
    for file in command.progress(files, len(files), f"decoding {kind}s"):
        try:
            found.append(decode_reduced(file, 384)[0])
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in picture_kinds.KINDS:
        top.add_argument(f"--{kind}", nargs="+", required=True, metavar="PATH",
                         help=f"examples of the kind {kind}")
    return top


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
