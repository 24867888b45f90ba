"""Started by a test in two processes: each makes a stage's task, the first one slowly."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from musicon.detect.config import Config
from musicon.detect.devices import make_fabric
from musicon.detect.stages import Stage


def main() -> None:
    """Write into a file when each process begins and ends."""
    fabric = make_fabric(Config(device="cpu"))

    def look(*_: Any) -> None:
        with Path(sys.argv[1]).open("a") as file:
            file.write(f"{fabric.global_rank} begins\n")
            file.flush()
            time.sleep(0.0 if fabric.global_rank else 1.0)
            file.write(f"{fabric.global_rank} ends\n")

    stage: Any = SimpleNamespace(fabric=fabric, context=None)
    Stage.task(stage, look, None)


if __name__ == "__main__":
    main()
