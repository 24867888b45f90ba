"""How much memory a process has needed."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak() -> int:
    """Most memory that this process has held so far, in bytes.

    On Linux it is ``VmHWM``: ``ru_maxrss`` starts at what the parent held when it made the process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return found if sys.platform == "darwin" else found * 1024  # others count kibibytes
