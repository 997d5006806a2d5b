"""Story: what happened in a saga, told from the topics alone and judged by the engine that the coordinator uses."""

import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from pavane_events.bus import Bus
from pavane_events.envelope import Envelope, parse
from pavane_events.errors import ConfigurationError, ContractViolation, Problem, UndecodableRecord, UnknownTopic
from pavane_events.partition import partition_of
from pavane_events.record import Record
from pavane_saga.engine import Failure, State, failure, open_debts, standing, status, stuck, unseen
from pavane_saga.facts import (
    Decided,
    Declared,
    Ended,
    Fact,
    Fired,
    Granted,
    Happened,
    Locked,
    LockRefused,
    Redriven,
    Requested,
    Settled,
    UndoFailed,
    Undone,
)
from pavane_saga.history import History, Plan, Unit, declared_after
from pavane_saga.manifest import Directory, SagaPlan, read_directory
from pavane_saga.saga import SagaEnded
from pavane_saga.view import Debt
from pavane_saga.wire import COORDINATOR, ENDED, ENDS, FACTS, GRANT, UNDO, commands_topic, read_fact, read_undo_request

Kind = Literal[
    "event", "granted", "settled", "undo", "undone", "undo-failed", "decided", "deadline", "turned-back", "let-go", "ended"
]


@dataclass(frozen=True, slots=True)
class Chapter:
    """One thing that happened, and where it is written. ``who``: the step, the coordinator, or a producer outside."""

    at_ms: int
    kind: Kind
    what: str
    who: str
    topic: str
    partition: int
    offset: int
    code: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Summary:
    """A saga in one line. ``ended_ms``: None while it is open. ``subject``: the business id, where the start event has one."""

    saga: str
    name: str | None
    subject: str | None
    state: State
    started_ms: int | None
    ended_ms: int | None

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Story:
    """A whole saga. ``owed``: answers not given yet. ``standing``: effects that may stand, by step and its inputs' ids.

    ``stuck``: what failed for good and waits for a decision: undos, or steps after the pivot. ``unseen``: what somebody
    named and the topics do not hold (yet). ``events``: the saga's own, as they were read. ``times``: when each was
    appended, by id, and when each undo was asked for. ``plan`` and ``history`` are what the engine judged it by.
    """

    summary: Summary
    failure: Failure | None
    chapters: tuple[Chapter, ...]
    owed: tuple[Debt, ...]
    standing: tuple[Unit, ...]
    stuck: tuple[UndoFailed | Settled, ...]
    unseen: tuple[str, ...]
    events: tuple[Envelope, ...] = field(repr=False)
    times: Mapping[str | Unit, int] = field(repr=False)
    plan: Plan = field(repr=False)
    history: History = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """All of it but the events' data, as JSON."""
        found = self.failure
        return {
            **self.summary.to_json(),
            "failure": {"code": found.code, "reason": found.reason, "step": found.step} if found else None,
            "timeline": [chapter.to_json() for chapter in self.chapters],
            "owed": [{"event": e.event, "type": e.type, "step": e.step, "waiting": e.waiting} for e in self.owed],
            "standing": [{"step": step, "causes": list(causes)} for step, causes in self.standing],
            "stuck": [{"step": e.step, "causes": list(e.causes), "code": e.code, "reason": e.reason} for e in self.stuck],
            "unseen": list(self.unseen),
        }


@dataclass(slots=True)
class _Telling:
    """One saga's records as they gather."""

    times: dict[str | Unit, int] = field(default_factory=dict[str | Unit, int])
    facts: list[Fact] = field(default_factory=list[Fact])
    chapters: list[Chapter] = field(default_factory=list[Chapter])
    events: list[Envelope] = field(default_factory=list[Envelope])
    name: str | None = None
    subject: str | None = None
    started_ms: int | None = None
    ended_ms: int | None = None


class _Heard(NamedTuple):
    """What a record says; with its place it is a chapter."""

    kind: Kind
    what: str
    who: str
    code: str = ""
    reason: str = ""


async def read_story(bus: Bus, saga: str) -> Story | None:
    """The story of the saga with that id; None where no record speaks of it. Raises :class:`BusError`."""
    directory = await read_directory(bus)
    telling = _Telling()
    async for record in _records(bus, _topics(directory), saga):
        _hear(telling, record, directory)
    if not telling.chapters:
        return None
    partition = partition_of(saga.encode(), bus.partitions)
    return _tell(saga, telling, directory, (await _lanes(bus, directory, {partition}))[partition])


async def list_sagas(bus: Bus) -> list[Summary]:
    """Every saga that was started, by start. Those that have ended cost two records each. Raises :class:`BusError`."""
    directory = await read_directory(bus)
    starts = [each.starts for each in directory.sagas.values()]
    tellings: dict[str, _Telling] = {}
    async for record in _records(bus, [*starts, SagaEnded.event_type]):
        saga = (record.key or b"").decode(errors="replace")
        _hear(tellings.setdefault(saga, _Telling()), record, directory)
    open_now = {saga for saga, telling in tellings.items() if telling.ended_ms is None}
    if open_now:
        others = [topic for topic in _topics(directory) if topic not in (*starts, SagaEnded.event_type)]
        async for record in _records(bus, others):
            saga = (record.key or b"").decode(errors="replace")
            if saga in open_now:
                _hear(tellings[saga], record, directory)
    lanes = await _lanes(bus, directory, {partition_of(saga.encode(), bus.partitions) for saga in open_now})
    return sorted(
        (
            _tell(saga, telling, directory, lanes.get(partition_of(saga.encode(), bus.partitions), _Lane({}))).summary
            for saga, telling in tellings.items()
        ),
        key=lambda each: (each.started_ms or 0, each.subject or "", each.saga),
    )


async def open_stories(bus: Bus) -> list[tuple[Story, SagaPlan]]:
    """The story of every saga that has started and not ended, with what is declared of it. Raises :class:`BusError`."""
    directory = await read_directory(bus)
    tellings: dict[str, _Telling] = {}
    async for record in _records(bus, _topics(directory)):
        if record.key is not None:
            _hear(tellings.setdefault(record.key.decode(errors="replace"), _Telling()), record, directory)
    waiting = {saga: each for saga, each in tellings.items() if each.ended_ms is None and each.name in directory.sagas}
    partitions = {saga: partition_of(saga.encode(), bus.partitions) for saga in waiting}
    lanes = await _lanes(bus, directory, set(partitions.values()))
    return [
        (_tell(saga, telling, directory, lanes[partitions[saga]]), directory.sagas[telling.name or ""])
        for saga, telling in waiting.items()
    ]


async def find_saga(bus: Bus, wanted: str) -> list[str]:
    """The ids of the sagas that an id, the beginning of one, or a subject may mean; an exact id is the only answer.

    Raises :class:`ConfigurationError` where it is blank, as where a script's variable was not set: every id begins so.
    """
    if not wanted.strip():
        message = "write an id, the beginning of one, or a subject; `pavane sagas list` shows all"
        raise ConfigurationError("the id of a saga is blank", [Problem("SAGA", "saga.blank", message)])
    directory = await read_directory(bus)
    starts = [each.starts for each in directory.sagas.values()]
    async for _ in _records(bus, [*starts, FACTS, SagaEnded.event_type], wanted):
        return [wanted]
    found: dict[str, None] = {}
    async for record in _records(bus, starts):
        saga = (record.key or b"").decode(errors="replace")
        if saga.startswith(wanted) or _subject(record) == wanted:
            found[saga] = None
    return list(found)


def _topics(directory: Directory) -> list[str]:
    commands = [commands_topic(agent) for agent in directory.agents]
    return [*sorted(directory.topics()), *sorted(commands), FACTS, ENDS, SagaEnded.event_type]


async def _records(bus: Bus, topics: Iterable[str], saga: str | None = None) -> AsyncIterator[Record]:
    for topic in topics:
        try:
            async for record in bus.read(topic, key=saga.encode() if saga is not None else None):
                yield record
        except UnknownTopic:
            continue


class _Lane(NamedTuple):
    """What its agents declared, oldest first, and every version that did: of two with the same steps only one is kept."""

    declared: Mapping[str, tuple[Declared, ...]]
    versions: Mapping[str, frozenset[str] | None] = {}


async def declarations(bus: Bus, partition: int | None = None) -> AsyncIterator[Declared]:
    """What every lane has ever declared, or that one, in order. Raises :class:`BusError`."""
    try:
        async for record in bus.read(FACTS, partition=partition):
            fact = _fact(record) if record.key is None else None
            if isinstance(fact, Declared):
                yield fact
    except UnknownTopic:
        pass


async def _lanes(bus: Bus, directory: Directory, partitions: Collection[int]) -> dict[int, _Lane]:
    """By number, what is declared of a lane; of an agent that has not declared it, what its manifest says."""
    found: dict[int, _Lane] = {}
    for partition in partitions:
        declared: dict[str, tuple[Declared, ...]] = {}
        versions: dict[str, frozenset[str] | None] = {}
        async for fact in declarations(bus, partition):
            declared[fact.agent] = declared_after(declared.get(fact.agent, ()), fact)
            versions[fact.version] = fact.free
        found[partition] = _Lane({**_by_manifest(directory), **declared}, versions)
    return found


def _by_manifest(directory: Directory) -> dict[str, tuple[Declared, ...]]:
    return {name: (manifest.declared(()),) for name, manifest in directory.agents.items()}


def _fact(record: Record) -> Fact | None:
    try:
        return read_fact(parse(record))
    except UndecodableRecord:
        return None


def _subject(record: Record) -> str | None:
    try:
        return parse(record).subject
    except UndecodableRecord:
        return None


def _hear(telling: _Telling, record: Record, directory: Directory) -> None:
    """Take one record in. What is no event is passed over: it is in somebody's dead letters."""
    try:
        envelope = parse(record)
        if record.topic == FACTS:
            heard = _of_fact(telling, read_fact(envelope))
        elif envelope.type == UNDO:
            request = read_undo_request(envelope)
            telling.times[request.step, tuple(sorted(request.causes))] = record.timestamp_ms
            heard = _Heard("undo", f"undo asked for ({request.outcome})", request.step)
        elif envelope.type == GRANT:
            return  # there is a fact that says so, too
        elif envelope.type == ENDED:
            heard = _of_end(envelope)
        elif record.topic == SagaEnded.event_type:
            verdict = SagaEnded.from_json(envelope.data).verdict
            telling.facts.append(Ended(verdict, record.timestamp_ms))
            telling.ended_ms = record.timestamp_ms
            heard = _Heard("ended", verdict, COORDINATOR)
        else:
            heard = _of_event(telling, record, envelope, directory)
    except (UndecodableRecord, ContractViolation):
        return
    if heard is not None:
        place = (record.topic, record.partition, record.offset)
        telling.chapters.append(
            Chapter(record.timestamp_ms, heard.kind, heard.what, heard.who, *place, heard.code, heard.reason)
        )


def _of_event(telling: _Telling, record: Record, envelope: Envelope, directory: Directory) -> _Heard:
    telling.facts.append(Happened.of(envelope, record.offset))
    telling.times[envelope.id] = record.timestamp_ms
    telling.events.append(envelope)
    if envelope.step is not None:
        return _Heard("event", envelope.type, envelope.step)
    plan = next((each for each in directory.sagas.values() if each.starts == envelope.type), None)
    if plan is not None:
        telling.name, telling.subject, telling.started_ms = plan.name, envelope.subject, record.timestamp_ms
    return _Heard("event", envelope.type, envelope.source.removeprefix("/"))


def _of_fact(telling: _Telling, fact: Fact) -> _Heard | None:
    telling.facts.append(fact)
    match fact:
        case Settled():
            began = "" if fact.how != "failed" or fact.began else " before it began"
            return _Heard("settled", f"{fact.how}{began}", fact.step, fact.code, fact.reason)
        case Granted():
            again = f", retry {fact.retry}" if fact.retry else ""
            return _Heard("granted", f"may begin{again}", fact.step)
        case Requested():
            return _Heard("granted", f"needs the lock {fact.lock!r}", fact.step)
        case Locked():
            return _Heard("granted", f"the saga holds the lock {fact.lock!r}", COORDINATOR)
        case LockRefused():
            return _Heard("granted", f"the lock {fact.lock!r} is held by saga {fact.holder}", COORDINATOR)
        case Undone():
            return _Heard("undone", "undone", fact.step)
        case UndoFailed():
            return _Heard("undo-failed", "undo failed: its effect may stand", fact.step, fact.code, fact.reason)
        case Decided():
            about = f" {fact.step}" if fact.step else ""
            corrected = f", with corrected {', '.join(kind for kind, _ in fact.corrected)}" if fact.corrected else ""
            return _Heard("decided", f"{_SAID[fact.verb]}{about}{corrected}", fact.who, "", fact.why)
        case Redriven():
            return _Heard("decided", f"decided: redrive {fact.agent} {fact.letter}", fact.who, "", fact.why)
        case Fired():
            return _Heard("deadline", fact.detail or fact.rule, COORDINATOR, fact.rule)
        case _:
            return None


_SAID = {
    "retry": "decided: try again:",
    "done": "decided: done by hand:",
    "skip": "decided: leave it:",
    "abandon": "decided: abandon the saga",
}


def _of_end(envelope: Envelope) -> _Heard:
    data = cast("dict[str, object]", json.loads(envelope.data))
    if data.get("failed"):
        return _Heard("turned-back", "turned back", COORDINATOR, str(data["code"]), str(data["reason"]))
    return _Heard("let-go", "joins let go", COORDINATOR)


def _tell(saga: str, telling: _Telling, directory: Directory, lane: _Lane) -> Story:
    found = directory.sagas.get(telling.name or "")
    plan = Plan(
        saga=found.name if found else "",
        starts=found.starts if found else "",
        completes=found.completes if found else "",
        fails=frozenset(found.fails if found else ()),
        declared={agent: known[-1] for agent, known in lane.declared.items()},
        former=lane.versions,
        earlier={agent: known[:-1] for agent, known in lane.declared.items() if len(known) > 1},
    )
    history = History().with_facts(telling.facts)
    summary = Summary(saga, telling.name, telling.subject, status(plan, history), telling.started_ms, telling.ended_ms)
    return Story(
        summary=summary,
        failure=failure(plan, history),
        chapters=tuple(sorted(telling.chapters, key=lambda each: (each.at_ms, each.offset))),
        owed=open_debts(plan, history) if telling.ended_ms is None else (),
        standing=standing(plan, history),
        stuck=stuck(plan, history) if telling.ended_ms is None else (),
        unseen=unseen(plan, history),
        events=tuple(telling.events),
        times=telling.times,
        plan=plan,
        history=history,
    )
