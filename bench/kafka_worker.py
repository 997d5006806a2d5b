"""A process that is measured: agents, the coordinator, or the bare loop, until its standard input ends.

    python -m bench.kafka_worker '{"servers": ..., "prefix": ..., "agents": ["relay-0"], ...}'

It says what it has done in lines of JSON: ``begun`` with the first records, ``ended`` when as many outputs as it was told
are committed, ``stopped`` at last, and ``figures`` whenever it is asked, by a line.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TypedDict, cast

from bench.kafka_place import Broker, Place
from bench.kafka_relay import bare_loop, relay
from bench.kafka_sampler import sampled

from pavane.agent import Agent
from pavane.memory import settle_memory
from pavane.runner import Surroundings, run
from pavane.settings import load_settings
from pavane_events.bus import Bus, Lane, Start
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.lanes import KafkaLanes
from pavane_events.record import Message, Record


class Order(TypedDict):
    """What a worker is told. ``agents``: by name; ``until``: how many outputs end the measurement; 0: none."""

    servers: str
    prefix: str
    partitions: int
    session_ms: int
    pace: float
    agents: list[str]
    coordinator: bool
    bare: bool
    trace: bool
    until: int
    profile: str | None


Figures = dict[str, float]


class Tally:
    """What was committed, and when."""

    def __init__(self, until: int) -> None:
        self.outputs = 0
        self.commits = 0
        self.bare_transactions = 0
        self.memberships: list[KafkaLanes] = []
        self.lanes: list[Lane] = []
        self._until = until
        self._begun = False
        self._ended = False

    def begin(self) -> None:
        """The first records are here: from now on every second counts, whatever is still to be compiled and connected."""
        if not self._begun:
            self._begun = True
            say("begun", self.figures())

    def note(self, outputs: int) -> None:
        """One commit has happened."""
        self.outputs += outputs
        self.commits += 1
        if self._until and self.outputs >= self._until and not self._ended:
            self._ended = True
            say("ended", self.figures())

    def note_bare(self, outputs: int) -> None:
        """The bare loop has committed."""
        self.bare_transactions += 1
        self.note(outputs)

    def figures(self) -> Figures:
        """As of now."""
        return {
            "at_s": time.monotonic(),
            "cpu_s": time.process_time(),
            "outputs": self.outputs,
            "commits": self.commits,
            "transactions": self.bare_transactions + sum(map(_transactions, self.memberships)),
            "lanes": sum(not lane.lost for lane in self.lanes),
            "partitions": sum({1 << lane.partition for lane in self.lanes if not lane.lost}),
        }


def _transactions(lanes: KafkaLanes) -> int:
    """The adapter counts them, and shows nobody."""
    parts = attrgetter("_parts")(lanes)
    return int(parts.committer.transactions) if parts is not None else 0


def say(what: str, figures: Mapping[str, float]) -> None:
    """One line for the process that measures."""
    print(json.dumps({"what": what, **figures}), flush=True)


class CountedLane:
    """A lane that counts its commits."""

    def __init__(self, lane: Lane, tally: Tally) -> None:
        self._lane = lane
        self._tally = tally
        self.state = lane.state

    def __getattr__(self, name: str) -> object:
        return getattr(self._lane, name)

    async def receive(self, maximum: int, timeout_s: float) -> Sequence[Record]:
        """Receive, and note the first time."""
        records = await self._lane.receive(maximum, timeout_s)
        if records:
            self._tally.begin()
        return records

    async def commit(
        self,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        """Commit, then count."""
        await self._lane.commit(done, outputs, state)
        self._tally.note(len(outputs) if done else 0)


class CountedLanes:
    """A membership whose lanes count."""

    def __init__(self, lanes: KafkaLanes, tally: Tally) -> None:
        self._lanes = lanes
        self._tally = tally
        self.subscribe = lanes.subscribe
        self.close = lanes.close

    def __aiter__(self) -> AsyncIterator[Lane]:
        return self

    async def __anext__(self) -> Lane:
        lane = await anext(self._lanes)
        self._tally.lanes.append(lane)
        return cast("Lane", CountedLane(lane, self._tally))


class CountedBus:
    """A bus whose lanes count."""

    def __init__(self, bus: KafkaBus, tally: Tally) -> None:
        self._bus = bus
        self._tally = tally

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> CountedLanes:
        """Join a group."""
        lanes = await self._bus.lanes(group, topics, start=start, earliest=earliest)
        self._tally.memberships.append(lanes)
        return CountedLanes(lanes, self._tally)


def agents_of(names: Sequence[str]) -> list[Agent]:
    """``relay-3``, or one of the credit application's."""
    from pavane_credit.choreography import AGENTS

    credit = {agent.name: agent for agent in AGENTS}
    return [relay(int(name.removeprefix("relay-"))) if name.startswith("relay-") else credit[name] for name in names]


async def work(order: Order) -> None:
    """Until the input ends."""
    tally = Tally(order["until"])
    place = Place(Broker(order["servers"], ()), order["prefix"], order["partitions"], order["session_ms"], order["pace"])
    if order["bare"]:
        working = asyncio.create_task(bare_loop(place, tally.begin, tally.note_bare))
        listening = asyncio.create_task(_listen(tally))
        await asyncio.wait([working, listening], return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        return
    from pavane_credit.choreography import SAGAS

    stop = asyncio.Event()
    async with await place.open() as bus:
        counted = cast("Bus", CountedBus(bus, tally))
        sagas = SAGAS if order["coordinator"] else ()
        surroundings = Surroundings(trace=order["trace"], tracing_options=load_settings().tracing_options())
        running = asyncio.create_task(run(agents_of(order["agents"]), sagas, counted, stop, surroundings))
        listening = asyncio.create_task(_listen(tally))
        await asyncio.wait([running, listening], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await running
    say("stopped", tally.figures())


async def _listen(tally: Tally) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        say("figures", tally.figures())


def main() -> None:
    """As ``pavane run`` does: the collector leaves alone what is there for good."""
    logging.basicConfig(level=logging.WARNING)
    order = cast("Order", json.loads(sys.argv[1]))
    settle_memory()
    if order["profile"] is None:
        asyncio.run(work(order))
        return
    with sampled(Path(order["profile"])):
        asyncio.run(work(order))


if __name__ == "__main__":
    main()
