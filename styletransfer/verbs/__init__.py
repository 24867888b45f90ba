"""One file for each verb of ``tools/build_bank.py``.

Its docstring is the verb's help. Heavy imports (torch) belong inside ``run``: the tool reads every
verb's arguments, also to answer ``--help``.
"""

from __future__ import annotations

import argparse
from typing import Protocol


class Verb(Protocol):
    """What the module of a verb offers."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The verb's options."""
        ...

    def run(self, options: argparse.Namespace) -> int:
        """Do it, print a summary; 0 done, 1 done with rejects or a bar missed."""
        ...
