"""Spilling state: a lane's rows that were written last in memory, all older ones in a file that nobody else sees.

The file is no store: a changelog brings everything back. It has no name once it is open, so that a process that is killed
leaves nothing behind, and it is never synced.
"""

import logging
import os
import sqlite3
import tempfile
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pavane_events.buses.sieve import Sieve
from pavane_events.errors import StateUnreadable

log: Final = logging.getLogger("pavane.bus")

ROOM_BYTES: Final = 8 * 1024 * 1024
_LEAST_BYTES: Final = 128 * 1024
_ROW_BYTES: Final = 200
"""What a row takes beside its key and value."""

_CACHE_KIB: Final = 256
_PORTION: Final = 500
"""Rows of one transaction: what it would roll back to is a page of 4 KiB of memory for each."""

_SIFTED_FOR_EACH: Final = 2
"""Rows that are looked at, for each that goes to the file, while a sieve is made anew."""

_PUT: Final = "INSERT INTO row VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_DELETE: Final = "DELETE FROM row WHERE key = ?"
_GET: Final = "SELECT key, value FROM row WHERE key = ?"
_COUNT: Final = "SELECT count(*) FROM row"
_KEYS: Final = "SELECT key FROM row WHERE key >= ? ORDER BY key LIMIT ?"
_SCAN: Final = "SELECT key, value FROM row WHERE key >= ? ORDER BY key"
_SCAN_UNTIL: Final = "SELECT key, value FROM row WHERE key >= ? AND key < ? ORDER BY key"


class Room:
    """How many bytes of rows the lanes of a process keep in memory: they share ``size`` alike, and each has ``least``:
    128 KiB, where ``size`` is not less.

    ``directory``: where what does not fit goes; None: where temporary files go.
    """

    def __init__(self, size: int = ROOM_BYTES, directory: Path | None = None, least: int | None = None) -> None:
        self.directory = directory
        self.lanes = 0
        self._size = size
        self._least = min(_LEAST_BYTES, size) if least is None else least

    @property
    def share(self) -> int:
        """Of one lane."""
        return max(self._least, self._size // max(1, self.lanes))


class SpillingState:
    """See :class:`~pavane_events.bus.LaneState`. Where the file cannot be written, rows stay in memory, and the log says so.

    Reading raises :class:`StateUnreadable` where the file cannot be read.
    """

    def __init__(self, room: Room, what: str) -> None:
        """``what``: the lane, as the log calls it."""
        self._room = room
        room.lanes += 1
        self._what = what
        self._recent: dict[bytes, bytes | None] = {}
        """In the order of their last writing. None: gone, though the file may have it."""
        self._keys: list[bytes] = []
        self._size = 0
        self._file: sqlite3.Connection | None = None
        self._sieve = Sieve(0)
        """The keys that the file may have."""
        self._next: Sieve | None = None
        """The sieve to come, where that one is full of keys that are long gone: it has those of the file below ``_sifted``."""
        self._sifted = b""
        self._overdrawn = 1
        """How many times its share it may take: more than once where the file could not be written."""
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        recent = self._recent
        if key in recent:
            return recent[key]
        if self._file is None or not self._sieve.may_have(key):
            return None
        found = self._ask(self._file, _GET, (key,))
        return found[0][1] if found else None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order, as of this call."""
        keys, recent = self._keys, self._recent
        first = bisect_left(keys, prefix)
        last = first
        while last < len(keys) and keys[last].startswith(prefix):
            last += 1
        if self._file is None:
            return iter([(key, value) for key in keys[first:last] if (value := recent[key]) is not None])
        end = _after(prefix)
        query, bounds = (_SCAN, (prefix,)) if end is None else (_SCAN_UNTIL, (prefix, end))
        pairs = self._ask(self._file, query, bounds)
        if first == last:
            return iter(pairs)
        merged: dict[bytes, bytes | None] = dict(pairs)
        for key in keys[first:last]:
            merged[key] = recent[key]
        return iter([(key, value) for key in sorted(merged) if (value := merged[key]) is not None])

    def apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Set every key to its value; a key whose value is None goes."""
        for key, value in changes.items():
            self._put(key, value)
        if self._size > self._room.share * self._overdrawn:
            self._spill()

    def close(self) -> None:
        """Nobody will ask any more. Idempotent."""
        if not self._closed:
            self._closed = True
            self._room.lanes -= 1
            self._recent, self._keys, self._size = {}, [], 0
            self._sieve, self._next = Sieve(0), None
            if self._file is not None:
                self._file.close()
                self._file = None

    @property
    def in_memory(self) -> int:
        """Bytes of rows that are not in the file."""
        return self._size

    def _put(self, key: bytes, value: bytes | None) -> None:
        recent = self._recent
        is_known = key in recent
        if is_known:
            self._size -= _size_of(key, recent.pop(key))
        if value is None and (self._file is None or not self._sieve.may_have(key)):
            if is_known:
                del self._keys[bisect_left(self._keys, key)]
            return
        if not is_known:
            insort(self._keys, key)
        recent[key] = value
        self._size += _size_of(key, value)

    def _spill(self) -> None:
        """What was written longest ago goes to the file, until half of the share is left."""
        keep, left = self._room.share // 2, self._size
        going: list[tuple[bytes, bytes | None]] = []
        for key, value in self._recent.items():
            if left <= keep:
                break
            left -= _size_of(key, value)
            going.append((key, value))
        try:
            if self._file is None:
                self._file = _nameless(self._room.directory)
            going.sort()
            self._sift(self._file, going)
            for first in range(0, len(going), _PORTION):
                _write(self._file, going[first : first + _PORTION])
        except (sqlite3.Error, OSError) as error:
            self._overdrawn *= 2
            log.warning(
                "the state of %s stays in memory, %.1f MB of it: its file cannot be written: %s; "
                "PAVANE_KAFKA_STATE_DIR names a directory with more room",
                self._what,
                self._size / 1e6,
                error,
            )
            return
        self._overdrawn = 1
        for key, _ in going:
            del self._recent[key]
        self._keys = sorted(self._recent)
        self._size = left

    def _sift(self, file: sqlite3.Connection, going: Sequence[tuple[bytes, bytes | None]]) -> None:
        """What goes to the file is in the sieve before. A full one is made anew, some rows at a time, from what is there."""
        added = [key for key, value in going if value is not None]
        for key in added:
            self._sieve.add(key)
        if self._next is None and self._sieve.is_full:
            rows = file.execute(_COUNT).fetchone()[0]
            self._next, self._sifted = Sieve(2 * (rows + len(going))), b""
        if self._next is not None:
            for key in added:
                self._next.add(key)
            most = _SIFTED_FOR_EACH * len(going) + 1
            found = file.execute(_KEYS, (self._sifted, most)).fetchall()
            for (key,) in found:
                self._next.add(key)
            if len(found) == most:
                self._sifted = found[-1][0]
            else:
                self._sieve, self._next = self._next, None

    def _ask(self, file: sqlite3.Connection, query: str, values: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        try:
            return file.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StateUnreadable(f"the state of {self._what} cannot be read from its file: {error}") from error


def _write(file: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
    """All of them, or none."""
    with file:
        file.executemany(_PUT, [row for row in rows if row[1] is not None])
        file.executemany(_DELETE, [(key,) for key, value in rows if value is None])


def _size_of(key: bytes, value: bytes | None) -> int:
    return len(key) + _ROW_BYTES + (len(value) if value is not None else 0)


def _after(prefix: bytes) -> bytes | None:
    """The least key above all that begin so; None where there is no such bound."""
    shorter = prefix.rstrip(b"\xff")
    return shorter[:-1] + bytes((shorter[-1] + 1,)) if shorter else None


def _nameless(directory: Path | None) -> sqlite3.Connection:
    """An empty file that goes with its connection, however the process ends."""
    handle, name = tempfile.mkstemp(prefix="pavane-state-", dir=directory)
    os.close(handle)
    try:
        file = sqlite3.connect(name, check_same_thread=False)
        try:
            for line in (
                "journal_mode = MEMORY",
                "synchronous = OFF",
                f"cache_size = -{_CACHE_KIB}",
                "locking_mode = EXCLUSIVE",
            ):
                file.execute(f"PRAGMA {line}")
            file.execute("CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            file.commit()
        except BaseException:
            file.close()
            raise
    finally:
        os.unlink(name)
    return file
