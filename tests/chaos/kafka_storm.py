"""A storm: faults in an order drawn by a seed, each struck while a fresh load of events is being worked off."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chaos.kafka_crew import Worker, a_worker
from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader
from pavane.dev.kafka import KafkaCluster

Fault = Literal["kill", "bounce", "freeze", "guest", "zombie"]
WORKERS = 3
PATIENCE_S = 90.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done to whom. ``guest``: a member that joins and leaves gracefully, which are two rebalances."""

    events: int
    faults: Mapping[Fault, int]

    def plan(self, chance: random.Random) -> list[Fault]:
        """The faults in order."""
        plan: list[Fault] = [fault for fault, times in self.faults.items() for _ in range(times)]
        chance.shuffle(plan)
        return plan

    @property
    def load(self) -> int:
        """How many events come before each fault, and after the last; a quarter of that comes while somebody is away."""
        away = sum(self.faults.get(fault, 0) for fault in ("bounce", "freeze", "zombie"))
        return self.events * 4 // ((sum(self.faults.values()) + 1) * 4 + away)


@dataclass(slots=True)
class Storm:
    """Three workers, a feed, a reader, and what is done to them."""

    order: Order
    cluster: KafkaCluster
    feed: Feed
    reader: Reader
    chance: random.Random
    log: Path
    workers: list[Worker] = field(default_factory=list[Worker])
    struck_at_work: int = 0
    """Faults that came while outputs were due."""
    seconds: dict[Fault, list[float]] = field(default_factory=dict[Fault, list[float]])
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _hired: int = 0
    _began: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def raging(self) -> AsyncGenerator[None]:
        """With workers, until the block is left."""
        async with self._stack:
            async with asyncio.TaskGroup() as group:
                hiring = [group.create_task(self._hire()) for _ in range(WORKERS)]
            self.workers = [task.result() for task in hiring]
            yield

    def note(self, what: str) -> None:
        """One line of the story, for whoever reads why it went wrong."""
        print(f"{time.monotonic() - self._began:7.1f} s  {self.reader.count:6} of {self.feed.count:6} out  {what}", flush=True)

    async def rage(self, scale: Scale) -> None:
        """Every fault of a scale, and every event."""
        load = scale.load
        for fault in scale.plan(self.chance):
            await self._send(load)
            await self._work_off(int(load * self.chance.uniform(0.05, 0.3)))
            self.struck_at_work += self.reader.count < self.feed.count
            began = time.monotonic()
            await self._strike(fault, load // 4)
            self.seconds.setdefault(fault, []).append(time.monotonic() - began)
        await self._send(scale.events - self.feed.count)

    async def _strike(self, fault: Fault, load: int) -> None:
        match fault:
            case "kill":
                await self._kill()
            case "bounce":
                await self._bounce(load)
            case "freeze":
                await self._freeze(load)
            case "guest":
                await self._entertain_guest()
            case "zombie":
                await self._make_zombie(load)

    async def _kill(self) -> None:
        number = self.chance.randrange(WORKERS)
        self.note(f"kill -9 of {self.workers[number].name}, which held {sorted(self.workers[number].held)}")
        await self.workers[number].kill()
        self.workers[number] = await self._hire()

    async def _bounce(self, load: int) -> None:
        """A broker of three dies; the others go on; it comes back."""
        node = self.chance.choice(self.cluster.nodes)
        self.note(f"kill -9 of broker {node.number}")
        await asyncio.to_thread(node.kill)
        await self._send(load)
        self.note("the others take events")
        await self.reader.until(self.reader.count + load // 2, PATIENCE_S)
        self.note("and workers go on")
        await asyncio.to_thread(node.start)
        self.note(f"broker {node.number} is back")

    async def _freeze(self, load: int) -> None:
        """A broker of three holds its connections and answers nobody; the others go on; it wakes as if nothing had been."""
        node = self.chance.choice(self.cluster.nodes)
        self.note(f"broker {node.number} freezes")
        node.suspend()
        try:
            await self._send(load)
            self.note("the others take events")
            await self._work_off(load // 2)
            self.note("and workers go on")
        finally:
            node.resume()

    async def _entertain_guest(self) -> None:
        guest = await self._hire()
        self.note(f"{guest.name} joins")
        await guest.said("granted", PATIENCE_S)
        self.note(f"{guest.name} has {sorted(guest.held)} and leaves")
        await guest.leave()

    async def _make_zombie(self, load: int) -> None:
        """One stops until others hold its lanes and work there; then it wakes among them, and learns of it."""
        await self._eventually(lambda: any(each.held for each in self.workers), "nobody holds a lane")
        zombie = self.chance.choice([each for each in self.workers if each.held])
        held = set(zombie.held)
        self.note(f"{zombie.name} is stopped, which held {sorted(held)}")
        zombie.stop_clock()
        others = [each for each in self.workers if each is not zombie]
        await self._eventually(lambda: held <= others[0].held | others[1].held, f"the lanes {held} were not taken over")
        self.note("the others have taken over")
        await self._send(load)
        await self._work_off(load // 4)
        zombie.go_on()
        await zombie.said("lost", PATIENCE_S)
        self.note(f"{zombie.name} was woken, and has learnt that it is no more")

    async def _eventually(self, is_so: Callable[[], bool], problem: str) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < give_up, "\n".join([problem, *(each.report() for each in self.workers)])
            await asyncio.sleep(_LOOK_S)

    async def _send(self, count: int) -> None:
        await asyncio.to_thread(self.feed.send, count)

    async def _work_off(self, count: int) -> None:
        """Until so many more are out; all, where fewer are due: workers do not wait for who looks on."""
        await self.reader.until(min(self.reader.count + count, self.feed.count), PATIENCE_S)

    async def _hire(self) -> Worker:
        self._hired += 1
        name = f"worker-{self._hired}"
        return await self._stack.enter_async_context(a_worker(self.order, self.log / f"{name}.log", name=name))
