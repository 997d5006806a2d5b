"""Two hundred applications on an SQLite file, with every fault of the plan among them: the ledgers agree at the end."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pavane.runner import Surroundings
from pavane_credit.applications import Application, read_applications
from pavane_credit.choreography import decision
from pavane_credit.events import ApplicationSubmitted
from pavane_credit.faults import SHARES, Fault, FaultPlan
from pavane_credit.outcome import Outcome, Watch, read_outcome
from pavane_credit.supervisor import run_together
from pavane_credit.where import Where
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ENDS
from support.stage import until

APPLICATIONS = 200
SOURCE = "/test/faults"
_BUREAU = ("attempts.exhausted", "pavane_credit.seam.BureauTimeout")
_UNCERTAIN = ("contract", "data.confidence")
_FAILS_BY: dict[Fault, tuple[str, str]] = {
    "bureau-down": _BUREAU,
    "crash": _BUREAU,
    "confidence-low": _UNCERTAIN,
    "comes-back": _UNCERTAIN,
    "undo-fails": _UNCERTAIN,
}
"""What a saga that meets the fault fails by."""


def a_plan_with_every_fault(applications: Sequence[Application]) -> FaultPlan:
    """The first seed by which these applications meet every fault there is."""
    plans = (FaultPlan(str(seed)) for seed in range(1000))
    return next(plan for plan in plans if len(plan.summary(each.id for each in applications)) == len(SHARES))


def messages(applications: Sequence[Application], plan: FaultPlan) -> list[Message]:
    twice = [each for each in applications if plan.arrives_twice(each.id)]
    kind = ApplicationSubmitted.event_type
    return [
        Envelope(id=each.id, source=SOURCE, type=kind, subject=each.id, data=each.event.to_json()).to_message(
            decision.intake, key=saga_id_of(SOURCE, each.id)
        )
        for each in [*applications, *twice]
    ]


async def decide_all(bus: Bus, applications: Sequence[Application], plan: FaultPlan) -> tuple[Watch, Outcome]:
    """Publish them at once, and stop when every saga has ended."""
    await bus.create_topics([TopicSpec(decision.intake), TopicSpec(SagaEnded.event_type)])
    sagas = {saga_id_of(SOURCE, each.id): each for each in applications}
    watch = Watch(bus, frozenset(sagas))

    async def all_ended() -> bool:
        return await watch.look() == len(sagas)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_together(bus, stop, Surroundings()))
        await bus.publish(messages(applications, plan))
        await until(all_ended)
        stop.set()
    return watch, await read_outcome(bus, watch, sagas, Where(), frozenset())


def test_with_every_fault_no_effect_stays_and_none_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    applications = read_applications()[:APPLICATIONS]
    plan = a_plan_with_every_fault(applications)
    monkeypatch.setenv("CREDIT_LEDGERS", str(tmp_path / "ledgers"))
    monkeypatch.setenv("CREDIT_FAULTS", plan.seed)

    async def scenario() -> None:
        async with await open_bus(f"sqlite:///{tmp_path / 'bus.db'}", partitions=2) as bus:
            watch, outcome = await decide_all(bus, applications, plan)
            assert outcome.open == outcome.parked == 0
            assert outcome.ledgers.problems == ()
            assert outcome.approved > APPLICATIONS // 3
            assert outcome.trace.findings == ()
            met = plan.summary(each.id for each in applications)
            assert outcome.ledgers.crashes == met["crash"]
            assert outcome.ledgers.refusals == met["comes-back"]
            await check_that_faults_had_their_effect(bus, watch, applications, plan)

    asyncio.run(scenario())


async def check_that_faults_had_their_effect(
    bus: Bus, watch: Watch, applications: Sequence[Application], plan: FaultPlan
) -> None:
    starts = Counter([record.key async for record in bus.read(ApplicationSubmitted.event_type)])
    assert set(starts.values()) == {1}, "who arrived twice was admitted once"
    why = {envelope.saga: reason_of(envelope) for envelope in [parse(record) async for record in bus.read(ENDS)]}
    for each in applications:
        saga, fault = saga_id_of(SOURCE, each.id), plan.fault_of(each.id)
        if fault in _FAILS_BY:
            assert (watch.verdicts[saga], why[saga]) == ("compensated", _FAILS_BY[fault]), each.id
        elif fault in ("bureau-slow", "twice"):
            assert why.get(saga) not in _FAILS_BY.values(), each.id


def reason_of(envelope: Envelope) -> tuple[str, str]:
    """Why a saga failed: a code, and what it was about."""
    document: dict[str, str] = json.loads(envelope.data)
    return document["code"], document["reason"].partition(":")[0]
