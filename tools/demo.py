"""The whole of musicon on generated pictures: draw, train three stages, score, search, review.

    make demo

Every step is a command that you could type yourself, and is printed before it runs. A step that
is done is skipped when you run this again; one that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicon.datasets import command
from musicon.datasets.records import write_atomic

DATA, RUNS, RESULTS = "data/demo", "runs/demo", "results/demo"
CONFIG = "configs/demo/atelier.yaml"
UNSEEN = f"{DATA}/unseen"


@dataclass(frozen=True)
class Step:
    """One command, and the files that it leaves; one that leaves none is done again every time."""

    title: str
    tool: str
    products: tuple[str, ...] = ()
    needed: bool = True

    @property
    def arguments(self) -> list[str]:
        """What follows the Python program."""
        return self.tool.split()


STEPS = (
    Step("Draw the sample pictures: museum photos, web paintings, artworks",
         f"tools/prepare_data.py atelier --domain all --size 600 --out {DATA}",
         (f"{DATA}/mimo/manifest.json", f"{DATA}/cytomine/manifest.json")),
    Step("Draw a few more works, which training never sees",
         f"tools/prepare_data.py atelier --domain cytomine --size 24 --seed 7 --as-split test "
         f"--out {UNSEEN}",
         (f"{UNSEEN}/manifest.json",)),
    Step("Train the three stages: photos, paintings, artworks",
         f"tools/train_net.py --stage all --config {CONFIG}",
         (f"{RUNS}/cytomine/model/weights.safetensors",)),
    Step("Score the model on artworks kept for testing",
         f"tools/evaluate.py --model {RUNS}/cytomine --data {DATA}/cytomine --split test "
         f"--out {RESULTS}/evaluation",
         (f"{RESULTS}/evaluation/report.html",)),
    Step("Search the unseen works",
         f"tools/infer.py --model {RUNS}/cytomine --images {UNSEEN} --out {RESULTS}/unseen "
         "--no-review",
         (f"{RESULTS}/unseen/detections.json",)),
    Step("Load them into FiftyOne",
         f"tools/review.py --data {UNSEEN} --predictions {RESULTS}/unseen/detections.json "
         "--name musicon-demo --load-only", needed=False),
)


def main(options: argparse.Namespace) -> int:
    """Run what is not done yet; stops at the first step that fails."""
    started, key, result = time.monotonic(), "", command.DONE
    for number, step in enumerate(STEPS, 1):
        # The key covers all earlier steps: redoing one redoes what was made from it.
        key = hashlib.sha256(f"{key} {step.tool} {_config_text(step)}".encode()).hexdigest()[:16]
        print(f"\n[{number}/{len(STEPS)}] {step.title}\n    python {step.tool}")
        done = Path(RUNS) / f"step{number}.json"
        if not options.again and _is_done(done, key, step.products):
            print("    done before, skipped")
            continue
        begun = time.monotonic()
        code = _run(step.arguments)
        if code == command.INTERRUPTED:  # the tool has said so
            return code
        if code not in (command.DONE, command.DONE_WITH_REJECTS):
            if not step.needed:
                result = command.DONE_WITH_REJECTS
                continue
            print(f"\nstopped: step {number} ended with exit code {code}; mend what it says above "
                  "and type make demo again", file=sys.stderr)
            return code
        seconds = round(time.monotonic() - begun)
        write_atomic(done, json.dumps({"key": key, "command": step.tool, "seconds": seconds}))
        print(f"    {seconds} s")
    print(closing(time.monotonic() - started))
    if result != command.DONE:
        print("\nThe review was not loaded, for the reason above; all else is there.",
              file=sys.stderr)
    return result


def _run(arguments: Sequence[str]) -> int:
    """Exit code of a Python program.

    Ctrl-C reaches the program too, and it is waited for: training saves its state before it ends.
    """
    process, stopped = subprocess.Popen([sys.executable, *arguments]), False
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            stopped = True
            continue
        if stopped and code != command.INTERRUPTED:
            raise KeyboardInterrupt
        return code


def _config_text(step: Step) -> str:
    return Path(CONFIG).read_text(encoding="utf-8") if CONFIG in step.tool else ""


def _is_done(file: Path, key: str, products: Sequence[str]) -> bool:
    """Whether this very step was done and what it made is still there."""
    if not products or not all(path.exists() for path in (file, *map(Path, products))):
        return False
    return bool(json.loads(file.read_text(encoding="utf-8")).get("key") == key)


def closing(seconds: float) -> str:
    """Where everything is."""
    return f"""
Done in {seconds / 60:.1f} minutes. Look at
    {RESULTS}/unseen/annotated/            the works with boxes and names drawn in
    {RESULTS}/unseen/detections.csv        the same as a table
    {RESULTS}/evaluation/report.html       how good the model is, with its best and worst
    {RUNS}/                               the three models, their curves and logs
Check and correct the boxes in FiftyOne:
    {Path(sys.executable).parent.parent.name}/bin/python tools/review.py --name musicon-demo
Search pictures of your own:
    {Path(sys.executable).parent.parent.name}/bin/python tools/infer.py --images FOLDER"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="redo the steps that are done")
    sys.exit(command.run(main, parser))
