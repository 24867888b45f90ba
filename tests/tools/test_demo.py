"""``tools/demo.py`` as it is stopped: the step at work saves what it has before the demo ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# The demo with one step of its own, in the folder that it is started in.
DEMO = f"""
import argparse, sys
sys.path.insert(0, {str(TOOLS)!r})
import demo
from musicon.datasets import command
demo.STEPS = (demo.Step("Learn", "learn.py"),)
parser = argparse.ArgumentParser()
parser.set_defaults(again=False)
sys.exit(command.run(demo.main, parser))
"""

# Saves a second after Ctrl-C, as training does when its step is over.
LEARN = """
import signal, sys, time
def save(*_):
    time.sleep(1)
    open("saved", "w").close()
    print("stopped by Ctrl-C")
    sys.exit(130)
signal.signal(signal.SIGINT, save)
print("learning", flush=True)
time.sleep(60)
"""


def test_ctrl_c_lets_the_step_at_work_save_its_state(tmp_path: Path) -> None:
    (tmp_path / "learn.py").write_text(LEARN)
    process = subprocess.Popen([sys.executable, "-c", DEMO], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "learning\n":
            break
    # A terminal's Ctrl-C goes to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=50)[0]
    assert process.returncode == 130
    assert (tmp_path / "saved").exists()
    assert said.count("stopped by Ctrl-C") == 1
