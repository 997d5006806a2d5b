"""The credit application under fire on three brokers: agents, coordinator and brokers die while applications come in."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.crew import Member, Tally
from chaos.kafka_order import Order
from chaos.test_kill import SOURCE, events_of, messages
from pavane.dev.kafka import KafkaCluster
from pavane_credit.applications import Application
from pavane_credit.events import CreditApproved
from pavane_credit.invariant import check_ledgers
from pavane_credit.outcome import Watch
from pavane_credit.supervisor import TARGETS
from pavane_credit.where import Where
from pavane_events.bus import Bus
from pavane_events.errors import BusUnavailable
from pavane_events.record import Message
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ENDS

GROUP = 4
"""Applications published at a time, paced by the kills: there is work under way whenever somebody dies."""

PATIENCE_S = 240.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Scale:
    """How many applications, kills of each process (zombies among them), and kills of a broker."""

    applications: int
    kills_each: int
    bounces: int


@dataclass(slots=True)
class Fire:
    """One run. ``order`` names the deployment; ``seed`` draws everything that is left to chance."""

    bus: Bus
    order: Order
    cluster: KafkaCluster
    scale: Scale
    seed: int
    ledgers: Path
    applications: Sequence[Application]
    kills: int = 0
    bounces: int = 0
    published: int = 0
    _watch: Watch = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._watch = Watch(self.bus, frozenset(saga_id_of(SOURCE, each.id) for each in self.applications))

    async def burn(self) -> dict[str, Tally]:
        """Kill and publish; then let everybody go on until every saga has ended."""
        members = [self._member(target) for target in TARGETS]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as crew:

            async def live(member: Member) -> None:
                await member.suffer(self.scale.kills_each, zombie_s=self.order.session_ms / 1000 + 2.0, nap_s=1.0)
                await member.serve(stop)

            for member in members:
                crew.create_task(live(member), name=member.target)
            watching = crew.create_task(self._watch_over())
            bouncing = crew.create_task(self._bounce())
            await self._publish()
            await bouncing
            async with asyncio.timeout(PATIENCE_S):
                await watching
            stop.set()
        return {member.target: member.tally for member in members}

    async def check_effects(self) -> None:
        """The invariant, from the ledgers: all effects of what was approved, none of anything else."""
        ends = [SagaEnded.from_json(record.value or b"") async for record in self.bus.read(SagaEnded.event_type)]
        completed = {each.saga for each in ends if each.verdict == "completed"}
        offers = [
            CreditApproved.from_json(envelope.data)
            async for envelope in events_of(self.bus, CreditApproved.event_type)
            if envelope.saga in completed
        ]
        approved = {each.application_id: each.amount_dm for each in offers}
        assert len(approved) == len(completed) > 0
        report = await asyncio.to_thread(check_ledgers, Where(ledgers=str(self.ledgers)), approved)
        assert report.problems == ()
        reasons = Counter([str(json.loads(envelope.data)["code"]) async for envelope in events_of(self.bus, ENDS)])
        print(f"{len(approved)} of {len(ends)} approved, {report.crashes} crashes and {report.refusals} late effects refused")
        print(f"ended early: {dict(reasons)}")

    @property
    def total_kills(self) -> int:
        """How many kills there will be at least."""
        return self.scale.kills_each * len(TARGETS)

    def _member(self, target: str) -> Member:
        environment = {
            "PAVANE_KAFKA_PREFIX": self.order.prefix,
            "PAVANE_KAFKA_SESSION_MS": str(self.order.session_ms),
            "PAVANE_KAFKA_HEARTBEAT_MS": str(self.order.heartbeat_ms),
            "PAVANE_PARTITIONS": str(self.order.partitions),
            "PAVANE_TRACE": "false",
            "CREDIT_LEDGERS": str(self.ledgers),
            "CREDIT_FAULTS": str(self.seed),
            "CREDIT_CRASH": "kill",
        }
        chance = random.Random(f"{self.seed} {target}")
        return Member(target, self.cluster.url, environment, chance, self._is_at_work, self._killed)

    def _is_at_work(self) -> bool:
        return len(self._watch.verdicts) < self.published

    def _killed(self) -> None:
        self.kills += 1
        self._changed.set()

    async def _until_kills(self, count: float) -> None:
        while self.kills < count:
            self._changed.clear()
            await self._changed.wait()

    async def _publish(self) -> None:
        chance = random.Random(self.seed)
        for first in range(0, len(self.applications), GROUP):
            await self._until_kills(self.total_kills * 0.95 * first / len(self.applications))
            group = self.applications[first : first + GROUP]
            await self._publish_group(messages(group, chance))
            self.published += len(group)

    async def _publish_group(self, group: list[Message]) -> None:
        while True:
            try:
                return await self.bus.publish(group)
            except BusUnavailable:
                await asyncio.sleep(_LOOK_S)  # perhaps it was published: then these come twice, and are admitted once

    async def _bounce(self) -> None:
        chance = random.Random(f"{self.seed} brokers")
        for number in range(self.scale.bounces):
            await self._until_kills(self.total_kills * (number + 1) / (self.scale.bounces + 1))
            node = chance.choice(self.cluster.nodes)
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
            self.bounces += 1

    async def _watch_over(self) -> None:
        while True:
            try:
                if await self._watch.look() == len(self._watch.sagas):
                    return
            except BusUnavailable:
                pass  # a broker is away
            await asyncio.sleep(_LOOK_S)
