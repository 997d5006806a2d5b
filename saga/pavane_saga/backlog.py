"""Backlog: what would start sagas while their lane is closed, and what is of sagas that only another coordinator knows, held
back; and that the rest of those topics goes on. No I/O."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, cast

from pavane_events.bus import LaneState
from pavane_events.compact import read_json, write_json
from pavane_events.record import Record, size_of

MOST_HELD: Final = 1_000
MOST_HELD_BYTES: Final = 16_000_000


class Backlog:
    """The records of some topics that a lane holds back, with their offsets. What lies behind them may be done all the same.

    Below a topic's offset in :meth:`offsets` everything is done. Row ``b/<topic>`` is there where more is: the offsets that
    are held back, and the one below which all others are done. So the lane's next holder does nothing twice.
    """

    def __init__(self, state: LaneState, topics: Collection[str]) -> None:
        self._rows: dict[str, bytes] = {}
        self._undone: dict[str, set[int]] = {}
        """The offsets below ``_read`` that are not done: held back by this holder, or by one before it and not read yet."""
        self._read: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._stale: set[str] = set()
        """The topics of which more is done than offset and row say."""
        self._held = _Shelf()
        self._unknown = _Shelf()
        for topic in topics:
            row = state.get(_key(topic))
            undone, read = _read(row)
            self._undone[topic], self._read[topic] = set(undone), read
            if row is not None:
                self._rows[topic], self._told[topic] = row, min(undone)

    def __len__(self) -> int:
        return len(self._held.records)

    @property
    def is_full(self) -> bool:
        """Whether its topics should be paused until the lane is open."""
        return self._held.is_full

    @property
    def waits(self) -> bool:
        """Whether something is held back for another coordinator."""
        return bool(self._unknown.records)

    def is_new(self, record: Record) -> bool:
        """Whether a record is neither done nor held back."""
        topic, offset = record.topic, record.offset
        if offset >= self._read[topic]:
            return True
        return offset in self._undone[topic] and not self._held.has(record) and not self._unknown.has(record)

    def holds(self, saga: str) -> bool:
        """Whether something of a saga is held back until the lane is open."""
        return saga in self._held.sagas

    def hold(self, record: Record, saga: str) -> None:
        """Hold a record of a saga back until the lane is open."""
        self._held.put(record, saga)
        self._not_done(record)

    def waits_for(self, saga: str) -> bool:
        """Whether something of a saga is held back for another coordinator."""
        return saga in self._unknown.sagas

    def wait(self, record: Record, saga: str) -> bool:
        """Hold a record of a saga back for another coordinator, if there is room for it."""
        if self._unknown.is_full:
            return False
        self._unknown.put(record, saga)
        self._not_done(record)
        return True

    def _not_done(self, record: Record) -> None:
        self._undone[record.topic].add(record.offset)
        self._read[record.topic] = max(self._read[record.topic], record.offset + 1)

    def done(self, record: Record) -> None:
        """A record is done, one that was :meth:`released <release>` as well."""
        topic, offset = record.topic, record.offset
        self._undone[topic].discard(offset)
        self._read[topic] = max(self._read[topic], offset + 1)
        self._stale.add(topic)

    def release(self) -> list[Record]:
        """All that was held back until the lane is open, in order, to be done now."""
        released = [record for record, _ in self._held.records.values()]
        self._held = _Shelf()
        return released

    def given_up(self, before_ms: int) -> list[Record]:
        """What was held back for another coordinator and is older than that, to be done now."""
        old = [record for record, _ in self._unknown.records.values() if record.timestamp_ms <= before_ms]
        for record in old:
            self._unknown.take(record)
        return old

    def offsets(self) -> Mapping[str, int]:
        """By topic, below which offset everything is done; where that has changed since it was asked for last."""
        found: dict[str, int] = {}
        for topic, read in self._read.items():
            offset = min(self._undone[topic], default=read)
            if offset > self._told.get(topic, 0):
                found[topic] = self._told[topic] = offset
        return found

    def rows(self) -> Mapping[bytes, bytes | None]:
        """The rows that have changed since they were asked for last."""
        changes: dict[bytes, bytes | None] = {}
        for topic in self._stale:
            undone = self._undone[topic]
            if undone:
                self._rows[topic] = changes[_key(topic)] = write_json([sorted(undone), self._read[topic]])
            elif self._rows.pop(topic, None) is not None:
                changes[_key(topic)] = None
        self._stale.clear()
        return changes


class _Shelf:
    """Records that are held back for one reason, in order, with their sagas."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], tuple[Record, str]] = {}
        self.sagas: Counter[str] = Counter()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.records) >= MOST_HELD or self._bytes >= MOST_HELD_BYTES

    def has(self, record: Record) -> bool:
        return (record.topic, record.offset) in self.records

    def put(self, record: Record, saga: str) -> None:
        self.records[record.topic, record.offset] = record, saga
        self.sagas[saga] += 1
        self._bytes += _bytes_of(record)

    def take(self, record: Record) -> None:
        _, saga = self.records.pop((record.topic, record.offset))
        self.sagas[saga] -= 1
        if not self.sagas[saga]:
            del self.sagas[saga]
        self._bytes -= _bytes_of(record)


def _bytes_of(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"") + size_of(record.headers)


def _read(row: bytes | None) -> tuple[list[int], int]:
    """The offsets that a row says are held back, and the one below which all others are done."""
    if row is None:
        return [], 0
    undone, read = cast("list[object]", read_json(row))
    return cast("list[int]", undone), cast("int", read)


def _key(topic: str) -> bytes:
    return b"b/" + topic.encode()
