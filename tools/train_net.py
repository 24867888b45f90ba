"""Train the three stages that find instruments, or a task that labels whole works.

    python tools/train_net.py --stage all
    python tools/train_net.py --stage mimo --config configs/stages/gpu.yaml --set num_workers=8
    python tools/train_net.py --task movement --config configs/tasks/movement.yaml

A run that was stopped goes on when the same command is given again; a stage that is done is not
repeated. On several GPUs: torchrun --nproc-per-node 4 tools/train_net.py --stage all ...
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from musicon.datasets import command

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT = CONFIGS / "stages" / "default.yaml"


def main(options: argparse.Namespace) -> int:
    """Train what was asked for and print what came of it."""
    from musicon.detect.settings import quoted

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    quiet = options.quiet or not first
    command.show_log(quiet)
    output = [] if options.output is None else [quoted("output", options.output)]
    train = train_stages if options.task is None else train_task
    try:
        return train(options, [*options.overrides, *output], quiet, first)
    except KeyboardInterrupt:
        if options.fresh and first:
            print("leave out --fresh to go on; with it, everything starts again")
        raise


def train_task(options: argparse.Namespace, overrides: list[str], quiet: bool, first: bool) -> int:
    """Train one task."""
    from musicon.detect import tasks
    from musicon.detect.config import load_as
    from musicon.detect.tasks import running
    from musicon.detect.tasks.settings import TaskConfig

    kind = tasks.load(options.task)
    file = options.config or CONFIGS / "tasks" / f"{kind.name}.yaml"
    config = load_as(TaskConfig, file, overrides)
    result = running.train(kind, config, fresh=options.fresh, quiet=quiet)
    if first:
        running.summarise(kind, config, result)
    return command.DONE


def train_stages(options: argparse.Namespace, overrides: list[str], quiet: bool,
                 first: bool) -> int:
    """Train stages."""
    # After the arguments are known to be right: these imports take seconds.
    from musicon.detect import stage_checks, stages
    from musicon.detect.config import load

    config = load(options.config or DEFAULT, overrides)
    names = stage_checks.choose(config, options.stage)
    results = stages.train(config, names, fresh=options.fresh, quiet=quiet,
                           command=lambda stage: command_line(options, stage))
    if first:
        stages.summarise(config, results, lambda stage: command_line(options, stage))
    return command.DONE


def command_line(options: argparse.Namespace, stage: str) -> str:
    """This command for another stage, to be typed."""
    words = ["python", "tools/train_net.py", "--stage", stage]
    words += [] if options.config in (None, DEFAULT) else ["--config", str(options.config)]
    words += [word for override in options.overrides for word in ("--set", override)]
    words += [] if options.output is None else ["--output", str(options.output)]
    return shlex.join(words)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--stage", metavar="STAGE",
                      help="mimo, google, cytomine (or another stage of the settings), or all")
    what.add_argument("--task", metavar="TASK", help="movement, painter, medium")
    made.add_argument("--config", type=Path, metavar="FILE",
                      help="settings (default: configs/stages/default.yaml, or "
                           "configs/tasks/TASK.yaml)")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                      help="change a setting, such as stages.mimo.classifier.steps=100; again "
                           "for more")
    made.add_argument("--output", type=Path, metavar="FOLDER",
                      help="where models, checkpoints and logs go (default: the settings', runs)")
    made.add_argument("--fresh", action="store_true",
                      help="start again, forgetting what was done so far")
    made.add_argument("--quiet", action="store_true", help="only errors and the summary")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
