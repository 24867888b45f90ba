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

from musicon.datasets.records import UserError
from musicon.datasets.taxonomy_table import make_table, write_classes, write_table


def main() -> int:
    """Write both tables and print what is in them."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path, help="folder with the two JSON files")
    options = parser.parse_args()
    try:
        rows = make_table(options.vocabulary)
        write_table(rows)
        classes = write_classes(options.vocabulary)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    kinds = Counter(row.kind for row in rows)
    print(", ".join(f"{count} {kind}s" for kind, count in kinds.items()), f"{classes} classes",
          sep="; ")
    for name, count in sorted(Counter(row.supercategory for row in rows).items()):
        print(f"  {name:12} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
