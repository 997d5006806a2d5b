"""Credit sagas whose processes are killed with -9, exported to a real Jaeger: what they took along is counted, and bounded.

What the intake refused is redriven at the end.
"""

import asyncio
import random
import sys
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from chaos.crew import Child, Member, child
from integration.test_jaeger import APPLICANT, SERVICES, Run, a_run, declared_edges, export_to
from pavane.continuity import InJaeger, services_of
from pavane.runner import Surroundings
from pavane.testing import ContinuityReport, check_bus
from pavane_credit.outcome import Watch
from pavane_credit.supervisor import TARGETS
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.dead_letter import dead_letters_topic, reason_headers
from pavane_events.record import Message, Record
from pavane_saga.manifest import read_directory
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import COORDINATOR
from pavane_tracing.conventions import OPERATOR_SERVICE
from pavane_tracing.finding import LOSSES
from pavane_tracing.span import SpanRow
from pavane_tracing.work import FLUSH_S, Tracing
from support.jaeger import JaegerServer, TracedSpan, orphans_of, roots_of
from support.stage import until

APPLICATIONS = 150
KILLS_EACH = 2
INTERVAL_MS = 500
GROUP = 10
JUNK = 3


class Killed(NamedTuple):
    """What a run of killed processes left behind."""

    kills: int
    report: ContinuityReport
    rows: Sequence[SpanRow]
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


@pytest.fixture(scope="module")
def killed(jaeger: JaegerServer, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """All decided, while each of the seven processes is killed twice, and what Jaeger has of it."""
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as variables:
        run = a_run(folder, variables, count=APPLICATIONS)
        export_to(jaeger.otlp_http, variables)
        variables.setenv("OTEL_BSP_SCHEDULE_DELAY", str(INTERVAL_MS))
        kills = asyncio.run(perform(run))
    jaeger.settle()
    return asyncio.run(look(run, jaeger, kills))


async def perform(run: Run) -> int:
    """How many were killed until every saga had ended."""
    sagas = frozenset(map(run.saga_of, run.applications))
    stop, pace, chance = asyncio.Event(), Pace(), random.Random(1994)
    async with await open_bus(run.address, partitions=2) as bus, asyncio.TaskGroup() as crew:
        await bus.create_topics([TopicSpec(name) for name in ("credit.applications", SagaEnded.event_type)])
        watch = Watch(bus, sagas)
        for target in TARGETS:
            crew.create_task(live(Member(target, run.address, {}, chance, lambda: True, pace.killed), pace, stop))
        await publish(run, bus, pace)

        async def ended() -> bool:
            return await watch.look() == len(sagas)

        await until(ended)
        await redrive(run, bus)
        stop.set()
    return pace.kills


async def redrive(run: Run, bus: Bus) -> None:
    """Applications that nobody can read are refused, and refused once more when somebody has them tried again."""
    await bus.publish([Message("credit.applications", b"junk", f"junk-{number}".encode()) for number in range(JUNK)])
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


async def live(member: Member, pace: Pace, stop: asyncio.Event) -> None:
    """Be killed at work, come back, and at last run undisturbed."""
    for _ in range(KILLS_EACH):
        async with child(member.target, member.bus, member.environment) as one:
            await one.ready.wait()
            await asyncio.sleep(member.chance.uniform(0.3, 2.0))
            await kill(one)
        pace.killed()
    await member.serve(stop)


async def kill(one: Child) -> None:
    assert one.alive, one.said.decode(errors="replace")
    one.kill()
    await one.process.wait()


async def publish(run: Run, bus: Bus, pace: Pace) -> None:
    tracing: Tracing = Surroundings().tracing(APPLICANT, bus)
    try:
        messages = run.messages(tracing)
        kills = KILLS_EACH * len(TARGETS)
        for first in range(0, len(messages), GROUP):
            await pace.reach(int(kills * 0.9 * first / len(messages)))
            await bus.publish(messages[first : first + GROUP])
    finally:
        assert await asyncio.to_thread(tracing.shutdown, FLUSH_S)


async def look(run: Run, jaeger: JaegerServer, kills: int) -> Killed:
    async with await open_bus(run.address) as bus:
        services = [*services_of(await read_directory(bus)), APPLICANT]
        rows = InJaeger(jaeger.query, 0).of_all([run.saga_of(each) for each in run.applications], services)
        letters = [reason_headers(letter.headers) for letter in await refused(bus, 2 * JUNK)]
        given_up = [letter["error_traceparent"] for letter in letters]
        redriven = [jaeger.trace(each.split("-")[1]) for each in given_up[JUNK:]]
        return Killed(kills, await check_bus(bus, jaeger_url=jaeger.query), list(rows), given_up, redriven)


def bound_of(rows: Sequence[SpanRow]) -> int:
    """What so many kills may take along: of each process as many spans as it ever ended within an interval of its exporter."""
    window_ns = INTERVAL_MS * 1_000_000
    bound = 0
    for service in {row.service for row in rows} - {APPLICANT}:
        ends = sorted(row.end_ns for row in rows if row.service == service)
        bound += KILLS_EACH * max(bisect_right(ends, end + window_ns) - index for index, end in enumerate(ends))
    return bound


def test_what_killed_processes_took_along_is_no_more_than_an_interval_each(killed: Killed) -> None:
    assert killed.kills == KILLS_EACH * len(TARGETS)
    print(killed.report, f"{killed.kills} kills, which may take {bound_of(killed.rows)} spans along")
    assert killed.report.missing <= bound_of(killed.rows)


def test_nothing_else_is_broken(killed: Killed) -> None:
    assert set(killed.report.counts) <= LOSSES
    assert killed.report.broken(killed.report.missing) == ()
    assert killed.report.sagas == APPLICATIONS


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
