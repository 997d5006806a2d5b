"""kill -9: five agents and the coordinator as real processes on one SQLite file, each killed twenty times at random."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chaos.crew import Member, Tally
from pavane.testing import assert_continuous, check_bus
from pavane_credit.applications import Application, read_applications
from pavane_credit.choreography import decision
from pavane_credit.events import (
    ApplicationSubmitted,
    CreditApproved,
)
from pavane_credit.invariant import check_ledgers
from pavane_credit.outcome import Watch
from pavane_credit.supervisor import TARGETS
from pavane_credit.where import Where
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope, is_event, parse
from pavane_events.record import Message
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ADMISSIONS
from pavane_tracing.store import SPANS_TOPIC

SEED = 1994
APPLICATIONS = 200
KILLS_EACH = 20
GROUP = 4
"""Applications published at a time, paced by the kills: there is work under way whenever somebody dies."""
ZOMBIE_S = 11.0
"""Longer than the lease of ten seconds."""
NAP_S = 2.0
SOURCE = "/test/kill"
INTAKE = decision.intake
PATIENCE_S = 180.0


@dataclass(slots=True)
class Progress:
    """How far the run is: paces publishing by the kills."""

    watch: Watch
    published: int = 0
    kills: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> bool:
        """Whether any saga is under way, as far as is known."""
        return len(self.watch.verdicts) < self.published

    def killed(self) -> None:
        self.kills += 1
        self.changed.set()


def messages(applications: Sequence[Application], chance: random.Random) -> list[Message]:
    """Applications for the intake: keyed by the saga or by anything else (one more hop), one in ten of them twice."""
    found: list[Message] = []
    for each in applications:
        kind = ApplicationSubmitted.event_type
        envelope = Envelope(id=each.id, source=SOURCE, type=kind, subject=each.id, data=each.event.to_json())
        key = saga_id_of(SOURCE, each.id) if chance.random() < 0.5 else f"customer-{chance.randrange(1000)}"
        found += [envelope.to_message(INTAKE, key=key)] * (2 if chance.random() < 0.1 else 1)
    return found


async def publish_over_time(bus: Bus, applications: Sequence[Application], progress: Progress, chance: random.Random) -> None:
    """A small group at a time: the next one when some more kills have been."""
    kills = KILLS_EACH * len(TARGETS)
    for first in range(0, len(applications), GROUP):
        while progress.kills < kills * 0.95 * first / len(applications):
            progress.changed.clear()
            await progress.changed.wait()
        group = applications[first : first + GROUP]
        await bus.publish(messages(group, chance))
        progress.published += len(group)


async def watch_over(watch: Watch) -> None:
    """Follow the verdicts until every saga has ended."""
    while True:
        if await watch.look() == len(watch.sagas):
            return
        await asyncio.sleep(0.1)


async def run_and_kill(bus: Bus, url: str, applications: Sequence[Application], ledgers: Path) -> dict[str, Tally]:
    """The run: kill and publish, then let all of them go on until every saga has ended."""
    progress = Progress(Watch(bus, frozenset(saga_id_of(SOURCE, each.id) for each in applications)))
    environment = {"CREDIT_LEDGERS": str(ledgers), "CREDIT_FAULTS": str(SEED), "CREDIT_CRASH": "kill"}
    members = [
        Member(target, url, environment, random.Random(f"{SEED} {target}"), progress.open, progress.killed)
        for target in TARGETS
    ]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as crew:

        async def live(member: Member) -> None:
            await member.suffer(KILLS_EACH, zombie_s=ZOMBIE_S, nap_s=NAP_S)
            await member.serve(stop)

        for member in members:
            crew.create_task(live(member), name=member.target)
        watching = crew.create_task(watch_over(progress.watch))
        await publish_over_time(bus, applications, progress, random.Random(SEED))
        async with asyncio.timeout(PATIENCE_S):
            await watching
        while any(member.tally.kills < KILLS_EACH for member in members):
            progress.changed.clear()
            await progress.changed.wait()
        stop.set()
    return {member.target: member.tally for member in members}


async def events_of(bus: Bus, topic: str) -> AsyncIterator[Envelope]:
    async for record in bus.read(topic):
        if is_event(record):
            yield parse(record)


async def check_sagas(bus: Bus, applications: Sequence[Application]) -> None:
    """No event lost: each application has one saga, and each saga ended exactly once."""
    expected = Counter([saga_id_of(SOURCE, each.id) for each in applications])
    started = Counter([envelope.saga async for envelope in events_of(bus, ApplicationSubmitted.event_type)])
    assert started == expected
    ended = Counter([SagaEnded.from_json(record.value or b"").saga async for record in bus.read(SagaEnded.event_type)])
    assert ended == expected


async def check_outputs(bus: Bus) -> None:
    """No duplicate output: no event id twice on any topic that lanes write, but for what came twice from outside."""
    came = Counter([envelope.subject async for envelope in events_of(bus, INTAKE)])
    for topic in await bus.topics():
        found = Counter([(envelope.id, envelope.subject) async for envelope in events_of(bus, topic)])
        outside = topic in (INTAKE, ADMISSIONS)
        twice = [each for each, count in found.items() if count > (came[each[1]] if outside else 1)]
        assert twice == [], f"{topic} has events more than once"


async def check_effects(bus: Bus, where: Where) -> None:
    """The invariant, from the ledgers."""
    ends = [SagaEnded.from_json(record.value or b"") async for record in bus.read(SagaEnded.event_type)]
    completed = {each.saga for each in ends if each.verdict == "completed"}
    offers = [
        CreditApproved.from_json(envelope.data)
        async for envelope in events_of(bus, CreditApproved.event_type)
        if envelope.saga in completed
    ]
    approved = {each.application_id: each.amount_dm for each in offers}
    assert len(approved) == len(completed)
    report = check_ledgers(where, approved)
    assert report.problems == ()
    assert len(approved) > APPLICATIONS // 3


async def check_traces(bus: Bus) -> str:
    """One root per trace, and every record that a step has answered is sent and processed in it.

    Spans are kept by the commit that they tell of, so even a kill leaves no orphan.
    """
    return str(assert_continuous(await check_bus(bus)))


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_left_standing_when_every_process_is_killed_again_and_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bus.db'}"
    ledgers = tmp_path / "ledgers"
    applications = read_applications()[:APPLICATIONS]

    async def scenario() -> None:
        began = time.monotonic()
        async with await open_bus(url, partitions=2) as bus:
            await bus.create_topics([TopicSpec(INTAKE), TopicSpec(SagaEnded.event_type), TopicSpec(SPANS_TOPIC)])
            tallies = await run_and_kill(bus, url, applications, ledgers)
            print(json.dumps({target: str(tally) for target, tally in tallies.items()}, indent=1))
            print(f"{sum(each.kills for each in tallies.values())} kills in {time.monotonic() - began:.1f} s")
            assert all(tally.kills >= KILLS_EACH for tally in tallies.values())
            assert sum(tally.kills_at_work for tally in tallies.values()) > KILLS_EACH * len(TARGETS) * 0.9
            assert all(tally.zombies for tally in tallies.values())
            await check_sagas(bus, applications)
            await check_outputs(bus)
            await check_effects(bus, Where(ledgers=str(ledgers)))
            print(await check_traces(bus))

    asyncio.run(scenario())
