"""Make a data set: read a source, check every picture, deal splits, write a manifest.

    python tools/prepare_data.py folder photos --out data/mimo --domain mimo
    python tools/prepare_data.py SOURCE --help
    python tools/prepare_data.py check data/mimo data/cytomine ...

The second line lists the options of one source; the third prints what leaks between data sets.
"""

from __future__ import annotations

import argparse
import sys

from musicon.datasets import command, leaks, prepare, summary
from musicon.datasets.sources import base

CHECK = "check"


def main(options: argparse.Namespace) -> int:
    """Prepare, print the tables; 1 when something was left out."""
    if options.source == CHECK:
        return leaks.run(options)
    if getattr(options, "contact_sheet", None) is not None:
        print(f"wrote {base.load(options.source).contact_sheet(options)}")
        return command.DONE
    rejected = 0
    for made in prepare.prepare_all(options.source, options):
        rejected += len(made.rejects)
        show(made)
    return command.DONE_WITH_REJECTS if rejected else command.DONE


def show(made: prepare.Prepared) -> None:
    """Print what was made, mended and left out."""
    if made.naming:
        print(f"{summary.naming_table(made.naming)}\n")
    print(f"{summary.splits_table(made.manifest)}\n")
    if made.manifest.categories:
        print(f"{summary.classes_table(made.manifest)}\n")
    for note in made.notes:
        print(f"note: {note}")
    if len(made.rejects):
        print(f"{summary.rejects_table(made.rejects)}\n"
              f"{len(made.rejects):,} left out; all in "
              f"{made.file.with_name(prepare.REJECTS_NAME)}")
    print(f"wrote {made.file}: {len(made.manifest):,} images")


def parser() -> argparse.ArgumentParser:
    """One sub-command a source."""
    top = argparse.ArgumentParser(description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = top.add_subparsers(dest="source", metavar="SOURCE", required=True,
                                 help="what to read: " + ", ".join(base.available()))
    for name in base.available():
        module = base.load(name)
        # A source's own --seed or --domain takes the place of the shared one.
        one = sources.add_parser(name, description=module.__doc__, conflict_handler="resolve",
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
        prepare.add_arguments(one)
        module.add_arguments(one)
    leaks.add_arguments(sources.add_parser(CHECK, description=leaks.__doc__))
    return top


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
