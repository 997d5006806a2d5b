"""A newcomer: an agent that joins while sagas run hears of every end that was told, however long ago."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from pavane import Agent, Event, Rejected, Saga, SagaEnded
from pavane.runner import Surroundings, run
from pavane_events.buses.memory import MemoryBus
from pavane_saga.facts import Declared
from support.stage import Stage, stage, until


class Asked(Event, type="n.asked"): ...


class Half(Event, type="n.half"): ...


class Third(Event, type="n.third"): ...


class Done(Event, type="n.done"): ...


SAGA = Saga("n", starts=Asked, completes=Done, intake="n.intake", deadline=timedelta(minutes=5))
QUIET = Surroundings(trace=False)


def perform(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


class World:
    """One agent that is slow and owes an undo, and one that refuses at once: the saga has turned back while the first still
    works. ``undone``: how often it was undone."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.undone = 0
        first, quick, second = Agent("first"), Agent("quick"), Agent("second")
        self.agents = [first, quick, second]

        @first.step
        async def begin(asked: Asked) -> Half:
            await self.may_answer.wait()
            return Half()

        @begin.compensate
        async def back(asked: Asked, done: Half | None) -> None:
            self.undone += 1

        @quick.step(effects=False)
        async def look(asked: Asked) -> None:
            raise Rejected("no")

        @second.step(effects=False)
        async def third(half: Half) -> Third:
            return Third()

        @second.step(effects=False)
        async def finish(third: Third) -> Done:
            return Done()


def one(half: Half) -> str:
    return "one"


def that_holds(kind: str) -> Agent:
    """An agent whose step holds its input: until it is told that the saga has ended nobody can say that it never began."""
    late = Agent("late")
    if kind == "a join":

        @late.step(effects=False)
        async def both(half: Half, third: Third) -> None: ...

    elif kind == "a pivot":

        @late.step(effects=False, pivot=True)
        async def pay(half: Half) -> None: ...

    else:

        @late.step(effects=False, lock=one)
        async def locked(half: Half) -> None: ...

    return late


async def has_declared(running: Stage, agent: str, times: int = 1) -> None:
    async def declared() -> bool:
        found = [each for each in await running.facts() if isinstance(each, Declared)]
        return sum(each.agent == agent for each in found) == times

    await until(declared)


@pytest.mark.parametrize("before", ["nothing", "observers only"])
@pytest.mark.parametrize("kind", ["a join", "a pivot", "a lock"])
def test_what_it_holds_of_a_saga_that_had_turned_back_before_is_let_go(kind: str, before: str) -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=1)
        async with stage(world.agents, [SAGA], bus=bus, surroundings=QUIET) as running:
            if before == "observers only":
                observer, stop = Agent("late"), asyncio.Event()

                @observer.observe
                async def note(ended: SagaEnded) -> None: ...

                observing = asyncio.create_task(run([observer], [], bus.peer(), stop, QUIET))
                await has_declared(running, "late")
                stop.set()
                await observing
            saga = await running.publish({})

            async def told() -> bool:
                return len(await running.events("pavane.ends", saga)) == 1

            await until(told)
            stop = asyncio.Event()
            working = asyncio.create_task(run([that_holds(kind)], [], bus.peer(), stop, QUIET))
            await has_declared(running, "late", 1 if before == "nothing" else 2)
            world.may_answer.set()
            assert (await running.ended(saga), world.undone) == ("compensated", 1)
            stop.set()
            await working
        await bus.close()

    perform(scenario)
