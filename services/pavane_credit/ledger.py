"""Ledger: an agent's own store, where its effects stand or are undone, each by its idempotency key."""

import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pavane import Context, Fence, Rejected
from pavane_credit.where import Where, read_where

_SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (
    key TEXT PRIMARY KEY, saga TEXT NOT NULL, application_id TEXT NOT NULL, kind TEXT NOT NULL,
    amount_dm INTEGER NOT NULL, booked_dm INTEGER NOT NULL, standing INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS line (booked_dm INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS notes (what TEXT NOT NULL, application_id TEXT NOT NULL, PRIMARY KEY (what, application_id));
INSERT INTO line SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM line);
"""
_FENCE = Fence()
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Effect:
    """One row: what an agent did for an application, and whether it still stands."""

    saga: str
    application_id: str
    kind: str
    amount_dm: int
    standing: bool


class Ledger:
    """One SQLite file. Every write is one short transaction, with the fence's mark beside the effect."""

    def __init__(self, address: str) -> None:
        self._connection = sqlite3.connect(address, timeout=_PATIENCE_S, isolation_level=None, uri=True)
        _write_ahead(self._connection)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)
        _FENCE.create(self._connection)

    @classmethod
    def open(cls, name: str, where: Where) -> "Ledger":
        """The ledger of an agent. In memory, every ledger of one name in this process is the same, while one is open."""
        if where.ledgers.startswith(":memory:"):
            return cls(f"file:{where.ledgers[8:]}{name}?mode=memory&cache=shared")
        path = _path(name, where)
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path.as_uri())

    @classmethod
    def find(cls, name: str, where: Where) -> "Ledger | None":
        """The ledger of an agent, to look at; None where there is no file of it: none is made."""
        if where.ledgers.startswith(":memory:") or _path(name, where).is_file():
            return cls.open(name, where)
        return None

    def do(self, context: Context, application_id: str, kind: str, amount_dm: int = 0, line_dm: int | None = None) -> bool:
        """Write an effect once; False where it stands already. With a line, its amount is booked against it.

        Raises :class:`pavane.EffectUndone` where it was undone before, :class:`pavane.Rejected` where the line is
        exhausted; then nothing is written.
        """
        execute = self._connection.execute
        key = context.idempotency_key
        execute("BEGIN IMMEDIATE")
        try:
            new = _FENCE.do(self._connection, key)
            if new:
                booked_dm = 0 if line_dm is None else amount_dm
                row = (key, context.saga or "", application_id, kind, amount_dm, booked_dm)
                execute("INSERT INTO effects VALUES (?, ?, ?, ?, ?, ?, 1)", row)
                if line_dm is not None:
                    self._book(amount_dm, line_dm)
            execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return new

    def undo(self, context: Context) -> bool:
        """Take an effect back and fence its key, for ever; False where there was nothing to take back."""
        execute = self._connection.execute
        key = context.idempotency_key
        execute("BEGIN IMMEDIATE")
        try:
            stood = _FENCE.undo(self._connection, key)
            if stood:
                row = execute("UPDATE effects SET standing = 0 WHERE key = ? RETURNING booked_dm", (key,)).fetchone()
                if row[0]:
                    execute("UPDATE line SET booked_dm = booked_dm - ?", row)
            execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return stood

    def effects(self) -> list[Effect]:
        """Every effect, standing or not."""
        rows = self._connection.execute("SELECT saga, application_id, kind, amount_dm, standing FROM effects")
        return [Effect(saga, application, kind, amount, bool(standing)) for saga, application, kind, amount, standing in rows]

    def booked_dm(self) -> int:
        """What is booked against the line."""
        return int(self._connection.execute("SELECT booked_dm FROM line").fetchone()[0])

    def note(self, what: str, application_id: str) -> bool:
        """Note that something happened to an application; False where that is known already."""
        statement = "INSERT INTO notes VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING 1"
        return self._connection.execute(statement, (what, application_id)).fetchone() is not None

    def notes(self, what: str) -> int:
        """To how many applications that happened."""
        return int(self._connection.execute("SELECT count(*) FROM notes WHERE what = ?", (what,)).fetchone()[0])

    def clear(self) -> None:
        """Forget everything, fences too: nobody works any more on what it holds."""
        for table in ("effects", "notes", "pavane_effects"):
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("UPDATE line SET booked_dm = 0")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # a full disk has SQLite roll back by itself
            self._connection.execute("ROLLBACK")

    def _book(self, amount_dm: int, line_dm: int) -> None:
        statement = "UPDATE line SET booked_dm = booked_dm + ? WHERE booked_dm + ? <= ? RETURNING 1"
        if self._connection.execute(statement, (amount_dm, amount_dm, line_dm)).fetchone() is None:
            raise Rejected("the credit line is exhausted")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set the journal's mode. Unlike for a write, SQLite does not wait here while somebody else writes to a new file."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return


def _path(name: str, where: Where) -> Path:
    return (Path(where.ledgers) / f"{name}.db").absolute()


class Books:
    """An agent's ledger while the agent lives: opened and closed by its lifespan."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._settled: Where | None = None
        self._where: Where | None = None
        self._ledger: Ledger | None = None

    async def lifespan(self) -> AsyncIterator[None]:
        """For ``agent.lifespan``."""
        self.open()
        try:
            yield
        finally:
            self.close()

    def settle(self, where: Where | None) -> None:
        """Where to open the ledger from now on; None: as the environment says."""
        self._settled = where

    def open(self) -> Ledger:
        """Open the ledger as was settled, else as the environment says now."""
        self._where = self._settled or read_where()
        self._ledger = Ledger.open(self.name, self._where)
        return self._ledger

    def close(self) -> None:
        """Close it."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    @property
    def ledger(self) -> Ledger:
        """The open ledger."""
        return self._ledger or self.open()

    @property
    def where(self) -> Where:
        """The settings that the ledger was opened with."""
        if self._where is None:
            self._where = read_where()
        return self._where
