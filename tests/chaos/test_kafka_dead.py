"""Workers that die at load, in a transaction or between two: how soon everybody else goes on, with figures."""

import asyncio
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from chaos.kafka_crew import Worker, a_worker
from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader
from chaos.kafka_scale import scaled
from pavane_events.bus import TopicSpec
from support.compiled import sources_only
from support.kafka import Kafka

RATE_S = 0.05
"""Between two portions of the feed."""

PORTION = 18
PATIENCE_S = 90.0
SESSION_S = 6.0
GOAL_S = SESSION_S + 2.0
"""What is promised on a machine that has time for it."""

BOUND_S = GOAL_S + 20.0
"""What the short form holds even on one that is busy with other things; still far below the transaction's timeout."""

NOTICE_S = 1.0
"""What comes on top: the broker ends a session on a tick of its timers, the others hear of it with their next heartbeat."""

TRANSACTION_S = 120.0

pytestmark = pytest.mark.slow


async def feed_until(stop: asyncio.Event, feed: Feed) -> None:
    """A steady load."""
    while not stop.is_set():
        feed.send(PORTION, wait=False)
        await asyncio.sleep(RATE_S)
    await asyncio.to_thread(feed.flush)


def longest_gap(times: Sequence[float], since: float) -> float:
    """The longest silence that ended after that moment, as far as it lies after it."""
    return max((after - max(since, before) for before, after in pairwise(times) if after > since), default=0.0)


async def killed_at_load(kafka: Kafka, log: Path, *, in_transaction: bool) -> None:
    """Two workers share nine lanes, one is killed; measure how long its lanes' outputs, and those of others, pause."""
    name = "open" if in_transaction else "dead"
    order = Order(
        kafka.servers, f"{name}-{uuid.uuid4().hex[:8]}.", work_s=0.0, transaction_timeout_ms=int(TRANSACTION_S * 1000)
    )
    async with await order.open() as bus:
        await bus.create_topics([TopicSpec(order.source), TopicSpec(order.target)])
    feed, reader, stop = Feed(order, seed=7), Reader(order), asyncio.Event()
    with reader.reading():
        async with (
            a_worker(replace(order, stop="in transaction"), log / "victim.log", name="victim") as victim,
            a_worker(order, log / "other.log", name="other") as other,
        ):
            await _have_shared(victim, other)
            feeding = asyncio.create_task(feed_until(stop, feed))
            await reader.until(1000, PATIENCE_S)
            lanes = set(victim.held)
            if in_transaction:
                victim.process.send_signal(signal.SIGUSR1)
                await victim.said("open")
            killed = time.monotonic()
            await victim.kill()
            before = {number: len(times) for number, times in reader.outputs.arrivals.items()}

            def go_on() -> bool:
                return all(len(reader.outputs.arrivals[number]) > before.get(number, 0) + 1 for number in lanes)

            while not (lanes <= other.held and go_on()):
                other.check()
                assert time.monotonic() - killed < PATIENCE_S, f"{lanes} do not go on; {other.report()}"
                await asyncio.sleep(0.02)
            stop.set()
            await feeding
            await reader.until(feed.count, PATIENCE_S)
    assert reader.outputs.by_key == feed.by_key
    gaps = {number: longest_gap(times, killed) for number, times in reader.outputs.arrivals.items()}
    worst = max(gaps[number] for number in lanes)
    others = max(gap for number, gap in gaps.items() if number not in lanes)
    print(
        f"killed {'in a transaction' if in_transaction else 'at any moment'}: "
        f"its {len(lanes)} lanes paused for {worst:.1f} s, "
        f"the others for {others:.1f} s (session {SESSION_S:.0f} s, goal {GOAL_S:.0f} s, transaction {TRANSACTION_S:.0f} s)"
    )
    assert worst < scaled(BOUND_S, GOAL_S + NOTICE_S) < TRANSACTION_S


async def _have_shared(*workers: Worker) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not (all(each.held for each in workers) and sum(len(each.held) for each in workers) == 9):
        assert time.monotonic() < give_up, "\n".join(each.report() for each in workers)
        await asyncio.sleep(0.02)


@sources_only  # a worker is patched, so that it dies where a transaction is open
@pytest.mark.parametrize("in_transaction", scaled([True], [True, False]))
def test_the_lanes_of_a_killed_worker_go_on_elsewhere_and_readers_do_not_wait_for_what_it_left_open(
    kafka: Kafka, tmp_path: Path, in_transaction: bool
) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(240):
            await killed_at_load(kafka, tmp_path, in_transaction=in_transaction)

    asyncio.run(bounded())
