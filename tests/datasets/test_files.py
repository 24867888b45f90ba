"""Check sums, and lock files: one process at a time, and drives that know no locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from pathlib import Path

import pytest

from musicon.datasets.files import UserError, locked, sha256


def test_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 3_000_000)
    assert sha256(file) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    file, busy = tmp_path / "new" / "lock", UserError("wait for the other run")
    with locked(file, busy), pytest.raises(UserError, match="wait for the other"), \
            locked(file, busy):
        pass
    with locked(file, busy):
        pass


@pytest.mark.parametrize(("code", "goes_on"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_a_drive_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int,
                               goes_on: bool) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    if goes_on:
        with locked(tmp_path / "lock"):
            return
    with pytest.raises(OSError, match="no locks"), locked(tmp_path / "lock"):
        pass
