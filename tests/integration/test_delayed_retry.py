"""Delayed retry: a long pause is spent in a delay tier, survives whatever happens, and holds up nobody.

Time is passed in: where a test says that half a minute goes by, the clock is set forward.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from pavane import Agent, Context, EffectUndone, Event, Rejected, Retry, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings
from pavane.testing import assert_continuous, check_bus
from pavane.tiers import HEADER, TIERS, from_tier
from pavane_events.bus import Bus
from pavane_events.buses.memory import Faults, MemoryBus
from pavane_events.buses.memory_lanes import MemoryGroup
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message, Record
from pavane_saga.facts import Settled, UndoFailed, Undone
from pavane_saga.intake import saga_id_of
from pavane_saga.wire import FACTS, read_fact
from pavane_tracing.store import all_spans
from pavane_tracing.tree import build_tree
from support.delayed import SAGA, ahead, stubborn
from support.stage import Stage, stage, until

HALF_A_MINUTE = Retry(attempts=4, first_s=30, jitter=0)
FIVE_MINUTES = Retry(attempts=4, first_s=300, most_s=300, jitter=0)
"""Of which the real time that passes, too, is little, however slow the machine."""
PARTITIONS = 2
TESTS = Path(__file__).parent.parent


class Start(Event, type="w.start"):
    n: int = 0


class Other(Event, type="w.other"):
    n: int = 0


class Middle(Event, type="w.middle"):
    n: int = 0


class Finished(Event, type="w.finished"):
    n: int = 0


class Declined(Event, type="w.declined"):
    n: int = 0


def saga_of(completes: type[Event] = Finished, deadline: timedelta = timedelta(hours=12)) -> Saga:
    return Saga("w", starts=Start, completes=completes, fails=Declined, intake="w.intake", deadline=deadline)


class Clock:
    """The real time, and what the test has added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class World:
    """A clock, a bus that goes by it, and what the steps did."""

    bus: Bus
    clock: Clock
    calls: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    keys: set[str] = field(default_factory=set[str])
    effects: dict[str, str] = field(default_factory=dict[str, str])
    limits: Limits = field(default_factory=lambda: Limits(drain_s=2.0))
    trace: bool = False

    def called(self, what: str, n: int, ctx: Context) -> None:
        self.calls.append((what, n, ctx.attempt))
        self.keys.add(ctx.idempotency_key)

    def do(self, ctx: Context, what: str) -> None:
        if self.effects.get(ctx.idempotency_key, "").startswith("not "):
            raise EffectUndone(ctx.idempotency_key)
        self.effects[ctx.idempotency_key] = what

    def undo(self, ctx: Context, what: str) -> None:
        self.effects[ctx.idempotency_key] = f"not {what}"

    @property
    def standing(self) -> list[str]:
        return sorted(what for what in self.effects.values() if not what.startswith("not "))

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(trace=self.trace, limits=self.limits, clock=self.clock)


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Play a scenario on each embedded bus."""
    kind: str = request.param

    async def bounded(scenario: Scenario) -> None:
        clock = Clock()
        async with asyncio.timeout(120):
            bus: Bus
            if kind == "memory":
                bus = MemoryBus(PARTITIONS, clock=clock)
            else:
                bus = await SqliteBus.open(tmp_path / "bus.db", PARTITIONS, clock=clock)
            async with bus:
                await scenario(World(bus, clock))

    return lambda scenario: asyncio.run(bounded(scenario))


async def waiting(running: Stage, agent: str) -> list[Record]:
    """What was ever sent to an agent's tiers, in the order of tiers."""
    return [record for tier in TIERS for record in await running.records(tier.topic(agent))]


async def sent_to_tiers(running: Stage, agent: str, count: int) -> list[Record]:
    """Wait until so many inputs were sent to an agent's tiers."""

    async def enough() -> list[Record] | None:
        records = await waiting(running, agent)
        return records if len(records) >= count else None

    return await until(enough)


async def declared(running: Stage, lanes: int = PARTITIONS) -> None:
    """Wait until so many lanes of agents are at work."""

    async def enough() -> bool:
        return len(await running.events(FACTS)) >= lanes

    await until(enough)


async def end_heard(bus: MemoryBus, agent: str) -> None:
    """Wait until a lane of that agent has committed the end of a saga."""
    groups: dict[str, MemoryGroup] = vars(bus)["_groups"]

    async def heard() -> bool:
        return any(row.offsets.get("pavane.ends", 0) > 0 for row in groups[agent].rows)

    await until(heard)


def flaky(world: World, fails: int, *, retry: Retry = HALF_A_MINUTE, within: timedelta | None = None) -> Agent:
    """An agent whose one step, start -> middle, fails so many times before it works."""
    agent = Agent("flaky")

    @agent.step(retry=retry, within=within)
    async def work(start: Start, ctx: Context) -> Middle:
        world.called("work", start.n, ctx)
        world.do(ctx, f"work {start.n}")
        if ctx.attempt <= fails and start.n >= 0:
            raise ConnectionError("down")
        return Middle(n=start.n)

    @work.compensate
    async def unwork(start: Start, done: Middle | None, ctx: Context) -> None:
        world.called(f"undo {ctx.outcome}", start.n, ctx)
        world.undo(ctx, f"work {start.n}")

    return agent


def finisher() -> Agent:
    agent = Agent("finisher")

    @agent.step(effects=False)
    async def finish(middle: Middle) -> Finished:
        return Finished(n=middle.n)

    return agent


def test_an_input_waits_in_its_tier_untouched_and_is_tried_again_when_it_is_due(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        async with stage(
            [flaky(world, 1), finisher()], [saga_of()], bus=world.bus, surroundings=world.surroundings
        ) as running:
            saga = await running.publish({"n": 1})
            (record,) = await sent_to_tiers(running, "flaky", 1)
            (original,) = await running.records("w.start")
            assert record.topic == "flaky.retry-30s"
            assert (record.key, record.value, record.partition) == (original.key, original.value, original.partition)
            assert record.headers[:-1] == original.headers
            assert record.headers[-1][0] == HEADER
            said = from_tier(record)
            assert (said.original.topic, said.original.offset) == (original.topic, original.offset)
            assert said.original.timestamp_ms == original.timestamp_ms
            assert (said.step, said.attempts, said.left_s, said.reason) == ("flaky/work", 1, 0, "ConnectionError")
            assert world.calls == [("work", 1, 1)]
            world.clock.ahead_s += 30
            assert await running.ended(saga) == "completed"
            assert len(await running.events("w.middle", saga)) == 1
            assert len(await waiting(running, "flaky")) == 1
        assert world.calls == [("work", 1, 1), ("work", 1, 2)]
        assert len(world.keys) == 1
        assert world.standing == ["work 1"]

    play(scenario)


def test_nothing_is_tried_before_its_time(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        async with stage(
            [flaky(world, 1, retry=FIVE_MINUTES), finisher()], [saga_of()], bus=world.bus, surroundings=world.surroundings
        ) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
            world.clock.ahead_s += 280
            assert await running.ended(await running.publish({"n": -1})) == "completed"
            await asyncio.sleep(0.6)
            assert [call for call in world.calls if call[1] == 1] == [("work", 1, 1)]
            world.clock.ahead_s += 20
            assert await running.ended(saga) == "completed"

    play(scenario)


def test_a_pause_that_fits_no_tier_is_made_of_several_and_of_a_rest_in_memory(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        times: list[float] = []
        agent = Agent("flaky")

        @agent.step(retry=Retry(first_s=8.5, jitter=0), effects=False)
        async def work(start: Start, ctx: Context) -> Finished:
            times.append(world.clock())
            if ctx.attempt == 1:
                raise ConnectionError("down")
            return Finished()

        async with stage([agent], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
            while saga not in await running.verdicts():
                world.clock.ahead_s += 0.1
                await asyncio.sleep(0.02)
            tiers = [record.topic for record in await waiting(running, "flaky")]
            assert len(tiers) > 1
            assert tiers.count("flaky.retry-5s") == 1
        assert len(times) == 2
        assert times[1] - times[0] >= 8.5

    play(scenario)


def test_attempts_run_out_as_they_do_in_memory_and_the_dead_letter_names_the_source(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        async with stage(
            [flaky(world, 9), finisher()], [saga_of()], bus=world.bus, surroundings=world.surroundings
        ) as running:
            saga = await running.publish({"n": 1})
            for count in (1, 2, 3):
                await sent_to_tiers(running, "flaky", count)
                world.clock.ahead_s += 61
            assert await running.ended(saga) == "compensated"
            (letter,) = await running.dead("flaky")
            (original,) = await running.records("w.start")
            assert (letter["error_code"], letter["error_attempt"]) == ("attempts.exhausted", "4")
            assert (letter["source_topic"], letter["source_offset"]) == ("w.start", str(original.offset))
            (dead,) = await running.records("flaky.dead-letters")
            assert dead.headers[: len(original.headers)] == original.headers
            assert HEADER not in dict(dead.headers)
        assert [call[0] for call in world.calls] == ["work"] * 4 + ["undo unknown"]
        assert world.standing == []

    play(scenario)


def test_what_waits_survives_a_restart_with_its_attempts(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agents = [flaky(world, 2), finisher()]
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
        world.clock.ahead_s += 30
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            await sent_to_tiers(running, "flaky", 2)
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            world.clock.ahead_s += 60
            assert await running.ended(saga) == "completed"
        assert [call[2] for call in world.calls] == [1, 2, 3]

    play(scenario)


def test_what_waits_survives_two_kills_one_in_its_tier_and_one_while_it_is_tried_again(tmp_path: Path) -> None:
    bus_file, log = tmp_path / "bus.db", tmp_path / "attempts.log"

    async def killed_when(lines: int, ahead_s: float) -> None:
        arguments = ["-m", "support.delayed", str(bus_file), str(log), str(ahead_s)]
        child = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=TESTS)
        try:

            async def so_far() -> bool:
                if child.returncode is not None or not log.exists() or len(log.read_text().splitlines()) < lines:
                    return False
                async with await SqliteBus.open(bus_file, PARTITIONS) as bus:
                    return len(await waiting(Stage(bus, []), "stubborn")) == 1

            await until(so_far)
        finally:
            child.kill()
            await child.wait()

    async def scenario() -> None:
        await killed_when(1, 0)
        await killed_when(2, 30)
        clock = ahead(30)
        async with (
            await SqliteBus.open(bus_file, PARTITIONS, clock=clock) as bus,
            stage(
                [stubborn(log, hangs=False)], [SAGA], bus=bus, surroundings=Surroundings(trace=False, clock=clock)
            ) as running,
        ):
            saga = saga_id_of("/test", "only")
            assert await running.ended(saga) == "completed"
            assert len(await running.events("k.answered", saga)) == 1
        attempts, keys = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
        assert attempts == ("1", "2", "2")
        assert len(set(keys)) == 1

    asyncio.run(scenario())


def test_a_graceful_stop_sends_a_long_pause_to_its_tier_and_keeps_the_attempt(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        entered, leave = asyncio.Event(), asyncio.Event()
        agent = Agent("slow")

        @agent.step(retry=HALF_A_MINUTE, effects=False)
        async def work(start: Start, ctx: Context) -> Finished:
            world.called("work", start.n, ctx)
            if ctx.attempt == 1:
                entered.set()
                await leave.wait()
                raise ConnectionError("down")
            return Finished()

        async with stage([agent], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            await entered.wait()
            running.stop.set()
            asyncio.get_running_loop().call_later(0.05, leave.set)
        world.clock.ahead_s += 30
        async with stage([agent], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            assert await running.ended(saga) == "completed"
        assert [call[2] for call in world.calls] == [1, 2]

    play(scenario)


def test_the_end_of_a_saga_settles_at_once_what_waits_and_it_is_undone_and_never_tried_again(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        refuser, go = Agent("refuser"), asyncio.Event()

        @refuser.step(effects=False)
        async def refuse(start: Start) -> Declined | Other:
            await go.wait()
            return Declined() if start.n == 1 else Other()

        agents = [flaky(world, 1, retry=Retry(first_s=300, most_s=300, jitter=0)), finisher(), refuser]
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga, other = await running.publish({"n": 1}), await running.publish({"n": 2})
            await sent_to_tiers(running, "flaky", 2)
            go.set()
            assert await running.ended(saga) == "compensated"
            settled = [fact for fact in await running.facts(saga) if isinstance(fact, Settled) and fact.step == "flaky/work"]
            assert [(fact.how, fact.began, fact.code) for fact in settled] == [("failed", True, "saga.ended")]
            assert world.standing == ["work 2"]
            world.clock.ahead_s += 300
            assert await running.ended(other) == "completed"
        assert [call for call in world.calls if call[1] == 1] == [("work", 1, 1), ("undo unknown", 1, 1)]

    play(scenario)


def test_a_join_that_waits_keeps_its_arms_and_refuses_a_second_event_on_one(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        left, right, join = Agent("left"), Agent("right"), Agent("join")

        @left.step(effects=False)
        async def go_left(start: Start) -> Middle:
            return Middle(n=start.n)

        @right.step(effects=False)
        async def go_right(start: Start) -> Other:
            return Other(n=start.n + 1)

        @join.step(retry=HALF_A_MINUTE, effects=False)
        async def meet(a: Middle, b: Other, ctx: Context) -> Finished | Declined:
            world.called("meet", a.n + b.n, ctx)
            if ctx.attempt == 1:
                raise ConnectionError("down")
            return Finished(n=a.n + b.n)

        agents = [left, right, join]
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga, other = await running.publish({"n": 1}), await running.publish({"n": 5})
            await sent_to_tiers(running, "join", 2)
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            (first,) = await running.events("w.middle", other)
            await running.send(Envelope(id="second", source="/t", type="w.middle", data=b'{"n":9}', saga=other).to_message())
            assert await running.ended(other) == "compensated"
            (letter,) = await running.dead("join")
            assert letter["error_code"] == "join.arm-filled"
            assert first.id in letter["error_problems"]
            world.clock.ahead_s += 30
            assert await running.ended(saga) == "completed"
            (finished,) = await running.events("w.finished", saga)
            assert len(finished.causes) == 2
            assert json.loads(finished.data) == {"n": 3}
        assert Counter(call[1] for call in world.calls) == {3: 2, 11: 1}

    play(scenario)


def test_a_delayed_step_that_is_being_tried_when_its_saga_ends_answers_for_itself_and_is_undone() -> None:
    async def scenario() -> None:
        clock = Clock()
        bus = MemoryBus(PARTITIONS, clock=clock)
        world = World(bus, clock)
        begun, leave = asyncio.Event(), asyncio.Event()
        agent, refuser = Agent("payer"), Agent("refuser")

        @agent.step(retry=Retry(first_s=300, most_s=300, jitter=0))
        async def pay(start: Start, ctx: Context) -> Middle:
            world.do(ctx, "pay")
            if ctx.attempt == 1:
                raise ConnectionError("down")
            begun.set()
            await leave.wait()
            return Middle()

        @pay.compensate
        async def refund(start: Start, done: Middle | None, ctx: Context) -> None:
            world.called(f"refund {ctx.outcome}", start.n, ctx)
            world.undo(ctx, "pay")

        @refuser.step(effects=False)
        async def refuse(start: Start) -> Declined:
            await begun.wait()
            return Declined()

        agents = [agent, refuser, finisher()]
        async with stage(agents, [saga_of()], bus=bus, surroundings=world.surroundings) as running:
            saga = await running.publish({})
            await sent_to_tiers(running, "payer", 1)
            clock.ahead_s += 300
            await begun.wait()
            await end_heard(bus, "payer")
            leave.set()
            assert await running.ended(saga) == "compensated"
            assert len(await running.events("w.middle", saga)) == 1
            assert not [fact for fact in await running.facts(saga) if isinstance(fact, Settled) and fact.step == "payer/pay"]
        assert world.calls == [("refund done", 0, 1)]
        assert world.standing == []

    asyncio.run(scenario())


def test_a_delayed_join_that_was_tried_again_when_its_saga_ended_and_died_is_failed_with_all_its_events() -> None:
    async def scenario() -> None:
        clock = Clock()
        bus = MemoryBus(PARTITIONS, clock=clock)
        world = World(bus, clock, limits=Limits(drain_s=0.0))
        left, right, join, refuser = Agent("left"), Agent("right"), Agent("join"), Agent("refuser")
        begun = asyncio.Event()

        @left.step(effects=False)
        async def go_left(start: Start) -> Middle:
            return Middle()

        @right.step(effects=False)
        async def go_right(start: Start) -> Other:
            return Other()

        @join.step(retry=Retry(first_s=300, most_s=300, jitter=0))
        async def meet(a: Middle, b: Other, ctx: Context) -> Finished:
            world.called("meet", 0, ctx)
            world.do(ctx, "meet")
            if ctx.attempt == 1:
                raise ConnectionError("down")
            begun.set()
            await asyncio.Event().wait()
            return Finished()

        @meet.compensate
        async def part(a: Middle, b: Other, done: Finished | None, ctx: Context) -> None:
            world.undo(ctx, "meet")

        @refuser.step(effects=False)
        async def refuse(start: Start) -> Declined:
            await begun.wait()
            return Declined()

        agents = [left, right, join, refuser]
        async with stage(agents, [saga_of()], bus=bus, surroundings=world.surroundings) as running:
            saga = await running.publish({})
            await sent_to_tiers(running, "join", 1)
            world.clock.ahead_s += 300
            await begun.wait()

            await end_heard(bus, "join")
        async with stage(agents, [saga_of()], bus=bus, surroundings=world.surroundings) as running:
            assert await running.ended(saga) == "compensated"
            settled = [fact for fact in await running.facts(saga) if isinstance(fact, Settled) and fact.step == "join/meet"]
            assert [(fact.how, fact.began, len(fact.causes)) for fact in settled] == [("failed", True, 2)]
        assert [call[2] for call in world.calls] == [1, 2]
        assert world.standing == []

    asyncio.run(scenario())


def test_a_deadline_runs_from_the_original_input(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agent = flaky(world, 9, retry=Retry(attempts=9, first_s=20, factor=1, jitter=0), within=timedelta(seconds=55))
        async with stage([agent, finisher()], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            for count, ahead_s in ((1, 20), (2, 20), (3, 16)):
                await sent_to_tiers(running, "flaky", count)
                world.clock.ahead_s += ahead_s
            assert await running.ended(saga) == "compensated"
            (letter,) = await running.dead("flaky")
            assert letter["error_code"] == "deadline"
        assert [call[2] for call in world.calls if call[0] == "work"] == [1, 2, 3]

    play(scenario)


def test_an_open_breaker_costs_no_attempt_in_a_tier_either(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agent = Agent("flaky")
        agent.breaker("bureau", failures=1, reset=timedelta(seconds=60))
        down = [True]

        @agent.step(retry=Retry(attempts=2, first_s=0.001), effects=False)
        async def work(start: Start, ctx: Context) -> Finished:
            world.called("work", start.n, ctx)
            async with ctx.breaker("bureau"):
                if down:
                    raise ConnectionError("down")
            return Finished()

        async with stage([agent], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
            down.clear()
            while saga not in await running.verdicts():
                world.clock.ahead_s += 5
                await asyncio.sleep(0.05)
            assert await running.ended(saga) == "completed"
        assert world.calls[0][2] == 1
        assert {call[2] for call in world.calls[1:]} == {2}

    play(scenario)


def test_an_observer_waits_on_when_its_saga_has_ended_and_an_event_without_saga_waits_too(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        worker, watcher = Agent("worker"), Agent("watcher")

        @worker.step(effects=False)
        async def work(start: Start) -> Finished:
            return Finished(n=start.n)

        @watcher.observe(retry=HALF_A_MINUTE)
        async def watch(finished: Finished, ctx: Context) -> None:
            world.called("watch", finished.n, ctx)
            if ctx.attempt == 1:
                raise ConnectionError("down")

        async with stage([worker, watcher], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            assert await running.ended(await running.publish({"n": 1})) == "completed"
            for subject in ("somebody", None):
                lone = Envelope(id=f"l{subject}", source="/t", type="w.finished", data=b'{"n":2}', subject=subject)
                await running.send(lone.to_message(partition=1))
            await sent_to_tiers(running, "watcher", 3)
            world.clock.ahead_s += 30

            async def all_heard() -> bool:
                return Counter(world.calls) == {
                    ("watch", 1, 1): 1,
                    ("watch", 1, 2): 1,
                    ("watch", 2, 1): 2,
                    ("watch", 2, 2): 2,
                }

            await until(all_heard)
            assert await running.dead("watcher") == []

    play(scenario)


def test_inputs_of_one_saga_step_and_topic_keep_their_order_and_other_topics_go_ahead(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        agent = Agent("keeper")

        @agent.step(retry=HALF_A_MINUTE, effects=False)
        async def keep(event: Middle | Other, ctx: Context) -> None:
            world.called(type(event).__name__, event.n, ctx)
            if event.n == 1 and ctx.attempt <= 2 and isinstance(event, Middle):
                raise ConnectionError("down")

        async with stage([agent], [], bus=world.bus, surroundings=world.surroundings) as running:

            def event(kind: str, n: int, saga: str) -> Message:
                data = json.dumps({"n": n}).encode()
                return Envelope(id=f"{kind}{n}{saga}", source="/t", type=f"w.{kind}", data=data, saga=saga).to_message()

            await declared(running)
            await running.send(event("middle", 1, "one"))
            await sent_to_tiers(running, "keeper", 1)
            await running.send(event("middle", 2, "one"), event("other", 3, "one"), event("middle", 4, "two"))
            await sent_to_tiers(running, "keeper", 2)

            async def all_done() -> bool:
                world.clock.ahead_s += 1
                return len(world.calls) == 6

            await until(all_done)
        assert world.calls[0] == ("Middle", 1, 1)
        assert sorted(world.calls[1:3]) == [("Middle", 4, 1), ("Other", 3, 1)]
        assert world.calls[3:] == [("Middle", 1, 2), ("Middle", 1, 3), ("Middle", 2, 1)]

    play(scenario)


def test_a_long_pause_of_an_undo_survives_a_restart_as_well(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agent = Agent("payer")

        @agent.step
        async def pay(start: Start, ctx: Context) -> Middle:
            world.do(ctx, "pay")
            raise Rejected("no")

        @pay.compensate(retry=HALF_A_MINUTE)
        async def refund(start: Start, done: Middle | None, ctx: Context) -> None:
            world.called("refund", start.n, ctx)
            if ctx.attempt == 1:
                raise ConnectionError("down")
            world.undo(ctx, "pay")

        agents = [agent, finisher()]
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "payer", 1)
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            world.clock.ahead_s += 30
            assert await running.ended(saga) == "compensated"
            said = [fact for fact in await running.facts(saga) if isinstance(fact, Undone | UndoFailed)]
            assert [type(fact).__name__ for fact in said] == ["Undone"]
        assert [call[2] for call in world.calls] == [1, 2]
        assert world.standing == []

    play(scenario)


def test_a_step_that_is_gone_when_its_input_is_due_has_failed(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        before, after = Agent("flaky"), Agent("flaky")

        @before.step(retry=HALF_A_MINUTE, effects=False)
        async def work(start: Start) -> Finished:
            raise ConnectionError("down")

        @after.observe
        async def watch(start: Start) -> None: ...

        async with stage([before], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
        world.clock.ahead_s += 30
        async with stage([after], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:

            async def settled() -> list[Settled]:
                return [fact for fact in await running.facts(saga) if isinstance(fact, Settled)]

            (fact,) = await until(settled)
            assert (fact.step, fact.how, fact.began, fact.code) == ("flaky/work", "failed", True, "step.gone")
            (letter,) = await running.dead("flaky")
            assert (letter["error_code"], letter["error_step"]) == ("step.gone", "flaky/work")

    play(scenario)


def test_what_is_no_delayed_input_on_a_tier_ends_in_the_dead_letters(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agents = [flaky(world, 1), finisher()]
        async with stage(agents, [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            saga = await running.publish({"n": 1})
            (record,) = await sent_to_tiers(running, "flaky", 1)
            await running.send(
                Message(record.topic, b"junk", b"k", partition=record.partition),
                Message(record.topic, None, None, ((HEADER, b"[1]"),), partition=record.partition),
                Message(record.topic, b"{}", b"k", ((HEADER, b'{"topic":"a"}'),), partition=record.partition),
                Message(record.topic, b"{}", b"k", record.headers, partition=record.partition),
            )
            world.clock.ahead_s += 31
            assert await running.ended(saga) == "completed"

            async def all_dead() -> bool:
                return len(await running.dead("flaky")) == 4

            await until(all_dead)
            codes = Counter(letter["error_code"] for letter in await running.dead("flaky"))
            assert codes == {"retry.unreadable": 3, "key.mismatch": 1}

    play(scenario)


def test_a_clock_that_jumps_neither_loses_nor_repeats_anything(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agent = flaky(world, 1, retry=Retry(attempts=4, first_s=1.2, jitter=0))
        async with stage([agent, finisher()], [saga_of()], bus=world.bus, surroundings=world.surroundings) as running:
            first = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
            world.clock.ahead_s -= 3600  # set back: it waits its tier out by the loop's clock
            assert await running.ended(first) == "completed"
            second = await running.publish({"n": 2})
            await sent_to_tiers(running, "flaky", 2)
            world.clock.ahead_s += 7200
            assert await running.ended(second) == "completed"
        assert Counter(world.calls) == {("work", n, attempt): 1 for n in (1, 2) for attempt in (1, 2)}

    play(scenario)


def test_a_delayed_attempt_is_a_trace_of_its_own_that_is_linked(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        world.trace = True
        async with stage(
            [flaky(world, 1), finisher()], [saga_of()], bus=world.bus, surroundings=world.surroundings
        ) as running:
            saga = await running.publish({"n": 1})
            await sent_to_tiers(running, "flaky", 1)
            world.clock.ahead_s += 30
            assert await running.ended(saga) == "completed"
        assert assert_continuous(await check_bus(world.bus)).traces == 2
        rows = await all_spans(world.bus)
        work = [row for row in rows if row.kind == "CONSUMER" and row.attributes.get("saga.step") == "flaky/work"]
        first, second = sorted(work, key=lambda row: row.start_ns)
        assert first.trace_id != second.trace_id
        assert second.parent_span_id is None
        assert first.span_id in {link.span_id for link in second.links}
        assert len(build_tree(rows, saga).roots) >= 2

    play(scenario)


def test_ten_thousand_that_wait_hold_up_nobody_and_little_memory(play: Callable[[Scenario], None]) -> None:
    count = 10_000

    async def scenario(world: World) -> None:
        world.limits = Limits(drain_s=2.0, window=128, batch=64)
        agent = Agent("flaky")

        @agent.step(retry=FIVE_MINUTES, effects=False)
        async def work(start: Start, ctx: Context) -> Finished:
            if start.n and ctx.attempt == 1:
                raise ConnectionError("down")
            return Finished(n=start.n)

        async with stage([agent], [], bus=world.bus, surroundings=world.surroundings) as running:

            def started(n: int) -> Message:
                data = json.dumps({"n": n}).encode()
                return Envelope(id=f"s{n}", source="/t", type="w.start", data=data, saga=f"s{n}").to_message()

            await declared(running)
            for n in range(1, count, 500):
                await running.send(*(started(each) for each in range(n, min(count + 1, n + 500))))

            async def all_wait() -> bool:
                await asyncio.sleep(0.1)
                return len(await running.records("flaky.retry-5m")) == count

            await until(all_wait)
            await running.send(started(0))

            async def answered() -> bool:
                return len(await running.events("w.finished", "s0")) == 1

            await until(answered)
            assert len(await running.records("w.finished")) == 1
            world.clock.ahead_s += 300

            async def all_answered() -> bool:
                await asyncio.sleep(0.1)
                return len(await running.records("w.finished")) == count + 1

            await until(all_answered)
            answers = Counter(parse(record).saga for record in await running.records("w.finished"))
            assert set(answers.values()) == {1}

    play(scenario)


def fork_and_join(world: World) -> list[Agent]:
    """A fork and a join, each with an effect; every other one fails at first and waits, one in four refuses for good."""
    left, right, join = Agent("left"), Agent("right"), Agent("join")

    @left.step(retry=Retry(attempts=4, first_s=2, jitter=0))
    async def go_left(start: Start, ctx: Context) -> Middle:
        world.do(ctx, f"left {start.n}")
        if start.n % 2 and ctx.attempt <= 2:
            raise ConnectionError("down")
        return Middle(n=start.n)

    @go_left.compensate(retry=Retry(first_s=0.001))
    async def unleft(start: Start, done: Middle | None, ctx: Context) -> None:
        world.undo(ctx, f"left {start.n}")

    @right.step(retry=Retry(attempts=3, first_s=6, jitter=0))
    async def go_right(start: Start, ctx: Context) -> Other:
        world.do(ctx, f"right {start.n}")
        if start.n % 4 == 3 and ctx.attempt == 1:
            raise ConnectionError("down")
        if start.n % 4 == 1:
            await asyncio.sleep(0.02)
            raise Rejected("no")
        return Other(n=start.n)

    @go_right.compensate(retry=Retry(attempts=4, first_s=2, jitter=0))
    async def unright(start: Start, done: Other | None, ctx: Context) -> None:
        if ctx.attempt == 1 and start.n % 8 == 1:
            raise ConnectionError("down")
        world.undo(ctx, f"right {start.n}")

    @join.step(retry=Retry(attempts=5, first_s=2, jitter=0))
    async def meet(a: Middle, b: Other, ctx: Context) -> Finished:
        world.do(ctx, f"join {a.n}")
        if a.n % 3 == 0 and ctx.attempt == 1:
            raise ConnectionError("down")
        return Finished(n=a.n)

    @meet.compensate(retry=Retry(first_s=0.001))
    async def part(a: Middle, b: Other, done: Finished | None, ctx: Context) -> None:
        world.undo(ctx, f"join {a.n}")

    return [left, right, join]


async def said_twice(running: Stage) -> list[str]:
    """Events that were committed more than once, and steps that failed more than once in a saga."""
    topics = ("w.middle", "w.other", "w.finished", "pavane.ends", "pavane.saga-ended")
    counted = Counter([each.id for topic in topics for each in await running.events(topic)])
    facts = [(each.saga, read_fact(each)) for each in await running.events(FACTS)]
    counted.update(f"{saga} {fact.step}" for saga, fact in facts if isinstance(fact, Settled) and fact.how == "failed")
    return [each for each, times in counted.items() if times > 1]


@pytest.mark.parametrize("seed", range(30))
def test_on_bad_days_whatever_waits_is_settled_once(seed: int) -> None:
    """Lanes are lost and commits end in doubt between a tier's write and its release, and while sagas end."""
    count = 12

    async def scenario() -> None:
        faults = Faults(seed, crash_before=0.03, crash_after=0.03, lost=0.02, duplicate=0.1, delay=0.2, reorder=0.5)
        clock = Clock()
        bus = MemoryBus(PARTITIONS, clock=clock, faults=faults)
        world = World(bus, clock, limits=Limits(drain_s=1.0, mark_window=8))
        async with bus, stage(fork_and_join(world), [saga_of()], bus=bus, surroundings=world.surroundings) as running:
            ids = {await running.publish({"n": n}): n for n in range(count)}

            async def all_ended() -> bool:
                clock.ahead_s += 0.2
                faults.active = len(faults.history) < 300
                return len(await running.verdicts()) == count

            await until(all_ended)
            verdicts = await running.verdicts()
            assert await said_twice(running) == [], faults.history
            assert len(await waiting(running, "left")) >= count // 2
        for saga, n in ids.items():
            compensated = n % 4 == 1
            assert verdicts[saga] == ("compensated" if compensated else "completed"), (n, faults.history)
            stands = [what for what in world.standing if what.split()[1] == str(n)]
            assert len(stands) == (0 if compensated else 3), (n, stands, faults.history)

    asyncio.run(scenario())
