"""Files written whole, errors a user can mend, and the list of what was left out."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO


class UserError(ValueError):
    """Something the user can mend; the message says how. Tools print it and exit with 2."""


def to_json(value: Any) -> str:
    """JSON text in UTF-8 letters; file names that are not UTF-8 are kept as escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True)
    return text


def tables_to_json(document: Mapping[str, Any]) -> str:
    """A JSON object whose lists are written one row a line: fast, and easy to compare."""
    parts = []
    for key, value in document.items():
        text = to_json(value) if not isinstance(value, list) else "[]"
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(to_json(row) for row in value) + "\n]"
        parts.append(f"{to_json(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many objects that all stay; looking for garbage among them takes as long again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def sha256(path: str | Path) -> str:
    """Check sum of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        OSError: No space, no permission, ...; ``filename`` is always set.
    """
    with writing(path) as stream:
        stream.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def writing(path: str | Path) -> Iterator[BinaryIO]:
    """A stream whose file is there, whole, when the block has ended without an error.

    Temporary name in the same folder, fsync, rename.

    Raises:
        OSError: As ``write_atomic``.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    name = None
    try:
        handle, name = tempfile.mkstemp(
            dir=file.parent, prefix=f".{file.name[:50]}.", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(file)  # else it names no file, or the temporary one
        raise


def lock(stream: IO[str], wait: bool = False) -> bool:
    """Take an open file for this process alone, until it is closed; False where another has it.

    The system gives it back even after a kill. Where there are no such locks (outside POSIX, on
    some network drives), two runs at once are the user's care.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


@contextmanager
def locked(file: Path, busy: UserError | None = None) -> Iterator[None]:
    """Hold a lock file; where another process does, raise ``busy``, or wait if there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        if not lock(stream, wait=busy is None) and busy is not None:
            raise busy
        yield


class Rejects:
    """Every image, box or row left out, with its reason: counted, listed, never silent."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, file: str | Path, reason: str) -> None:
        """Note one item that is left out."""
        self.rows.append((str(file), reason))

    def write(self, path: str | Path) -> None:
        """Write one JSON object a line: ``{"file": ..., "reason": ...}``."""
        lines = (to_json({"file": f, "reason": r}) for f, r in self.rows)
        write_atomic(path, "".join(f"{line}\n" for line in lines))
