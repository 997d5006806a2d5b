"""A process that is killed while an input waits in a delay tier, and again while it is tried the second time.

``python -m support.delayed BUS LOG AHEAD_S``: one agent and its saga on a bus file, with a clock that is so far ahead.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pavane import Agent, Context, Event, Retry, Saga
from pavane.runner import Surroundings
from pavane_events.buses.sqlite import SqliteBus
from support.stage import stage

PARTITIONS = 2


class Asked(Event, type="k.asked"):
    n: int = 0


class Answered(Event, type="k.answered"):
    n: int = 0


class Declined(Event, type="k.declined"):
    n: int = 0


SAGA = Saga("k", starts=Asked, completes=Answered, fails=Declined, intake="k.intake")


def stubborn(log: Path, *, hangs: bool) -> Agent:
    """An agent whose step writes down each attempt, fails at the first and, where it hangs, never ends the second."""
    agent = Agent("stubborn")

    @agent.step(retry=Retry(attempts=3, first_s=30, jitter=0), effects=False)
    async def answer(asked: Asked, ctx: Context) -> Answered:
        with log.open("a") as lines:
            lines.write(f"{ctx.attempt} {ctx.idempotency_key}\n")
        if ctx.attempt == 1:
            raise ConnectionError("down")
        if hangs:
            await asyncio.Event().wait()
        return Answered(n=asked.n)

    return agent


def ahead(seconds: float) -> Callable[[], float]:
    """A clock that is so far ahead."""
    return lambda: time.time() + seconds


async def main(bus_file: Path, log: Path, ahead_s: float) -> None:
    """Run until killed."""
    clock = ahead(ahead_s)
    surroundings = Surroundings(trace=False, clock=clock)
    async with (
        await SqliteBus.open(bus_file, PARTITIONS, clock=clock) as bus,
        stage([stubborn(log, hangs=True)], [SAGA], bus=bus, surroundings=surroundings) as running,
    ):
        if not ahead_s:
            await running.publish({"n": 1}, name="only")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
