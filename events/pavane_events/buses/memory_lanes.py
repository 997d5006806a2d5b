"""Lanes in memory: what a lane is made of, who holds it, and the group that shares lanes among its members."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from pavane_events.bus import LaneState, Start
from pavane_events.buses.faults import UNTIL_RELEASED, BadDay
from pavane_events.buses.lane_state import StateOfLane
from pavane_events.buses.memory_log import KeyedState, Log, Logs, Written
from pavane_events.buses.sharing import share
from pavane_events.buses.waiting import Bell
from pavane_events.errors import LaneLost
from pavane_events.record import Message, Record

HELD: Final[ContextVar["MemoryLane | None"]] = ContextVar("pavane_held_lane", default=None)
"""The lane that was granted last to whoever asks: a task that is begun for a lane has it, and all that this begins."""


@dataclass(slots=True)
class LaneRow:
    """What outlives the holder of a lane. ``readers`` are its holder and those who do not know that they were it."""

    partition: int
    token: int = 0
    number: int = 0
    offsets: dict[str, int] = field(default_factory=dict[str, int])
    state: KeyedState = field(default_factory=KeyedState)
    holder: "MemoryLane | None" = None
    readers: "list[MemoryLane]" = field(default_factory=lambda: list[MemoryLane]())


class MemoryGroup:
    """One group: its lanes, and the members that share them. Shares move at once when a member comes or goes."""

    def __init__(self, name: str, logs: Logs, faults: BadDay | None, wake: Callable[[Written], None]) -> None:
        self.name = name
        self.logs = logs
        self.faults = faults
        self.wake = wake
        self.rows = [LaneRow(partition) for partition in range(logs.partitions)]
        self._members: dict[int, MemoryLanes] = {}
        self._joined = 0

    def join(self, topics: Collection[str], start: Start, earliest: Collection[str] = ()) -> "MemoryLanes":
        """Add a member and give it its share."""
        self._joined += 1
        member = MemoryLanes(self, self._joined, topics, start, earliest)
        self._members[member.number] = member
        self._share()
        return member

    def leave(self, member: "MemoryLanes") -> None:
        """Remove a member; its lanes go to the others."""
        if self._members.pop(member.number, None) is not None:
            for row in self.rows:
                for reader in [reader for reader in row.readers if reader.member is member]:
                    self._lose(row, reader)
            self._share()

    def take_away(self, row: LaneRow, *, told: bool) -> None:
        """Take a lane from its holder and grant it again, to another member where there is one."""
        former = row.holder
        if former is None:
            return
        if told:
            self._lose(row, former)
        others = [number for number in sorted(self._members) if number != former.member.number]
        later = [number for number in others if number > former.member.number]
        self._grant(row, self._members[(later or others or [former.member.number])[0]])

    def _share(self) -> None:
        holders = {row.partition: row.holder.member.number for row in self.rows if row.holder is not None}
        shares = share(len(self.rows), list(self._members), holders)
        for partition, number in shares.items():
            row = self.rows[partition]
            if row.holder is None or row.holder.member.number != number:
                if row.holder is not None:
                    self._lose(row, row.holder)
                self._grant(row, self._members[number])

    def _lose(self, row: LaneRow, lane: "MemoryLane") -> None:
        row.readers.remove(lane)
        if row.holder is lane:
            row.holder = None
        lane.lose()

    def forget(self, row: LaneRow, lane: "MemoryLane") -> None:
        """A lane has learnt that it is not the holder any more."""
        if lane in row.readers:
            self._lose(row, lane)

    def _grant(self, row: LaneRow, member: "MemoryLanes") -> None:
        row.token += 1
        row.holder = MemoryLane(self, row, member)
        row.readers.append(row.holder)
        member.granted(row.holder)


class MemoryLanes:
    """A membership; see :class:`~pavane_events.bus.Lanes`."""

    def __init__(
        self, group: MemoryGroup, number: int, topics: Collection[str], start: Start, earliest: Collection[str]
    ) -> None:
        self.number = number
        self.topics = list(dict.fromkeys(topics))
        self._start = start
        self._earliest = frozenset(earliest)
        self._group = group
        self._granted: deque[MemoryLane] = deque()
        self._bell = Bell()
        self._closed = False

    def begins_late(self, topic: str) -> bool:
        """Whether a lane begins that topic at its end."""
        return self._start == "latest" and topic not in self._earliest

    def __aiter__(self) -> AsyncIterator["MemoryLane"]:
        return self

    async def __anext__(self) -> "MemoryLane":
        while not self._closed:
            while self._granted:
                lane = self._granted.popleft()
                if not lane.lost:
                    HELD.set(lane)
                    return lane
            await self._bell.wait()
        raise StopAsyncIteration

    async def subscribe(self, topics: Collection[str]) -> None:
        """Read further topics, too."""
        self._group.logs.check_topics(topics)
        added = [topic for topic in dict.fromkeys(topics) if topic not in self.topics]
        self.topics += added
        for row in self._group.rows:
            for lane in row.readers:
                if lane.member is self:
                    lane.begin(added)

    async def close(self) -> None:
        """Leave the group."""
        if not self._closed:
            self._closed = True
            self._group.leave(self)
            self._bell.ring()

    def granted(self, lane: "MemoryLane") -> None:
        """Take a lane that the group has granted."""
        self._granted.append(lane)
        self._bell.ring()


class MemoryLane:
    """One holder's view of a lane; see :class:`~pavane_events.bus.Lane`."""

    def __init__(self, group: MemoryGroup, row: LaneRow, member: MemoryLanes) -> None:
        self.member = member
        self._group = group
        self._row = row
        self._token = row.token
        self._number = row.number
        self._committed = dict(row.offsets)
        self._positions = dict(row.offsets)
        self._logs: dict[str, Log] = {}
        self._next: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._paused: set[str] = set()
        self._fresh: set[str] = set()
        self._ahead: set[str] = set()
        self._lost = False
        self._looks = False
        self._committing = False
        self._bell = Bell()
        self._name = f"{group.name}/{row.partition}"
        self.begin(member.topics)

    @property
    def group(self) -> str:
        """The group's name."""
        return self._group.name

    @property
    def partition(self) -> int:
        """The lane's number."""
        return self._row.partition

    @property
    def token(self) -> int:
        """How many times the lane was granted until it was to this holder."""
        return self._token

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
        return dict(self._positions)

    @property
    def reads(self) -> Set[str]:
        """The topics that it reads."""
        return self._logs.keys()

    @property
    def state(self) -> LaneState:
        """The lane's keyed state."""
        return StateOfLane(self.check, self._row.state)

    @property
    def lost(self) -> bool:
        """Whether the lane is known to be lost."""
        return self._lost

    def begin(self, topics: Collection[str]) -> None:
        """Begin to read topics where the lane stands in them, or where the member starts."""
        for topic in topics:
            log = self._logs[topic] = self._group.logs.log(topic, self.partition)
            if topic not in self._row.offsets and self.member.begins_late(topic):
                self._row.offsets[topic] = log.end
            start = self._row.offsets.get(topic, 0)
            self._committed = {**self._committed, topic: start}
            self._positions[topic] = start
            self._next[topic] = log.index(start)
        self._fresh.update(topics)
        self._bell.ring()

    def wake(self, topics: Set[str]) -> None:
        """Something was published to these topics in this partition."""
        fresh = [topic for topic in topics if topic in self._logs]
        if fresh:
            self._fresh.update(fresh)
            self._bell.ring()

    def look(self) -> None:
        """Whoever waits for records gets none, as if the time was up."""
        self._looks = self._bell.awaited
        self._bell.ring()

    def lose(self) -> None:
        """The lane is lost, and its holder may know."""
        self._lost = True
        self._bell.ring()

    def take_away(self, *, told: bool) -> None:
        """Take it from this holder, if it has not gone elsewhere already; who is told of it either way, or not."""
        if self._row.holder is self:
            self._group.take_away(self._row, told=told)
        elif told:
            self.tell()

    def tell(self) -> None:
        """A holder that lost it, and does not know, learns of it."""
        if self._row.holder is not self:
            self._group.forget(self._row, self)

    def check(self) -> None:
        """Raise LaneLost if the lane is known to be lost."""
        if self._lost:
            raise LaneLost(f"lane {self._name} has another owner: drop what is not committed")

    async def receive(self, maximum: int, timeout_s: float) -> Sequence[Record]:
        """The next records; see the port."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._suffer_loss()
        self._wind_back()
        while True:
            self.check()
            records, held_back = self._take(maximum)
            if records:
                return records
            if self._looks:
                self._looks = False
                return ()
            remaining = deadline - loop.time()
            if held_back or remaining <= 0:
                await asyncio.sleep(0)
                if not held_back:
                    return ()
            else:
                await self._bell.wait(remaining)

    async def commit(
        self,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        """All or nothing; see the port."""
        self.check()
        self._group.logs.check_topics(done)
        placed = self._group.logs.place(outputs)
        if self._committing:
            raise RuntimeError(f"lane {self._name}: two commits at once; await the first")
        self._committing = True
        try:
            await asyncio.sleep(0)  # a commit takes time on every bus: let others run between its call and its effect
            self._suffer_loss()
            self._check_holder()
            crash = self._group.faults.crash(self._name) if self._group.faults else None
            if crash != "before":
                self._apply(done, state)
                self._group.wake(self._group.logs.append(placed))
            if crash is not None:
                self._group.take_away(self._row, told=True)
                self.check()
        finally:
            self._committing = False

    def pause(self, topics: Collection[str]) -> None:
        """Return nothing of these topics from now on; see the port."""
        self._paused.update(topic for topic in topics if topic in self._logs)

    def resume(self, topics: Collection[str]) -> None:
        """Return these topics again."""
        self._paused.difference_update(topics)
        self._bell.ring()

    def release(self) -> bool:
        """Hand out what is held back until now; whether there was anything."""
        if not self._held:
            return False
        held = [topic for topic, receives in self._held.items() if receives == UNTIL_RELEASED]
        for topic in held:
            self._held[topic] = 0
        if held:
            self._bell.ring()
        return bool(held)

    async def high_watermarks(self) -> Mapping[str, int]:
        """By topic, the offset above its last record."""
        self.check()
        return {topic: log.high_watermark for topic, log in self._logs.items()}

    def _check_holder(self) -> None:
        self.check()
        if (self._row.token, self._row.number) != (self._token, self._number):
            self._group.forget(self._row, self)
            self.check()

    def _apply(self, done: Mapping[str, int], state: Mapping[bytes, bytes | None] | None) -> None:
        forward = {topic: offset for topic, offset in done.items() if offset > self._committed.get(topic, 0)}
        self._committed = {**self._committed, **forward}
        self._row.offsets = dict(self._committed)
        self._row.number = self._number = self._number + 1
        self._row.state.apply(state or {})
        for topic, offset in forward.items():
            if topic in self._logs and offset > self._positions[topic]:
                self._positions[topic] = offset
                self._next[topic] = self._logs[topic].index(offset)

    def _take(self, maximum: int) -> tuple[list[Record], bool]:
        """The next records, and whether there are some that a fault holds back."""
        ready: list[tuple[Log, str]] = []
        held_back = False
        for topic in self._in_order(self._fresh):
            log = self._logs[topic]
            if self._next[topic] == len(log.records):
                self._fresh.discard(topic)
            elif topic not in self._paused:
                if self._is_held(topic):
                    held_back = held_back or self._held[topic] != UNTIL_RELEASED
                else:
                    ready.append((log, topic))
        records: list[Record] = []
        while ready and len(records) < maximum:
            place = self._choose(ready)
            log, topic = ready[place]
            record = log.records[self._next[topic]]
            self._next[topic] += 1
            self._positions[topic] = max(self._positions[topic], record.offset + 1)
            self._ahead.add(topic)
            records.append(record)
            if self._next[topic] == len(log.records):
                del ready[place]
        return records, held_back

    def _in_order(self, topics: Set[str]) -> Collection[str]:
        """These topics, as the lane reads them: faults are drawn in the same order in every run."""
        return [topic for topic in self._logs if topic in topics] if topics else ()

    def _choose(self, ready: Sequence[tuple[Log, str]]) -> int:
        if len(ready) == 1:
            return 0
        choice = self._group.faults.choose(len(ready)) if self._group.faults else None
        if choice is not None:
            return choice
        return min(range(len(ready)), key=lambda place: ready[place][0].arrivals[self._next[ready[place][1]]])

    def _is_held(self, topic: str) -> bool:
        if not self._group.faults:
            return False
        if topic not in self._held:
            self._held[topic] = self._group.faults.hold(self._name, topic)
        if self._held[topic] == UNTIL_RELEASED:
            return True
        if self._held[topic] > 0:
            self._held[topic] -= 1
            return True
        del self._held[topic]
        return False

    def _suffer_loss(self) -> None:
        if self._group.faults and self._row.holder is self:
            loss = self._group.faults.loss(self._name)
            if loss is not None:
                self._group.take_away(self._row, told=loss == "told")

    def _wind_back(self) -> None:
        if self._group.faults:
            for topic in self._in_order(self._ahead):
                floor = self._logs[topic].index(self._committed[topic])
                if self._next[topic] > floor:
                    back = self._group.faults.rewind(self._name, topic)
                    self._next[topic] = max(floor, self._next[topic] - back)
                    self._fresh.add(topic)
                else:
                    self._ahead.discard(topic)
