"""Clocks that jump: what is decided by order and offsets does not notice, what is decided by time is decided once."""

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from chaos.kafka_crew import a_worker
from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader
from pavane import Agent, Context, Event, Retry, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings
from pavane_events.bus import TopicSpec
from support.kafka import Kafka
from support.stage import Stage, stage, until

HOUR_S = 3600.0
EVENTS = 1_500
PATIENCE_S = 90.0

pytestmark = pytest.mark.slow


def run(order: Order, log: Path) -> None:
    """Two workers, one with a clock that jumps by an hour each second, one with a right one, share the lanes."""

    async def scenario() -> None:
        async with await order.open() as bus:
            await bus.create_topics([TopicSpec(order.source), TopicSpec(order.target)])
        feed, reader = Feed(order, seed=5), Reader(order)
        with reader.reading():
            async with AsyncExitStack() as stack:
                for jumps_s in (HOUR_S, 0.0):
                    name = f"jumps-{jumps_s:.0f}"
                    told = replace(order, clock_jumps_s=jumps_s)
                    await stack.enter_async_context(a_worker(told, log / f"{name}.log", name=name))
                began = time.monotonic()
                for _ in range(5):  # over more than one jump
                    await asyncio.to_thread(feed.send, EVENTS // 5)
                    await reader.until(feed.count, PATIENCE_S)
                    await asyncio.sleep(max(0.0, 0.7 - (time.monotonic() - began) % 0.7))
        assert reader.outputs.by_key == feed.by_key
        assert reader.outputs.problems == []

    asyncio.run(scenario())


def test_copying_does_not_notice_a_clock_that_jumps_by_hours(kafka: Kafka, tmp_path: Path) -> None:
    run(Order(kafka.servers, f"clock-{uuid.uuid4().hex[:8]}."), tmp_path)


class Clock:
    """The wall clock, and by how much it is wrong."""

    def __init__(self) -> None:
        self.wrong_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.wrong_s


class Asked(Event, type="clock.asked"):
    patient: bool


class Answered(Event, type="clock.answered"):
    pass


def test_sagas_end_once_when_the_clock_is_set_back_and_those_whose_deadline_it_passes_are_undone(kafka: Kafka) -> None:
    standing: set[str] = set()
    go_on = asyncio.Event()
    agent = Agent("slow")

    @agent.step(retry=Retry(attempts=2, first_s=1.5))
    async def answer(asked: Asked, ctx: Context) -> Answered:
        standing.add(ctx.idempotency_key)
        if asked.patient and ctx.attempt == 1:
            raise TimeoutError("again, after a pause in a delay tier")
        if not asked.patient:
            await go_on.wait()
        return Answered()

    @answer.compensate
    async def undo(asked: Asked, done: Answered | None, ctx: Context) -> None:
        standing.discard(ctx.idempotency_key)

    saga = Saga("clock", starts=Asked, completes=Answered, deadline=timedelta(minutes=5), intake="clock.intake")
    clock = Clock()
    order = Order(kafka.servers, f"clock-{uuid.uuid4().hex[:8]}.", partitions=2)

    async def scenario() -> None:
        surroundings = Surroundings(trace=False, limits=Limits(drain_s=2.0), clock=clock)
        async with (
            asyncio.timeout(180),
            await order.open() as bus,
            stage([agent], [saga], bus=bus, surroundings=surroundings) as here,
        ):
            first = await here.publish({"patient": True})
            await until(lambda: _holds(standing, 1))
            clock.wrong_s = -HOUR_S  # while it waits in a tier
            assert await here.ended(first) == "completed"
            second = await here.publish({"patient": False})
            await until(lambda: _holds(standing, 2))
            clock.wrong_s = HOUR_S  # while it is at work: its deadline has passed at once
            await _is_ending(here, second)
            go_on.set()
            assert await here.ended(second) == "compensated"
            assert len(standing) == 1
            clock.wrong_s = 0.0
            third = await here.publish({"patient": True})
            assert await here.ended(third) == "completed"
            assert len(standing) == 2
            assert len(await here.verdicts()) == 3

    asyncio.run(scenario())


async def _holds(standing: set[str], count: int) -> bool:
    return len(standing) == count


async def _is_ending(here: Stage, saga: str) -> None:
    async def told() -> bool:
        return bool(await here.events("pavane.ends", saga))

    await until(told)
