"""Digest: when two moments of two histories are the same, so that what may follow is looked at once only."""

from collections.abc import Iterator
from typing import Final

from pavane.simulation.world import World
from pavane_events.buses.memory import MemoryLane
from pavane_events.envelope import parse
from pavane_events.errors import UndecodableRecord
from pavane_events.record import Record
from pavane_saga.wire import FACTS, GRANT, UNDO, asked_for, read_fact
from pavane_tracing.store import SPANS_TOPIC

State = int

_OF_NONE: Final = -1
"""In the place of a saga for what is of none: the hash of None is another in every process, and states are compared."""


class Digest:
    """The state of a world, relative to where its history began: the same in every history that comes to it.

    It is made of what lies on each topic, in order, by what it says; of how far each lane has read and committed, of
    every lane that does not know of its loss; of every call that was made, and how it ended; and of what is held back or
    frozen. What a lane's state holds follows from what it committed. Ids and times are left out: they differ from history
    to history. Made at the beginning of a history.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._bus = world.bus
        self._began = world.bus.ends()
        self._arrivals = world.bus.arrivals
        self._said: dict[str, int] = {}
        self._all_said: tuple[tuple[str, int], ...] = ()
        self._places: dict[tuple[str, int], int] = {}
        self._lanes: dict[tuple[object, ...], int] = {}

    def take(self) -> State:
        """The state now."""
        world = self._world
        if self._bus.arrivals != self._arrivals:
            self._hear()
        sagas = world.ordinals
        calls = tuple(
            [
                (each.kind, sagas.get(each.saga, _OF_NONE), each.step, each.attempt, each.how, each.error)
                for each in world.calls.made
            ]
        )
        sticky = tuple([f"{kind}{action}" for (kind, _), action in world.calls.sticky.items()])
        frozen = sum([not each.done() for each in world.calls.zombies])
        lanes = tuple([self._lane(lane) for lane in self._bus.readers()])
        return hash((self._all_said, calls, sticky, frozen, lanes, tuple(world.script.held.items())))

    def _hear(self) -> None:
        """Take in what was written since."""
        for record in self._bus.written_after(self._arrivals):
            if record.topic != SPANS_TOPIC:
                self._said[record.topic] = hash((self._said.get(record.topic, 0), self._saga(record), *_words(record)))
        self._all_said = tuple(sorted(self._said.items()))
        self._arrivals = self._bus.arrivals

    def _saga(self, record: Record) -> int:
        return self._world.ordinals.get((record.key or b"").decode(errors="replace"), _OF_NONE)

    def _lane(self, lane: MemoryLane) -> int:
        """A lane that stands where it stands, by what is the same in every history: most stand where one stood before."""
        stands = (lane.group, tuple(lane.positions.items()), tuple(lane.committed.items()))
        found = self._lanes.get(stands)
        if found is None:
            found = self._lanes[stands] = hash((lane.group, *self._place(lane)))
        return found

    def _place(self, lane: MemoryLane) -> Iterator[tuple[str, int, int]]:
        """How far a lane has read and committed, in records of this history."""
        committed = lane.committed
        places = self._places
        for topic, read in lane.positions.items():
            done = committed.get(topic, 0)
            for offset in (read, done):
                if (topic, offset) not in places:
                    places[topic, offset] = self._bus.place(topic, offset) - self._began.get(topic, 0)
            yield topic, places[topic, read], places[topic, done]


def _words(record: Record) -> Iterator[str]:
    """What a record says, without its ids."""
    try:
        envelope = parse(record)
    except UndecodableRecord:
        yield "?"
        return
    yield envelope.type
    yield envelope.step or ""
    yield f"{envelope.part}/{envelope.parts}"
    if record.topic == FACTS:
        fact = read_fact(envelope)
        for name in ("step", "how", "began", "code", "rule", "verdict", "retry"):
            yield str(getattr(fact, name, ""))
    elif envelope.type in (UNDO, GRANT):
        asked = asked_for(envelope)
        yield f"{asked[0]} {asked[2]}" if asked is not None else ""
