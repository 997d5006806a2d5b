"""The coordinator: a consumer like any other. It reads every saga topic, and commits the engine's commands with its inputs."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pavane_events.bus import Bus, Lane, Lanes, TopicSpec
from pavane_events.dead_letter import dead_letters_topic
from pavane_events.errors import BusUnavailable, LaneLost
from pavane_events.patience import commit_patiently
from pavane_events.record import Record
from pavane_events.required import require_topics
from pavane_saga.desk import Desk
from pavane_saga.dossier import Cabinet
from pavane_saga.manifest import Directory, SagaPlan, read_directory
from pavane_saga.saga import Saga, SagaEnded
from pavane_saga.wire import ADMISSIONS, AGENTS, COORDINATOR, ENDS, FACTS, LOCKS
from pavane_tracing.store import SPANS_TOPIC
from pavane_tracing.work import FLUSH_S, Tracing

log = logging.getLogger("pavane.coordinator")

_BATCH = 500
_MOST_PATIENCE_S = 1.0
_LOOK_S = 0.1
_LOOK_LATER_S = 2.0
_REMIND_S = 10.0


@dataclass(slots=True)
class Office:
    """What the lanes of one coordinator process share: the sagas, and who is there as last looked up."""

    sagas: Mapping[str, Saga]
    bus: Bus
    tracing: Tracing
    clock: Callable[[], float]
    directory: Directory
    look_s: float | None = None
    cabinet: Cabinet = field(default_factory=Cabinet)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody declares himself who was not known."""

    @property
    def intakes(self) -> Mapping[str, Saga]:
        """Sagas by their intake topic."""
        return {saga.intake: saga for saga in self.sagas.values()}


async def run_coordinator(
    sagas: Sequence[Saga],
    bus: Bus,
    stop: asyncio.Event,
    *,
    tracing: Tracing,
    clock: Callable[[], float] = time.time,
    look_s: float | None = None,
) -> None:
    """Coordinate sagas until ``stop`` is set. Several processes may: their lanes are shared out between them.

    It reads every topic of its sagas from the earliest record, learns who owes what from the agents' declarations, and
    starts sagas in a lane when every agent that leads to ``completes`` has declared it. ``look_s``: how often it looks
    at the clock, and at who is there, while it hears nothing; None: every second or two.
    """
    office = Office({saga.name: saga for saga in sagas}, bus, tracing, clock, Directory({}, {}), look_s)
    try:
        await _prepare(office)
        await _run_lanes(office, stop)
    finally:
        await asyncio.to_thread(tracing.shutdown, FLUSH_S)


async def _run_lanes(office: Office, stop: asyncio.Event) -> None:
    lanes = await office.bus.lanes(COORDINATOR, _topics(office), start="earliest")
    try:
        async with asyncio.TaskGroup() as group:
            desks: list[CoordinatorLane] = []

            async def hold(desk: CoordinatorLane) -> None:
                desks.append(desk)
                try:
                    await desk.run(stop)
                finally:
                    desks.remove(desk)

            async def grant() -> None:
                async for lane in lanes:
                    try:
                        desk = CoordinatorLane(office, lane)
                    except LaneLost:
                        continue  # between its grant and the first look at its state
                    group.create_task(hold(desk))

            granting = group.create_task(grant())
            looking = group.create_task(_look_around(office, lanes, desks))
            await stop.wait()
            granting.cancel()
            looking.cancel()
    finally:
        await lanes.close()


def topic_specs(sagas: Iterable[Saga]) -> list[TopicSpec]:
    """What the coordinator of these sagas needs to exist before it starts."""
    names = {FACTS, ENDS, ADMISSIONS, LOCKS, SPANS_TOPIC, SagaEnded.event_type, dead_letters_topic(COORDINATOR)}
    for saga in sagas:
        names |= {saga.intake, saga.starts.event_type, saga.completes.event_type}
        names |= {each.event_type for each in (*saga.fails, *saga.answers)}
    return [*(TopicSpec(name) for name in sorted(names)), TopicSpec(AGENTS, compacted=True)]


async def _prepare(office: Office) -> None:
    await require_topics(office.bus, topic_specs(office.sagas.values()))
    office.directory = await read_directory(office.bus)
    plans = [SagaPlan.of(saga) for saga in office.sagas.values()]
    changed = [plan.to_message() for plan in plans if office.directory.sagas.get(plan.name) != plan]
    if changed:
        await office.bus.publish(changed)
        office.directory = await read_directory(office.bus)


def _topics(office: Office) -> Collection[str]:
    """What the lanes read now: facts, every event topic known, and what comes from outside."""
    return [FACTS, LOCKS, *sorted(office.directory.topics()), ADMISSIONS, *sorted(office.intakes)]


async def _look_around(office: Office, lanes: Lanes, desks: "list[CoordinatorLane]") -> None:
    """Notice new agents, read their topics too, and say for whom the intake waits."""
    later_s = _LOOK_LATER_S if office.look_s is None else office.look_s
    subscribed = set(_topics(office))
    has_opened = False
    remind = time.monotonic() + _REMIND_S
    while True:
        try:
            found = await read_directory(office.bus)
            existing = set(await office.bus.topics())
        except BusUnavailable as error:
            log.warning("the coordinator cannot look who is there, it tries again: %s", error)
            await asyncio.sleep(_LOOK_LATER_S)
            continue
        if found != office.directory:
            office.directory = found
        new = (set(_topics(office)) & existing) - subscribed
        if new:
            await lanes.subscribe(new)
            subscribed |= new
        waiting = _waited_for(desks)
        has_opened = has_opened or waiting == []
        if not waiting:
            remind = time.monotonic() + _REMIND_S
        elif time.monotonic() > remind:
            log.warning("the intake stays closed, it waits for %s", "; ".join(waiting))
            remind = time.monotonic() + _REMIND_S
        await _pause(office, later_s if has_opened else _LOOK_S)


def _waited_for(desks: "Iterable[CoordinatorLane]") -> list[str] | None:
    """For whom the intake of these lanes waits; None where there is none of them."""
    held = [desk for desk in desks if not desk.lost]
    return sorted({reason for desk in held for reason in desk.waiting_for()}) if held else None


async def _pause(office: Office, seconds: float) -> None:
    """Until the time is up, or somebody new declares himself."""
    try:
        async with asyncio.timeout(seconds):
            await office.stirred.wait()
    except TimeoutError:
        return
    office.stirred.clear()


class CoordinatorLane:
    """One lane of the coordinator, from its grant until it is lost or stopped."""

    def __init__(self, office: Office, lane: Lane) -> None:
        self._office = office
        self._lane = lane
        bus = office.bus
        self._desk = Desk(lane, office.sagas, office.tracing, office.clock, bus.partitions, bus.keeps_s, office.cabinet)
        self._most_s = _MOST_PATIENCE_S if office.look_s is None else office.look_s
        self._ready_under: Directory | None = None
        self._receiving = False
        self._stopping = False

    @property
    def lost(self) -> bool:
        """Whether the lane is known to be lost."""
        return self._lane.lost

    def waiting_for(self) -> list[str]:
        """What must come before sagas may start in this lane: agents that lead to ``completes`` and their declarations."""
        directory = self._office.directory
        if self._ready_under is directory:  # what was declared stays declared
            return []
        missing: list[str] = []
        for saga in self._office.sagas.values():
            agents, orphans = directory.leading_to(saga.completes.event_type, SagaPlan.of(saga))
            missing += [f"somebody who gives {event_type}" for event_type in orphans]
            missing += [f"agent {agent} in lane {self._lane.partition}" for agent in agents - self._desk.declared]
        if not missing:
            self._ready_under = directory
        return missing

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set or the lane is lost. A batch is decided and committed, then the next is read."""
        working = asyncio.ensure_future(self._work())
        working.add_done_callback(_look_at)  # if this task is cancelled meanwhile, nobody else will
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if self._receiving:
                working.cancel()  # a receive loses nothing; a turn is ended first
            self._stopping = True
            await asyncio.wait((working,))
            if not working.cancelled():
                working.result()
        except LaneLost:
            log.info("lane %d of the coordinator is lost: its next holder goes on", self._lane.partition)
        finally:
            self._desk.close()
            stopping.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait((working,))

    async def _work(self) -> None:
        while not self._stopping:
            self._receiving = True
            records = await self._lane.receive(_BATCH, self._desk.patience_s(self._most_s))
            self._receiving = False
            await self._turn(records)

    async def _turn(self, records: Sequence[Record]) -> None:
        """One batch, and what the clock says, in one commit."""
        desk = self._desk
        known = len(desk.versions)
        desk.take(records, is_open=not self.waiting_for())
        if len(desk.versions) > known:
            self._office.stirred.set()
        if desk.deadlines.must_ask():
            desk.deadlines.asked(await self._lane.high_watermarks())
        desk.fire(desk.deadlines.take(self._lane.positions))
        decision = desk.decide()
        if decision is not None:
            await commit_patiently(self._lane, decision.done, decision.outputs, decision.state)
            desk.committed()


def _look_at(working: "asyncio.Future[None]") -> None:
    if not working.cancelled():
        working.exception()
