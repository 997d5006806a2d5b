"""The embedded, durable bus: one SQLite file, several processes.

- ``sqlite_file``: the connection, locks, errors; ``sqlite_schema``: the tables.
- ``sqlite_writer``: group commit. ``sqlite_reader``: following the file, inboxes, browsing.
- ``sqlite_lanes``: what a holder does. ``sqlite_members``: who holds what, over all processes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from pavane_events.bus import MAX_RECORD_BYTES, Start, TopicSpec
from pavane_events.buses.placing import check_partition
from pavane_events.buses.sqlite_file import BusFile, Synchronous
from pavane_events.buses.sqlite_lanes import SqliteLane, SqliteLanes
from pavane_events.buses.sqlite_members import Members
from pavane_events.buses.sqlite_reader import PAGE, Tail, Topics, browse, latest_by_key
from pavane_events.buses.sqlite_writer import Request, Writer
from pavane_events.record import Message, Record

__all__ = ["SqliteBus", "SqliteLane", "SqliteLanes"]


class SqliteBus:
    """A :class:`~pavane_events.bus.Bus` on one SQLite file. Open it with :meth:`open`, once per process.

    Any number of processes of one machine may use the file at a time (not over a network file system). All work is
    done on the event loop's thread in steps of microseconds; a write lock held by another process is waited for without
    blocking the loop. A process that is stopped (not killed) in the microseconds of a transaction keeps that lock until
    it goes on or is killed; then everybody's writes end as BusUnavailable, and may be tried again.
    """

    def __init__(self, file: BusFile, lease_s: float, max_record_bytes: int, clock: Callable[[], float]) -> None:
        self.file = file
        self._topics = Topics(file)
        self._tail = Tail(file, self._topics)
        self._writer = Writer(file, self._tail, max_record_bytes, clock, self._lane_lost)
        self._members = Members(file, self._tail, self._writer, lease_s)
        self._closing = False

    @classmethod
    async def open(
        cls,
        path: str | PathLike[str],
        partitions: int | None = None,
        *,
        synchronous: Synchronous = "NORMAL",
        lease_s: float = 10.0,
        busy_timeout_s: float = 30.0,
        max_record_bytes: int = MAX_RECORD_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> "SqliteBus":
        """Open a bus file, or create it.

        ``partitions``: for a new file (4 if left out); the count is the file's from then on, and asking for another
        raises ConfigurationError. ``synchronous``: with ``NORMAL`` what was committed survives the death of any
        process, with ``FULL`` also a loss of power, at one disk flush per group of commits. ``lease_s``: how long a
        process may stand still before others take its lanes. ``busy_timeout_s``: how long to wait for a lock.

        Raises BusUnavailable (missing directory, locked, read-only, full, not a bus) and BusVersionMismatch, each with
        one sentence that names the file and the remedy; nothing is half-written.
        """
        file = await BusFile.open(Path(path), partitions=partitions, synchronous=synchronous, busy_timeout_s=busy_timeout_s)
        return cls(file, lease_s, max_record_bytes, clock)

    @property
    def partitions(self) -> int:
        """How many partitions every topic has."""
        return self.file.partitions

    @property
    def embedded(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_s(self) -> float | None:
        """For ever."""
        return None

    async def create_topics(self, specs: Collection[TopicSpec]) -> None:
        """Create the topics that do not exist."""
        self.file.check_open()
        self._topics.load()
        missing = [(spec.name, spec.compacted) for spec in specs if spec.name not in self._topics.ids]
        if missing:
            await self.file.write(
                lambda: self.file.connection.executemany(
                    "INSERT OR IGNORE INTO topics (name, compacted) VALUES (?, ?)", missing
                )
            )
            self._topics.load()

    async def topics(self) -> Collection[str]:
        """The names of all topics."""
        self.file.check_open()
        self._topics.load()
        return list(self._topics.ids)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Append messages from outside any lane."""
        self.file.check_open()
        placed = self._writer.place(messages)
        await self._writer.submit(Request(messages, placed, asyncio.get_running_loop().create_future()))

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> SqliteLanes:
        """Join a group."""
        self.file.check_open()
        return await self._members.join(group, topics, start, earliest)

    async def read(
        self,
        topic: str,
        *,
        partition: int | None = None,
        start: int = 0,
        end: int | None = None,
        key: bytes | None = None,
    ) -> AsyncIterator[Record]:
        """Look at a topic without a group; over all partitions, in order of time."""
        self.file.check_open()
        if partition is not None:
            check_partition(topic, partition, self.partitions)
        partitions = range(self.partitions) if partition is None else (partition,)
        for count, record in enumerate(browse(self._tail, topic, partitions, start, end, key)):
            if count % PAGE == PAGE - 1:
                await asyncio.sleep(0)
                self.file.check_open()
            yield record

    async def table(self, topic: str) -> Mapping[bytes, Record]:
        """A compacted topic as a table."""
        self.file.check_open()
        return {
            record.key: record
            for record in latest_by_key(self._tail, topic)
            if record.key is not None and record.value is not None
        }

    async def close(self) -> None:
        """Write what is queued, give up every lane, let go of the file."""
        if not self._closing:
            self._closing = True
            await self._writer.drain()
            await self._members.close()
            await self._writer.drain()
            self.file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _lane_lost(self) -> None:
        self._members.wake()
