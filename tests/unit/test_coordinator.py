"""The coordinator at work: when it opens the intake, restarts, zombies, several processes, a bus that is away for a while."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

import pytest

from pavane import Agent, Event, Saga
from pavane.plan import plan_of
from pavane.runner import Surroundings, run
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import Envelope
from pavane_events.errors import BusUnavailable
from pavane_events.record import Message
from pavane_saga import coordinator
from pavane_saga.coordinator import run_coordinator
from pavane_saga.desk import Desk
from pavane_saga.facts import Settled
from pavane_saga.wire import ADMISSIONS, COORDINATOR
from pavane_tracing.work import Tracing
from support.stage import Stage, stage, until


class Asked(Event, type="c.asked"):
    n: int = 0


class Half(Event, type="c.half"):
    n: int = 0


class Answered(Event, type="c.answered"):
    n: int = 0


class Refused(Event, type="c.refused"):
    n: int = 0


class Watched(MemoryBus):
    """It counts how often somebody looks which topics there are, as the coordinator does when it looks around."""

    looks = 0

    async def topics(self) -> Collection[str]:
        self.looks += 1
        return await super().topics()

    async def looked_at(self, times: int) -> None:
        """Wait until that happened so many times more."""
        enough = self.looks + times

        async def happened() -> bool:
            return self.looks >= enough

        await until(happened)


def saga_of(deadline: timedelta = timedelta(minutes=5)) -> Saga:
    return Saga("c", starts=Asked, completes=Answered, fails=Refused, intake="c.intake", deadline=deadline)


class World:
    """Two agents; the second answers when it may. ``standing``: the first's effects."""

    def __init__(self) -> None:
        self.standing: list[int] = []
        self.undone: list[int] = []
        self.may_answer = asyncio.Event()
        self.first, self.second = Agent("first"), Agent("second")

        @self.first.step
        async def begin(asked: Asked) -> Half:
            self.standing.append(asked.n)
            return Half(n=asked.n)

        @begin.compensate
        async def take_back(asked: Asked, done: Half | None) -> None:
            self.undone.append(asked.n)

        @self.second.step(effects=False)
        async def end(half: Half) -> Answered | Refused:
            await self.may_answer.wait()
            return Refused() if half.n == 13 else Answered()


def perform(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(bounded())


QUIET = Surroundings(trace=False)


def test_the_intake_opens_when_every_agent_that_leads_to_the_end_has_declared() -> None:
    async def scenario() -> None:
        world, bus = World(), Watched(partitions=2)
        world.may_answer.set()
        async with stage([world.first], [saga_of()], bus=bus) as running:
            saga = await running.publish({"n": 1})

            async def declared() -> bool:
                return len(await running.events("pavane.facts")) == 2

            await until(declared)
            await bus.looked_at(6)
            assert await running.records("c.asked") == []
            stop = asyncio.Event()
            late = asyncio.create_task(run([world.second], [], bus, stop, QUIET))
            assert await running.ended(saga) == "completed"
            stop.set()
            await late
        await bus.close()

    perform(scenario)


def test_two_sagas_may_end_with_the_same_event() -> None:
    clerk = Agent("two-ends")

    @clerk.step(effects=False)
    async def answer(asked: Asked) -> Answered:
        return Answered(n=asked.n)

    @clerk.step(effects=False)
    async def answer_halves(half: Half) -> Answered:
        return Answered(n=half.n)

    halves = Saga("halves", starts=Half, completes=Answered, intake="c.halves")

    async def scenario() -> None:
        async with stage([clerk], [saga_of(), halves]) as running:
            sagas = [await running.publish({"n": n}, to=to) for n, to in enumerate(running.sagas)]
            assert [await running.ended(saga) for saga in sagas] == ["completed", "completed"]
            assert {event.saga for event in await running.events("c.answered")} == set(sagas)

    perform(scenario)


def test_a_coordinator_that_starts_again_goes_on_in_the_middle_of_its_sagas() -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=2)
        agents = [world.first, world.second]
        stop = asyncio.Event()
        working = asyncio.create_task(run(agents, [], bus, stop, QUIET))
        async with stage([], [saga_of()], bus=bus) as running:
            good, bad = await running.publish({"n": 1}), await running.publish({"n": 13})

            async def half_done() -> bool:
                return len(await running.events("c.half")) == 2

            await until(half_done)
        assert await Stage(bus, []).verdicts() == {}
        world.may_answer.set()
        async with stage([], [saga_of()], bus=bus) as running:
            assert [await running.ended(good), await running.ended(bad)] == ["completed", "compensated"]
            assert world.undone == [13]
        async with stage([], [saga_of()], bus=bus) as running:
            again = await running.publish({"n": 2}, name="again")
            assert await running.ended(again) == "completed"
            assert len(await running.events("pavane.saga-ended")) == 3
            assert len(await running.events("first.commands")) == 1
        stop.set()
        await working
        await bus.close()

    perform(scenario)


def test_a_coordinator_that_has_lost_its_lanes_commits_nothing_more() -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=2)
        agents = [world.first, world.second]
        async with stage(agents, [saga_of()], bus=bus) as running:
            sagas = [await running.publish({"n": n}) for n in (1, 2, 13)]

            async def half_done() -> bool:
                return len(await running.events("c.half")) == 3

            await until(half_done)
            stop, other = asyncio.Event(), bus.peer()
            coordinating = run_coordinator([saga_of()], other, stop, tracing=Tracing.off())
            zombies_heir = asyncio.create_task(coordinating)
            for partition in range(2):
                bus.take_away(COORDINATOR, partition, told=False)
            world.may_answer.set()
            assert [await running.ended(saga) for saga in sagas] == ["completed", "completed", "compensated"]
            assert len(await running.events("pavane.saga-ended")) == 3
            assert len(await running.events("first.commands")) == 1
            stop.set()
            await zombies_heir
            await other.close()
        await bus.close()

    perform(scenario)


def test_lanes_that_are_lost_are_forgotten() -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=1)
        async with stage([world.first, world.second], [saga_of()], bus=bus) as running:
            saga = await running.publish({"n": 1})

            async def half_done() -> bool:
                return len(await running.events("c.half")) == 1

            await until(half_done)
            for _ in range(20):
                bus.take_away(COORDINATOR, 0, told=True)
                await asyncio.sleep(0)
            world.may_answer.set()
            assert await running.ended(saga) == "completed"
            gc.collect()
            assert sum(type(each) is Desk for each in gc.get_objects()) == 1
        await bus.close()

    perform(scenario)


def test_two_coordinators_share_the_lanes_and_one_alone_goes_on() -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=4)
        world.may_answer.set()
        async with stage([world.first, world.second], [saga_of()], bus=bus) as running:
            stop, other = asyncio.Event(), bus.peer()
            second = asyncio.create_task(run_coordinator([saga_of()], other, stop, tracing=Tracing.off()))
            sagas = [await running.publish({"n": n}) for n in range(12)]
            assert {await running.ended(saga) for saga in sagas} == {"completed"}
            stop.set()
            await second
            more = [await running.publish({"n": n}, name=f"more{n}") for n in range(12)]
            assert {await running.ended(saga) for saga in more} == {"completed"}
            await other.close()
        await bus.close()

    perform(scenario)


def test_a_record_anywhere_on_the_intake_starts_its_saga_in_the_lane_that_owns_it() -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=4)
        world.may_answer.set()
        async with stage([world.first, world.second], [saga_of()], bus=bus) as running:
            names = [f"n{number}" for number in range(8)]
            events = [Envelope(id=name, source="/x", type="c.asked", data=b'{"n":1}') for name in names]
            messages = [event.to_message("c.intake", key=f"k{place}") for place in range(3) for event in events]
            await running.send(*messages)

            async def all_ended() -> bool:
                return len(await running.verdicts()) == 8

            await until(all_ended)
            assert len(await running.records("c.asked")) == 8
            assert len(await running.records(ADMISSIONS)) > 0
            assert await running.records("pavane.coordinator.dead-letters") == []
        await bus.close()

    perform(scenario)


def test_an_answer_that_was_in_the_log_in_time_saves_its_saga_however_late_it_is_read() -> None:
    async def scenario() -> None:
        now = [1_700_000_000.0]
        world, bus = World(), MemoryBus(partitions=1, clock=lambda: now[0])
        world.may_answer.set()
        surroundings = Surroundings(trace=False, clock=lambda: now[0])
        saga = saga_of(timedelta(minutes=1))
        stop = asyncio.Event()
        working = asyncio.create_task(run([world.first, world.second], [], bus, stop, surroundings))
        async with stage([], [saga], bus=bus, surroundings=surroundings) as running:
            await running.ended(await running.publish({"n": 1}))
        start = Envelope(id="s", source="/sagas/c", type="c.asked", data=b'{"n":2}', saga="the-saga")
        await bus.publish([start.to_message()])

        async def answered() -> bool:
            return len(await Stage(bus, []).events("c.answered", "the-saga")) == 1

        await until(answered)
        now[0] += 3600
        async with stage([], [saga], bus=bus, surroundings=surroundings) as running:
            assert await running.ended("the-saga") == "completed"
        stop.set()
        await working
        await bus.close()

    perform(scenario)


class Review(Event, type="c.review"):
    n: int = 0


class Reviewed(Event, type="c.reviewed"):
    n: int = 0


def reviewer() -> Agent:
    """It asks a person, and concludes with what he answers."""
    agent = Agent("reviewer")

    @agent.step(effects=False)
    async def ask(asked: Asked) -> Review:
        return Review()

    @agent.step(external=True, effects=False)
    async def conclude(review: Review, reviewed: Reviewed) -> Answered:
        return Answered()

    return agent


REVIEWED = Saga("c", starts=Asked, completes=Answered, intake="c.intake", deadline=timedelta(minutes=1), answers=Reviewed)


async def asks(bus: MemoryBus, saga: str) -> None:
    """Wait until it waits for a person."""

    async def asked() -> bool:
        return len(await Stage(bus, []).events("c.review", saga)) == 1

    await until(asked)


def reviewed(saga: str) -> Message:
    return Envelope(id="r", source="/people/x", type="c.reviewed", data=b"{}", saga=saga).to_message("c.intake", key=saga)


def test_an_answer_from_outside_that_was_there_in_time_counts_when_the_coordinator_was_away() -> None:
    class Slow(MemoryBus):
        """It says which topics there are no sooner than brokers do."""

        async def topics(self) -> Collection[str]:
            await asyncio.sleep(0.1)
            return await super().topics()

    async def scenario() -> None:
        now = [1_700_000_000.0]
        bus, stop = Slow(partitions=1, clock=lambda: now[0]), asyncio.Event()
        surroundings = Surroundings(trace=False, clock=lambda: now[0])
        working = asyncio.create_task(run([reviewer()], [], bus, stop, surroundings))
        async with stage([], [REVIEWED], bus=bus, surroundings=surroundings) as running:
            saga = await running.publish({"n": 1})
            await asks(bus, saga)
        await bus.publish([reviewed(saga)])
        now[0] += 3600
        async with stage([], [REVIEWED], bus=bus, surroundings=surroundings) as running:
            assert await running.ended(saga) == "completed"
            assert await running.dead(COORDINATOR) == []
        stop.set()
        await working
        await bus.close()

    perform(scenario)


def test_an_answer_from_outside_counts_while_sagas_may_not_start() -> None:
    async def scenario() -> None:
        now = [1_700_000_000.0]
        bus = Watched(partitions=1, clock=lambda: now[0])
        surroundings = Surroundings(trace=False, clock=lambda: now[0], look_s=0.01)
        async with stage([reviewer()], [REVIEWED], bus=bus, surroundings=surroundings) as running:
            saga = await running.publish({"n": 1})
            await asks(bus, saga)
            newcomer = Agent("newcomer")

            @newcomer.step(effects=False)
            async def conclude(half: Half) -> Answered:
                return Answered()

            @newcomer.step(effects=False)
            async def begin(asked: Asked) -> Half:
                return Half()

            await bus.create_topics(plan_of(newcomer).topic_specs())
            await bus.publish([plan_of(newcomer).manifest.to_message()])
            await bus.looked_at(4)
            other = await running.publish({"n": 2})
            await bus.publish([reviewed(saga)])
            now[0] += 3600
            assert await running.ended(saga) == "completed"
            assert await running.events("c.asked", other) == []
            assert await running.dead(COORDINATOR) == []
        await bus.close()

    perform(scenario)


def test_a_bus_that_is_away_while_it_looks_around_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(MemoryBus):
        away = 3

        async def topics(self) -> Collection[str]:
            if self.away:
                self.away -= 1
                raise BusUnavailable("locked")
            return await super().topics()

    monkeypatch.setattr(coordinator, "_LOOK_LATER_S", 0.01)

    async def scenario() -> None:
        world, bus = World(), Moody(partitions=1)
        bus.away = 0
        world.may_answer.set()
        async with stage([world.first, world.second], [saga_of()], bus=bus) as running:
            await running.ended(await running.publish({"n": 1}))
            bus.away = 3
            saga = await running.publish({"n": 2})

            async def came_back() -> bool:
                return bus.away == 0

            await until(came_back)
            assert await running.ended(saga) == "completed"
        await bus.close()

    perform(scenario)


def test_deadlines_fire_while_nothing_else_happens() -> None:
    async def scenario() -> None:
        world, bus = World(), MemoryBus(partitions=1)
        async with stage([world.first, world.second], [saga_of(timedelta(seconds=0.3))], bus=bus) as running:
            saga = await running.publish({"n": 1})

            async def told() -> list[Envelope]:
                return await running.events("pavane.ends", saga)

            await until(told)
            world.may_answer.set()
            assert await running.ended(saga) == "compensated"
            assert not [fact for fact in await running.facts(saga) if isinstance(fact, Settled)], "the answer came after all"
        assert world.undone == [1]
        await bus.close()

    perform(scenario)


def test_it_begins_before_its_agents_and_any_topics_exist() -> None:
    async def scenario() -> None:
        world, bus, stop = World(), MemoryBus(partitions=1), asyncio.Event()
        world.may_answer.set()
        coordinating = asyncio.create_task(run_coordinator([saga_of()], bus, stop, tracing=Tracing.off()))

        async def prepared() -> bool:
            return "c.intake" in await bus.topics()

        await until(prepared)
        await bus.publish([Message("c.intake", b'{"n":1}')])
        working = asyncio.create_task(run([world.first, world.second], [], bus, stop, QUIET))
        running = Stage(bus, [])

        async def ended() -> dict[str, str]:
            return await running.verdicts() if "pavane.saga-ended" in await bus.topics() else {}

        assert set((await until(ended)).values()) == {"completed"}
        stop.set()
        await asyncio.gather(coordinating, working)
        await bus.close()

    perform(scenario)


def test_topics_of_a_saga_are_there_before_anybody_asks() -> None:
    async def scenario() -> None:
        bus, stop = MemoryBus(partitions=1), asyncio.Event()
        await bus.create_topics([TopicSpec("c.intake")])
        coordinating = asyncio.create_task(run_coordinator([saga_of()], bus, stop, tracing=Tracing.off()))
        wanted = {"c.asked", "c.answered", "c.refused", "pavane.facts", "pavane.ends", "pavane.coordinator.dead-letters"}

        async def there() -> bool:
            return wanted <= set(await bus.topics())

        await until(there)
        stop.set()
        await coordinating
        await bus.close()

    perform(scenario)
