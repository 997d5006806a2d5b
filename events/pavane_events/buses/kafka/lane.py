"""A lane on Kafka: a queue that the fetcher fills, state that the changelog restored, commits that the committer makes."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiokafka.structs import TopicPartition

from pavane_events.bus import LaneState
from pavane_events.buses.kafka.changelog import LaneRow, Restored
from pavane_events.buses.kafka.committer import Commit
from pavane_events.buses.kafka.transactions import Payload
from pavane_events.buses.lane_state import StateOfLane
from pavane_events.buses.waiting import Bell
from pavane_events.errors import LaneLost, UnknownTopic
from pavane_events.record import Message, Record

QUEUE_RECORDS: Final = 512
"""Past so many records received and not yet taken, a lane is fetched no more; it is again when half of them are gone."""

QUEUE_BYTES: Final = 1024 * 1024
TAKEN_BYTES: Final = 512 * 1024
"""Of one receive, one record aside."""


class Holder(Protocol):
    """The member that holds a lane, as the lane needs it."""

    @property
    def group(self) -> str: ...

    async def place(self, messages: Sequence[Message]) -> list[tuple[TopicPartition, Payload]]:
        """Check messages and find their partitions. Raises RecordTooLarge, UnknownTopic."""
        ...

    def check_state(self, state: Mapping[bytes, bytes | None]) -> None:
        """Raise RecordTooLarge for a state that the bus does not take."""
        ...

    async def commit(self, commit: Commit) -> int:
        """Let a commit happen; where the changelog ends after it."""
        ...

    def flow(self, lane: "KafkaLane", topics: Collection[str], *, on: bool) -> None:
        """Fetch topics of a lane, or stop to."""
        ...

    def seek(self, lane: "KafkaLane", topic: str, offset: int) -> None:
        """Fetch a topic of a lane from there."""
        ...

    async def high_watermarks(self, lane: "KafkaLane") -> Mapping[str, int]:
        """By topic, where it ends."""
        ...

    def place_of(self, topic: str, partition: int) -> TopicPartition:
        """A partition as the brokers name it."""
        ...


@dataclass(slots=True)
class _Inbox:
    """What was fetched and not yet taken, in order of arrival; topics that are paused aside.

    What is aside fills nothing, or it would keep the other topics back: of each topic it is no more than an inbox held when
    that was paused, and the fetches that were under way.
    """

    records: deque[Record] = field(default_factory=deque[Record])
    aside: dict[str, list[Record]] = field(default_factory=dict[str, list[Record]])
    count: Counter[str] = field(default_factory=Counter[str])
    size: int = 0
    """In bytes, of what is not aside."""

    def add(self, topic: str, records: Sequence[Record]) -> None:
        self.count[topic] += len(records)
        if topic in self.aside:
            self.aside[topic].extend(records)
        else:
            self.records.extend(records)
            self.size += _size(records)

    def take(self, maximum: int) -> list[Record]:
        taken: list[Record] = []
        room = TAKEN_BYTES
        while self.records and len(taken) < maximum and room > 0:
            record = self.records.popleft()
            taken.append(record)
            size = _size_of(record)
            room -= size
            self.size -= size
            self.count[record.topic] -= 1
        return taken

    def skip(self, topic: str, offset: int) -> None:
        """Forget the records of a topic below an offset."""
        self.records = deque(each for each in self.records if each.topic != topic or each.offset >= offset)
        if topic in self.aside:
            self.aside[topic] = [each for each in self.aside[topic] if each.offset >= offset]
        everything = [*self.records, *(each for records in self.aside.values() for each in records)]
        self.count = Counter(each.topic for each in everything)
        self.size = _size(self.records)

    def set_aside(self, topic: str) -> None:
        self.aside[topic] = [each for each in self.records if each.topic == topic]
        self.records = deque(each for each in self.records if each.topic != topic)
        self.size = _size(self.records)

    def take_back(self, topic: str) -> None:
        back = self.aside.pop(topic)
        self.records.extendleft(reversed(back))
        self.size += _size(back)

    @property
    def is_full(self) -> bool:
        return len(self.records) >= QUEUE_RECORDS or self.size >= QUEUE_BYTES

    @property
    def has_room(self) -> bool:
        return len(self.records) <= QUEUE_RECORDS // 2 and self.size <= QUEUE_BYTES // 2


class KafkaLane:
    """See :class:`~pavane_events.bus.Lane`."""

    def __init__(self, holder: Holder, partition: int, changelog: TopicPartition, restored: Restored) -> None:
        self.changelog = changelog
        self.changelog_end = restored.end
        self.row = restored.row
        self._holder = holder
        self._partition = partition
        self._state = restored.state
        self._committed: dict[str, int] = {}
        self._fetched: dict[str, int] = {}
        self._returned: dict[str, int] = {}
        self._inbox = _Inbox()
        self._full = False
        self._lost = False
        self.last_commit: float | None = None
        """When this holder last committed, by the monotonic clock."""

        self._bell = Bell()
        self._turn = asyncio.Lock()

    @property
    def group(self) -> str:
        """The group's name."""
        return self._holder.group

    @property
    def partition(self) -> int:
        """The lane's number."""
        return self._partition

    @property
    def commit_number(self) -> int:
        """How many commits the lane has seen, over all owners."""
        return self.row.number

    @property
    def committed(self) -> Mapping[str, int]:
        """By topic, the offset before which every input is done."""
        return self._committed

    @property
    def positions(self) -> Mapping[str, int]:
        """By topic, the offset before which every record was returned."""
        waiting = self._inbox.count
        return {topic: self._returned[topic] if waiting[topic] else at for topic, at in self._fetched.items()}

    @property
    def state(self) -> LaneState:
        """The lane's keyed state."""
        return StateOfLane(self.check, self._state)

    @property
    def lost(self) -> bool:
        """Whether the lane is known to be lost."""
        return self._lost

    @property
    def in_flight(self) -> int:
        """Offsets that were fetched and whose inputs are not done yet."""
        return sum(at - self._committed[topic] for topic, at in self._fetched.items())

    def begin(self, starts: Mapping[str, int]) -> None:
        """Read topics, too, from these offsets."""
        self._committed = {**self._committed, **starts}
        for topic, offset in starts.items():
            self._fetched[topic] = self._returned[topic] = offset

    def deliver(self, topic: str, records: list[Record], after: int) -> None:
        """Take what the fetcher has fetched."""
        if topic not in self._fetched:
            return
        if not self._inbox.count[topic]:
            self._returned[topic] = self._fetched[topic]  # past markers, too, and never back
        self._fetched[topic] = after
        if records:
            self._inbox.add(topic, records)
            self._stop_where_full()
        self._bell.ring()

    def lose(self) -> None:
        """The lane is lost, and its holder may know."""
        self._lost = True
        self._state.close()
        self._bell.ring()

    def check(self) -> None:
        """Raise LaneLost if the lane is known to be lost."""
        if self._lost:
            raise LaneLost(f"lane {self.group}/{self._partition} has another owner: drop what is not committed")

    def pause(self, topics: Collection[str]) -> None:
        """Return no records of these topics until :meth:`resume`; see the port."""
        new = [topic for topic in topics if topic in self._fetched and topic not in self._inbox.aside]
        for topic in new:
            self._inbox.set_aside(topic)
        self._holder.flow(self, new, on=False)
        self._go_on_where_there_is_room()  # what filled it may be aside now

    def resume(self, topics: Collection[str]) -> None:
        """Return records of these topics again; see the port."""
        paused = [topic for topic in topics if topic in self._inbox.aside]
        for topic in paused:
            self._inbox.take_back(topic)
        if not self._full:
            self._holder.flow(self, paused, on=True)
            self._stop_where_full()
        self._bell.ring()

    async def receive(self, maximum: int, timeout_s: float) -> Sequence[Record]:
        """The next records; see the port."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            self.check()
            if self._inbox.records:
                return self._take(maximum)
            remaining = deadline - loop.time()
            if remaining <= 0:
                await asyncio.sleep(0)
                return self._take(maximum) if self._inbox.records and not self._lost else ()
            await self._bell.wait(remaining)

    def _take(self, maximum: int) -> Sequence[Record]:
        records = self._inbox.take(maximum)
        for record in records:
            self._returned[record.topic] = record.offset + 1
        self._go_on_where_there_is_room()
        return records

    def _stop_where_full(self) -> None:
        if self._inbox.is_full and not self._full:
            self._full = True
            self._holder.flow(self, self._flowing(), on=False)

    def _go_on_where_there_is_room(self) -> None:
        if self._full and self._inbox.has_room:
            self._full = False
            self._holder.flow(self, self._flowing(), on=True)

    def _flowing(self) -> list[str]:
        return [topic for topic in self._fetched if topic not in self._inbox.aside]

    async def commit(
        self,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        """All or nothing; see the port."""
        self.check()
        for topic in done:
            if topic not in self._committed:
                raise UnknownTopic(f"lane {self.group}/{self._partition} does not read topic {topic!r}: it cannot be done")
        changes = dict(state or {})
        self._holder.check_state(changes)
        placed = await self._holder.place(outputs)
        async with self._turn:
            self.check()
            moved = {topic: offset for topic, offset in done.items() if offset > self._committed[topic]}
            row = LaneRow(self.row.number + 1, self.row.begins, {**self.row.offsets, **self._committed, **moved})
            commit = Commit(self, self.row.stamp, row, self._places_of(moved), placed, changes)
            await self._make(commit, lambda: self._happened(moved, changes))

    async def take_starts(self, starts: Mapping[str, int]) -> None:
        """Make places to begin at the lane's own, durably, before it begins there."""
        async with self._turn:
            self.check()
            row = LaneRow(self.row.number, self.row.begins + 1, {**self.row.offsets, **self._committed, **starts})
            await self._make(Commit(self, self.row.stamp, row, self._places_of(starts), (), {}), lambda: None)

    async def _make(self, commit: Commit, happened: Callable[[], None]) -> None:
        """Let a commit happen, and take note of it, also where the caller is cancelled in the middle of it."""
        try:
            await self._holder.commit(commit)
        finally:
            if commit.has_happened:
                self.changelog_end = commit.future.result()
                self.row = commit.row
                happened()

    def _places_of(self, offsets: Mapping[str, int]) -> dict[TopicPartition, int]:
        return {self._holder.place_of(topic, self._partition): offset for topic, offset in offsets.items()}

    def _happened(self, moved: Mapping[str, int], state: Mapping[bytes, bytes | None]) -> None:
        self.last_commit = time.monotonic()
        self._committed = {**self._committed, **moved}
        self._state.apply(state)
        for topic, offset in moved.items():
            if offset > self._fetched[topic]:
                self._fetched[topic] = self._returned[topic] = offset
                self._inbox.skip(topic, offset)
                self._holder.seek(self, topic, offset)
                self._go_on_where_there_is_room()
            elif offset > self._returned[topic]:
                self._returned[topic] = offset
                self._inbox.skip(topic, offset)

    async def high_watermarks(self) -> Mapping[str, int]:
        """By topic, an offset above every record published before this call."""
        self.check()
        marks = await self._holder.high_watermarks(self)
        self.check()
        return marks


def _size(records: Iterable[Record]) -> int:
    return sum(map(_size_of, records))


def _size_of(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"") + 200
