"""What delayed retry costs: inputs that wait in a delay tier, and their release. ``python bench/delayed.py [COUNT]``.

One agent, one lane, one SQLite file in a temporary directory, tracing off. Every input fails at first and pauses for five
minutes; when all wait, the clock is set forward. Prints inputs per second and the size of the process.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from pavane import Agent, Context, Event, Retry
from pavane.runner import Surroundings, run_agent
from pavane_events.bus import Bus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.envelope import Envelope
from pavane_events.record import Message
from pavane_saga.wire import FACTS

BATCH = 1000
PAUSE_S = 300.0


class Asked(Event, type="delayed.asked"):
    n: int


class Answered(Event, type="delayed.answered"):
    n: int


class Bench:
    """So many inputs, and a clock that can be set forward."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.ahead_s = 0.0

    def clock(self) -> float:
        """Seconds since the epoch, and what was added."""
        return time.time() + self.ahead_s

    def agent(self) -> Agent:
        """One step that fails at its first attempt."""
        agent = Agent("delayed")

        @agent.step(retry=Retry(first_s=PAUSE_S, most_s=PAUSE_S, jitter=0), effects=False)
        async def answer(asked: Asked, ctx: Context) -> Answered:
            if ctx.attempt == 1:
                raise ConnectionError("down")
            return Answered(n=asked.n)

        return agent

    async def run(self, file: Path) -> None:
        """All wait, then all are released."""
        stop = asyncio.Event()
        async with await SqliteBus.open(file, 1, clock=self.clock) as bus:
            task = asyncio.create_task(run_agent(self.agent(), bus, stop, Surroundings(trace=False, clock=self.clock)))
            await _holds(bus, FACTS, 1)
            begun = time.perf_counter()
            for first in range(0, self.count, BATCH):
                await bus.publish([self._asked(n) for n in range(first, min(self.count, first + BATCH))])
            await _holds(bus, "delayed.retry-5m", self.count)
            self._say("sent to a tier", begun)
            begun = time.perf_counter()
            self.ahead_s += PAUSE_S + 1
            await _holds(bus, "delayed.answered", self.count)
            self._say("tried again", begun)
            stop.set()
            await task

    def _asked(self, n: int) -> Message:
        data = json.dumps({"n": n}).encode()
        return Envelope(id=f"a{n}", source="/bench", type=Asked.event_type, data=data, saga=f"saga-{n:08d}").to_message()

    def _say(self, what: str, begun: float) -> None:
        rate = self.count / (time.perf_counter() - begun)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"{self.count} {what}: {rate:,.0f}/s, at most {peak_mb:.0f} MB so far")


async def _holds(bus: Bus, topic: str, count: int) -> None:
    """Wait until a topic holds so many records."""
    found = following = 0
    while True:
        if topic in await bus.topics():
            async for record in bus.read(topic, start=following):
                found, following = found + 1, record.offset + 1
        if found >= count:
            return
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(Bench(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000).run(Path(directory) / "bus.db"))
