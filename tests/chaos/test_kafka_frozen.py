"""A broker that freezes: it holds its connections and answers nobody, as no crash does, and its lanes must not fall silent.

What aiokafka's own fetcher does then is told in aio-libs/aiokafka#1154 and #1187: a consumer that lives and reads nothing.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from chaos.kafka_crew import Worker, a_worker
from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader, read_all
from chaos.test_kafka_dead import feed_until
from pavane.dev.kafka import KafkaCluster
from pavane.dev.kafka_node import KafkaNode
from pavane_events.bus import TopicSpec
from support.kafka import MakeKafka

PATIENCE_S = 120.0
BROKER_SESSION_S = 3.0
"""After so long the controllers give what a silent broker leads to others, in the brokers of these tests."""

BROKER_REQUEST_S = 5.0
"""So long brokers wait for each other (``request.timeout.ms``): until then a transaction that ends when one freezes stays
open, for the frozen one is to be told of it."""

REQUEST_S = 5.0
GOAL_S = BROKER_SESSION_S + BROKER_REQUEST_S + 3 * REQUEST_S
"""What is promised on a machine that has time for it. A fetch, a transaction's request and a look for its coordinator may
each hang on the frozen broker once."""

BOUND_S = GOAL_S + 15.0
"""What is held even on one that is busy with other things."""

pytestmark = pytest.mark.slow


def led_by(order: Order, node: KafkaNode) -> set[int]:
    """The lanes whose input that broker leads."""
    topic = order.prefix + order.source
    partitions = AdminClient({"bootstrap.servers": order.servers}).list_topics(topic, timeout=30).topics[topic].partitions
    return {number for number, each in partitions.items() if each.leader == node.number}


def silent_lanes(workers: Sequence[Worker]) -> set[int]:
    """The lanes that are not polled, as their holders' health tells at last."""
    found: set[int] = set()
    for worker in workers:
        mine: set[int] = set()
        for line in worker.lines:
            word, _, number = line.partition(" ")
            if word == "silent":
                mine.add(int(number))
            elif word in ("polled", "lost"):
                mine.discard(int(number))
        found |= mine
    return found


def told_of(workers: Sequence[Worker], since: Mapping[str, int]) -> set[int]:
    """The lanes that health tells of, or has, after so many lines of each worker: one has its silence later than another."""
    lines = [line for worker in workers for line in worker.lines[since[worker.name] :]]
    return silent_lanes(workers) | {int(line.removeprefix("silent ")) for line in lines if line.startswith("silent ")}


async def freeze(order: Order, node: KafkaNode, log: Path, *, until_woken: bool) -> None:
    """Two workers share the lanes, under load; the broker freezes, and wakes before or after its lanes go on."""
    feed, reader, stop = Feed(order, seed=11), Reader(order), asyncio.Event()
    with reader.reading():
        async with AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(a_worker(order, log / f"{name}.log", name=name)) for name in ("one", "two")
            ]

            async def eventually(is_so: Callable[[], bool], problem: str) -> None:
                give_up = time.monotonic() + PATIENCE_S
                while not is_so():
                    for each in workers:
                        each.check()
                    assert time.monotonic() < give_up, "\n".join([problem, *(each.report() for each in workers)])
                    await asyncio.sleep(0.02)

            def going(since: float) -> set[int]:
                """The lanes that bring outputs: one with enough in its inbox asks for nothing while its leader changes."""
                return reader.outputs.since(since)

            feeding = asyncio.create_task(feed_until(stop, feed))
            await reader.until(1000, PATIENCE_S)
            lanes = await asyncio.to_thread(led_by, order, node)
            assert lanes
            said = {worker.name: len(worker.lines) for worker in workers}
            node.suspend()
            frozen = time.monotonic()
            try:
                await eventually(
                    lambda: lanes <= told_of(workers, said) | going(since=frozen + GOAL_S),
                    f"health does not tell of the lanes {lanes}, that nobody polls",
                )
                told = time.monotonic()
                assert lanes & told_of(workers, said)
                if until_woken:
                    node.resume()
                    woken = time.monotonic()
                else:
                    woken = frozen
                await eventually(
                    lambda: len(going(since=max(told, woken))) == order.partitions,
                    f"the lanes {lanes} do not go on",
                )
                went_on = time.monotonic()
            finally:
                node.resume()
            await eventually(lambda: not silent_lanes(workers), "health does not tell that all lanes are polled again")
            stop.set()
            await feeding
            await reader.until(feed.count, PATIENCE_S)
            await asyncio.gather(*(each.leave() for each in workers))
    print(
        f"broker {node.number} froze: its {len(lanes)} lanes were told of after {told - frozen:.1f} s, "
        f"and went on {went_on - woken:.1f} s after it {'woke' if until_woken else 'froze'} (goal {GOAL_S:.0f} s)"
    )
    assert went_on - woken < BOUND_S
    assert (reader.outputs.by_key, reader.outputs.doubled) == (feed.by_key, 0)
    again = await asyncio.to_thread(read_all, order)
    assert (again.problems, again.by_key, again.doubled) == ([], feed.by_key, 0)


def an_order(servers: str) -> Order:
    return Order(servers, f"frozen-{uuid.uuid4().hex[:8]}.", work_s=0.0)


async def bounded(order: Order, node: KafkaNode, log: Path, *, until_woken: bool) -> None:
    async with asyncio.timeout(300):
        async with await order.open() as bus:
            await bus.create_topics([TopicSpec(order.source), TopicSpec(order.target)])
        await freeze(order, node, log, until_woken=until_woken)


def test_lanes_of_a_broker_of_three_that_freezes_go_on_with_their_next_leader(
    kafka_cluster: KafkaCluster, tmp_path: Path
) -> None:
    asyncio.run(bounded(an_order(kafka_cluster.servers), kafka_cluster.node(2), tmp_path, until_woken=False))


def test_lanes_of_the_only_broker_go_on_when_it_wakes(make_kafka: MakeKafka, tmp_path: Path) -> None:
    cluster = make_kafka()
    asyncio.run(bounded(an_order(cluster.servers), cluster.node(1), tmp_path, until_woken=True))
