"""Consume, transform, produce on Kafka under faults: nothing lost, nothing doubled, order and state as if nothing had been."""

import asyncio
import json
import random
import time
import uuid
from pathlib import Path

import pytest

from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader, read_all
from chaos.kafka_scale import scaled
from chaos.kafka_storm import Scale, Storm
from chaos.kafka_worker import COUNT
from pavane.dev.kafka import KafkaCluster
from pavane_events.bus import TopicSpec

SEED = 1411
SHORT = Scale(8_000, {"kill": 2, "bounce": 1, "freeze": 1, "guest": 1, "zombie": 1})
LONG = Scale(100_000, {"kill": 20, "bounce": 3, "freeze": 3, "guest": 5, "zombie": 4})
PATIENCE_S = 90.0

pytestmark = pytest.mark.slow


async def counts_of(order: Order) -> dict[bytes, int]:
    """What the lanes' state says of each key, as their next holder finds it."""
    counts: dict[bytes, int] = {}
    async with await order.open() as bus:
        lanes = await bus.lanes(order.group, [order.source])
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(order.partitions):
                lane = await anext(lanes)
                found = {key.removeprefix(COUNT): int(value) for key, value in lane.state.scan(COUNT)}
                assert not found.keys() & counts.keys(), "a key is counted in two lanes"
                counts |= found
    return counts


def test_copying_loses_nothing_doubles_nothing_and_keeps_order_and_counts_whatever_dies(
    kafka_cluster: KafkaCluster, tmp_path: Path
) -> None:
    scale = scaled(SHORT, LONG)
    order = Order(kafka_cluster.servers, f"copy-{uuid.uuid4().hex[:8]}.")
    print(f"seed {SEED}, {scale}")

    async def scenario() -> None:
        began = time.monotonic()
        async with await order.open() as bus:
            await bus.create_topics([TopicSpec(order.source), TopicSpec(order.target)])
        feed, reader = Feed(order, seed=SEED), Reader(order)
        storm = Storm(order, kafka_cluster, feed, reader, random.Random(SEED), tmp_path)
        with reader.reading():
            async with storm.raging():
                await storm.rage(scale)
                assert feed.count == scale.events
                await reader.until(scale.events, PATIENCE_S)
                await asyncio.gather(*(each.leave() for each in storm.workers))
        took = time.monotonic() - began
        seconds = {fault: [round(each, 1) for each in times] for fault, times in storm.seconds.items()}
        print(f"{scale.events} events, {storm.struck_at_work} faults at work in {took:.0f} s; {json.dumps(seconds)}")
        reader.check()
        assert reader.outputs.by_key == feed.by_key
        assert reader.outputs.doubled == 0
        again = await asyncio.to_thread(read_all, order)
        assert again.problems == []
        assert again.by_key == feed.by_key
        assert await counts_of(order) == feed.by_key
        assert storm.struck_at_work >= sum(scale.faults.values()) * 0.9

    async def bounded() -> None:
        async with asyncio.timeout(scaled(300, 2700)):
            await scenario()

    asyncio.run(bounded())
