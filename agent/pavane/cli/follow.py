"""Follow: the records of some topics, from a place on, as they come: without a group, so nothing is disturbed."""

import heapq
from collections.abc import Iterable

from pavane_events.bus import Bus
from pavane_events.errors import UnknownTopic
from pavane_events.record import Record


class Follower:
    """Remembers how far each partition was read. Belongs to one task."""

    def __init__(self, bus: Bus, topics: Iterable[str], *, saga: str | None = None) -> None:
        self._bus = bus
        self._key = saga.encode() if saga is not None else None
        self._positions = {(topic, partition): 0 for topic in topics for partition in range(bus.partitions)}

    async def take(self) -> list[Record]:
        """What has come since the last call, in order of time, then of offset. A topic that does not exist yet is empty."""
        found: list[list[Record]] = []
        for (topic, partition), start in self._positions.items():
            try:
                records = [record async for record in self._bus.read(topic, partition=partition, start=start, key=self._key)]
            except UnknownTopic:
                continue
            if records:
                self._positions[topic, partition] = records[-1].offset + 1
                found.append(records)
        return list(heapq.merge(*found, key=lambda record: (record.timestamp_ms, record.offset)))
