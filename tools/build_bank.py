"""Build a style bank: find styles, train networks, give photos the look of paintings.

    python tools/build_bank.py VERB --help

lists the options of one verb; each verb is a file of styletransfer/verbs.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from musicon.datasets import command
from musicon.styletransfer import verbs


def main(options: argparse.Namespace) -> int:
    """Do what the chosen verb does."""
    command.show_log(getattr(options, "quiet", False))
    return int(load(options.verb).run(options))


def load(verb: str) -> verbs.Verb:
    """The module of a verb: ``train-style`` is ``styletransfer/verbs/train_style.py``."""
    name = verb.replace("-", "_")
    found: verbs.Verb = importlib.import_module(f"musicon.styletransfer.verbs.{name}")
    return found


def parser() -> argparse.ArgumentParser:
    """The verbs that exist, with the arguments of each."""
    made = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    names = sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(verbs.__path__))
    for name in names:
        module = load(name)
        about = (module.__doc__ or "").strip()
        one = choices.add_parser(name, help=about.splitlines()[0], description=about,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(one)
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
