"""Every edge of a trace, walked by agents and a coordinator at work: which span is whose parent, and what is linked to it."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from pavane import Agent, Context, Event, Rejected, Retry, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings
from pavane_events.bus import Bus
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.envelope import Envelope, Trace
from pavane_events.record import Message, Record
from pavane_saga.hops import sent_of
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import FACTS
from pavane_tracing.budget import FRESH, MOST_IN_TRACE
from pavane_tracing.continuity import check_continuity
from pavane_tracing.edges import NEW_LINKED, Edge
from pavane_tracing.finding import assert_continuous
from pavane_tracing.options import TracingOptions
from pavane_tracing.propagation import span_context
from pavane_tracing.sent import span_of
from pavane_tracing.span import SpanRow
from pavane_tracing.store import all_spans
from support.stage import Stage, stage, until

ONCE = Retry(attempts=1)
OUTSIDE = Trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=1,congo=t61")
OUTSIDE_TRACE, OUTSIDE_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Asked(Event, type="edge.asked"):
    n: int = 0


class Left(Event, type="edge.left"):
    n: int = 0


class Right(Event, type="edge.right"):
    n: int = 0


class Done(Event, type="edge.done"):
    n: int = 0


class Declined(Event, type="edge.declined"):
    n: int = 0


def saga_of(deadline: timedelta = timedelta(hours=1)) -> Saga:
    return Saga("edges", starts=Asked, completes=Done, fails=Declined, intake="edge.intake", deadline=deadline)


@dataclass
class World:
    """A bus, a clock that can be set forward, and at which edges new traces begin."""

    bus: Bus
    ahead_s: float = 0.0
    new_linked: frozenset[Edge] = NEW_LINKED
    outside: set[str] = field(default_factory=set[str])
    tracer: Literal["lean", "sdk"] = "lean"

    def clock(self) -> float:
        return time.time() + self.ahead_s

    @property
    def surroundings(self) -> Surroundings:
        options = TracingOptions(tracer=self.tracer, new_linked=self.new_linked)
        return Surroundings(trace=True, limits=Limits(drain_s=2.0), clock=self.clock, tracing_options=options)

    def stage(self, agents: Sequence[Agent], saga: Saga | None = None) -> AbstractAsyncContextManager[Stage]:
        return stage(agents, [saga or saga_of()], bus=self.bus, surroundings=self.surroundings)

    async def seen(self) -> "Seen":
        """All spans. They have no gap, and what was sent inside is processed."""
        rows = await all_spans(self.bus)
        topics = ("edge.asked", "edge.left", "edge.right", "edge.done")
        there = await self.bus.topics()
        records = [record for topic in topics if topic in there async for record in self.bus.read(topic)]
        log = [sent for record in records if (sent := sent_of(record)) is not None]
        assert_continuous(check_continuity(rows, log, outside=self.outside))
        return Seen(rows)


@dataclass
class Seen:
    """The spans that a scenario left."""

    rows: list[SpanRow]

    def process(self, step: str, *, undo: bool = False) -> list[SpanRow]:
        """The spans of a step, or of its undo, in order of start."""
        found = [row for row in self.rows if row.kind == "CONSUMER" and row.text("saga.step") == step]
        return sorted((row for row in found if ("saga.undo" in row.attributes) == undo), key=lambda row: row.start_ns)

    def send(self, topic: str) -> list[SpanRow]:
        """The spans that sent to a topic, in order."""
        return sorted((row for row in self.rows if row.name == f"send {topic}"), key=lambda row: row.start_ns)

    def coordinator(self, topic: str) -> list[SpanRow]:
        """What the coordinator did with records of a topic."""
        return [row for row in self.rows if row.service == "coordinator" and row.name == f"process {topic}"]

    @property
    def traces(self) -> Counter[str]:
        """How many spans each trace has."""
        return Counter(row.trace_id for row in self.rows)


def linked(row: SpanRow) -> set[str]:
    return {link.span_id for link in row.links}


def is_sent_by(row: SpanRow, sender: SpanRow) -> bool:
    """Whether it is both a child of and linked to the span that sent its message."""
    return (row.trace_id, row.parent_span_id) == (sender.trace_id, sender.span_id) and sender.span_id in linked(row)


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def play(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Play a scenario on each embedded bus."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    kind: str = request.param

    async def bounded(scenario: Scenario) -> None:
        world: World

        def clock() -> float:
            return world.clock()

        async with asyncio.timeout(100):
            bus: Bus = MemoryBus(2, clock=clock) if kind == "memory" else await _sqlite(tmp_path, clock)
            world = World(bus)
            async with bus:
                await scenario(world)

    return lambda scenario: asyncio.run(bounded(scenario))


async def _sqlite(path: Path, clock: Callable[[], float]) -> Bus:
    return await SqliteBus.open(path / "bus.db", 2, clock=clock)


async def is_there(running: Stage, topic: str) -> bool:
    return topic in await running.bus.topics()


def walker() -> Agent:
    """One step from start to end."""
    agent = Agent("walker")

    @agent.step(effects=False)
    async def walk(asked: Asked) -> Done:
        return Done(n=asked.n)

    return agent


async def published(running: Stage, trace: Trace, name: str = "one") -> str:
    saga = saga_id_of("/foreign", name)
    event = Envelope(id=name, source="/foreign", type="edge.asked", data=b'{"n":1}', trace=trace)
    await running.send(event.to_message("edge.intake", key=saga))
    return saga


def test_a_foreign_producer_s_trace_goes_on_to_the_end_of_its_saga(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        world.outside.add(OUTSIDE_SPAN)
        async with world.stage([walker()]) as running:
            saga = await published(running, OUTSIDE)
            assert await running.ended(saga) == "completed"
            (start,), (done,) = await running.events("edge.asked"), await running.events("edge.done")
        seen = await world.seen()
        assert set(seen.traces) == {OUTSIDE_TRACE}
        (intake,) = seen.coordinator("edge.intake")
        assert (intake.parent_span_id, linked(intake)) == (OUTSIDE_SPAN, {OUTSIDE_SPAN})
        (walk,) = seen.process("walker/walk")
        assert is_sent_by(walk, seen.send("edge.asked")[0])
        assert is_sent_by(seen.coordinator("edge.done")[0], seen.send("edge.done")[0])
        assert start.trace.tracestate == f"pavane={FRESH - 2},{OUTSIDE.tracestate}"
        assert done.trace.tracestate == f"pavane={FRESH - 4},{OUTSIDE.tracestate}"
        assert {row.text("saga.id") for row in seen.rows} == {saga}

    play(scenario)


@pytest.mark.parametrize("headers", [(), (("traceparent", b"00-junk"),), (("traceparent", b"\xff"), ("tracestate", b"a"))])
def test_without_a_context_that_can_be_read_a_trace_begins_at_the_coordinator(
    play: Callable[[Scenario], None], headers: tuple[tuple[str, bytes], ...]
) -> None:
    async def scenario(world: World) -> None:
        async with world.stage([walker()]) as running:
            await running.send(Message("edge.intake", b'{"n":1}', b"k", headers))

            async def ended() -> list[Envelope]:
                return await running.events(SagaEnded.event_type)

            await until(ended)
        seen = await world.seen()
        assert len(seen.traces) == 1
        (intake,) = seen.coordinator("edge.intake")
        assert (intake.parent_span_id, intake.links) == (None, ())

    play(scenario)


def test_of_doubled_headers_the_first_counts_and_an_event_with_them_is_refused(play: Callable[[Scenario], None]) -> None:
    mine, other = (OUTSIDE.traceparent or "").encode(), f"00-{'1' * 32}-{'2' * 16}-01".encode()

    async def scenario(world: World) -> None:
        world.outside |= {OUTSIDE_SPAN, "2" * 16}
        async with world.stage([walker()]) as running:
            await running.send(Message("edge.intake", b'{"n":1}', b"k", (("traceparent", mine), ("traceparent", other))))
            doubled = (("traceparent", other), ("traceparent", mine))
            event = Envelope(id="1", source="/s", type="edge.asked", data=b"{}").to_message("edge.intake", key="k")
            await running.send(Message(event.topic, event.value, event.key, (*event.headers, *doubled)))

            async def ended() -> list[Envelope]:
                return await running.events(SagaEnded.event_type)

            async def refused() -> list[dict[str, str]]:
                return await running.dead("pavane.coordinator")

            await until(ended)
            (letter,) = await until(refused)
        seen = await world.seen()
        assert set(seen.traces) == {OUTSIDE_TRACE, "1" * 32}
        (failed,) = [row for row in seen.coordinator("edge.intake") if row.status == "ERROR"]
        assert (letter["error_code"], failed.text("error.type")) == ("header.doubled", "header.doubled")
        assert letter["error_traceparent"] == f"00-{'1' * 32}-{failed.span_id}-01"

    play(scenario)


def test_what_is_no_event_has_a_span_that_says_why_it_went_to_the_dead_letters(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        world.outside.add(OUTSIDE_SPAN)
        async with world.stage([walker()]) as running:
            await until(lambda: is_there(running, "edge.asked"))
            carried = (("traceparent", (OUTSIDE.traceparent or "").encode()),)
            await running.send(Message("edge.asked", b"junk", b"k", carried))

            async def both() -> bool:
                return len(await running.dead("walker")) + len(await running.dead("pavane.coordinator")) == 2

            await until(both)
        rows = await all_spans(world.bus)
        assert {(row.service, row.trace_id, row.parent_span_id, row.status) for row in rows if row.links} == {
            (service, OUTSIDE_TRACE, OUTSIDE_SPAN, "ERROR") for service in ("walker", "coordinator")
        }

    play(scenario)


def test_a_batch_of_records_is_a_trace_each(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        async with world.stage([walker()]) as running:
            events = [Envelope(id=f"b{n}", source="/foreign", type="edge.asked", data=b'{"n":1}') for n in range(40)]
            await running.send(*(each.to_message("edge.intake", key=saga_id_of("/foreign", each.id)) for each in events))

            async def all_ended() -> bool:
                return len(await running.verdicts()) == 40

            await until(all_ended)
        seen = await world.seen()
        assert len(seen.traces) == 40
        for trace_id in seen.traces:
            assert len({row.text("saga.id") for row in seen.rows if row.trace_id == trace_id}) == 1

    play(scenario)


def forked_and_joined() -> list[Agent]:
    left, right, join = Agent("left"), Agent("right"), Agent("join")

    @left.step(effects=False)
    async def go_left(asked: Asked) -> Left:
        return Left(n=asked.n)

    @right.step(effects=False)
    async def go_right(asked: Asked) -> Right:
        return Right(n=asked.n)

    @join.step(effects=False)
    async def meet(a: Left, b: Right) -> Done:
        return Done(n=a.n)

    return [left, right, join]


def test_a_join_is_a_child_of_the_input_that_completes_it_and_linked_to_all(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        async with world.stage(forked_and_joined()) as running:
            saga = await running.publish({"n": 1})
            assert await running.ended(saga) == "completed"
        seen = await world.seen()
        assert len(seen.traces) == 1
        _, met = seen.process("join/meet")
        sent = {row.span_id: row for row in (*seen.send("edge.left"), *seen.send("edge.right"))}
        assert len(sent) == 2
        assert linked(met) == set(sent)
        assert is_sent_by(met, sent[met.parent_span_id or ""])
        assert seen.send("edge.done")[0].parent_span_id == met.span_id

    play(scenario)


def test_attempts_in_the_lane_are_events_of_one_span(play: Callable[[Scenario], None]) -> None:
    agent = Agent("walker")

    @agent.step(effects=False, retry=Retry(attempts=3, first_s=0.001))
    async def walk(asked: Asked, ctx: Context) -> Done:
        if ctx.attempt < 3:
            raise ConnectionError("down")
        return Done(n=asked.n)

    async def scenario(world: World) -> None:
        async with world.stage([agent]) as running:
            assert await running.ended(await running.publish({"n": 1})) == "completed"
        seen = await world.seen()
        assert len(seen.traces) == 1
        (row,) = seen.process("walker/walk")
        assert [(each.name, each.attributes["attempt"]) for each in row.events] == [("retry", 1), ("retry", 2)]

    play(scenario)


def late() -> Agent:
    """It waits in a delay tier before its second attempt, and before its third."""
    agent = Agent("walker")

    @agent.step(effects=False, retry=Retry(attempts=3, first_s=30, factor=1, jitter=0))
    async def walk(asked: Asked, ctx: Context) -> Done:
        if ctx.attempt < 3:
            raise ConnectionError("down")
        return Done(n=asked.n)

    return agent


async def tiers(running: Stage, count: int) -> list[Record]:
    async def there() -> list[Record] | None:
        found = await running.records("walker.retry-30s")
        return found if len(found) == count else None

    return await until(there)


@pytest.mark.parametrize("sender", ["new_linked", "continue"])
def test_a_delayed_retry_goes_on_as_its_sender_has_stamped(play: Callable[[Scenario], None], sender: str) -> None:
    begins: frozenset[Edge] = NEW_LINKED if sender == "new_linked" else NEW_LINKED - {"delayed_retry"}

    async def scenario(world: World) -> None:
        world.new_linked = begins
        async with world.stage([late()]) as running:
            saga = await running.publish({"n": 1})
            await tiers(running, 1)
            world.ahead_s += 31
            await tiers(running, 2)
        world.new_linked = NEW_LINKED ^ begins  # another version, which would choose otherwise
        world.ahead_s += 31
        async with world.stage([late()]) as running:
            assert await running.ended(saga) == "completed"
        seen = await world.seen()
        first, second, third = seen.process("walker/walk")
        (sent,) = seen.send("edge.asked")
        assert is_sent_by(first, sent)
        for before, after in ((first, second), (second, third)):
            assert linked(after) == {sent.span_id, before.span_id}
            assert after.parent_span_id == (None if sender == "new_linked" else before.span_id)
        assert len(seen.traces) == (3 if sender == "new_linked" else 1)

    play(scenario)


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_a_saga_is_sampled_in_all_of_its_linked_traces_or_in_none(
    play: Callable[[Scenario], None], tracer: Literal["lean", "sdk"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")

    async def scenario(world: World) -> None:
        world.tracer = tracer
        async with world.stage([late()]) as running:
            sagas = [await running.publish({"n": 1}) for _ in range(24)]
            for count in (24, 48):
                await tiers(running, count)
                world.ahead_s += 31
            assert [await running.ended(saga) for saga in sagas] == ["completed"] * 24
            starts = {each.saga: each for each in await running.events("edge.asked")}
        seen = await world.seen()
        linked_traces = {saga: {row.trace_id for row in seen.rows if row.text("saga.id") == saga} for saga in sagas}
        assert set(map(len, linked_traces.values())) == {0, 3}, "both are there, and nothing between"
        sampled = {saga for saga, start in starts.items() if span_of(start)[1]}
        assert sampled == {saga for saga, found in linked_traces.items() if found}

    play(scenario)


def refused_at_the_join() -> list[Agent]:
    """Two branches with effects: one has an outcome that is known, the other one fails; both are undone."""
    left, right = Agent("left"), Agent("right")

    @left.step(retry=ONCE)
    async def go_left(asked: Asked) -> Left:
        return Left(n=asked.n)

    @go_left.compensate
    async def back_left(asked: Asked, done: Left | None) -> None: ...

    @right.step(retry=ONCE)
    async def go_right(a: Left) -> Done:
        raise Rejected("no")

    @go_right.compensate
    async def back_right(a: Left, done: Done | None) -> None: ...

    return [left, right]


@pytest.mark.parametrize("policy", ["continue", "new_linked"])
def test_an_undo_is_linked_to_what_it_undoes(play: Callable[[Scenario], None], policy: str) -> None:
    async def scenario(world: World) -> None:
        if policy == "new_linked":
            undo: frozenset[Edge] = frozenset({"undo"})
            world.new_linked = NEW_LINKED | undo
        async with world.stage(refused_at_the_join()) as running:
            assert await running.ended(await running.publish({"n": 1})) == "compensated"
        seen = await world.seen()
        (left,), (right,) = seen.process("left/go_left", undo=True), seen.process("right/go_right", undo=True)
        (said,) = seen.send("edge.left")
        commands = {"left": seen.send("left.commands")[0], "right": seen.send("right.commands")[0]}
        assert linked(left) == {said.span_id, commands["left"].span_id}  # by what the step said
        assert linked(right) == {said.span_id, commands["right"].span_id}  # it said nothing: by what it was called with
        for row, command in ((left, commands["left"]), (right, commands["right"])):
            assert row.parent_span_id == (command.span_id if policy == "continue" else None)
        assert len(seen.traces) == (1 if policy == "continue" else 3)

    play(scenario)


def test_a_timer_that_fires_after_a_restart_is_linked_to_where_the_saga_began(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        agent, saga_type = Agent("walker"), saga_of(timedelta(minutes=5))

        @agent.step(effects=False, retry=Retry(attempts=3, first_s=30, jitter=0))
        async def walk(asked: Asked) -> Done:
            raise ConnectionError("down")

        async with world.stage([agent], saga_type) as running:
            saga = await running.publish({"n": 1})
            await tiers(running, 1)
        world.ahead_s += 600
        async with world.stage([agent], saga_type) as running:
            assert await running.ended(saga) == "compensated"
        seen = await world.seen()
        (start,) = seen.send("edge.asked")
        fired = [row for row in seen.coordinator(FACTS) if row.text("event.type") == "pavane.fact.fired"]
        timer = next(row for row in fired if row.parent_span_id is None)
        assert linked(timer) == {start.span_id}
        assert timer.trace_id != start.trace_id
        (end,) = seen.send("pavane.ends")
        assert (end.trace_id, end.parent_span_id) == (timer.trace_id, timer.span_id)

    play(scenario)


def test_a_coordinator_that_comes_back_goes_on_in_the_same_trace(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        async with world.stage(refused_at_the_join()) as running:
            saga = await running.publish({"n": 1})

            async def begun() -> list[Envelope]:
                return await running.events("edge.left")

            await until(begun)
        async with world.stage(refused_at_the_join()) as running:
            assert await running.ended(saga) == "compensated"
        seen = await world.seen()
        assert len(seen.traces) == 1

    play(scenario)


def test_a_grant_and_a_lock_that_was_waited_for_stay_in_the_trace_of_their_saga(play: Callable[[Scenario], None]) -> None:
    left, right = Agent("left"), Agent("right")
    go = asyncio.Event()

    def room(asked: Asked) -> str:
        return "the room"

    @left.step(lock=room, retry=ONCE)
    async def take(asked: Asked) -> Left:
        await go.wait()
        return Left(n=asked.n)

    @take.compensate
    async def leave(asked: Asked, done: Left | None) -> None: ...

    @right.step(pivot=True, retry=ONCE)
    async def decide(a: Left) -> Done:
        return Done(n=a.n)

    @decide.compensate
    async def never(a: Left, done: Done | None) -> None: ...

    async def scenario(world: World) -> None:
        go.clear()
        async with world.stage([left, right]) as running:
            sagas = [await running.publish({"n": n}) for n in (1, 2)]

            async def one_waits() -> bool:
                return len(await running.records("pavane.locks")) >= 2

            await until(one_waits)
            go.set()
            assert [await running.ended(saga) for saga in sagas] == ["completed", "completed"]
        seen = await world.seen()
        assert len(seen.traces) == 2
        for saga in sagas:
            taken = [row for row in seen.process("left/take") if row.text("saga.id") == saga]
            assert len({row.trace_id for row in taken}) == 1
        assert len(seen.process("right/decide")) == 4  # each held, and granted

    play(scenario)


def test_a_loop_of_hops_rolls_over_into_linked_traces_of_one_saga(play: Callable[[Scenario], None]) -> None:
    agent, echo = Agent("walker"), Agent("echo")

    @agent.step(effects=False)
    async def go(asked: Asked) -> Left:
        return Left(n=300)

    @agent.step(effects=False)
    async def turn(a: Left) -> Right | Done:
        return Right(n=a.n - 1) if a.n else Done()

    @echo.step(effects=False)
    async def again(b: Right) -> Left:
        return Left(n=b.n)

    @echo.observe
    async def watch(b: Right) -> None: ...

    async def scenario(world: World) -> None:
        async with world.stage([agent, echo]) as running:
            saga = await running.publish({"n": 1})
            assert await running.ended(saga) == "completed"
        seen = await world.seen()
        assert max(seen.traces.values()) < MOST_IN_TRACE
        assert 3 <= len(seen.traces) <= 5
        assert {row.text("saga.id") for row in seen.rows} == {saga}
        known = {row.span_id: row for row in seen.rows}
        roots = [row for row in seen.rows if row.parent_span_id is None and row.links]
        for root in roots:
            assert all(known[each].trace_id != root.trace_id for each in linked(root))

    play(scenario)


def test_the_trace_of_a_message_is_that_of_its_send_span(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        async with world.stage([walker()]) as running:
            await running.ended(await running.publish({"n": 1}))
            (start,) = await running.events("edge.asked")
        context = span_context(start.trace)
        assert context is not None
        assert f"{context.span_id:016x}" == (await world.seen()).send("edge.asked")[0].span_id

    play(scenario)
