"""Credit sagas whose processes are killed with -9, exported to a real Jaeger: what they took along is counted, and bounded."""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from chaos.crew import Child, Member, child
from integration.test_jaeger import APPLICANT, Run, a_run, export_to
from pavane.continuity import InJaeger, services_of
from pavane.runner import Surroundings
from pavane.testing import ContinuityReport, check_bus
from pavane_credit.outcome import Watch
from pavane_credit.supervisor import TARGETS
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_saga.manifest import read_directory
from pavane_saga.saga import SagaEnded
from pavane_tracing.finding import LOSSES
from pavane_tracing.span import SpanRow
from pavane_tracing.work import FLUSH_S, Tracing
from support.jaeger import JaegerServer
from support.stage import until

APPLICATIONS = 150
KILLS_EACH = 2
INTERVAL_MS = 500
GROUP = 10


class Killed(NamedTuple):
    """What a run of killed processes left behind."""

    kills: int
    report: ContinuityReport
    rows: Sequence[SpanRow]


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
        stop.set()
    return pace.kills


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
        return Killed(kills, await check_bus(bus, jaeger_url=jaeger.query), list(rows))


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


def test_every_service_is_called_by_its_name(killed: Killed) -> None:
    assert "unknown_service" not in " ".join({row.service for row in killed.rows})
