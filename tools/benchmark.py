"""Measure: python tools/benchmark.py VERB ...; each verb is a file of detect/benchmarks."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from musicon.datasets import command
from musicon.detect import benchmarks


def main(options: argparse.Namespace) -> int:
    """Run the chosen benchmark; 1 when it misses its bar."""
    run = importlib.import_module(f"musicon.detect.benchmarks.{options.verb}").run
    return int(run(options))


def parser() -> argparse.ArgumentParser:
    """The verbs that exist, with the arguments of each."""
    made = argparse.ArgumentParser(description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    for found in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda m: m.name):
        module = importlib.import_module(f"musicon.detect.benchmarks.{found.name}")
        about = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(verbs.add_parser(found.name, help=about, description=about))
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
