"""Stage: agents and sagas at work on a bus, in a test's own event loop, with eyes on every topic."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from pavane import Agent, Saga, SagaEnded
from pavane.kit import Limits
from pavane.plan import plan_of
from pavane.runner import Surroundings, run
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.dead_letter import reason_headers
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message, Record
from pavane_saga.coordinator import topic_specs
from pavane_saga.facts import Fact
from pavane_saga.intake import saga_id_of
from pavane_saga.wire import FACTS, read_fact

T = TypeVar("T")

PATIENCE_S = 60.0


@dataclass
class Stage:
    """A running deployment. ``publish`` goes to the first saga's intake, where it says no other."""

    bus: Bus
    sagas: Sequence[Saga]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: "count[int]" = field(default_factory=count)

    async def publish(
        self, data: Mapping[str, object], *, name: str | None = None, source: str = "/test", to: Saga | None = None
    ) -> str:
        """One application to an intake; the id of the saga that it starts."""
        saga = to or self.sagas[0]
        event_id = name or f"e{next(self._numbers)}"
        envelope = Envelope(
            id=event_id, source=source, type=saga.starts.event_type, data=json.dumps(data).encode(), subject=event_id
        )
        saga_id = saga_id_of(source, event_id)
        await self.bus.publish([envelope.to_message(saga.intake, key=saga_id)])
        return saga_id

    async def send(self, *messages: Message) -> None:
        """Records straight to where they say."""
        await self.bus.publish(messages)

    async def records(self, topic: str) -> list[Record]:
        """What lies on a topic now; nothing where it does not exist."""
        if topic not in await self.bus.topics():
            return []
        return [record async for record in self.bus.read(topic)]

    async def events(self, topic: str, saga: str | None = None) -> list[Envelope]:
        """The events on a topic now, of one saga or of all."""
        found = [parse(record) for record in await self.records(topic)]
        return [each for each in found if saga is None or each.saga == saga]

    async def facts(self, saga: str | None = None) -> list[Fact]:
        """What was said of a saga, or of all, on the topic of facts, in order."""
        return [read_fact(envelope) for envelope in await self.events(FACTS, saga)]

    async def dead(self, agent: str) -> list[dict[str, str]]:
        """Why records ended in an agent's dead letters."""
        return [reason_headers(record.headers) for record in await self.records(f"{agent}.dead-letters")]

    async def verdicts(self) -> dict[str, str]:
        """The sagas that have ended so far, and how."""
        events = [SagaEnded.from_json(each.data) for each in await self.events(SagaEnded.event_type)]
        return {event.saga: event.verdict for event in events}

    async def ended(self, saga: str) -> str:
        """Wait for the verdict on a saga."""

        async def verdict() -> str | None:
            return (await self.verdicts()).get(saga)

        return await until(verdict)


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Look until there is something; AssertionError where it does not come."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < give_up, "it did not come"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def stage(
    agents: Sequence[Agent],
    sagas: Sequence[Saga],
    *,
    bus: Bus | None = None,
    surroundings: Surroundings | None = None,
) -> AsyncGenerator[Stage]:
    """Agents and sagas at work until the block is left; then they stop gracefully, and what they raised is raised."""
    chosen = bus if bus is not None else MemoryBus(partitions=2)
    running = Stage(chosen, sagas)
    await chosen.create_topics([TopicSpec(saga.intake) for saga in sagas])
    if not chosen.embedded:  # what `pavane topics apply` does
        await chosen.create_topics([*topic_specs(sagas), *(spec for agent in agents for spec in plan_of(agent).topic_specs())])
    surroundings = surroundings or Surroundings(trace=False, limits=Limits(drain_s=2.0))
    task = asyncio.create_task(run(agents, sagas, chosen, running.stop, surroundings))
    try:
        yield running
    finally:
        running.stop.set()
        await task
        if bus is None:
            await chosen.close()
