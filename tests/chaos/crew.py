"""A crew of real processes that are killed: each runs one target of the credit choreography by ``pavane run``."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

READY = b"ready:"
START_UP_S = 60.0
STOP_S = 30.0


@dataclass(slots=True)
class Tally:
    """What was done to one member of the crew."""

    kills: int = 0
    kills_at_work: int = 0
    """Kills while sagas were open."""
    kills_at_start: int = 0
    """Kills before the process had joined its lanes."""
    crashes: int = 0
    """Deaths by the fault plan, which are kill -9, too, at a chosen point."""
    naps: int = 0
    zombies: int = 0
    """Naps longer than the lease, with a stand-in that took over the lanes meanwhile."""
    deaths: list["Death"] = field(default_factory=list["Death"])
    """By kills and crashes."""


@dataclass(frozen=True, slots=True)
class Death:
    """When a process died, in seconds since 1970: not before ``struck_s``, and by ``known_s``, when it was known."""

    struck_s: float
    known_s: float


@dataclass(slots=True)
class Child:
    """One process, and what it has said so far."""

    process: asyncio.subprocess.Process
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    said: bytearray = field(default_factory=bytearray)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        """``kill -9``, unless it is dead already."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)

    async def listen(self) -> None:
        """Take in what it says until it is gone."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said += line
            if line.startswith(READY):
                self.ready.set()
        await self.process.wait()
        self.ready.set()


@asynccontextmanager
async def child(target: str, bus: str, environment: Mapping[str, str]) -> AsyncGenerator[Child]:
    """A process that runs a target, dead at the end whatever happens."""
    command = (sys.executable, "-m", "pavane", "run", target, "--bus", bus)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    one = Child(process)
    listening = asyncio.create_task(one.listen())
    try:
        yield one
    finally:
        one.kill()
        await listening


@dataclass(slots=True)
class Member:
    """A target that is killed and started again at random, and at the end runs undisturbed until it is told to stop."""

    target: str
    bus: str
    environment: Mapping[str, str]
    chance: random.Random
    is_at_work: Callable[[], bool]
    """Whether any saga is open."""
    killed: Callable[[], None]
    tally: Tally = field(default_factory=Tally)

    async def suffer(self, kills: int, *, zombie_s: float, nap_s: float) -> None:
        """Be killed so many times. Once a stand-in takes over from a zombie, now and then it only sleeps for a while."""
        zombie_at = self.chance.randrange(kills // 4, kills // 2)
        while self.tally.kills < kills:
            if self.tally.kills == zombie_at and not self.tally.zombies:
                await self._be_a_zombie(zombie_s)
            else:
                await self._live_and_die(nap_s)

    async def serve(self, stop: asyncio.Event) -> None:
        """Run undisturbed until ``stop`` is set, then end gracefully."""
        while not stop.is_set():
            async with child(self.target, self.bus, self.environment) as one:
                await _get_ready(one)  # before that, SIGTERM ends it as it ends any program
                await _first(one.process.wait(), stop.wait())
                if one.alive:
                    one.process.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(STOP_S):
                        assert await one.process.wait() == 0, self._says(one)
                else:
                    self._mind_the_end(one)

    async def _live_and_die(self, nap_s: float) -> None:
        async with child(self.target, self.bus, self.environment) as one:
            if self.chance.random() < 0.15:
                await asyncio.sleep(self.chance.uniform(0.0, 1.0))
            else:
                await _get_ready(one)
                await asyncio.sleep(self.chance.uniform(0.0, 0.8))
            if self.chance.random() < 0.1 and one.alive:
                self.tally.naps += 1
                one.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.chance.uniform(0.5, nap_s))
                one.process.send_signal(signal.SIGCONT)
                await asyncio.sleep(self.chance.uniform(0.0, 0.3))
            await self.kill(one)

    async def _be_a_zombie(self, zombie_s: float) -> None:
        """Stop for longer than the lease; another process takes over; wake up among its work, and be killed, both."""
        async with child(self.target, self.bus, self.environment) as one:
            await _get_ready(one)
            await asyncio.sleep(self.chance.uniform(0.0, 0.3))
            if not one.alive:
                return self._mind_the_end(one)
            one.process.send_signal(signal.SIGSTOP)
            async with child(self.target, self.bus, self.environment) as stand_in:
                await asyncio.sleep(zombie_s)
                one.process.send_signal(signal.SIGCONT)
                self.tally.zombies += 1
                await asyncio.sleep(self.chance.uniform(0.5, 1.5))
                await self.kill(one)
                await self.kill(stand_in)
        return None

    async def kill(self, one: Child) -> None:
        """``kill -9``, and count it; of whoever died by the fault plan meanwhile, count that."""
        if not one.alive:
            return self._mind_the_end(one)
        self.tally.kills += 1
        self.tally.kills_at_work += self.is_at_work()
        self.tally.kills_at_start += not one.ready.is_set()
        struck_s = time.time()
        one.kill()
        await one.process.wait()
        self.tally.deaths.append(Death(struck_s, time.time()))
        self.killed()
        return None

    def _mind_the_end(self, one: Child) -> None:
        """It ended by itself: only the fault plan may do that."""
        assert one.process.returncode == -signal.SIGKILL, self._says(one)
        self.tally.crashes += 1
        now = time.time()
        self.tally.deaths.append(Death(now, now))

    def _says(self, one: Child) -> str:
        return f"{self.target} ended with {one.process.returncode} and said:\n{one.said.decode(errors='replace')[-4000:]}"


async def _get_ready(one: Child) -> None:
    async with asyncio.timeout(START_UP_S):
        await one.ready.wait()


async def _first(*waits: Coroutine[object, object, object]) -> None:
    """Wait for whichever comes first, and let go of the others."""
    tasks = [asyncio.create_task(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
