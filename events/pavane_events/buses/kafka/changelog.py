"""The changelog: a lane's state and its own row, one compacted partition per lane, written in the commit's transaction.

The lane's row says how many commits the lane has seen and where each topic stands; it is written with every commit, so
state and offsets can never be of different age.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.fetching import EARLIEST, LATEST, list_offsets
from pavane_events.buses.kafka.reading import read_to
from pavane_events.buses.kafka.transactions import Row
from pavane_events.buses.spilling_state import Room, SpillingState
from pavane_events.record import Record

LANE_ROW: Final = b"lane"
_STATE: Final = b"s"
TOPIC: Final = ".state"
"""What a group's changelog is called: the group's name and this."""


@dataclass(slots=True)
class LaneRow:
    """What outlives the holder of a lane. ``begins``: how often places to begin at were taken, which is no commit."""

    number: int = 0
    begins: int = 0
    offsets: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def stamp(self) -> str:
        """What the row is known by in the metadata of the lane's offset."""
        return f"{self.number}.{self.begins}"

    def payload(self) -> Row:
        """The row as it is written."""
        row = {"number": self.number, "begins": self.begins, "offsets": self.offsets}
        return Row(LANE_ROW, json.dumps(row, separators=(",", ":")).encode())


def read_row(value: bytes) -> LaneRow:
    """What :meth:`LaneRow.payload` wrote."""
    row = cast("dict[str, object]", json.loads(value))
    return LaneRow(cast("int", row["number"]), cast("int", row["begins"]), dict(cast("dict[str, int]", row["offsets"])))


def payloads_of(state: Mapping[bytes, bytes | None]) -> list[Row]:
    """Changes of state as they are written; a value of None deletes."""
    return [Row(_STATE + key, value) for key, value in state.items()]


@dataclass(slots=True)
class Restored:
    """A lane as its changelog tells it. ``end``: the offset up to which it was read."""

    row: LaneRow
    state: SpillingState
    end: int


async def restore(client: AIOKafkaClient, place: TopicPartition, room: Room) -> Restored:
    """Read a changelog up to where it ends now, transactions that are still open included: it waits for their end.

    To be called after a stable read of the lane's offset: then nothing of a former holder can follow.
    """
    end = (await list_offsets(client, [place], LATEST))[place]
    start = (await list_offsets(client, [place], EARLIEST))[place]
    state = SpillingState(room, f"{place.topic}-{place.partition}")
    reading = Reading(state)
    try:
        async for records, _ in read_to(client, place, start, end):
            reading.take(records)
    except BaseException:
        state.close()
        raise
    return Restored(reading.row, state, end)


class Reading:
    """A changelog on its way to be state."""

    def __init__(self, state: SpillingState) -> None:
        self.row = LaneRow()
        self._state = state

    def take(self, records: Iterable[Record]) -> None:
        """The next records."""
        row: bytes | None = None
        changes: dict[bytes, bytes | None] = {}
        for record in records:
            key = record.key or b""
            if key == LANE_ROW:
                row = record.value
            elif key.startswith(_STATE):
                changes[key[len(_STATE) :]] = record.value
        if row is not None:
            self.row = read_row(row)
        self._state.apply(changes)
