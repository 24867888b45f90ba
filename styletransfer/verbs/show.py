"""Draw a contact sheet of a bank: each content beside its styled versions.

    python tools/build_bank.py show data/bank --content data/mimo --styles data/styles

Boxes are drawn in; --content and --styles show what the pictures were made from, the style in a
corner.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from musicon.datasets import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    add = parser.add_argument
    add("bank", type=Path, help="the bank")
    add("--content", type=Path, metavar="MANIFEST", help="show the contents as they were, too")
    add("--styles", type=Path, metavar="FOLDER", help="show each style in a corner")
    add("--out", type=Path, metavar="FILE", help="PNG file (default: contact_sheet.png there)")
    add("--rows", type=command.count, default=8, help="contents at most (default: 8)")
    add("--columns", type=command.count, default=6, help="styles of each at most (default: 6)")


def run(options: argparse.Namespace) -> int:
    """Draw it."""
    from musicon.styletransfer.bank_show import show

    out = options.out or options.bank / "contact_sheet.png"
    show(options.bank, out, contents=options.content, styles=options.styles, rows=options.rows,
         columns=options.columns)
    print(f"wrote {out}")
    return command.DONE
