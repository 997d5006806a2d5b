"""The credit application from end to end: five agents and the coordinator, ledgers in SQLite files, a saga per application."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import cast

from bench.kafka_child import Child, a_child, a_sender, all_lanes, at_rate, eventually, follow, percentile
from bench.kafka_place import PACE, Broker, Place
from bench.kafka_worker import Figures

from pavane.plan import plan_of
from pavane_credit.applications import read_applications
from pavane_credit.approval import REVIEWED_FROM_DM
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.events import ApplicationSubmitted
from pavane_credit.fraud import RULES
from pavane_credit.invariant import check_ledgers
from pavane_credit.points import APPROVAL_SCORE, score
from pavane_credit.where import Where
from pavane_events.bus import Bus
from pavane_events.envelope import Envelope
from pavane_events.record import Message, Record
from pavane_saga.intake import saga_id_of
from pavane_saga.wire import FACTS

STEADY_RATE = 100.0
"""Sagas a second: a third of the 300 that must be."""

LINE_DM = 2_000_000_000
_INTAKE = "credit.applications"
_AFFORDABLE_DM = 450
"""A month: any income carries that."""

_WARM = 40
_NAMES = [agent.name for agent in AGENTS]

LAYOUTS: Mapping[str, Sequence[tuple[Sequence[str], bool]]] = {
    "1 process": [(_NAMES, True)],
    "2 processes": [(_NAMES, False), ([], True)],
    "6 processes": [*(([name], False) for name in _NAMES), ([], True)],
}
"""By name, what each process runs: agents, and whether the coordinator."""


def expected(application: ApplicationSubmitted) -> bool | None:
    """Whether the agents will approve it, without faults; None where the income decides."""
    scored = score(application)
    suspicious = sum(rule(application) for rule in RULES.values()) >= 2
    if scored.score < APPROVAL_SCORE or scored.confidence < 0.7 or suspicious:
        return False
    return True if application.amount_dm <= _AFFORDABLE_DM * application.duration_months else None


@dataclass(slots=True)
class Crowd:
    """Applicants without end: the real ones, again and again under other names; those that fail, in that share."""

    failing_percent: int | None = None
    sent: dict[str, float] = field(default_factory=dict[str, float])
    ended: dict[str, float] = field(default_factory=dict[str, float])
    _endless: Iterator[ApplicationSubmitted] | None = None
    _numbers: Iterator[int] = field(default_factory=count)

    def next(self) -> Message:
        """One application for the intake, from now on waited for."""
        if self._endless is None:
            self._endless = cycle(_chosen(self.failing_percent))
        name = f"{next(self._numbers)}"
        event = next(self._endless).model_copy(update={"application_id": name})
        saga = saga_id_of("/bench", name)
        self.sent[saga] = time.monotonic()
        envelope = Envelope(id=name, source="/bench", type=event.event_type, subject=name, data=event.to_json())
        return envelope.to_message(_INTAKE, key=saga)

    def take(self, record: Record) -> None:
        """A saga has ended."""
        self.ended[(record.key or b"").decode()] = time.monotonic()

    async def all_ended(self) -> None:
        """Wait for every one that was sent."""

        async def so() -> bool:
            return len(self.ended) >= len(self.sent)

        await eventually(so)


def _chosen(failing_percent: int | None) -> Sequence[ApplicationSubmitted]:
    events = [each.event for each in read_applications() if each.event.amount_dm < REVIEWED_FROM_DM]
    if failing_percent is None:
        return events
    good = cycle([each for each in events if expected(each) is True])
    bad = cycle([each for each in events if expected(each) is False])
    return [next(bad if number * failing_percent % 100 < failing_percent else good) for number in range(100)] * 5


@dataclass(slots=True)
class Credit:
    """A credit choreography at work."""

    place: Place
    children: Sequence[Child]
    crowd: Crowd
    where: Where

    async def publish(self, number: int) -> None:
        """So many applications, as fast as a client sends them."""
        async with a_sender(self.place) as send:
            for _ in range(number):
                await send(self.crowd.next())

    async def spent(self) -> Figures:
        """What all workers, and the broker, have spent so far."""
        figures = [await child.figures() for child in self.children]
        total = {name: sum(each[name] for each in figures) for name in ("cpu_s", "transactions", "commits")}
        return total | {"broker_s": self.place.broker.cpu_s()}


@asynccontextmanager
async def at_work(
    broker: Broker,
    layout: str,
    *,
    endpoint: str | None = None,
    failing_percent: int | None = None,
    pace: float = PACE,
    profile: str | None = None,
) -> AsyncGenerator[Credit]:
    """The agents and the coordinator, ready and warm. ``endpoint``: where spans go by OTLP; None: untraced."""
    place = Place.fresh(broker).paced(pace)
    await place.create(AGENTS, SAGAS)
    crowd = Crowd(failing_percent)
    async with AsyncExitStack() as stack:
        ledgers = stack.enter_context(tempfile.TemporaryDirectory(prefix="pavane-bench-"))
        environment = {"CREDIT_LEDGERS": ledgers, "CREDIT_FAULTS": "none", "CREDIT_LINE_DM": str(LINE_DM)}
        if endpoint is not None:
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        children = [
            await stack.enter_async_context(
                a_child(
                    place, names, coordinator=coordinates, trace=endpoint is not None, environment=environment, profile=profile
                )
            )
            for names, coordinates in LAYOUTS[layout]
        ]
        await all_lanes(children, (len(AGENTS) + 1) * place.partitions)
        following = asyncio.create_task(follow(place, "pavane.saga-ended", crowd.take))
        credit = Credit(place, children, crowd, Where(ledgers=ledgers, line_dm=LINE_DM))
        await credit.publish(_WARM)
        await crowd.all_ended()
        yield credit
        following.cancel()
        await asyncio.wait([following])


async def at_most(credit: Credit, sagas: int) -> Figures:
    """As fast as it goes: all applications are there at once."""
    before, begun, already = await credit.spent(), time.monotonic(), len(credit.crowd.sent)
    await credit.publish(sagas)
    await credit.crowd.all_ended()
    seconds = max(credit.crowd.ended.values()) - begun
    after = await credit.spent()
    spent = {name: (after[name] - before[name]) / sagas for name in before}
    assert len(credit.crowd.ended) == already + sagas
    return {
        "sagas_per_s": sagas / seconds,
        "cpu_ms_per_saga": spent["cpu_s"] * 1e3,
        "broker_ms_per_saga": spent["broker_s"] * 1e3,
        "transactions_per_saga": spent["transactions"],
        "commits_per_saga": spent["commits"],
        "peak_mb": max(child.memory()["peak_mb"] for child in credit.children),
    }


async def at_a_rate(credit: Credit, rate: float, seconds: float) -> Figures:
    """How long a saga takes, from sending the application to the coordinator's verdict, at a steady rate."""
    crowd = credit.crowd
    earlier = set(crowd.sent)
    async with a_sender(credit.place, linger_ms=0) as send:
        await at_rate(rate, seconds, lambda: send(crowd.next()))
        await crowd.all_ended()
    took = [(crowd.ended[saga] - begun) * 1e3 for saga, begun in crowd.sent.items() if saga not in earlier]
    return {"rate_per_s": rate, "p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99), "most_ms": max(took)}


async def deliveries(credit: Credit) -> Figures:
    """Records, and how often one was delivered, per saga; and whether the ledgers agree with the events."""
    readers: dict[str, int] = {}
    for plan in map(plan_of, AGENTS):
        for topic in plan.topics:
            readers[topic] = readers.get(topic, 0) + 1
    records = delivered = 0
    approved: dict[str, int] = {}
    async with await credit.place.open() as bus:
        for topic in await bus.topics():
            if topic.endswith(".state"):
                continue
            found = 0
            async for record in cast("Bus", bus).read(topic):
                found += 1
                if topic == "credit.approved":
                    event = cast("dict[str, object]", json.loads(record.value or b"{}"))
                    approved[str(event["application_id"])] = cast("int", event["amount_dm"])
            coordinated = topic == FACTS or topic.startswith("credit.")
            records += found
            delivered += found * (readers.get(topic, 0) + coordinated)
    if not check_ledgers(credit.where, approved).holds:
        raise SystemExit("the ledgers disagree: the figures are worth nothing")
    sagas = len(credit.crowd.sent)
    return {
        "records_per_saga": records / sagas,
        "deliveries_per_saga": delivered / sagas,
        "approved_percent": len(approved) / sagas * 100,
    }


async def credit(
    broker: Broker,
    *,
    sagas: int,
    seconds: float,
    endpoint: str | None,
    layouts: Sequence[str] | None = None,
    pace: float = PACE,
) -> Mapping[str, Figures]:
    """Every layout untraced, with the duration of a saga at a third of the rate that must be; and traced."""
    found: dict[str, Figures] = {}
    for layout in layouts or LAYOUTS:
        async with at_work(broker, layout, pace=pace) as running:
            figures = await at_most(running, sagas)
            figures |= await at_a_rate(running, STEADY_RATE, seconds)
            found[layout] = figures | await deliveries(running)
        if endpoint is not None:
            async with at_work(broker, layout, endpoint=endpoint, pace=pace) as running:
                traced = await at_most(running, sagas)
            found[f"{layout}, traced"] = traced | {"of_untraced": traced["sagas_per_s"] / figures["sagas_per_s"]}
    return found


async def failing(broker: Broker, *, sagas: int) -> Mapping[str, Figures]:
    """Applications that are all approved, half, or all undone."""
    found: dict[str, Figures] = {}
    for percent in (0, 50, 100):
        async with at_work(broker, "1 process", failing_percent=percent) as running:
            found[f"{percent} % fail"] = await at_most(running, sagas) | await deliveries(running)
    best = found["0 % fail"]["sagas_per_s"]
    return {name: figures | {"of_none": figures["sagas_per_s"] / best} for name, figures in found.items()}
