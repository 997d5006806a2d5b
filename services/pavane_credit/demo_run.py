"""The demo itself: publish the applications, let five agents decide them, read what became of them, and say it."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from pavane.cli.logs import set_up_logs
from pavane.plan import plan_of
from pavane.runner import Surroundings
from pavane.settings import load_settings
from pavane_credit import clerk
from pavane_credit.applications import Application, read_applications
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.events import ApplicationSubmitted, CreditApproved
from pavane_credit.faults import FaultPlan
from pavane_credit.outcome import Outcome, Watch, read_outcome
from pavane_credit.place import Place, a_place
from pavane_credit.report import Bar, Numbers, print_report, to_json
from pavane_credit.supervisor import Processes, peak_rss_mb, run_together
from pavane_credit.where import read_where
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope
from pavane_events.errors import ConfigurationError, Problem
from pavane_events.ids import uuid7
from pavane_events.record import Message
from pavane_saga.coordinator import topic_specs
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ENDS, FACTS
from pavane_tracing.drawing import to_text
from pavane_tracing.store import SPANS_TOPIC, encode, spans_of
from pavane_tracing.tree import build_tree
from pavane_tracing.work import FLUSH_S

_INTAKE = "credit.applications"
_GROUP = 100
_LOOK_S = 0.1
_STALLED_S = 5.0
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo is asked for."""

    applications: list[Application]
    faults: FaultPlan | None
    place: Place
    processes: bool


def run_demo(
    *,
    count: int,
    applications: Path | None,
    faults: str,
    bus: str | None,
    processes: bool,
    keep: Path | None,
    as_json: bool,
) -> None:
    """What :func:`pavane_credit.demo.demo` promises."""
    chosen = read_applications(applications)[:count]
    if not chosen:
        raise ConfigurationError("there is nothing to decide", [Problem("applications", "applications.none", "no rows")])
    with a_place(keep, bus) as place:
        plan = Plan(chosen, None if faults == "none" else FaultPlan(faults), place, processes)
        try:
            outcome, numbers = asyncio.run(_perform(plan, quiet=as_json))
        except KeyboardInterrupt:
            print(f"stopped; what was committed is in {place.bus}, the ledgers are in {place.ledgers}")
            raise
    if as_json:
        print(json.dumps(to_json(outcome, numbers)))
    else:
        summary = plan.faults.summary(each.id for each in chosen) if plan.faults is not None else None
        print_report(outcome, numbers, summary, place)
    if outcome.open or not outcome.ledgers.holds or outcome.trace.findings:
        raise typer.Exit(1)


async def _perform(plan: Plan, *, quiet: bool) -> tuple[Outcome, Numbers]:
    """Run it all, and read what became of it."""
    settings = load_settings(bus=plan.place.bus)
    set_up_logs(settings.log if settings.log != "warning" else "critical")  # the faults are meant
    environment = {
        "CREDIT_LEDGERS": str(plan.place.ledgers),
        "CREDIT_FAULTS": plan.faults.seed if plan.faults is not None else "none",
        "CREDIT_CRASH": "kill" if plan.processes else "raise",
    }
    os.environ.update(environment)
    if plan.processes and plan.place.bus.startswith("memory:"):
        raise ConfigurationError(
            "processes cannot share a memory bus", [Problem("--bus", "bus.private", "leave --bus or --processes out")]
        )
    kafka = settings.kafka_options()
    if plan.place.bus.startswith("kafka:") and not kafka.prefix:
        kafka = replace(kafka, prefix=f"demo-{uuid7()[-12:]}.")  # topics of its own: the ledgers are new, too
        environment["PAVANE_KAFKA_PREFIX"] = os.environ["PAVANE_KAFKA_PREFIX"] = kafka.prefix
    async with await open_bus(
        plan.place.bus, partitions=settings.partitions, synchronous=settings.synchronous, kafka=kafka
    ) as bus:
        await bus.create_topics(_topics(bus))
        surroundings = Surroundings.of(settings)
        stop = asyncio.Event()
        crew = Processes(plan.place.bus, plan.place.log, environment) if plan.processes else None
        async with asyncio.TaskGroup() as group:
            group.create_task(crew.run(stop) if crew is not None else run_together(bus, stop, surroundings))
            try:
                began = time.monotonic()
                sagas = await _publish(bus, plan, surroundings)
                watch = Watch(bus, frozenset(sagas))
                await _wait(watch, Bar(len(sagas), quiet=quiet))
                seconds = time.monotonic() - began
                peak = (crew.peak_rss_mb() if crew is not None else 0.0) + peak_rss_mb()
            finally:
                stop.set()
        outcome = await read_outcome(bus, watch, sagas, read_where(), _interesting(plan))
        trace = None
        if outcome.shown is not None and not quiet:
            trace = to_text(build_tree(await spans_of(bus, outcome.shown), outcome.shown)) if outcome.trace.spans else None
    return outcome, Numbers(seconds, len(watch.verdicts) / seconds, max(peak, peak_rss_mb()), trace)


def _topics(bus: Bus) -> list[TopicSpec]:
    """What the demo itself needs; on brokers what everybody needs, as `pavane topics apply` would create it."""
    read = (SagaEnded.event_type, CreditApproved.event_type, FACTS, ENDS)
    own = [TopicSpec(name) for name in (_INTAKE, SPANS_TOPIC, *read)]
    if bus.embedded:
        return own
    needed = [*topic_specs(SAGAS), *(spec for agent in (*AGENTS, clerk.agent) for spec in plan_of(agent).topic_specs())]
    return list(dict.fromkeys([*own, *needed]))


async def _publish(bus: Bus, plan: Plan, surroundings: Surroundings) -> Mapping[str, Application]:
    """Every application to the intake, some twice; the sagas they will start, by id."""
    tracing = surroundings.tracing("applicant", bus, sender=True)
    source = f"/demo/{uuid7()}"
    twice = [each for each in plan.applications if plan.faults is not None and plan.faults.arrives_twice(each.id)]
    sagas: dict[str, Application] = {}
    messages: list[Message] = []
    for application in [*plan.applications, *twice]:
        saga = saga_id_of(source, application.id)
        sagas[saga] = application
        kind = ApplicationSubmitted.event_type
        sent = tracing.send_root(_INTAKE, application.id, kind, saga=saga)
        envelope = Envelope(
            id=application.id,
            source=source,
            type=kind,
            data=application.event.to_json(),
            subject=application.id,
            dataschema=ApplicationSubmitted.dataschema(),
            trace=sent.trace,
        )
        messages.append(envelope.to_message(_INTAKE, key=saga))
        if sent.spans:
            messages.append(encode(sent.spans, saga))
        if len(messages) >= _GROUP:
            await bus.publish(messages)
            messages = []
    await bus.publish(messages)
    await asyncio.to_thread(tracing.shutdown, FLUSH_S)
    return sagas


async def _wait(watch: Watch, bar: Bar) -> None:
    """Until every saga has ended or is parked, or nothing has moved for too long."""
    ended, moved = 0, time.monotonic()
    with bar:
        while ended < len(watch.sagas):
            await asyncio.sleep(_LOOK_S)
            before, ended = ended, await watch.look()
            bar.advance(ended)
            if ended > before:
                moved = time.monotonic()
            still_s = time.monotonic() - moved
            if still_s > _PATIENCE_S:
                return
            if still_s > _STALLED_S and ended + len(await watch.parked()) >= len(watch.sagas):
                return


def _interesting(plan: Plan) -> frozenset[str]:
    """Applications that an agent crashed on: their traces show the most."""
    if plan.faults is None:
        return frozenset()
    return frozenset(each.id for each in plan.applications if plan.faults.crashes(each.id))
