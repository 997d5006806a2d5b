"""A backlog: an agent that finds hundreds of thousands of events at its start holds a bounded amount of memory."""

import asyncio
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from chaos.kafka_crew import a_process
from chaos.kafka_order import Order
from chaos.kafka_parcels import Parcel, Passed, a_parcel, agent
from chaos.kafka_scale import scaled
from pavane.plan import plan_of
from pavane_events.bus import Bus
from pavane_events.envelope import is_event, parse
from pavane_saga.wire import FACTS
from support.kafka import Kafka

EVENTS = scaled(20_000, 500_000)
MOST_MB = 120.0
PATIENCE_S = scaled(150.0, 1_200.0)

pytestmark = pytest.mark.slow


def fill(order: Order) -> None:
    """The backlog, as agents elsewhere would have written it."""
    producer = Producer(
        {
            "bootstrap.servers": order.servers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 100_000,
            "log_level": 0,
        }
    )
    for number in range(EVENTS):
        message = a_parcel()
        producer.produce(order.prefix + message.topic, message.value, message.key, headers=list(message.headers))
        if number % 1000 == 999:
            assert producer.flush(60) == 0
    assert producer.flush(60) == 0


def worked_off(order: Order) -> int:
    """How many inputs are done, by the group's offsets: the brokers' word."""
    places = [TopicPartition(order.prefix + Parcel.event_type, each) for each in range(order.partitions)]
    consumer = Consumer({"bootstrap.servers": order.servers, "group.id": order.prefix + agent.name, "log_level": 0})
    try:
        return sum(max(0, place.offset) for place in consumer.committed(places, timeout=30))
    finally:
        consumer.close()


async def passed_on(bus: Bus) -> int:
    """How many events came out, each counted once."""
    causes: set[str | None] = set()
    count = 0
    async for record in bus.read(Passed.event_type):
        causes.add(parse(record).causation)
        count += 1
    assert len(causes) == count, "an event came out twice"
    return count


async def declared(bus: Bus) -> bool:
    """Whether every lane has its place to begin at."""
    return len([record async for record in bus.read(FACTS) if is_event(record)]) >= bus.partitions


def test_an_agent_that_starts_behind_a_backlog_holds_little_of_it_in_memory(kafka: Kafka, tmp_path: Path) -> None:
    order = Order(kafka.servers, f"lag-{uuid.uuid4().hex[:8]}.", partitions=4)
    environment = {
        "PAVANE_KAFKA_PREFIX": order.prefix,
        "PAVANE_PARTITIONS": str(order.partitions),
        "PAVANE_TRACE": "false",
    }
    command = ("-m", "pavane", "run", "chaos.kafka_parcels:agent", "--bus", kafka.url)

    async def scenario() -> None:
        async with await order.open() as bus:
            await bus.create_topics(plan_of(agent).topic_specs())
            async with a_process("first", tmp_path / "first.log", *command, environment=environment) as worker:
                while not await declared(bus):
                    worker.check()
                    await asyncio.sleep(0.1)
                idle_mb = worker.peak_rss_mb()
                await worker.leave()
            await asyncio.to_thread(fill, order)
            began = time.monotonic()
            async with a_process("behind", tmp_path / "behind.log", *command, environment=environment) as worker:
                while await asyncio.to_thread(worked_off, order) < EVENTS:
                    worker.check()
                    assert time.monotonic() - began < PATIENCE_S, worker.report()
                    await asyncio.sleep(0.5)
                took_s, peak_mb = time.monotonic() - began, worker.peak_rss_mb()
                await worker.leave()
            print(f"{EVENTS} events behind: {took_s:.0f} s, {peak_mb:.0f} MB at most; with nothing to do {idle_mb:.0f} MB")
            assert peak_mb < MOST_MB
            assert await passed_on(bus) == EVENTS

    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())
