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

_LASTING: Final = frozenset({"fail", "fail-after", "reject", "twice"})
"""What is done to a call and matters when it is over: to the next call of the same, or to the user's stores."""

_OFF_ROUND: Final = 0.123
"""Histories do not begin at the same time, and times are rounded: no pause of whole tenths lies on an edge."""


class Digest:
    """The state of a world, relative to where its history began: the same in every history that comes to it.

    It is made of what lies on each topic, in order, by what it says; of how far each lane has read and committed, of
    every lane that does not know of its loss; of every call that was made, how it ended, and what it is still to come to;
    of what is held back, frozen, or taken over by a next version; of what somebody outside will not say, or not yet; and
    of the seconds since the history began. What a lane's state holds follows from what it committed. Ids and exact times
    are left out: they differ from history to history. Made at the beginning of a history.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._bus = world.bus
        self._began = self._arrivals = world.bus.arrivals
        self._said: dict[tuple[str, int], int] = {}
        self._all_said: tuple[tuple[tuple[str, int], int], ...] = ()
        self._places: dict[tuple[str, int, int], int] = {}
        self._lanes: dict[tuple[object, ...], int] = {}

    def take(self) -> State:
        """The state now."""
        world = self._world
        if self._bus.arrivals != self._arrivals:
            self._hear()
        sagas = world.ordinals
        calls = tuple(
            [
                (
                    each.kind,
                    sagas.get(each.saga, _OF_NONE),
                    each.step,
                    each.attempt,
                    each.how,
                    each.error,
                    each.worked,
                    each.fate if each.fate in _LASTING or each.ended is None else "",
                )
                for each in world.calls.made
            ]
        )
        frozen = sum([not each.done() for each in world.calls.zombies])
        lanes = tuple([self._lane(lane) for lane in self._bus.readers()])
        seconds = int(world.loop.time() - world.began_s + _OFF_ROUND)
        return hash((self._all_said, calls, len(world.calls.sticky), frozen, lanes, tuple(sorted(world.script.open)), seconds))

    def _hear(self) -> None:
        """Take in what was written since."""
        for record in self._bus.written_since(self._arrivals):
            if record.topic != SPANS_TOPIC:
                place = record.topic, record.partition
                self._said[place] = hash((self._said.get(place, 0), self._saga(record), *_words(record)))
        self._all_said = tuple(sorted(self._said.items()))
        self._arrivals = self._bus.arrivals

    def _saga(self, record: Record) -> int:
        return self._world.ordinals.get((record.key or b"").decode(errors="replace"), _OF_NONE)

    def _lane(self, lane: MemoryLane) -> int:
        """A lane that stands where it stands, by what is the same in every history: most stand where one stood before."""
        read, committed = lane.positions, lane.committed
        done = 0 if read == committed else self._done(lane)
        stands = (lane.group, lane.partition, done, tuple(read.items()), tuple(committed.items()))
        found = self._lanes.get(stands)
        if found is None:
            found = self._lanes[stands] = hash((lane.group, lane.partition, done, *self._place(lane)))
        return found

    def _done(self, lane: MemoryLane) -> int:
        """How many calls are over whose answers this holder may still have to commit: another would make them again."""
        group, holder = lane.group, (lane.partition, lane.token)
        return sum(
            [
                each.holder == holder and each.ended is not None and each.step.partition("/")[0] == group
                for each in self._world.calls.made
            ]
        )

    def _place(self, lane: MemoryLane) -> Iterator[tuple[str, int, int]]:
        """How far a lane has read and committed, in records of this history."""
        committed, partition = lane.committed, lane.partition
        places = self._places
        for topic, read in lane.positions.items():
            done = committed.get(topic, 0)
            for offset in (read, done):
                if (topic, partition, offset) not in places:
                    places[topic, partition, offset] = self._bus.place(topic, partition, offset, self._began)
            yield topic, places[topic, partition, read], places[topic, partition, done]


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
