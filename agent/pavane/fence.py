"""Fence: where an effect lives in an SQL store, its undo leaves a mark that refuses a zombie's late "do"."""

from typing import ClassVar, Protocol, cast

from pavane_events.errors import PavaneError


class EffectUndone(PavaneError):
    """The effect was undone before: doing it now would leave it standing for ever. The step fails and owes nothing new."""

    code: ClassVar[str] = "effect.undone"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the effect {key} was undone and stays undone")


class _Cursor(Protocol):
    def fetchone(self) -> object: ...


class _Connection(Protocol):
    def execute(self, sql: str, parameters: tuple[object, ...] = ..., /) -> _Cursor: ...


class Fence:
    """Effects by idempotency key, each *done* or *undone*, kept in the caller's own transaction beside the effect.

    ``do`` and ``undo`` run statements on the connection given and leave the transaction to the caller: the effect and
    its mark are written together or not at all. Works with sqlite3 (``placeholder="?"``) and, with ``"%s"``, with
    PostgreSQL drivers whose connections have ``execute`` (psycopg 3). The store must serialise writers of one key:
    sqlite does, PostgreSQL does through the primary key.
    """

    def __init__(self, table: str = "pavane_effects", placeholder: str = "?") -> None:
        if not table.replace("_", "").isalnum():
            raise ValueError(f"{table!r} is no plain table name")
        self._create = f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, state TEXT NOT NULL)"
        self._insert, self._mark = [
            f"INSERT INTO {table} (key, state) VALUES ({placeholder}, '{state}') ON CONFLICT (key) DO NOTHING RETURNING 1"
            for state in ("done", "undone")
        ]
        self._state = f"SELECT state FROM {table} WHERE key = {placeholder}"
        self._take_back = f"UPDATE {table} SET state = 'undone' WHERE key = {placeholder} AND state = 'done' RETURNING 1"

    def create(self, connection: _Connection) -> None:
        """Make the table where it does not exist."""
        connection.execute(self._create)

    def do(self, connection: _Connection, key: str) -> bool:
        """True: the effect is new, write it now. False: it stands already, from an earlier run of the same step.

        Raises :class:`EffectUndone` where it was undone: write nothing.
        """
        if connection.execute(self._insert, (key,)).fetchone() is not None:
            return True
        if self._find(connection, key) == "undone":
            raise EffectUndone(key)
        return False

    def undo(self, connection: _Connection, key: str) -> bool:
        """Mark the effect undone, for ever. True: it stood, take it back now. False: there is nothing to take back.

        The insert comes first: it waits for whoever is writing the effect, and the update sees what he has written.
        """
        if connection.execute(self._mark, (key,)).fetchone() is not None:
            return False
        return connection.execute(self._take_back, (key,)).fetchone() is not None

    def _find(self, connection: _Connection, key: str) -> str | None:
        row = connection.execute(self._state, (key,)).fetchone()
        return str(cast("tuple[object, ...]", row)[0]) if row is not None else None
