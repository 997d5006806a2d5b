"""Follow: the records of some topics, from a place on, as they come: without a group, so nothing is disturbed."""

import heapq
from collections.abc import AsyncIterator, Iterable

from pavane_events.bus import Bus
from pavane_events.errors import UnknownTopic
from pavane_events.record import Record


class Follower:
    """Remembers how far each partition was read. Belongs to one task."""

    def __init__(self, bus: Bus, topics: Iterable[str], *, saga: str | None = None) -> None:
        self._bus = bus
        self._key = saga.encode() if saga is not None else None
        self._positions = {(topic, partition): 0 for topic in topics for partition in range(bus.partitions)}

    async def news(self) -> AsyncIterator[Record]:
        """What has come since the last call, in order of time, then of offset; a record of each partition at a time."""
        sources = [self._read(topic, partition) for topic, partition in self._positions]
        heads: list[tuple[tuple[int, int], int, Record]] = []
        for index, source in enumerate(sources):
            record = await anext(source, None)
            if record is not None:
                heads.append(((record.timestamp_ms, record.offset), index, record))
        heapq.heapify(heads)
        while heads:
            _, index, record = heads[0]
            self._positions[record.topic, record.partition] = record.offset + 1
            yield record
            following = await anext(sources[index], None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, ((following.timestamp_ms, following.offset), index, following))

    async def _read(self, topic: str, partition: int) -> AsyncIterator[Record]:
        """From where it was read to; a topic that does not exist yet is empty."""
        start = self._positions[topic, partition]
        try:
            async for record in self._bus.read(topic, partition=partition, start=start, key=self._key):
                yield record
        except UnknownTopic:
            return
