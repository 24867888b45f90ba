"""Where fetched files are kept between runs, and what their servers said about them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicon.datasets.files import UserError, lock


class Store:
    """Files, and what is known of each; safe against kill -9 at any moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._running = (folder / "lock").open("w")
        if not lock(self._running):
            raise UserError(f"{folder}: another run is using it just now; wait for it")
        self._guard = threading.Lock()
        self._base = sqlite3.connect(folder / "index.sqlite", check_same_thread=False,
                                     isolation_level=None)
        self._base.row_factory = sqlite3.Row
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS fetched (url TEXT PRIMARY KEY, file TEXT, etag TEXT, "
            "modified TEXT, media_type TEXT, checked REAL, fault TEXT, part TEXT)")
        self._base.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT)")

    def close(self) -> None:
        """Close the database and let other runs in."""
        self._base.close()
        self._running.close()

    def find(self, url: str) -> dict[str, Any]:
        """What is known of an address; empty where nothing is."""
        with self._guard:
            row = self._base.execute("SELECT * FROM fetched WHERE url = ?", (url,)).fetchone()
        return dict(row) if row else {}

    def keep(self, url: str, **values: Any) -> None:
        """Change some of what is known of an address."""
        names = ", ".join(values)
        changes = ", ".join(f"{name} = excluded.{name}" for name in values)
        with self._guard:
            self._base.execute(
                f"INSERT INTO fetched (url, {names}) VALUES (?{', ?' * len(values)}) "
                f"ON CONFLICT (url) DO UPDATE SET {changes}",
                (url, *values.values()))

    def note(self, name: str) -> Any:
        """A value that ``set_note`` kept, or None."""
        with self._guard:
            row = self._base.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return json.loads(row["value"]) if row else None

    def notes(self, prefix: str) -> dict[str, Any]:
        """All values whose name starts so, by what follows the prefix."""
        with self._guard:
            rows = self._base.execute(
                "SELECT name, value FROM notes WHERE substr(name, 1, ?) = ? ORDER BY name",
                (len(prefix), prefix)).fetchall()
        return {row["name"][len(prefix):]: json.loads(row["value"]) for row in rows}

    def set_notes(self, values: Mapping[str, Any]) -> None:
        """Keep JSON values between runs, all of them or none; None removes one."""
        with self._guard:
            self._base.execute("BEGIN")
            self._base.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", [
                (k, json.dumps(v)) for k, v in values.items() if v is not None])
            self._base.executemany("DELETE FROM notes WHERE name = ?", [
                (k,) for k, v in values.items() if v is None])
            self._base.execute("COMMIT")

    def place(self, url: str, suffix: str) -> Path:
        """Where the file of an address lies; no two addresses meet."""
        digest = hashlib.sha256(url.encode()).hexdigest()[:32]
        return self.folder / "files" / digest[:2] / f"{digest}{suffix}"
