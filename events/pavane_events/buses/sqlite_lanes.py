"""Lanes of the SQLite bus: what a holder of a lane can do, and the membership that lanes come from."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pavane_events.bus import LaneState, Start
from pavane_events.buses.sqlite_file import BusFile
from pavane_events.buses.sqlite_reader import Inbox, Tail, high_watermark
from pavane_events.buses.sqlite_writer import Request, Writer
from pavane_events.buses.waiting import Bell
from pavane_events.errors import LaneLost
from pavane_events.record import Message, Record


class Registry(Protocol):
    """What a membership asks of the bus."""

    async def subscribe(self, member: "SqliteLanes", topics: Collection[str]) -> None:
        """Let the lanes of a member begin further topics."""
        ...

    async def leave(self, member: "SqliteLanes") -> None:
        """Remove a member and free its lanes."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A lane as it stood when it was taken, under the token of its new holder."""

    group: str
    partition: int
    row_id: int
    token: int
    number: int
    offsets: Mapping[str, int]
    topics: Collection[str]


class SqliteLane:
    """One holder's view of a lane; see :class:`~pavane_events.bus.Lane`."""

    def __init__(self, tail: Tail, writer: Writer, claim: Claim) -> None:
        self._tail = tail
        self._writer = writer
        self._group = claim.group
        self._partition = claim.partition
        self._number = claim.number
        self._topics = list(claim.topics)
        self._committed = dict.fromkeys(claim.topics, 0) | dict(claim.offsets)
        self._inbox = Inbox(tail, claim.partition)
        self._inbox.begin({topic: self._committed[topic] for topic in claim.topics})
        self._state = _StateOfLane(self, tail.file)
        self._lost = False
        self._committing = False
        self.row_id = claim.row_id
        self.token = claim.token

    @property
    def group(self) -> str:
        """The group's name."""
        return self._group

    @property
    def partition(self) -> int:
        """The lane's number."""
        return self._partition

    @property
    def commit_number(self) -> int:
        """How many commits the lane has seen, over all owners."""
        return self._number

    @property
    def committed(self) -> Mapping[str, int]:
        """By topic, the offset before which every input is done."""
        return self._committed

    @property
    def positions(self) -> Mapping[str, int]:
        """By topic, the offset before which every record was returned."""
        return dict(self._inbox.positions)

    @property
    def state(self) -> LaneState:
        """The lane's keyed state."""
        return self._state

    @property
    def lost(self) -> bool:
        """Whether the lane is known to be lost."""
        return self._lost

    async def receive(self, maximum: int, timeout_s: float) -> Sequence[Record]:
        """The next records; see the port."""
        if self._lost:
            raise self.loss()
        records = self._inbox.take(maximum)
        if records:
            return records
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not records:
            remaining = deadline - loop.time()
            if remaining > 0:
                await self._inbox.bell.wait(remaining)
            else:
                await asyncio.sleep(0)  # a caller that polls without a timeout lets others run, too
            if self._lost:
                raise self.loss()
            records = self._inbox.take(maximum)
            if remaining <= 0:
                break
        return records

    async def commit(
        self,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        """All or nothing; see the port."""
        if self._lost:
            raise self.loss()
        if self._committing:
            raise RuntimeError(f"lane {self._group}/{self._partition}: two commits at once; await the first")
        for topic in done:
            if topic not in self._committed:
                self._tail.topics.id(topic)
        placed = self._writer.place(outputs)
        future = asyncio.get_running_loop().create_future()
        self._committing = True
        try:
            await self._writer.submit(Request(outputs, placed, future, self, done, state or {}))
        finally:
            self._committing = False

    def pause(self, topics: Collection[str]) -> None:
        """Return nothing of these topics from now on; see the port."""
        if not self._lost:
            self._inbox.pause(topics)

    def resume(self, topics: Collection[str]) -> None:
        """Return these topics again."""
        if not self._lost:
            self._inbox.resume(topics)

    async def high_watermarks(self) -> Mapping[str, int]:
        """By topic, the offset above its last record."""
        if self._lost:
            raise self.loss()
        return {topic: high_watermark(self._tail, topic, self._partition) for topic in self._topics}

    def begin(self, starts: dict[str, int]) -> None:
        """Read further topics from the offsets given."""
        self._topics += starts
        self._committed = {**self._committed, **starts}
        self._inbox.begin(starts)

    def offsets_after(self, done: Mapping[str, int]) -> dict[str, int]:
        """The offsets that a commit of these inputs stores: no topic is left out, none goes back."""
        offsets = dict(self._committed)
        for topic, offset in done.items():
            if offset > offsets.get(topic, 0):
                offsets[topic] = offset
        return offsets

    def committed_now(self, offsets: dict[str, int]) -> None:
        """A commit is in the file."""
        self._number += 1
        self._committed = offsets
        positions = self._inbox.positions
        for topic, offset in offsets.items():
            if offset > positions.get(topic, offset):
                self._inbox.skip(topic, offset)

    def lose(self) -> None:
        """Another owner holds the lane, or will."""
        self._lost = True
        self._inbox.close()

    def loss(self) -> LaneLost:
        """The error that says so."""
        return LaneLost(f"lane {self._group}/{self._partition} has another owner: drop what is not committed")


class _StateOfLane:
    """The state of a lane, read from the file for as long as this holder has it."""

    __slots__ = ("_file", "_lane")

    def __init__(self, lane: SqliteLane, file: BusFile) -> None:
        self._lane = lane
        self._file = file

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        if self._lane.lost:
            raise self._lane.loss()
        rows = self._file.select("SELECT value FROM state WHERE lane = ? AND key = ?", (self._lane.row_id, key))
        return rows[0][0] if rows else None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order, as of this call."""
        if self._lane.lost:
            raise self._lane.loss()
        end = _after(prefix)
        if end is None:
            sql = "SELECT key, value FROM state WHERE lane = ? AND key >= ? ORDER BY key"
            return iter(self._file.select(sql, (self._lane.row_id, prefix)))
        sql = "SELECT key, value FROM state WHERE lane = ? AND key >= ? AND key < ? ORDER BY key"
        return iter(self._file.select(sql, (self._lane.row_id, prefix, end)))


def _after(prefix: bytes) -> bytes | None:
    """The least key above every key with this prefix; None if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


class SqliteLanes:
    """A membership; see :class:`~pavane_events.bus.Lanes`. The registry keeps ``held`` and ``number``."""

    def __init__(
        self, registry: Registry, group: str, topics: Collection[str], start: Start, earliest: Collection[str]
    ) -> None:
        self.group = group
        self.topics = list(dict.fromkeys(topics))
        self.start: Start = start
        self.earliest = frozenset(earliest)
        self.number = 0
        self.held: dict[int, SqliteLane] = {}
        self.closed = False
        self._registry = registry
        self._granted: deque[SqliteLane] = deque()
        self._bell = Bell()

    def __aiter__(self) -> AsyncIterator[SqliteLane]:
        return self

    async def __anext__(self) -> SqliteLane:
        while not self.closed:
            while self._granted:
                lane = self._granted.popleft()
                if not lane.lost:
                    return lane
            await self._bell.wait()
        raise StopAsyncIteration

    async def subscribe(self, topics: Collection[str]) -> None:
        """Read further topics, too."""
        added = [topic for topic in dict.fromkeys(topics) if topic not in self.topics]
        if added:
            await self._registry.subscribe(self, added)

    async def close(self) -> None:
        """Leave the group."""
        if not self.closed:
            self.abandon()
            await self._registry.leave(self)

    def abandon(self) -> None:
        """Hold nothing any more, and take nothing."""
        for partition in list(self.held):
            self.lose(partition)
        self.closed = True
        self._bell.ring()

    def granted(self, lane: SqliteLane) -> None:
        """Take a lane that is this member's from now on."""
        self.held[lane.partition] = lane
        self._granted.append(lane)
        self._bell.ring()

    def lose(self, partition: int) -> None:
        """A lane is somebody else's from now on."""
        lane = self.held.pop(partition, None)
        if lane is not None:
            lane.lose()
