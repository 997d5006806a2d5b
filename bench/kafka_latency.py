"""Latency: one hop, and a chain of five agents, at a steady rate: from the moment of sending to the last event's arrival."""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from bench.kafka_child import a_child, a_sender, all_lanes, at_rate, eventually, follow, percentile
from bench.kafka_place import Broker, Place
from bench.kafka_relay import data_of, hop, message_of, relay
from bench.kafka_worker import Figures

from pavane_events.record import Record

_WARM = 40
_PARTITIONS = 4


async def chain(
    broker: Broker, hops: int, rate: float, seconds: float, *, processes: bool = False, bare: bool = False
) -> Figures:
    """Milliseconds through a chain, with all agents in one process or each in its own."""
    place = Place.fresh(broker, _PARTITIONS)
    crew = [relay(number) for number in range(hops)]
    await place.create(crew)
    names = [agent.name for agent in crew]
    found: list[float] = []

    def take(record: Record) -> None:
        found.append((time.monotonic_ns() - int(json.loads(record.value or b"{}")["t0"])) / 1e6)

    async def arrived(count: int) -> None:
        async def so() -> bool:
            return len(found) >= count

        await eventually(so)

    async with AsyncExitStack() as stack:
        groups = [[name] for name in names] if processes else [names]
        children = [await stack.enter_async_context(a_child(place, () if bare else group, bare=bare)) for group in groups]
        following = asyncio.create_task(follow(place, hop(hops).event_type, take))
        if not bare:
            await all_lanes(children, hops * _PARTITIONS)
        send = await stack.enter_async_context(a_sender(place, linger_ms=0))
        await arrived(await at_rate(rate, _WARM / rate, lambda: send(message_of(data_of(300)))))
        found.clear()
        before = [await child.figures() for child in children]
        sent = await at_rate(rate, seconds, lambda: send(message_of(data_of(300))))
        await arrived(sent)
        after = [await child.figures() for child in children]
        following.cancel()
        await asyncio.wait([following])
    cpu_s = sum(each["cpu_s"] for each in after) - sum(each["cpu_s"] for each in before)
    transactions = sum(each["transactions"] for each in after) - sum(each["transactions"] for each in before)
    return {
        "p50_ms": percentile(found, 0.5),
        "p90_ms": percentile(found, 0.9),
        "p99_ms": percentile(found, 0.99),
        "most_ms": max(found),
        "cpu_us_per_msg": cpu_s / (sent * hops) * 1e6,
        "transactions_per_s": transactions / seconds,
    }


async def latency(broker: Broker, *, seconds: float) -> Mapping[str, Figures]:
    """As the table of musts has it, and at ten times the rate."""
    return {
        "1 hop, 20/s, bare": await chain(broker, 1, 20, seconds, bare=True),
        "1 hop, 20/s": await chain(broker, 1, 20, seconds),
        "5 agents, 20/s": await chain(broker, 5, 20, seconds),
        "5 agents, 20/s, 5 processes": await chain(broker, 5, 20, seconds, processes=True),
        "5 agents, 200/s": await chain(broker, 5, 200, seconds / 2),
        "5 agents, 200/s, 5 processes": await chain(broker, 5, 200, seconds / 2, processes=True),
    }
