"""Keeps requests to one host apart."""

from __future__ import annotations

import threading
import time

from musicon.datasets.addresses import FetchError


class Pace:
    """Keeps requests to one host apart; answers at once when asked to stop."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next: dict[str, float] = {}
        self._guard = threading.Lock()
        self.stopped = threading.Event()

    def wait(self, host: str) -> None:
        """Take the next turn at this host, and wait for it."""
        with self._guard:
            now = time.monotonic()
            turn = max(now, self._next.get(host, now))
            self._next[host] = turn + self._gap
        self.sleep(turn - now)

    def hold(self, host: str, seconds: float) -> None:
        """Nobody asks this host before so many seconds have passed."""
        with self._guard:
            self._next[host] = max(self._next.get(host, 0.0), time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, unless asked to stop.

        Raises:
            FetchError: ``stopped`` was set.
        """
        if seconds > 0 and self.stopped.wait(seconds):
            raise FetchError("", "stopped", temporary=True)
