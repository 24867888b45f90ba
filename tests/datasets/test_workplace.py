"""A data set is made whole or not at all, whatever cuts its making short."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from preparing import TOOL, Draw, tool, tree


def test_full_disk_leaves_nothing_behind(tmp_path: Path, draw: Draw,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        draw(f"src/harp/{number}.jpg")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        code = tool("folder", tmp_path / "src", "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2 and capsys.readouterr().err.startswith("error: ")
    assert os.listdir(tmp_path) == ["src"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]) -> None:
    draw("src/harp/1.jpg")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert tool("folder", tmp_path / "src", "--out", tmp_path / "locked" / "out") == 2
    assert "permission denied" in capsys.readouterr().err


def test_another_run_at_the_same_time(tmp_path: Path, draw: Draw,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    draw("src/harp/1.jpg")
    (tmp_path / ".out.part").mkdir()
    with (tmp_path / ".out.part" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert tool("folder", tmp_path / "src", "--out", tmp_path / "out") == 2
    assert "another run is making it" in capsys.readouterr().err
    assert tool("folder", tmp_path / "src", "--out", tmp_path / "out") == 0


def test_killed_run_goes_on(tmp_path: Path, draw: Draw) -> None:
    """kill -9 while pictures are checked: no data set yet; the next run makes the same bytes."""
    for number in range(100):
        draw(f"src/harp/{number}.png", 200, 150)
    arguments = ["folder", str(tmp_path / "src"), "--out"]
    tool(*arguments, tmp_path / "whole")
    running = subprocess.Popen([sys.executable, str(TOOL), *arguments, str(tmp_path / "out"),
                                "--workers", "1"], stdout=subprocess.DEVNULL)
    journal = tmp_path / ".out.part" / "journal.jsonl"
    try:
        while running.poll() is None and not (journal.exists() and journal.stat().st_size > 1000):
            time.sleep(0.002)
    finally:
        running.kill()
        running.wait()
    if (tmp_path / "out").exists():
        pytest.skip("it was done before it could be killed")
    seen = len(journal.read_text().splitlines())
    assert 0 < seen < 100
    with journal.open("a") as stream:
        stream.write('{"path": "torn')
    assert tool(*arguments, tmp_path / "out") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["out", "src", "whole"]


def test_no_links_between_disks(tmp_path: Path, draw: Draw) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or os.stat(shared).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second disk")
    draw("src/harp/1.jpg")
    elsewhere = shared / f"musicon-test-{os.getpid()}"
    try:
        assert tool("folder", tmp_path / "src", "--out", elsewhere) == 0
        copied = elsewhere / "images/harp/1.jpg"
        assert copied.read_bytes() == (tmp_path / "src/harp/1.jpg").read_bytes()
        assert copied.stat().st_nlink == 1
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
