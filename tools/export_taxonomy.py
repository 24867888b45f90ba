"""Write the instruments as SKOS, for cataloguing systems: names, kinds, classes, links.

    python tools/export_taxonomy.py instruments.ttl

Opens in any SKOS editor; docs/taxonomy.md says what is in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from musicon.datasets import command, skos
from musicon.datasets.files import write_atomic
from musicon.datasets.taxonomy import Taxonomy


def main(options: argparse.Namespace) -> int:
    """Write, say how much."""
    taxonomy = Taxonomy.load()
    write_atomic(options.out, "\n".join(skos.turtle(taxonomy, options.base)))
    linked = sum(i.wikidata is not None for i in taxonomy.instruments)
    print(f"wrote {options.out}: {len(taxonomy):,} instruments ({linked:,} with their Wikidata "
          f"item), {len(taxonomy.hs_tree):,} Hornbostel-Sachs classes")
    return command.DONE


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("out", type=Path, metavar="FILE", help="Turtle file to write")
    top.add_argument("--base", default=skos.BASE, metavar="ADDRESS",
                     help="what the concepts' addresses begin with, such as "
                          f"https://example.org/ (default {skos.BASE})")
    return top


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
