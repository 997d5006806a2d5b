"""Mortals: processes that die now and then, on a bus in memory."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from pavane import Agent, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings, run
from pavane_events.buses.memory import MemoryBus

QUIET = Surroundings(trace=False, limits=Limits(drain_s=1.0, mark_window=8, window=16, concurrency=4))


@asynccontextmanager
async def processes(agents: Sequence[Agent], saga: Saga, bus: MemoryBus, chance: random.Random) -> AsyncGenerator[None]:
    """Two processes with everything in them; now and then one dies or is stopped, and another takes its place."""

    over = asyncio.Event()

    async def process(deaths: int) -> None:
        watching = asyncio.create_task(over.wait())
        for death in range(deaths + 1):
            stop, opened = asyncio.Event(), bus.peer()
            working = asyncio.create_task(run(agents, [saga], opened, stop, QUIET))
            patience_s = chance.uniform(0.005, 0.06) if death < deaths else None
            await asyncio.wait([working, watching], timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if over.is_set() or chance.random() < 0.4:
                stop.set()
            else:
                working.cancel()
            await asyncio.wait([working])
            await opened.close()
            if not working.cancelled():
                working.result()
            if over.is_set():
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(process(chance.randrange(5)))
        yield
        over.set()
