"""Context: whatever a step starts, in tasks and in threads, is told under its own saga and under no other's."""

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor  # pyright: ignore[reportMissingTypeStubs]

from pavane import Agent, Context, Event, Rejected, Retry, Saga
from pavane.runner import Surroundings
from pavane.threads import ContextThreads
from pavane_events.buses.memory import MemoryBus
from pavane_tracing.span import SpanRow
from pavane_tracing.store import all_spans
from support.stage import stage, until

SAGAS = 1_000
ONCE = Retry(attempts=1)
tracer = trace.get_tracer("a step's own")


class Asked(Event, type="hygiene.asked"):
    n: int


class Left(Event, type="hygiene.left"):
    n: int


class Right(Event, type="hygiene.right"):
    n: int


class Done(Event, type="hygiene.done"):
    n: int


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def in_thread(name: str, saga: str | None) -> None:
    with tracer.start_as_current_span(f"{name} in a thread", attributes={"stamped": str(saga)}):
        pass


async def in_task(name: str, saga: str | None) -> None:
    await asyncio.sleep(random.uniform(0, 0.002))
    with tracer.start_as_current_span(f"{name} in a task", attributes={"stamped": str(saga)}):
        await asyncio.sleep(0)


async def busy(name: str, ctx: Context) -> None:
    """A span, and within it whatever a step may do."""
    with tracer.start_as_current_span(name, attributes={"stamped": str(ctx.saga)}):
        child = asyncio.create_task(in_task(name, ctx.saga))
        await asyncio.sleep(random.uniform(0, 0.005))
        await asyncio.to_thread(in_thread, name, ctx.saga)
        await child


def dancers() -> list[Agent]:
    """A fork and a join; every fifth saga is refused there, and undone."""
    one, other = Agent("one"), Agent("other")

    @one.step(retry=ONCE)
    async def left(asked: Asked, ctx: Context) -> Left:
        await busy("left", ctx)
        return Left(n=asked.n)

    @left.compensate
    async def back(asked: Asked, done: Left | None, ctx: Context) -> None:
        await busy("back", ctx)

    @other.step(effects=False, retry=ONCE)
    async def right(asked: Asked, ctx: Context) -> Right:
        await busy("right", ctx)
        return Right(n=asked.n)

    @other.step(effects=False, retry=ONCE)
    async def join(a: Left, b: Right, ctx: Context) -> Done:
        await busy("join", ctx)
        if a.n % 5 == 0:
            raise Rejected("every fifth")
        return Done(n=a.n)

    return [one, other]


def test_a_thousand_sagas_at_once_have_their_own_spans_and_nobody_else_s() -> None:
    saga_type = Saga("hygiene", starts=Asked, completes=Done, intake="hygiene.intake")

    async def scenario() -> tuple[list[SpanRow], dict[str, str]]:
        async with MemoryBus(4) as bus:
            async with stage(dancers(), [saga_type], bus=bus, surroundings=Surroundings(trace=True)) as running:
                for n in range(SAGAS):
                    await running.publish({"n": n})

                async def all_ended() -> bool:
                    return len(await running.verdicts()) == SAGAS

                await until(all_ended)
                verdicts = await running.verdicts()
            return await all_spans(bus), verdicts

    rows, verdicts = asyncio.run(scenario())
    assert sum(verdict == "compensated" for verdict in verdicts.values()) == SAGAS // 5
    stamped = [row for row in rows if row.text("stamped") is not None]
    assert len(stamped) == 3 * (3 * SAGAS + SAGAS // 5)
    assert [row for row in stamped if row.text("saga.id") != row.text("stamped")] == []
    known = {(row.trace_id, row.span_id): row for row in rows}
    parents = {row.name: known[row.trace_id, row.parent_span_id or ""].text("saga.id") for row in stamped}
    assert None not in parents.values()
    for row in stamped:
        assert known[row.trace_id, row.parent_span_id or ""].text("saga.id") == row.text("stamped")


def test_spans_in_threads_nest_whichever_way_the_threads_are_asked() -> None:
    agent, saga_type = Agent("one"), Saga("hygiene", starts=Asked, completes=Done, intake="hygiene.intake")

    @agent.step(effects=False, retry=ONCE)
    async def walk(asked: Asked, ctx: Context) -> Done:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, in_thread, "the loop's", ctx.saga)
        await asyncio.to_thread(in_thread, "asyncio's", ctx.saga)
        with ContextThreads(2) as own:
            own.submit(in_thread, "ours", ctx.saga).result()
            assert list(own.map(in_thread, ["mapped"], [ctx.saga])) == [None]
        ThreadingInstrumentor().instrument()
        try:
            with ThreadPoolExecutor(2) as plain:
                plain.submit(in_thread, "instrumented", ctx.saga).result()
        finally:
            ThreadingInstrumentor().uninstrument()
        return Done(n=asked.n)

    async def scenario() -> list[SpanRow]:
        asyncio.get_running_loop().set_default_executor(ContextThreads())
        async with stage([agent], [saga_type], surroundings=Surroundings(trace=True)) as running:
            assert await running.ended(await running.publish({"n": 1})) == "completed"
            return await all_spans(running.bus)

    rows = asyncio.run(scenario())
    (work,) = [row for row in rows if row.text("saga.step") == "one/walk" and row.kind == "CONSUMER"]
    threads = [row for row in rows if row.name.endswith("in a thread")]
    assert len(threads) == 5
    assert {(row.trace_id, row.parent_span_id) for row in threads} == {(work.trace_id, work.span_id)}
    assert {row.text("saga.id") for row in threads} == {work.text("saga.id")}
