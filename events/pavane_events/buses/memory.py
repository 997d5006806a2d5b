"""The bus in memory: deterministic, for tests and simulations. One event loop, no files, a clock that is passed in."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from heapq import merge
from types import TracebackType
from typing import Self

from pavane_events.bus import MAX_RECORD_BYTES, Start, TopicSpec
from pavane_events.buses.faults import BadDay, Faults
from pavane_events.buses.memory_lanes import MemoryGroup, MemoryLane, MemoryLanes
from pavane_events.buses.memory_log import Logs, Written
from pavane_events.buses.placing import check_partition
from pavane_events.errors import BusUnavailable
from pavane_events.record import Message, Record

__all__ = ["Faults", "MemoryBus", "MemoryLane", "MemoryLanes"]


class MemoryBus:
    """A :class:`~pavane_events.bus.Bus` in memory.

    What was published stays for as long as a bus on it is referenced. :meth:`peer` opens another bus on the same
    content, as another process would; :meth:`take_away` and :class:`Faults` do to lanes what a bad day does.
    """

    def __init__(
        self,
        partitions: int = 4,
        max_record_bytes: int = MAX_RECORD_BYTES,
        clock: Callable[[], float] = time.time,
        faults: BadDay | None = None,
        keeps_s: float | None = None,
    ) -> None:
        self.faults = faults
        self.keeps_s = keeps_s
        """What it says of itself: it keeps everything."""

        self._logs = Logs(partitions, max_record_bytes, clock)
        self._groups: dict[str, MemoryGroup] = {}
        self._lanes: list[MemoryLanes] = []
        self._closed = False

    @property
    def partitions(self) -> int:
        """How many partitions every topic has."""
        return self._logs.partitions

    @property
    def embedded(self) -> bool:
        """Always."""
        return True

    def peer(self) -> "MemoryBus":
        """Another bus on the same topics, groups and faults, as another process would open it. Closed on its own."""
        peer = MemoryBus(self.partitions, keeps_s=self.keeps_s)
        peer.faults, peer._logs, peer._groups = self.faults, self._logs, self._groups
        return peer

    def take_away(self, group: str, partition: int, *, told: bool = True) -> None:
        """Take a lane from its holder and grant it again, to another member where there is one.

        A holder that is not ``told`` is a zombie: it reads on, and learns of its loss at its next commit.
        """
        members = self._groups[group]
        members.take_away(members.rows[partition], told=told)

    def place(self, topic: str, partition: int, offset: int, arrivals: int) -> int:
        """How many records of a partition lie before an offset, of those written since :attr:`arrivals` was that."""
        log = self._logs.log(topic, partition)
        return log.index(offset) - log.index_since(arrivals)

    @property
    def arrivals(self) -> int:
        """How many records were written so far."""
        return self._logs.arrivals

    def written_since(self, arrivals: int, topic: str | None = None) -> list[Record]:
        """What was written, to a topic or to all, since :attr:`arrivals` was that, in order."""
        if topic is None:
            return self._logs.everything[arrivals:]
        logs = [self._logs.log(topic, partition) for partition in range(self.partitions)]
        if len(logs) == 1:
            return logs[0].records[logs[0].index_since(arrivals) :]
        new = [(log, log.index_since(arrivals)) for log in logs]
        found = [pair for log, place in new for pair in zip(log.arrivals[place:], log.records[place:], strict=True)]
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]

    def readers(self) -> Iterator[MemoryLane]:
        """Every lane that somebody reads, also those who do not know that they lost it."""
        for group in self._groups.values():
            for row in group.rows:
                yield from row.readers

    def unsettled(self) -> Iterator[tuple[str, str]]:
        """Group and topic where a lane's holder has not committed all that was written; or one who does not know that he
        lost it, not all that he has read: he is still at work on it."""
        for group in self._groups.values():
            for row in group.rows:
                for lane in row.readers:
                    committed, read = lane.committed, None if lane is row.holder else lane.positions
                    for topic in lane.reads:
                        end = self._logs.log(topic, row.partition).high_watermark if read is None else read[topic]
                        if committed.get(topic, 0) < end:
                            yield group.name, topic

    def tell(self) -> None:
        """Everybody who does not know that he lost his lane learns of it."""
        for lane in [*self.readers()]:
            lane.tell()

    def release(self) -> bool:
        """Hand out what :data:`~pavane_events.buses.faults.UNTIL_RELEASED` holds back. Whether there was anything."""
        return sum(lane.release() for lane in self.readers()) > 0

    def look(self) -> None:
        """Everybody who waits for records gets none, as if the time was up: they look at the clock, and wait again."""
        for lane in [*self.readers()]:
            lane.look()

    async def create_topics(self, specs: Collection[TopicSpec]) -> None:
        """Create the topics that do not exist."""
        self._check_open()
        self._logs.create(specs)

    async def topics(self) -> Collection[str]:
        """The names of all topics."""
        self._check_open()
        return list(self._logs.specs)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Append messages from outside any lane."""
        self._check_open()
        placed = self._logs.place(messages)
        await asyncio.sleep(0)
        self._wake(self._logs.append(placed))

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> MemoryLanes:
        """Join a group."""
        self._check_open()
        self._logs.check_topics(topics)
        if group not in self._groups:
            self._groups[group] = MemoryGroup(group, self._logs, self.faults, self._wake)
        member = self._groups[group].join(topics, start, earliest)
        self._lanes.append(member)
        return member

    async def read(
        self,
        topic: str,
        *,
        partition: int | None = None,
        start: int = 0,
        end: int | None = None,
        key: bytes | None = None,
    ) -> AsyncIterator[Record]:
        """Look at a topic without a group; over all partitions, in order of time as far as it is known."""
        self._check_open()
        self._logs.check_topics([topic])
        if partition is not None:
            check_partition(topic, partition, self.partitions)
        partitions = range(self.partitions) if partition is None else [partition]
        logs = [self._logs.log(topic, number) for number in partitions]
        found = [
            (arrival, record)
            for arrival, record in merge(
                *(list(zip(log.arrivals, log.records, strict=True)) for log in logs), key=lambda pair: pair[0]
            )
            if record.offset >= start and (end is None or record.offset < end) and key in (None, record.key)
        ]
        for _, record in found:
            yield record

    async def table(self, topic: str) -> Mapping[bytes, Record]:
        """A compacted topic as a table."""
        latest = {record.key: record async for record in self.read(topic) if record.key is not None}
        return {key: record for key, record in latest.items() if record.value is not None}

    async def close(self) -> None:
        """Give up every lane."""
        self._closed = True
        for member in self._lanes:
            await member.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _wake(self, written: Written) -> None:
        for group in self._groups.values():
            for partition, topics in written.items():
                for lane in group.rows[partition].readers:
                    lane.wake(topics)

    def _check_open(self) -> None:
        if self._closed:
            raise BusUnavailable("this memory bus is closed: open another")
