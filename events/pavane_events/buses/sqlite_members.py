"""Members of groups, over all processes on one file: who is there, who is dead, and who holds which lane.

Every process comes to the same shares from the same rows; it gives up what is another's, and takes what is its own and
free. A dead process is known at once, because the kernel lets go of the lock on its owner file; one that merely stopped
is known by a beat that stands still for a lease. In both cases the token of its lanes rises when they are taken, which
makes every later commit of the former holder fail.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pavane_events.bus import Start
from pavane_events.buses.sharing import share
from pavane_events.buses.sqlite_file import BusFile, Locked
from pavane_events.buses.sqlite_lanes import Claim, SqliteLane, SqliteLanes
from pavane_events.buses.sqlite_owners import Owners
from pavane_events.buses.sqlite_reader import Tail
from pavane_events.buses.sqlite_schema import LAST_ID
from pavane_events.buses.sqlite_writer import Writer
from pavane_events.buses.waiting import Bell
from pavane_events.errors import BusError, BusUnavailable

logger = logging.getLogger("pavane.bus")

_POLL_BUSY_S = 0.002
_POLL_IDLE_S = 0.02


@dataclass(slots=True)
class _Changes:
    """What a reconciliation decided, to be done to the lanes of this process once it is in the file."""

    last_id: int
    epoch: int
    entered: list[tuple[SqliteLanes, int]] = field(default_factory=list[tuple[SqliteLanes, int]])
    lost: list[tuple[SqliteLanes, int]] = field(default_factory=list[tuple[SqliteLanes, int]])
    claimed: list[tuple[SqliteLanes, Claim]] = field(default_factory=list[tuple[SqliteLanes, Claim]])
    moved: bool = False


class Members:
    """The memberships of this process, and the one task that follows the file on their behalf."""

    def __init__(self, file: BusFile, tail: Tail, writer: Writer, lease_s: float) -> None:
        self._file = file
        self._tail = tail
        self._writer = writer
        self._owners = Owners(file, lease_s)
        self._members: list[SqliteLanes] = []
        self._task: asyncio.Task[None] | None = None
        self._bell = Bell()
        self._stale = False
        self._epoch = -1
        self._data_version = -1
        self._complained = False

    async def join(self, group: str, topics: Collection[str], start: Start, earliest: Collection[str]) -> SqliteLanes:
        """Become a member, and take at once what is free and ours."""
        for topic in topics:
            self._tail.topics.id(topic)
        member = SqliteLanes(self, group, topics, start, earliest)
        self._owners.enter()
        with contextlib.suppress(Locked):
            self._owners.check()
        self._members.append(member)
        try:
            await self._settle()
        except BaseException:
            self._members.remove(member)  # what is in the file of it is a stray
            member.abandon()
            raise
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="pavane-sqlite-bus")
        return member

    async def leave(self, member: SqliteLanes) -> None:
        """Remove a member: in the next reconciliation it is a stray, and its lanes are free."""
        if member in self._members:
            self._members.remove(member)
            await self._settle()

    async def subscribe(self, member: SqliteLanes, topics: Collection[str]) -> None:
        """Let the lanes of a member begin further topics, all at one moment."""
        for topic in topics:
            self._tail.topics.id(topic)
        last_id, starts = await self._file.write(lambda: self._starts(member, topics))
        self._tail.catch_up(last_id)
        member.topics += [topic for topic in topics if topic not in member.topics]
        for lane, offsets in starts:
            lane.begin(offsets)

    async def close(self) -> None:
        """Leave every group and forget the owner. What cannot be written now, others conclude from the freed lock."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        members, self._members = self._members, []
        for member in members:
            await member.close()
        try:
            if self._owners.entered:
                await self._file.write(self._owners.forget)
        except BusUnavailable as error:
            logger.warning("the lanes of this process are free, but could not be marked so: %s", error)
        self._owners.close()

    def wake(self) -> None:
        """A lane was found to be lost: see who holds what."""
        self._stale = True
        self._bell.ring()

    async def _settle(self) -> None:
        """Reconcile until nothing moves any more."""
        self._stale = True
        while self._stale:
            self._carry_out(await self._file.write(self._reconcile))

    async def _follow(self) -> None:
        """Follow the file: often while something happens, seldom while nothing does."""
        pause_s = _POLL_BUSY_S
        while True:
            try:
                busy = self._look()
                self._complained = False
            except Locked:
                busy = True
            except BusError as error:
                busy = False
                if not self._complained:
                    logger.warning("following the bus: %s", error)
                self._complained = True
            pause_s = _POLL_BUSY_S if busy else min(pause_s * 1.25, _POLL_IDLE_S)
            await self._bell.wait(pause_s)

    def _look(self) -> bool:
        """See what other processes did. True if there was anything."""
        version = self._file.select("PRAGMA data_version")[0][0]
        changed: bool = version != self._data_version
        if changed:
            self._data_version = version
            ((last_id, epoch),) = self._file.select(LAST_ID)
            self._tail.catch_up(last_id)
            self._stale = self._stale or epoch != self._epoch
        if self._owners.check():
            self._stale = True
        if self._stale:
            self._carry_out(self._file.write_now(self._reconcile))
        return changed

    def _reconcile(self) -> _Changes:
        """Enter who is not entered, strike out who left, give up what is another's, take what is ours and free."""
        connection = self._file.connection
        ((last_id, epoch),) = connection.execute(LAST_ID).fetchall()
        changes = _Changes(last_id, epoch)
        self._owners.enter_row()
        changes.moved = self._strike_out()
        for member in self._members:
            self._reconcile_member(member, changes)
        if changes.moved:
            changes.epoch += 1
            connection.execute("UPDATE bus SET epoch = ?", (changes.epoch,))
        return changes

    def _strike_out(self) -> bool:
        """Members of ours that are no more: left, or entered by an attempt that never came to its end."""
        execute = self._file.connection.execute
        rows = execute("SELECT id FROM members WHERE owner = ?", (self._owners.id,)).fetchall()
        numbers = {member.number for member in self._members}
        gone = [row for row in rows if row[0] not in numbers]
        for row in gone:
            execute("DELETE FROM members WHERE id = ?", row)
        return bool(gone)

    def _reconcile_member(self, member: SqliteLanes, changes: _Changes) -> None:
        execute = self._file.connection.execute
        numbers = [row[0] for row in execute("SELECT id FROM members WHERE grp = ?", (member.group,)).fetchall()]
        number = member.number
        if number not in numbers:
            number = self._enter(member)
            numbers.append(number)
            changes.entered.append((member, number))
            changes.moved = True
        rows = execute(
            "SELECT id, partition, member, token, number, offsets FROM lanes WHERE grp = ?", (member.group,)
        ).fetchall()
        holders = {row[1]: row[2] for row in rows if row[2] is not None}
        shares = share(self._file.partitions, numbers, holders)
        for row_id, partition, holder, token, commit_number, offsets in rows:
            held = member.held.get(partition)
            holds = held is not None and holder == member.number and token == held.token and not held.lost
            ours = shares[partition] == number
            if held is not None and not (holds and ours):
                changes.lost.append((member, partition))
            if holder == number and not ours:
                execute("UPDATE lanes SET member = NULL, token = token + 1 WHERE id = ?", (row_id,))
                changes.moved = True
            elif ours and not holds and (holder == number or holder not in numbers):
                starts = self._starting(member, member.topics, json.loads(offsets), changes.last_id)
                execute(
                    "UPDATE lanes SET member = ?, token = ?, offsets = ? WHERE id = ?",
                    (number, token + 1, json.dumps(starts), row_id),
                )
                claim = Claim(member.group, partition, row_id, token + 1, commit_number, starts, tuple(member.topics))
                changes.claimed.append((member, claim))

    def _enter(self, member: SqliteLanes) -> int:
        execute = self._file.connection.execute
        cursor = execute("INSERT INTO members (grp, owner) VALUES (?, ?)", (member.group, self._owners.id))
        for partition in range(self._file.partitions):
            execute("INSERT OR IGNORE INTO lanes (grp, partition) VALUES (?, ?)", (member.group, partition))
        number = cursor.lastrowid
        assert number is not None
        return number

    def _carry_out(self, changes: _Changes) -> None:
        """The reconciliation is in the file: do it to the lanes of this process."""
        self._stale = changes.moved  # what was given up may be another local member's: look once more
        self._epoch = changes.epoch
        self._tail.catch_up(changes.last_id)
        for member, partition in changes.lost:
            member.lose(partition)
        for member, number in changes.entered:
            member.number = number
        for member, claim in changes.claimed:
            member.granted(SqliteLane(self._tail, self._writer, claim))

    def _starts(self, member: SqliteLanes, topics: Collection[str]) -> tuple[int, list[tuple[SqliteLane, dict[str, int]]]]:
        """Where the lanes that are held begin further topics; stored, so that a later holder begins there, too."""
        execute = self._file.connection.execute
        ((last_id, _),) = execute(LAST_ID).fetchall()
        starts: list[tuple[SqliteLane, dict[str, int]]] = []
        for lane in member.held.values():
            offsets = self._starting(member, topics, lane.committed, last_id)
            execute(
                "UPDATE lanes SET offsets = ? WHERE id = ? AND token = ?",
                (json.dumps(offsets), lane.row_id, lane.token),
            )
            starts.append((lane, {topic: offsets.get(topic, 0) for topic in topics}))
        return last_id, starts

    @staticmethod
    def _starting(member: SqliteLanes, topics: Collection[str], offsets: Mapping[str, int], last_id: int) -> dict[str, int]:
        if member.start == "earliest":
            return dict(offsets)
        return dict.fromkeys(set(topics) - member.earliest, last_id + 1) | dict(offsets)
