"""How much memory a process has needed."""

from __future__ import annotations

import resource
import sys


def peak() -> int:
    """Most memory that this process has held so far, in bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024  # Linux counts kibibytes
