"""Score a model, or ready predictions: figures, plots, one web page.

Of a model that finds instruments the pictures must be boxed; of one that labels whole works
(``--model runs/tasks/NAME``) the works' labels must be known.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicon.datasets import command
from musicon.datasets.records import UserError
from musicon.detect import tiling


def main(options: argparse.Namespace) -> int:
    """Evaluate, write, sum up; 1 when images could not be read or a bar was missed."""
    from musicon.detect import evaluation_run as run
    from musicon.detect.checkpoints import is_task

    if options.model is not None and is_task(options.model):
        return label(options)
    if options.data is None:
        raise UserError("no data given; add --data with a manifest of boxed pictures")
    bars = [run.Bar.parse(text) for text in options.require]
    model = options.model
    if model is None and options.predictions is None:
        from musicon.detect.checkpoints import find_newest

        model = find_newest()
    result = run.run_evaluation(run.EvaluationOptions(
        data=options.data, out=options.out, split=options.split, model=model,
        predictions=options.predictions, threshold=options.threshold, device=options.device,
        batch_size=options.batch_size, workers=options.workers, pictures=options.pictures,
        protocol=options.protocol, quiet=options.quiet,
        test_time=tiling.TestTime(options.flip, tuple(options.zoom))))
    if not options.quiet:
        print(run.summary(result))
    return told(bars, run.bar_values(result), result.rejected > 0)


def label(options: argparse.Namespace) -> int:
    """``main`` for a model that labels whole works."""
    from musicon.detect.evaluation_run import Bar
    from musicon.detect.tasks import evaluation as run
    from musicon.detect.tasks.models import TaskModel

    bars = [Bar.parse(text, run.FIGURES) for text in options.require]
    result = run.run_evaluation(
        TaskModel.load(options.model, options.device), options.data, options.split, options.out,
        pictures=options.pictures, quiet=options.quiet)
    if not options.quiet:
        print(run.summary(result))
    return told(bars, result.metrics[options.split].figures(), False)


def told(bars: list[Any], values: Mapping[str, float | None], rejected: bool) -> int:
    """Say which bars were missed; the exit code."""
    missed = [reason for bar in bars if (reason := bar.missed_by(values))]
    for reason in missed:
        print(f"bar missed: {reason}", file=sys.stderr)
    return command.DONE_WITH_REJECTS if missed or rejected else command.DONE


def threshold(text: str) -> float | str:
    """A number from 0 to 1, or "fitted"."""
    return text if text == "fitted" else command.share(text)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    add = made.add_argument
    add("--data", type=Path, metavar="MANIFEST",
        help="boxed pictures; of whole works' labels, other works than those of the training")
    source = made.add_mutually_exclusive_group()
    source.add_argument("--model", type=Path,
                        help="model or run folder (default: the newest trained in runs/)")
    source.add_argument("--predictions", type=Path, metavar="FILE",
                        help="detections.json of infer.py, or a COCO results list")
    add("--split", choices=("train", "val", "test", "all"), default="test", help="default: test")
    add("--out", type=Path, default=Path("results/evaluation"), help="default: %(default)s")
    add("--threshold", type=threshold, metavar="SCORE",
        help='lowest score shown (default: the model\'s own); "fitted" with --split val only')
    add("--protocol", choices=("coco", "minerva"), default="coco",
        help="minerva: that article's table too (AP at IoU .10 and .50, as VOC 2012 has it)")
    add("--require", action="append", default=[], metavar="NAME=NUMBER",
        help="exit with 1 if a figure is worse, such as agnostic_ap50=0.3; may be repeated")
    add("--pictures", type=command.count, default=9, help="pictures of each kind (default: 9)")
    add("--batch-size", type=command.count, default=8, help="images at once (default: 8)")
    add("--workers", type=command.count, default=min(8, os.cpu_count() or 2),
        help="threads that decode (default: %(default)s)")
    tiling.add_arguments(made)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--quiet", action="store_true", help="no progress bar, no table")
    return made


if __name__ == "__main__":
    sys.exit(command.run(main, parser()))
