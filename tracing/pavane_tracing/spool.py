"""A bounded spool on disk: spans that no collector takes now wait in files, also for the next process."""

import fcntl
import math
import os
import time
import zlib
from collections import deque
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from pavane_tracing.patience import Patience

_SUFFIX = ".otlp"
_UNFINISHED = ".part"
_STALE_S = 3600.0


class Spooled(NamedTuple):
    """One request that waits. ``spans``: how many are in it."""

    path: Path
    spans: int
    patience: Patience

    def body(self) -> bytes | None:
        """The request; None where it cannot be read."""
        try:
            return zlib.decompress(self.path.read_bytes())
        except (OSError, zlib.error):
            return None


class Spool:
    """Requests in a directory that processes on one machine may share; one of them at a time empties it.

    Each is written whole or not at all, packed. What was sent when its process was killed may be sent once more. ``max_bytes``
    holds for the directory, as far as processes that write at once can tell. Nothing here raises but what it says.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._numbers = count()
        self._over: set[Path] = set()
        """What is over, but cannot be removed."""
        self._put_off: dict[Path, Patience] = {}
        """What was not taken, for others to be tried before it."""

    def open(self) -> None:
        """Make the directory, where there is none, and clear away what a killed process had begun.

        Raises OSError where nothing can be written there, or a lock not be taken. A disk that is full is no reason: it is
        told when spans are lost.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.glob(f"*{_UNFINISHED}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()
        tried = self._directory / f"{self._name(0)}{_UNFINISHED}"
        tried.touch()
        tried.unlink()
        os.close(self._open_lock())

    def put(self, body: bytes, spans: int) -> str | None:
        """Keep a request. None where it is kept; else why it is not: there is no room for it, here or on the disk."""
        name = self._name(spans)
        unfinished = self._directory / f"{name}{_UNFINISHED}"
        try:
            packed = zlib.compress(body, 1)
            if self._size() + len(packed) > self._max_bytes:
                return f"the spool {self._directory} is full"
            unfinished.write_bytes(packed)
            unfinished.rename(self._directory / f"{name}{_SUFFIX}")
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            return f"the spool {self._directory} cannot be written: {error}"
        return None

    def emptying(self) -> "Emptying | None":
        """A turn to empty it, for one process at a time; None while another one is at it."""
        with suppress(OSError):
            lock = self._open_lock()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
            else:
                return Emptying(self._directory, lock, self._over, self._put_off)
        return None

    def _name(self, spans: int) -> str:
        return f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}-{spans}"

    def _open_lock(self) -> int:
        """What is locked there is so until the process ends."""
        return os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _size(self) -> int:
        with os.scandir(self._directory) as entries:
            return sum(_bytes(entry) for entry in entries)


class Emptying:
    """A turn to empty a spool: until :meth:`end`, or the process's. Of one thread. ``over``: what is not to be had again;
    ``put_off``: what this process has tried, in this turn or an earlier one."""

    def __init__(self, directory: Path, lock: int, over: set[Path], put_off: dict[Path, Patience]) -> None:
        self._directory = directory
        self._lock = lock
        self._over = over
        self._put_off = put_off
        self._listed: deque[Path] = deque()

    def next(self, now: float = math.inf) -> Spooled | None:
        """The oldest that was not had in this turn and may be sent now, also of what has come since it began; what was put off
        is as young as that. None where nothing waits."""
        if not self._listed:
            with suppress(OSError):
                self._list(now)
        if not self._listed:
            return None
        path = self._listed.popleft()
        return Spooled(path, _spans(path), self._put_off.get(path) or Patience())

    def put_off(self, spooled: Spooled) -> None:
        """It was not taken: the others are had before it, in the turns to come."""
        self._put_off[spooled.path] = spooled.patience

    def _list(self, now: float) -> None:
        found = {*self._directory.glob(f"*{_SUFFIX}")} - self._over
        for gone in self._put_off.keys() - found:
            del self._put_off[gone]
        waiting = [path for path in found if path not in self._put_off or self._put_off[path].due <= now]
        self._listed.extend(sorted(waiting, key=self._age))

    def _age(self, path: Path) -> str:
        return f"{self._put_off[path].since_ns:020d}" if path in self._put_off else path.name

    def remove(self, spooled: Spooled) -> None:
        """It was taken, or never will be: this process does not have it again, even where it cannot be removed."""
        self._put_off.pop(spooled.path, None)
        try:
            spooled.path.unlink(missing_ok=True)
        except OSError:
            self._over.add(spooled.path)

    def end(self) -> None:
        """Another process may have its turn, though a child that was forked meanwhile has the lock open, too."""
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)

    def forget(self) -> None:
        """In a child that was forked: it is its parent's turn."""
        os.close(self._lock)


def _bytes(entry: os.DirEntry[str]) -> int:
    with suppress(OSError):  # another process has sent it meanwhile
        return entry.stat().st_size
    return 0


def _spans(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isdecimal() else 0
