"""A step makes something else of its cancellation, as client libraries do: its lane ends all the same, and tries no more."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import pytest

from pavane import Agent, Event, Retry, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings, run
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.memory_lanes import MemoryLane
from pavane_events.errors import UnknownTopic
from pavane_events.record import Message
from support.compiled import sources_only
from support.stage import Stage

SOON_S = 20.0


class Asked(Event, type="giving.asked", version=1):
    n: int = 0


class Sent(Event, type="giving.sent", version=1):
    n: int = 0


SAGA = Saga("giving", starts=Asked, completes=Sent, intake="giving.intake")
QUICK = Surroundings(trace=False, limits=Limits(drain_s=0.1))


async def answers(begun: asyncio.Event) -> Sent:
    begun.set()
    with suppress(BaseException):
        await asyncio.sleep(3600)
    return Sent()


async def fails(begun: asyncio.Event) -> Sent:
    begun.set()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise ConnectionError("closed in the middle of it") from None
    return Sent()


async def goes_on(begun: asyncio.Event) -> Sent:
    begun.set()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
    return Sent()


Deaf = Callable[[asyncio.Event], Awaitable[Sent]]


def sender(deaf: Deaf, begun: asyncio.Event, calls: list[int], retry: Retry) -> Agent:
    agent = Agent("sender")

    @agent.step(effects=False, retry=retry)
    async def send(asked: Asked) -> Sent:
        calls.append(asked.n)
        return await deaf(begun)

    return agent


async def started(agents: Sequence[Agent], stop: asyncio.Event, bus: MemoryBus | None = None) -> "asyncio.Task[None]":
    bus = bus or MemoryBus(partitions=1)
    await bus.create_topics([TopicSpec(SAGA.intake)])
    running = asyncio.create_task(run(agents, [SAGA], bus, stop, QUICK))
    await Stage(bus, [SAGA]).publish({"n": 1})
    return running


async def ended(running: "asyncio.Task[None]") -> bool:
    done, _ = await asyncio.wait([running], timeout=SOON_S)
    running.cancel()
    return bool(done)


@pytest.mark.parametrize("deaf", [answers, fails, goes_on])
def test_a_stop_ends_in_its_time(deaf: Deaf) -> None:
    async def scenario() -> None:
        begun, stop, calls = asyncio.Event(), asyncio.Event(), list[int]()
        running = await started([sender(deaf, begun, calls, Retry(attempts=3, first_s=0.01))], stop)
        await begun.wait()
        stop.set()
        assert await ended(running)
        assert calls == [1]

    asyncio.run(scenario())


@sources_only
@pytest.mark.parametrize("deaf", [answers, fails, goes_on])
def test_an_agent_that_fails_for_good_ends_the_others_too(deaf: Deaf, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = MemoryLane.commit
    broken = asyncio.Event()

    async def refusing(
        self: MemoryLane,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        if self.group == "other" and broken.is_set():
            raise UnknownTopic("it was deleted")
        await commit(self, done, outputs, state)

    monkeypatch.setattr(MemoryLane, "commit", refusing)

    async def scenario() -> None:
        begun, calls = asyncio.Event(), list[int]()
        other = Agent("other")

        @other.step(effects=False)
        async def note(asked: Asked) -> None:
            await begun.wait()
            broken.set()

        sending = sender(deaf, begun, calls, Retry(attempts=3, first_s=0.01))
        running = await started([sending, other], asyncio.Event())
        await broken.wait()
        assert await ended(running)
        with pytest.raises(ExceptionGroup):
            await running
        assert calls == [1]

    asyncio.run(scenario())


@pytest.mark.parametrize("deaf", [answers, fails, goes_on])
def test_on_a_lane_that_is_lost_it_is_not_tried_again(deaf: Deaf) -> None:
    async def scenario() -> None:
        begun, stop, calls = asyncio.Event(), asyncio.Event(), list[int]()
        again = asyncio.Event()

        async def once(first: asyncio.Event) -> Sent:
            if not first.is_set():
                return await deaf(first)
            again.set()
            return Sent()

        bus = MemoryBus(partitions=1)
        running = await started([sender(once, begun, calls, Retry(attempts=5, first_s=0.01))], stop, bus)
        await begun.wait()
        bus.take_away("sender", 0)
        await asyncio.wait_for(again.wait(), SOON_S)  # its next holder's
        await asyncio.sleep(0.3)
        assert calls == [1, 1]
        stop.set()
        assert await ended(running)

    asyncio.run(scenario())
