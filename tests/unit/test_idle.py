"""Sagas that wait: while nothing happens, the coordinator looks at the clock now and then, and that is all it does.

On virtual time, an hour of which is no time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta
from typing import cast

from pavane import Agent, Event, Saga
from pavane.runner import Surroundings
from pavane.simulation.virtual_time import VirtualLoop
from pavane_events.bus import Bus, Lane, Lanes, Start
from pavane_events.buses.memory import MemoryBus
from pavane_events.record import Record
from pavane_saga.wire import COORDINATOR
from support.stage import stage

HOUR_S = 3600.0
LANES = 2
EPOCH_S = 1_700_000_000.0


class Asked(Event, type="idle.asked"):
    n: int


class Reviewed(Event, type="idle.reviewed"):
    n: int


class Granted(Event, type="idle.granted"):
    pass


class Answered(Event, type="idle.answered"):
    pass


class Counting:
    """A bus that counts what the coordinator's lanes are asked for."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> Lanes:
        found = await self._bus.lanes(group, topics, start=start, earliest=earliest)
        return cast("Lanes", CountingLanes(found, self.calls)) if group == COORDINATOR else found


class CountingLanes:
    def __init__(self, lanes: Lanes, calls: "Counter[str]") -> None:
        self._lanes, self._calls = lanes, calls

    def __getattr__(self, name: str) -> object:
        return getattr(self._lanes, name)

    async def __aiter__(self) -> AsyncIterator[Lane]:
        async for lane in self._lanes:
            yield cast("Lane", CountingLane(lane, self._calls))


class CountingLane:
    def __init__(self, lane: Lane, calls: "Counter[str]") -> None:
        self._lane, self._calls = lane, calls

    def __getattr__(self, name: str) -> object:
        if name in ("commit", "high_watermarks"):
            self._calls[name] += 1
        return getattr(self._lane, name)

    async def receive(self, most: int, until_s: float) -> Sequence[Record]:
        self._calls["receive"] += 1
        return await self._lane.receive(most, until_s)


def choreography() -> tuple[Agent, Saga]:
    agent = Agent("patient")

    @agent.step
    async def review(asked: Asked) -> Reviewed:
        return Reviewed(n=asked.n)

    @review.compensate
    async def forget(asked: Asked, done: Reviewed | None) -> None:
        """There is nothing to take back."""

    @agent.step(effects=False, external=True)
    async def conclude(reviewed: Reviewed, granted: Granted) -> Answered:
        return Answered()

    saga = Saga("idle", starts=Asked, completes=Answered, answers=Granted, deadline=timedelta(hours=2), intake="idle.intake")
    return agent, saga


def an_hour_of(waiting: int) -> tuple[Counter[str], Counter[str]]:
    """What the coordinator's lanes are asked for in an hour in which so many sagas wait; and how they ended long after."""
    loop = VirtualLoop()

    async def scenario() -> tuple[Counter[str], Counter[str]]:
        agent, saga = choreography()
        bus = Counting(MemoryBus(partitions=LANES, clock=lambda: EPOCH_S + loop.time()))
        quiet = Surroundings(trace=False, clock=lambda: EPOCH_S + loop.time(), chance=lambda: 0.5)
        async with stage([agent], [saga], bus=cast("Bus", bus), surroundings=quiet) as running:
            for number in range(waiting):
                await running.publish({"n": number})
            await asyncio.sleep(60)
            assert len(await running.events(Reviewed.event_type)) == waiting
            before = Counter(bus.calls)
            await asyncio.sleep(HOUR_S)
            spent = bus.calls - before
            await asyncio.sleep(2 * HOUR_S)
            return spent, Counter((await running.verdicts()).values())

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(scenario())


def test_an_hour_of_waiting_is_no_commit_and_a_look_a_second_however_many_wait() -> None:
    (few, few_ended), (many, many_ended) = an_hour_of(2), an_hour_of(200)
    assert few["commit"] == many["commit"] == 0
    assert few["high_watermarks"] == many["high_watermarks"] == 0
    assert few["receive"] == many["receive"] <= LANES * (HOUR_S + 1)
    assert (few_ended, many_ended) == ({"compensated": 2}, {"compensated": 200}), "their deadline woke it"
