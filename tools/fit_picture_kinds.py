"""Fit what tells paintings from photos, products and drawings, to pictures of your own.

    python tools/fit_picture_kinds.py --painting art --photo snapshots --product shop \
        --drawing clipart --check other-art other-snapshots
    python tools/fit_picture_kinds.py --check other-art other-snapshots

Folders, files or patterns. A fit replaces datasets/tables/picture_kinds.npz; --check says how many
pictures of each place are called something else than paintings. docs/data.md has the command that
made the file.
"""

from __future__ import annotations

import argparse
import sys

from musicon.datasets import command, picture_kinds
from musicon.datasets.files import UserError
from musicon.datasets.images import ImageError, RgbArray, decode_reduced, find_images


def main(options: argparse.Namespace) -> int:
    """Decode, fit, check, say on how many."""
    given = [kind for kind in picture_kinds.KINDS if getattr(options, kind)]
    if given and len(given) < len(picture_kinds.KINDS) or not given and not options.check:
        raise UserError("give examples of every kind (" + ", ".join(
            f"--{kind}" for kind in picture_kinds.KINDS) + "), or --check alone")
    if given:
        examples = {kind: _pictures(getattr(options, kind), f"{kind}s") for kind in given}
        picture_kinds.fit(examples)
        counts = ", ".join(f"{len(rows)} {kind}s" for kind, rows in examples.items())
        print(f"wrote {picture_kinds.HEAD_FILE}, fitted to {counts}")
    table = command.SummaryTable("place", "pictures", "called doubtful")
    for place in options.check:
        found = picture_kinds.judge(_pictures([place], place))
        doubtful = sum(kind.name != picture_kinds.PAINTING for kind in found)
        table.add(place, len(found), round(doubtful / max(1, len(found)), 3))
    if len(table):
        print(table)
    return command.DONE


def _pictures(places: list[str], what: str) -> list[RgbArray]:
    files = [file for place in places for file in find_images(place)]
    found = []
    for file in command.progress(files, len(files), f"decoding {what}"):
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
        top.add_argument(f"--{kind}", nargs="+", default=[], metavar="PATH",
                         help=f"examples of the kind {kind}")
    top.add_argument("--check", nargs="+", default=[], metavar="PATH",
                     help="pictures to judge, not fitted to; one line a place")
    return top


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
