"""Measure: python tools/benchmark.py VERB ...

Each verb is a file of detect/benchmarks or of styletransfer/benchmarks.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from typing import Any

from musicon.datasets import command
from musicon.detect import benchmarks as of_detection
from musicon.styletransfer import benchmarks as of_styles


def main(options: argparse.Namespace) -> int:
    """Run the chosen benchmark; 1 when it misses its bar."""
    command.show_log(getattr(options, "quiet", False))
    return int(available()[options.verb].run(options))


def available() -> dict[str, Any]:
    """Verb -> its module: the files with ``add_arguments`` and ``run``, in order of their names."""
    found: dict[str, Any] = {}
    for package in (of_detection, of_styles):
        for file in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{file.name}")
            if hasattr(module, "add_arguments"):
                found[file.name] = module
    return dict(sorted(found.items()))


def parser() -> argparse.ArgumentParser:
    """The verbs that exist, with the arguments of each."""
    made = argparse.ArgumentParser(description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in available().items():
        about = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(verbs.add_parser(name, help=about, description=about))
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
