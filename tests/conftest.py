"""What every test shares: quiet libraries, one thread a worker, a database apart, real data."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before any test module imports torch, OpenCV or FiftyOne, which read these once.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "FIFTYONE_DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ[_name] = _value

import pytest
from hypothesis import settings

FIXTURE = Path(__file__).resolve().parent.parent.parent / "shared" / "fixture"

# Machines that run tests are busy: a slow example is no failure, and a run is repeatable.
settings.register_profile("musicon", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("musicon")

_database_folder: str | None = None


def pytest_configure(config: pytest.Config) -> None:
    """Keep test data sets out of the person's own FiftyOne database; workers inherit it."""
    global _database_folder
    # A run in the background starts with Ctrl-C ignored, and the tests of Ctrl-C would see that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput") or os.environ.get("FIFTYONE_DATABASE_DIR"):
        return
    _database_folder = tempfile.mkdtemp(prefix="musicon-tests-")
    os.environ["FIFTYONE_DATABASE_DIR"] = _database_folder


def pytest_unconfigure(config: pytest.Config) -> None:
    if _database_folder is not None:
        shutil.rmtree(_database_folder, ignore_errors=True)


@pytest.fixture(scope="session")
def real_fixture() -> Path:
    """The folder of real collections; tests that use it are marked ``real``."""
    if not FIXTURE.is_dir():
        pytest.skip("the real collections (../shared/fixture) are not here")
    return FIXTURE


@pytest.fixture
def permissions_count() -> Iterator[None]:
    """Root, who may read everything, loses that right for a test (Linux: the capabilities 1, 2)."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~0b110
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = before
    assert libc.capset(header, sets) == 0


@pytest.fixture(scope="session")
def need_engine() -> Callable[[str], None]:
    """Skips, with the reason, where a detection engine's library is not to be had."""
    from musicon.detect.detectors.detectron2_files import import_library

    def need(name: str) -> None:
        if name == "detectron2":
            try:
                import_library()
            except ImportError as error:
                pytest.skip(str(error).splitlines()[0])

    return need
