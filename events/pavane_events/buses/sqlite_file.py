"""The file beneath the SQLite bus: opened or created whole, used in short steps that never block the loop."""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pavane_events.buses.sqlite_schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from pavane_events.errors import BusError, BusUnavailable, BusVersionMismatch, ConfigurationError, Problem

T = TypeVar("T")
Synchronous = Literal["NORMAL", "FULL"]
Row = tuple[Any, ...]

DEFAULT_PARTITIONS = 4
_BLOCKING_RETRIES = 200
_CHECKPOINT_PAGES = 4000  # a checkpoint stalls the loop for milliseconds: four times as seldom as SQLite would
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


class Locked(Exception):
    """Another process holds the write lock. Internal: it is waited for, then becomes BusUnavailable."""


class BusFile:
    """One connection, used by the loop's thread only.

    No statement waits for a lock (busy timeout 0): a transaction begins at once or not at all, and who wants to wait
    does so in asyncio. Between begin and commit there is no await, so transactions of one process never mix. There is
    no thread either: CPython gives up the interpreter lock at every row, and two threads would wait for each other.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, partitions: int, busy_timeout_s: float) -> None:
        self.path = path
        self.connection = connection
        self.partitions = partitions
        self.busy_timeout_s = busy_timeout_s
        self.closed = False

    @classmethod
    async def open(cls, path: Path, *, partitions: int | None, synchronous: Synchronous, busy_timeout_s: float) -> "BusFile":
        """Open the file, or create it with its schema in one transaction; see :meth:`SqliteBus.open` for errors."""
        if not path.parent.is_dir():
            raise BusUnavailable(
                f"bus file {path}: the directory {path.parent} does not exist; create it or name another file"
            )
        patience = Patience(busy_timeout_s)
        while True:
            try:
                connection = _connect(path, synchronous)
                try:
                    found = _prepare(path, connection, partitions)
                    return cls(path, connection, found, busy_timeout_s)
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error as error:
                if not is_locked(error) or not patience.left():
                    raise explain(path, error) from error
            await asyncio.sleep(patience.pause_s())

    def select(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Rows of a short query. In WAL mode a reader waits for nobody, but for moments of recovery or clean-up."""
        for _ in range(_BLOCKING_RETRIES):
            try:
                return self.connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                if not is_locked(error):
                    raise self.explain(error) from error
            time.sleep(0.001)
        raise self.locked()

    def begin(self) -> None:
        """Take the write lock. Raises Locked at once if another process has it."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if is_locked(error):
                raise Locked from None
            raise self.explain(error) from error

    def end(self) -> None:
        """Commit."""
        self.connection.execute("COMMIT")

    def abandon(self) -> None:
        """Roll back, whatever state the transaction is in."""
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def write_now(self, work: Callable[[], T]) -> T:
        """Run work in a transaction of its own. Raises Locked without having done anything."""
        self.begin()
        try:
            result = work()
            self.end()
        except sqlite3.Error as error:
            self.abandon()
            if is_locked(error):
                raise Locked from None
            raise self.explain(error) from error
        except BaseException:
            self.abandon()
            raise
        return result

    async def write(self, work: Callable[[], T]) -> T:
        """Run work in a transaction, waiting for the lock within bounds. Work may run again if it was rolled back."""
        patience = Patience(self.busy_timeout_s)
        while True:
            self.check_open()
            try:
                return self.write_now(work)
            except Locked:
                if not patience.left():
                    raise self.locked() from None
            await asyncio.sleep(patience.pause_s())

    def check_open(self) -> None:
        """Raise BusUnavailable if this process has closed the bus."""
        if self.closed:
            raise BusUnavailable(f"bus file {self.path} was closed by this process; open it again")

    def close(self) -> None:
        """Close the connection; the last process to do so leaves one file without a log beside it."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.connection.close()

    def explain(self, error: sqlite3.Error) -> BusError:
        """The error of the bus for an error of SQLite."""
        return explain(self.path, error)

    def explain_any(self, error: Exception) -> Exception:
        """The same, for an error that may be something else altogether."""
        return self.explain(error) if isinstance(error, sqlite3.Error) else error

    def locked(self) -> BusUnavailable:
        """The error for a lock that nobody let go in time."""
        return BusUnavailable(
            f"bus file {self.path} has been locked by another program for {self.busy_timeout_s:g} s; "
            "end that program's transaction (a shell, a backup) and try again"
        )


class Patience:
    """How long to wait for a lock, in short pauses with jitter so that waiting processes do not march in step."""

    def __init__(self, limit_s: float) -> None:
        self._end = time.monotonic() + limit_s
        self._pause_s = 0.0005

    def left(self) -> bool:
        """Whether there is still time."""
        return time.monotonic() < self._end

    def pause_s(self) -> float:
        """The next pause."""
        self._pause_s = min(self._pause_s * 1.5, 0.02)
        return self._pause_s * random.uniform(0.5, 1.0)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether an error means: try again."""
    return _primary(error) in _LOCKED


def explain(path: Path, error: sqlite3.Error) -> BusError:
    """One sentence that names the file and the remedy."""
    sentences = {
        **dict.fromkeys(_LOCKED, "is locked by another program; end that program's transaction and try again"),
        sqlite3.SQLITE_FULL: "cannot grow because the disk is full; free some space and try again",
        sqlite3.SQLITE_READONLY: "is read-only; allow this user to write the file and its directory",
        sqlite3.SQLITE_CANTOPEN: (
            "cannot be opened; check that it is a file, and that this user may write it and its directory"
        ),
        sqlite3.SQLITE_PERM: "cannot be opened; allow this user to write the file and its directory",
        sqlite3.SQLITE_NOTADB: "is not a database; name another file, or move this one away",
        sqlite3.SQLITE_CORRUPT: f"is damaged ({error}); restore it from a backup, or move it away and begin a new one",
        sqlite3.SQLITE_IOERR: f"cannot be read or written ({error}); check the disk, quotas and limits, and try again",
    }
    sentence = sentences.get(_primary(error), f"failed ({error})")
    return BusUnavailable(f"bus file {path} {sentence}")


def _primary(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=512)
    try:
        for pragma in (
            f"synchronous={synchronous}",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            "cache_size=-32000",
            "secure_delete=OFF",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(path: Path, connection: sqlite3.Connection, partitions: int | None) -> int:
    """Create the schema in an empty file, or check that it is ours; the partition count."""
    if _is_empty(connection):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_empty(connection):
            _create(connection, DEFAULT_PARTITIONS if partitions is None else partitions)
        found = _check(path, connection, partitions)
        connection.execute("DELETE FROM bus WHERE partitions < 0")  # a file that is read-only says so now, not later
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found


def _is_empty(connection: sqlite3.Connection) -> bool:
    application_id = _number(connection, "PRAGMA application_id")
    return application_id == 0 and _number(connection, "SELECT count(*) FROM sqlite_master") == 0


def _create(connection: sqlite3.Connection, partitions: int) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO bus (partitions) VALUES (?)", (partitions,))
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _check(path: Path, connection: sqlite3.Connection, partitions: int | None) -> int:
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise BusUnavailable(f"bus file {path} is the database of another program; name another file")
    version = _number(connection, "PRAGMA user_version")
    if version != SCHEMA_VERSION:
        raise BusVersionMismatch(
            f"bus file {path} has schema version {version}, this version of pavane reads {SCHEMA_VERSION}; "
            "open it with the version that wrote it, or name a new file"
        )
    found = _number(connection, "SELECT partitions FROM bus")
    if partitions is not None and partitions != found:
        problem = Problem(
            "partitions",
            "partitions",
            f"asked for {partitions}, the file was created with {found}; "
            f"ask for {found}, leave the number out, or name a new file",
        )
        raise ConfigurationError(f"bus file {path}", [problem])
    return found


def _number(connection: sqlite3.Connection, sql: str) -> int:
    (number,) = connection.execute(sql).fetchone()
    return int(number)
