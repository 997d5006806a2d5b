"""A bounded spool on disk: spans that no collector takes now wait in files, also for the next process."""

import fcntl
import os
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

_SUFFIX = ".otlp"
_UNFINISHED = ".part"
_STALE_S = 3600.0


class Spooled(NamedTuple):
    """One request that waits. ``spans``: how many are in it."""

    path: Path
    spans: int

    def body(self) -> bytes | None:
        """The request; None where it cannot be read."""
        try:
            return zlib.decompress(self.path.read_bytes())
        except (OSError, zlib.error):
            return None

    def remove(self) -> None:
        """It was taken, or never will be."""
        self.path.unlink(missing_ok=True)


class Spool:
    """Requests in a directory that processes on one machine may share; one of them at a time empties it.

    Each is written whole or not at all, packed. What was sent when its process was killed may be sent once more. ``max_bytes``
    holds for the directory, as far as processes that write at once can tell. Nothing here raises but what it says.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._numbers = count()

    def open(self) -> None:
        """Make the directory, where there is none, and clear away what a killed process had begun. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.glob(f"*{_UNFINISHED}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()

    def put(self, body: bytes, spans: int) -> bool:
        """Keep a request; False where there is no room for it, here or on the disk."""
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}-{spans}"
        unfinished = self._directory / f"{name}{_UNFINISHED}"
        try:
            packed = zlib.compress(body, 1)
            if self._size() + len(packed) > self._max_bytes:
                return False
            unfinished.write_bytes(packed)
            unfinished.rename(self._directory / f"{name}{_SUFFIX}")
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            return False
        return True

    @contextmanager
    def emptying(self) -> Generator[list[Spooled]]:
        """What waits, oldest first: for one process at a time; nothing while another one is at it."""
        lock = self._locked()
        try:
            yield self._waiting() if lock is not None else []
        finally:
            if lock is not None:
                os.close(lock)

    def _locked(self) -> int | None:
        """A lock that ends with the process."""
        with suppress(OSError):
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
            else:
                return lock
        return None

    def _waiting(self) -> list[Spooled]:
        with suppress(OSError):
            return [Spooled(path, _spans(path)) for path in sorted(self._directory.glob(f"*{_SUFFIX}"))]
        return []

    def _size(self) -> int:
        with os.scandir(self._directory) as entries:
            return sum(_bytes(entry) for entry in entries)


def _bytes(entry: os.DirEntry[str]) -> int:
    with suppress(OSError):  # another process has sent it meanwhile
        return entry.stat().st_size
    return 0


def _spans(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isdecimal() else 0
