"""Static members: who comes back under the name of a dead process takes its lanes up, and nobody is taken for the dead one."""

import asyncio
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.kafka_crew import a_worker
from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader, read_all
from chaos.test_kafka_dead import feed_until
from pavane_events.bus import TopicSpec
from support.compiled import sources_only
from support.kafka import Kafka

PATIENCE_S = 90.0
SESSION_S = 30.0
"""Long enough to come back in, on any machine."""

BOUND_S = 20.0
"""From when the name has its lanes back until outputs of all are seen: neither session nor transaction is waited for."""

TRANSACTION_S = 120.0

pytestmark = pytest.mark.slow


async def restarted_in_a_transaction(kafka: Kafka, log: Path) -> None:
    order = Order(
        kafka.servers,
        f"static-{uuid.uuid4().hex[:8]}.",
        work_s=0.0,
        session_ms=int(SESSION_S * 1000),
        transaction_timeout_ms=int(TRANSACTION_S * 1000),
        instance="pod-0",
    )
    async with await order.open() as bus:
        await bus.create_topics([TopicSpec(order.source), TopicSpec(order.target)])
    feed, reader, stop = Feed(order, seed=5), Reader(order), asyncio.Event()
    with reader.reading():
        async with a_worker(replace(order, stop="in transaction"), log / "first.log", name="first") as first:
            feeding = asyncio.create_task(feed_until(stop, feed))
            await reader.until(1000, PATIENCE_S)
            first.process.send_signal(signal.SIGUSR1)
            await first.said("open")
            await first.kill()
        async with a_worker(order, log / "second.log", name="second") as second:
            await second.until(lambda: len(second.held) == order.partitions, SESSION_S, "it does not have its lanes again")
            back = time.monotonic()
            while len(reader.outputs.since(back)) < order.partitions:
                second.check()
                assert time.monotonic() - back < BOUND_S, f"readers wait for what its former self left open; {second.report()}"
                await asyncio.sleep(0.02)
            seen = time.monotonic()
            async with a_worker(replace(order, instance="pod-1"), log / "other.log", name="other") as other:
                await other.until(lambda: len(other.held) >= order.partitions // 2, PATIENCE_S, "it has not got its share")
                await reader.until(reader.count + 1000, PATIENCE_S)
                stop.set()
                await feeding
                await reader.until(feed.count, PATIENCE_S)
                await asyncio.gather(second.leave(), other.leave())
    print(f"outputs of all lanes came {seen - back:.1f} s after the name was back (session {SESSION_S:.0f} s)")
    assert (reader.outputs.by_key, reader.outputs.doubled) == (feed.by_key, 0)
    again = await asyncio.to_thread(read_all, order)
    assert (again.problems, again.by_key) == ([], feed.by_key)
    for each in (second, other):
        fenced = [
            line for line in each.log.read_text().splitlines() if "ProducerFenced" in line or "InvalidProducerEpoch" in line
        ]
        assert fenced == [], f"{each.name} lives, and was taken for dead"


@sources_only  # a worker is patched, so that it dies where a transaction is open
def test_a_process_that_comes_back_under_its_name_ends_what_it_left_open_and_is_not_taken_for_dead_itself(
    kafka: Kafka, tmp_path: Path
) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(240):
            await restarted_in_a_transaction(kafka, tmp_path)

    asyncio.run(bounded())
