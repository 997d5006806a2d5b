"""What sagas that wait cost those that run. ``python -m bench.waiting [COUNT] [--kafka]``, 100,000 by default.

One coordinator and two agents in one process, one lane, tracing off, on an SQLite file in a temporary directory or on a
real Kafka. Quick sagas of one step run alone; then so many others begin that wait for an event which does not come; then
quick ones run again, in the same run. At last the process's part is begun anew on the same bus, as after a restart, and
once more with a next version of an agent. Prints sagas per second, the ratio, and the size of the process.
"""

import argparse
import asyncio
import json
import resource
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from bench.kafka_place import Place, a_broker

from pavane import Agent, Event, Saga
from pavane.runner import Surroundings, run
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.envelope import Envelope
from pavane_events.record import Message
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded

QUICK = 10_000
BATCH = 500


class Asked(Event, type="waiting.asked"):
    n: int


class Prepared(Event, type="waiting.prepared"):
    n: int


class Permitted(Event, type="waiting.permitted"):
    n: int


class Granted(Event, type="waiting.granted"):
    n: int


class Called(Event, type="waiting.called"):
    n: int


class Answered(Event, type="waiting.answered"):
    n: int


def agents(*, next_version: bool = False) -> list[Agent]:
    """One whose join waits, one who answers at once; of the second there is a next version with one step more."""
    patient, quick = Agent("patient"), Agent("quick")

    @patient.step(effects=False)
    async def prepare(asked: Asked) -> Prepared:
        return Prepared(n=asked.n)

    @patient.step(effects=False)
    async def permit(prepared: Prepared) -> Permitted | None:
        return None

    @patient.step(effects=False)
    async def grant(prepared: Prepared, permitted: Permitted) -> Granted:
        return Granted(n=prepared.n)

    @quick.step(effects=False)
    async def answer(called: Called) -> Answered:
        return Answered(n=called.n)

    if next_version:

        @quick.step(effects=False)
        async def note(called: Called) -> None: ...

    return [patient, quick]


SAGAS = (
    Saga("patient", starts=Asked, completes=Granted, deadline=timedelta(days=30), intake="waiting.questions"),
    Saga("quick", starts=Called, completes=Answered, deadline=timedelta(days=30), intake="waiting.calls"),
)


@asynccontextmanager
async def at_work(bus: Bus, who: Sequence[Agent]) -> AsyncGenerator[None]:
    """Everybody, until the block is left."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(who, SAGAS, bus, stop, Surroundings(trace=False)))
    try:
        yield
    finally:
        stop.set()
        await task


class Bench:
    """A bus file, and what lies on it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.calls = 0

    async def publish(self, saga: Saga, first: int, count: int) -> None:
        """So many applications."""
        for start in range(first, first + count, BATCH):
            await self.bus.publish([_application(saga, n) for n in range(start, min(first + count, start + BATCH))])

    async def quick(self, what: str, count: int = QUICK) -> float:
        """How many quick sagas end a second."""
        begun = time.perf_counter()
        await self.publish(SAGAS[1], self.calls, count)
        self.calls += count
        await self.holds(SagaEnded.event_type, self.calls)
        rate = count / (time.perf_counter() - begun)
        print(f"{what}: {rate:,.0f} quick sagas/s, {_rss_mb():.0f} MB", flush=True)
        return rate

    async def idle(self) -> None:
        """Until nobody has anything left to do: what was published is read, and what came of that."""
        while True:
            begun = time.process_time()
            await asyncio.sleep(0.5)
            if time.process_time() - begun < 0.05:
                return

    async def holds(self, topic: str, count: int) -> None:
        """Wait until a topic holds so many records."""
        found = following = 0
        while True:
            if topic in await self.bus.topics():
                async for record in self.bus.read(topic, start=following):
                    found, following = found + 1, record.offset + 1
            if found >= count:
                return
            await asyncio.sleep(0.02)


def _application(saga: Saga, n: int) -> Message:
    name = f"{saga.name}-{n}"
    data = json.dumps({"n": n}).encode()
    envelope = Envelope(id=name, source="/bench", type=saga.starts.event_type, data=data, subject=name)
    return envelope.to_message(saga.intake, key=saga_id_of("/bench", name))


def _rss_mb() -> float:
    """What the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def main(count: int, opened: Callable[[], Awaitable[Bus]]) -> None:
    """All of it."""
    async with await opened() as bus:
        bench = Bench(bus)
        await bus.create_topics([TopicSpec(saga.intake) for saga in SAGAS])
        async with at_work(bus, agents()):
            await bench.quick("warming up")
            alone = await bench.quick("nobody waits")
            before = _rss_mb()
            begun = time.perf_counter()
            await bench.publish(SAGAS[0], 0, count)
            await bench.holds(Prepared.event_type, count)
            await bench.idle()
            rate = count / (time.perf_counter() - begun)
            print(f"{count:,} began to wait: {rate:,.0f}/s, {_rss_mb() - before:+.0f} MB", flush=True)
            waiting = await bench.quick(f"{count:,} wait")
            print(f"ratio: {waiting / alone:.2f}", flush=True)
    async with await opened() as bus:
        bench.bus = bus
        for what, who in (("restarted", agents()), ("a next version", agents(next_version=True))):
            begun = time.perf_counter()
            async with at_work(bus, who):
                await bench.quick(f"{what}, the first one", 1)
                print(f"{what}: its first saga ended after {time.perf_counter() - begun:.1f} s", flush=True)
                await bench.quick(what)


async def on_kafka(count: int) -> None:
    """On a broker of its own."""
    with a_broker(None, None) as broker:
        place = Place.fresh(broker, 1)
        await place.create(agents(next_version=True), SAGAS)

        async def opened() -> Bus:
            return await place.open()

        await main(count, opened)


async def on_sqlite(count: int) -> None:
    """On a file of its own."""
    with tempfile.TemporaryDirectory() as directory:

        async def opened() -> Bus:
            return await SqliteBus.open(Path(directory) / "bus.db", 1)

        await main(count, opened)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--kafka", action="store_true")
    options = parser.parse_args()
    asyncio.run((on_kafka if options.kafka else on_sqlite)(options.count))
