"""The measuring side: worker processes, records sent at a rate, and what is made of their figures."""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from aiokafka import AIOKafkaProducer
from bench.kafka_place import Broker, Place, memory_of
from bench.kafka_worker import Figures, Order

from pavane.agent import Agent
from pavane.runner import Surroundings, run
from pavane_events.bus import Lane
from pavane_events.partition import partition_of
from pavane_events.record import Message, Record
from pavane_saga.wire import FACTS

PATIENCE_S = 300.0
ROOT = Path(__file__).parent.parent


@dataclass(slots=True)
class Child:
    """One worker, and what it has said."""

    process: asyncio.subprocess.Process
    broker: Broker
    said: dict[str, Figures] = field(default_factory=dict[str, Figures])
    broker_cpu_s: dict[str, float] = field(default_factory=dict[str, float])
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        """Take in its lines until it is gone."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = cast("dict[str, object]", json.loads(line))
            what = str(told.pop("what"))
            self.broker_cpu_s[what] = self.broker.cpu_s()
            async with self._news:
                self.said[what] = cast("Figures", told)
                self._news.notify_all()
        await self.process.wait()
        async with self._news:
            self._news.notify_all()

    async def until(self, what: str) -> Figures:
        """Its figures at that moment; raises where it dies before, or nothing comes of it."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: what in self.said or self.process.returncode is not None)
        if what not in self.said:
            raise RuntimeError(f"a worker ended with {self.process.returncode} before it said {what!r}")
        return self.said[what]

    async def figures(self) -> Figures:
        """Its figures now."""
        assert self.process.stdin is not None
        self.said.pop("figures", None)
        self.process.stdin.write(b"?\n")
        return await self.until("figures")

    def memory(self) -> dict[str, float]:
        """What it holds now, and held at most, in MB."""
        return memory_of(self.process.pid)

    def kill(self) -> None:
        """``kill -9``."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)

    def window(self) -> Figures:
        """Between its first records and the commit that ended the measurement: rate, processor time, transactions."""
        first, last = self.said["begun"], self.said["ended"]
        outputs = last["outputs"] - first["outputs"]
        seconds = last["at_s"] - first["at_s"]
        transactions = last["transactions"] - first["transactions"]
        broker_s = self.broker_cpu_s["ended"] - self.broker_cpu_s["begun"]
        return {
            "msg_per_s": outputs / seconds,
            "cpu_us_per_msg": (last["cpu_s"] - first["cpu_s"]) / outputs * 1e6,
            "broker_us_per_msg": broker_s / outputs * 1e6,
            "msg_per_transaction": outputs / max(1.0, transactions),
            "transactions_per_s": transactions / seconds,
        }

    def in_all(self) -> Figures:
        """From its first records until it had stopped: what the last commit left to do counts, too."""
        first, last = self.said["begun"], self.said["stopped"]
        return {"cpu_us_in_all": (last["cpu_s"] - first["cpu_s"]) / (last["outputs"] - first["outputs"]) * 1e6}


@asynccontextmanager
async def a_child(
    place: Place,
    agents: Sequence[str] = (),
    *,
    coordinator: bool = False,
    bare: bool = False,
    trace: bool = False,
    until: int = 0,
    environment: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> AsyncGenerator[Child]:
    """A worker; it is asked to stop at the end of the block, and killed where it does not."""
    wanted = {"agents": list(agents), "coordinator": coordinator, "bare": bare, "trace": trace}
    order = cast("Order", {**place.to_json(), **wanted, "until": until, "profile": profile})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.kafka_worker",
        json.dumps(order),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        cwd=ROOT,
    )
    child = Child(process, place.broker)
    listening = asyncio.create_task(child.listen())
    try:
        yield child
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(20.0):
                await asyncio.shield(listening)
        except TimeoutError:
            child.kill()
            await listening


async def eventually(is_so: Callable[[], Awaitable[bool]], pause_s: float = 0.01) -> None:
    """Look again and again, for five minutes at most."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await is_so():
                return
            await asyncio.sleep(pause_s)


async def all_lanes(children: Sequence[Child], count: int) -> None:
    """Wait until these hold so many lanes together, and have declared them."""

    async def all_there() -> bool:
        return sum([(await child.figures())["lanes"] for child in children]) >= count

    await eventually(all_there, 0.1)


async def declare(place: Place, agents: Sequence[Agent]) -> None:
    """Let agents join and declare every lane, here, and leave again: from now on their lanes have a place to begin at."""
    stop = asyncio.Event()
    async with await place.open() as bus:
        running = asyncio.create_task(run(agents, (), bus, stop, Surroundings(trace=False)))

        async def all_declared() -> bool:
            return len([None async for _ in bus.read(FACTS)]) >= len(agents) * place.partitions

        await eventually(all_declared, 0.1)
        stop.set()
        await running


async def fill(place: Place, topic: str, count: int, make: Callable[[], Message]) -> None:
    """So many records, for a worker to find."""
    async with a_sender(place) as send:
        for _ in range(count):
            await send(make(), topic)


class Sender:
    """Somebody outside, with a producer that anybody would use."""

    def __init__(self, place: Place, producer: AIOKafkaProducer) -> None:
        self._place = place
        self._producer = producer

    async def __call__(self, message: Message, topic: str | None = None) -> None:
        """Send; whether it arrived shows at the other end."""
        partition = partition_of(message.key or b"", self._place.partitions)
        name = self._place.prefix + (topic or message.topic)
        _ = await self._producer.send(name, message.value, message.key, partition, headers=list(message.headers))


@asynccontextmanager
async def a_sender(place: Place, *, linger_ms: int = 5) -> AsyncGenerator[Sender]:
    """One of those, until all it sent has arrived."""
    async with AIOKafkaProducer(
        bootstrap_servers=place.broker.servers, linger_ms=linger_ms, max_batch_size=262_144, max_request_size=1 << 20
    ) as producer:
        yield Sender(place, producer)


async def at_rate(rate: float, seconds: float, send: Callable[[], Awaitable[None]]) -> int:
    """Send at a steady rate, whatever comes of it (an open loop); how many it were."""
    begun = time.monotonic()
    count, most = 0, max(1, round(rate * seconds))
    while count < most:
        due = min(most, int((time.monotonic() - begun) * rate) + 1)
        while count < due:
            await send()
            count += 1
        await asyncio.sleep(min(0.01, 0.5 / rate))
    return count


async def follow(place: Place, topic: str, take: Callable[[Record], None]) -> None:
    """Hand over every committed record of a topic, as it comes, until cancelled."""

    async def of_lane(lane: Lane) -> None:
        while True:
            for record in await lane.receive(1000, 5.0):
                take(record)

    async with await place.open() as bus:
        lanes = await bus.lanes("bench-sink", [topic])
        async with asyncio.TaskGroup() as tasks:
            async for lane in lanes:
                tasks.create_task(of_lane(lane))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; nan where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan
