"""Regenerate the shipped table of instruments.

    python tools/make_taxonomy.py ../shared/fixture/vocabulary

reads translations.json and hornbostelSachs.json (MIMO thesaurus, CC0) and writes
datasets/tables/instruments.tsv and hornbostel_sachs.tsv. Corrections, families and synonyms are
hand-made tables in the same folder.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from musicon.datasets import command
from musicon.datasets.taxonomy_table import make_table, write_classes, write_table


def main(options: argparse.Namespace) -> int:
    """Write both tables and print what is in them."""
    rows = make_table(options.vocabulary)
    write_table(rows)
    classes = write_classes(options.vocabulary)
    kinds = Counter(row.kind for row in rows)
    print(", ".join(f"{count} {kind}s" for kind, count in kinds.items()), f"{classes} classes",
          sep="; ")
    for name, count in sorted(Counter(row.supercategory for row in rows).items()):
        print(f"  {name:12} {count}")
    return command.DONE


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("vocabulary", type=Path, help="folder with the two JSON files")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
