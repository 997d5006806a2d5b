"""Hops: what the topics prove of who worked on what in a saga, for the check that its trace says the same."""

from collections.abc import AsyncIterator

from pavane_events.bus import Bus
from pavane_events.envelope import Envelope, parse
from pavane_events.errors import UndecodableRecord, UnknownTopic
from pavane_events.record import Record
from pavane_saga.facts import Blocked, Locked, LockRefused, Requested, Settled, UndoFailed, Undone
from pavane_saga.manifest import Directory
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ADMISSIONS, ENDS, FACTS, GRANT, UNDO, commands_topic, read_fact, read_grant, read_undo_request
from pavane_tracing.sent import Kind, Sent, span_of


async def sent_records(bus: Bus, directory: Directory, saga: str | None = None) -> AsyncIterator[Sent]:
    """Every record of a saga, or of all of them, topic by topic, one at a time. Raises :class:`BusError`."""
    commands = sorted(commands_topic(agent) for agent in directory.agents)
    key = saga.encode() if saga is not None else None
    for topic in (*sorted(directory.topics()), *commands, FACTS, ENDS, ADMISSIONS, SagaEnded.event_type):
        try:
            async for record in bus.read(topic, key=key):
                sent = sent_of(record)
                if sent is not None:
                    yield sent
        except UnknownTopic:
            continue


def sent_of(record: Record) -> Sent | None:
    """What a record proves; None where it is of no saga, or none of its records: a copy that waits, a dead letter, junk."""
    try:
        envelope = parse(record)
        if envelope.saga is None:
            return None
        if record.topic == FACTS:
            return _of_fact(record, envelope)
        if envelope.type == UNDO:
            asked = read_undo_request(envelope)
            if _is_copy(record, asked.step):
                return None
            links = tuple(send for each in asked.outputs if (send := span_of(each)[0]) is not None)
            return _sent(record, envelope, "undo", asked.step, asked.causes, links=links)
        if envelope.type == GRANT:
            granted = read_grant(envelope)
            if _is_copy(record, granted.step):
                return None
            last = max(granted.inputs, key=lambda each: (each.depth, each.id))  # what the agent calls its input
            return _sent(record, envelope, "grant", granted.step, granted.causes, identity=last.id)
        if record.topic in (ENDS, ADMISSIONS, SagaEnded.event_type):
            return _sent(record, envelope, "other")
        if record.topic != envelope.type:  # a copy that waits, or is a dead letter
            return None
        return _sent(record, envelope, "event", envelope.step or "", envelope.causes)
    except UndecodableRecord:
        return None


def _is_copy(record: Record, step: str) -> bool:
    """Whether a command waits to be tried again, or is a dead letter: it was given once, elsewhere."""
    return record.topic != commands_topic(step.partition("/")[0])


def _of_fact(record: Record, envelope: Envelope) -> Sent:
    fact = read_fact(envelope)
    match fact:
        case Settled():
            return _sent(record, envelope, "answer", fact.step, fact.causes)
        case Requested():
            return _sent(record, envelope, "requested", fact.step, fact.causes)
        case Undone() | UndoFailed():
            return _sent(record, envelope, "undone", fact.step, fact.causes)
        case _:
            return _sent(record, envelope, "other", again=isinstance(fact, Locked | LockRefused | Blocked))


def _sent(
    record: Record,
    envelope: Envelope,
    kind: Kind,
    step: str = "",
    causes: tuple[str, ...] = (),
    *,
    links: tuple[tuple[str, str], ...] = (),
    identity: str | None = None,
    again: bool = False,
) -> Sent:
    send, sampled = span_of(envelope)
    return Sent(
        topic=record.topic,
        id=identity or envelope.id,
        type=envelope.type,
        saga=envelope.saga or "",
        send=send,
        sampled=sampled,
        kind=kind,
        step=step,
        causes=tuple(sorted(causes)),
        links=links,
        again=again,
    )
