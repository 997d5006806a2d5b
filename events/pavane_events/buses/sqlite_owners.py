"""The processes that hold lanes of one bus file: which of them live, and which do no more."""

import time
from collections.abc import Collection
from pathlib import Path

from pavane_events.buses.owner_file import OwnerFile, is_dead, remove, strays
from pavane_events.buses.sqlite_file import BusFile
from pavane_events.errors import BusUnavailable

_CHECK_S = 0.2


class Owners:
    """This process among the owners of lanes: it beats, and finds out who does no more."""

    def __init__(self, file: BusFile, lease_s: float) -> None:
        self._file = file
        self._lease_s = lease_s
        self._directory = Path(f"{file.path}.owners")
        self._own: OwnerFile | None = None
        self._checked_s = 0.0
        self._beaten_s = 0.0
        self._beats: dict[str, tuple[int, float]] = {}

    @property
    def entered(self) -> bool:
        """Whether this process ever asked for a lane."""
        return self._own is not None

    @property
    def id(self) -> str:
        """This process's name among the owners."""
        return "" if self._own is None else self._own.id

    def enter(self) -> None:
        """Take the lock that says that this process lives."""
        if self._own is None:
            self._own = self._take()
            known = {self._own.id} | {row[0] for row in self._file.select("SELECT id FROM owners")}
            for owner in strays(self._directory, known):
                remove(self._directory, owner)

    def _take(self) -> OwnerFile:
        try:
            return OwnerFile(self._directory)
        except OSError as error:
            raise BusUnavailable(
                f"bus file {self._file.path}: its directory of owners {self._directory} cannot be written "
                f"({error.strerror}); allow this user to write it"
            ) from error

    def enter_row(self) -> None:
        """Within a transaction: be in the table, under a name whose file exists."""
        if self._own is not None and not self._own.exists():  # somebody cleaned up too well
            former, self._own = self._own, self._take()
            former.close()
        self._file.connection.execute("INSERT OR IGNORE INTO owners (id, lease_s) VALUES (?, ?)", (self.id, self._lease_s))

    def forget(self) -> None:
        """Within a transaction: this process is an owner no more."""
        self._file.connection.execute("DELETE FROM members WHERE owner = ?", (self.id,))
        self._file.connection.execute("DELETE FROM owners WHERE id = ?", (self.id,))
        self._file.connection.execute("UPDATE bus SET epoch = epoch + 1")

    def close(self) -> None:
        """Let go of the lock."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def check(self) -> bool:
        """A few times a second: beat when due, strike out dead and stopped owners. True if shares may have changed."""
        now_s = time.monotonic()
        if now_s - self._checked_s < min(_CHECK_S, self._lease_s / 10):
            return False
        if now_s - self._checked_s > self._lease_s / 2:
            self._beats.clear()  # it was this process that stood still: what it remembers of others is worth nothing
        self._checked_s = now_s
        evicted = self._beat(now_s)
        gone = self._gone(now_s)
        if gone:
            self._file.write_now(lambda: self._strike_out(gone))
            for owner, _ in gone:
                self._beats.pop(owner, None)
                if is_dead(self._directory, owner):
                    remove(self._directory, owner)
        return evicted or bool(gone)

    def _gone(self, now_s: float) -> list[tuple[str, int]]:
        """Owners that are dead, or whose beat stood still for their lease, with that beat."""
        rows = self._file.select("SELECT id, beat, lease_s FROM owners WHERE id <> ?", (self.id,))
        gone: list[tuple[str, int]] = []
        for owner, beat, lease_s in rows:
            seen, since_s = self._beats.get(owner, (None, now_s))
            if seen != beat:
                since_s = now_s
            self._beats[owner] = (beat, since_s)
            if now_s - since_s > lease_s or is_dead(self._directory, owner):
                gone.append((owner, beat))
        return gone

    def _strike_out(self, gone: Collection[tuple[str, int]]) -> None:
        execute = self._file.connection.execute
        for owner, beat in gone:
            if execute("DELETE FROM owners WHERE id = ? AND beat = ?", (owner, beat)).rowcount:
                execute("DELETE FROM members WHERE owner = ?", (owner,))
        execute("UPDATE bus SET epoch = epoch + 1")

    def _beat(self, now_s: float) -> bool:
        """Raise the own beat when due. True if others took this process for gone: its lanes are lost."""
        if self._own is None or now_s - self._beaten_s < self._lease_s / 4:
            return False
        own = self._own
        cursor = self._file.write_now(
            lambda: self._file.connection.execute("UPDATE owners SET beat = beat + 1 WHERE id = ?", (own.id,))
        )
        self._beaten_s = now_s
        return cursor.rowcount == 0 or not own.exists()
