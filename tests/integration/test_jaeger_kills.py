"""A thousand credit sagas (on Kafka fewer) in a real Jaeger, their processes killed with -9: what those took along is bounded.

What the intake refused is redriven at the end.
"""

import asyncio
import random
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import NamedTuple, cast

import pytest

from chaos.crew import Death, Member, child
from integration.test_jaeger import APPLICANT, APPLICATIONS, MANY, SERVICES, TOPICS, Run, a_run, declared_edges, export_to
from pavane.agent import Agent
from pavane.cli.targets import load_object
from pavane.runner import Surroundings
from pavane.testing import ContinuityReport, check_bus
from pavane_credit.choreography import decision
from pavane_credit.outcome import Watch
from pavane_credit.supervisor import TARGETS
from pavane_events.bus import Bus
from pavane_events.buses.address import open_bus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.dead_letter import dead_letters_topic, reason_headers
from pavane_events.envelope import parse
from pavane_events.record import Message, Record
from pavane_saga.wire import COORDINATOR
from pavane_tracing.conventions import COORDINATOR_SERVICE, OPERATOR_SERVICE
from pavane_tracing.finding import LOSSES
from pavane_tracing.jaeger import Jaeger
from pavane_tracing.sent import Key, span_of
from pavane_tracing.span import SpanRow
from pavane_tracing.work import FLUSH_S, Tracing
from support.jaeger import JaegerServer, TracedSpan, a_jaeger, orphans_of, roots_of
from support.kafka import Kafka
from support.stage import until

KILLS_EACH = 2
INTERVAL_MS = 500
GROUPS = 25
JUNK = 3
PARTITIONS = 2


class Killed(NamedTuple):
    """What a run of killed processes left behind. ``deaths``: when whose process died, the fault plan's among them."""

    kills: int
    deaths: Mapping[str, Sequence[Death]]
    report: ContinuityReport
    rows: Sequence[SpanRow]
    sagas: int
    sent: Sequence[Record]
    """All that steps and coordinator have sent."""
    given_up: Sequence[str]
    """The spans that gave a dead letter up, by their ``traceparent``: those of the first time, then those of the second."""
    redriven: Sequence[list[TracedSpan]]
    """The traces of the second time."""


class Pace:
    """Applications are published between kills, so that there is work under way whenever somebody dies."""

    def __init__(self) -> None:
        self.kills = 0
        self.changed = asyncio.Event()

    def killed(self) -> None:
        self.kills += 1
        self.changed.set()

    async def reach(self, kills: int) -> None:
        while self.kills < kills:
            self.changed.clear()
            await self.changed.wait()


@pytest.fixture(scope="module", params=["sqlite", "kafka"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """All decided, while each of the seven processes is killed twice, and what Jaeger has of it."""
    folder = tmp_path_factory.mktemp(f"kills-{request.param}")
    with pytest.MonkeyPatch.context() as variables, a_jaeger() as jaeger:
        run = a_run(folder, variables, count=MANY)
        if request.param == "kafka":
            run = on_kafka(run, cast("Kafka", request.getfixturevalue("kafka")), variables)
        export_to(jaeger.otlp_http, variables)
        variables.setenv("OTEL_BSP_SCHEDULE_DELAY", str(INTERVAL_MS))
        variables.setenv("CREDIT_CRASH", "kill")
        crew = asyncio.run(perform(run))
        jaeger.settle()
        return asyncio.run(look(run, jaeger, crew))


def on_kafka(run: Run, kafka: Kafka, variables: pytest.MonkeyPatch) -> Run:
    """The same with every fifth application: here a process that died is missed for a session, at each of its deaths.

    Suspected fraud is told to the clerk, and nothing else is by that agent: three of these applications are suspicious, far
    from each other, so that no death takes along all that shows it.
    """
    options = KafkaOptions(prefix=kafka.prefix(), session_ms=6_000, heartbeat_ms=500)
    variables.setenv("PAVANE_KAFKA_PREFIX", options.prefix)
    variables.setenv("PAVANE_KAFKA_SESSION_MS", str(options.session_ms))
    variables.setenv("PAVANE_KAFKA_HEARTBEAT_MS", str(options.heartbeat_ms))
    variables.setenv("PAVANE_PARTITIONS", str(PARTITIONS))
    return replace(run, address=kafka.url, kafka=options, applications=run.applications[2 :: MANY // APPLICATIONS])


async def perform(run: Run) -> list[Member]:
    """Who was killed until every saga had ended."""
    sagas = frozenset(map(run.saga_of, run.applications))
    stop, pace, chance = asyncio.Event(), Pace(), random.Random(1994)
    crew = [Member(target, run.address, {}, chance, lambda: True, pace.killed) for target in TARGETS]
    async with await open_bus(run.address, partitions=PARTITIONS, kafka=run.kafka) as bus, asyncio.TaskGroup() as lives:
        await bus.create_topics(TOPICS)
        watch = Watch(bus, sagas)
        for member in crew:
            lives.create_task(live(member, stop))
        await publish(run, bus, pace)

        async def ended() -> bool:
            return await watch.look() == len(sagas)

        await until(ended)
        await redrive(run, bus)
        stop.set()
    return crew


async def redrive(run: Run, bus: Bus) -> None:
    """Applications that nobody can read are refused, and refused once more when somebody has them tried again."""
    await bus.publish([Message(decision.intake, b"junk", f"junk-{number}".encode()) for number in range(JUNK)])
    letters = await until(lambda: refused(bus, JUNK))
    places = [f"{letter.partition}@{letter.offset}" for letter in letters]
    command = (sys.executable, "-m", "pavane", "dead-letters", "redrive", COORDINATOR, *places, "--why", "the bureau is back")
    process = await asyncio.create_subprocess_exec(*command, "--bus", run.address, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    await until(lambda: refused(bus, 2 * JUNK))


async def refused(bus: Bus, count: int) -> list[Record]:
    """The coordinator's dead letters, in the order in which they came, once there are so many."""
    topic = dead_letters_topic(COORDINATOR)
    found = [record async for record in bus.read(topic)] if topic in await bus.topics() else []
    return sorted(found, key=lambda record: record.timestamp_ms) if len(found) >= count else []


async def live(member: Member, stop: asyncio.Event) -> None:
    """Be killed at work, come back, and at last run undisturbed."""
    while member.tally.kills < KILLS_EACH:
        async with child(member.target, member.bus, member.environment) as one:
            await one.ready.wait()
            with suppress(TimeoutError):  # or it dies by the fault plan
                await asyncio.wait_for(one.process.wait(), member.chance.uniform(0.3, 2.0))
            await member.kill(one)
    await member.serve(stop)


async def publish(run: Run, bus: Bus, pace: Pace) -> None:
    tracing: Tracing = Surroundings().tracing(APPLICANT, bus)
    try:
        messages = run.messages(tracing)
        kills = KILLS_EACH * len(TARGETS)
        group = len(messages) // GROUPS + 1
        for first in range(0, len(messages), group):
            await pace.reach(int(kills * 0.9 * first / len(messages)))
            await bus.publish(messages[first : first + group])
    finally:
        assert await asyncio.to_thread(tracing.shutdown, FLUSH_S)


async def look(run: Run, jaeger: JaegerServer, crew: Sequence[Member]) -> Killed:
    async with await open_bus(run.address, kafka=run.kafka) as bus:
        letters = [reason_headers(letter.headers) for letter in await refused(bus, 2 * JUNK)]
        given_up = [letter["error_traceparent"] for letter in letters]
        redriven = [jaeger.trace(each.split("-")[1]) for each in given_up[JUNK:]]
        kills = sum(member.tally.kills for member in crew)
        deaths = {service_of(member.target): member.tally.deaths for member in crew}
        sent = [record for topic in await bus.topics() async for record in bus.read(topic)]
        traces = {span[0] for record in sent if (span := sent_by(record)) is not None}
        rows = [row for trace in sorted(traces) for row in Jaeger(jaeger.query).trace(trace)]
        report = await check_bus(bus, jaeger_url=jaeger.query)
        return Killed(kills, deaths, report, rows, len(run.applications), sent, given_up, redriven)


def service_of(target: str) -> str:
    """What an agent's process calls itself in traces, or the coordinator's."""
    found = load_object(target)
    return found.name if isinstance(found, Agent) else COORDINATOR_SERVICE


def sent_by(record: Record) -> Key | None:
    """The span by which the record's source sent it, where it is a saga's; None where it is not.

    Dead letters keep the headers of what failed, and the clerk answers under the span that asked.
    """
    if "ce_sagaid" not in dict(record.headers) or reason_headers(record.headers) or record.topic == decision.intake:
        return None
    return span_of(parse(record))[0]


def age_of(record: Record, deaths: Mapping[str, Sequence[Death]]) -> float:
    """How long before its sender's next death a record was sent, in seconds."""
    agent, source = "/agents/", parse(record).source
    service = source.removeprefix(agent) if source.startswith(agent) else COORDINATOR_SERVICE
    sent_s = record.timestamp_ms / 1000
    return min((max(0.0, each.struck_s - sent_s) for each in deaths[service] if each.known_s > sent_s), default=inf)


def bound_of(rows: Sequence[SpanRow], deaths: Mapping[str, Sequence[Death]]) -> int:
    """What so many deaths may take along: each as many spans as its process ever ended within an interval of its exporter."""
    window_ns = INTERVAL_MS * 1_000_000
    bound = 0
    for service, died in deaths.items():
        ends = sorted(row.end_ns for row in rows if row.service == service)
        bound += len(died) * max(bisect_right(ends, end + window_ns) - index for index, end in enumerate(ends))
    return bound


def test_what_killed_processes_took_along_is_no_more_than_an_interval_each(killed: Killed) -> None:
    assert killed.kills == KILLS_EACH * len(TARGETS)
    bound = bound_of(killed.rows, killed.deaths)
    print(killed.report, f"{sum(map(len, killed.deaths.values()))} deaths, which may take {bound} spans along")
    assert killed.report.missing <= bound


def test_what_killed_processes_took_along_is_what_they_sent_last(killed: Killed) -> None:
    exported = {(row.trace_id, row.span_id) for row in killed.rows}
    taken = [record for record in killed.sent if (span := sent_by(record)) is not None and span not in exported]
    oldest_s = max([age_of(record, killed.deaths) for record in taken], default=0.0)
    print(f"{len(taken)} send spans were taken along, the oldest {oldest_s:.3f} s old")
    assert killed.report.missing >= len(taken)
    assert oldest_s < 2 * INTERVAL_MS / 1000, "an interval, and as long for the request that was under way"


def test_nothing_else_is_broken(killed: Killed) -> None:
    assert set(killed.report.counts) <= LOSSES
    assert killed.report.broken(killed.report.missing) == ()
    assert killed.report.sagas == killed.sagas


def test_every_trace_has_one_root(killed: Killed) -> None:
    assert killed.report.roots == killed.report.traces


def test_the_services_and_who_causes_work_of_whom_are_as_declared(killed: Killed) -> None:
    assert {row.service for row in killed.rows} == SERVICES
    services = {(row.trace_id, row.span_id): row.service for row in killed.rows}
    parents = ((services.get((row.trace_id, row.parent_span_id or "")), row.service) for row in killed.rows)
    assert {(parent, child) for parent, child in parents if parent not in (None, child)} == declared_edges()


def test_what_is_redriven_begins_a_trace_of_its_own_that_is_linked_to_where_it_was_given_up(killed: Killed) -> None:
    before = {(trace, span) for _, trace, span, _ in (each.split("-") for each in killed.given_up[:JUNK])}
    assert len(before) == len(killed.redriven) == JUNK
    for spans in killed.redriven:
        (root,) = roots_of(spans)
        assert root.service == OPERATOR_SERVICE
        assert len(before.intersection(root.links)) == 1
        assert root.trace not in {trace for trace, _ in before}
        assert orphans_of(spans) == []
