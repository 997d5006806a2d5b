"""Intake: how anything from outside becomes an event of a saga, its start or an answer. Pure: records in, admissions out."""

import json
from dataclasses import dataclass
from typing import cast

from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.envelope import Envelope, carried_trace, headers_of, is_event, parse
from pavane_events.errors import ContractViolation, Problem, UndecodableRecord
from pavane_events.event import Event
from pavane_events.ids import derived, uuid7
from pavane_events.partition import partition_of
from pavane_events.record import Record
from pavane_saga.saga import Saga
from pavane_saga.wire import timestamp

LARGEST_START = MAX_RECORD_BYTES - 65_536
"""Bytes of the data of an event from outside: the rest is for its headers, and for the words of an undo command around it."""

IDEMPOTENCY_KEY = "idempotency-key"
"""The header by which a producer of plain JSON may name its record, so that sending it twice starts one saga."""


def saga_id_of(source: str, event_id: str) -> str:
    """The id of the saga that an event from outside starts: derived, so that the same event starts the same saga.

    A producer that keys its record by this id saves the second hop.
    """
    return derived("saga", source, event_id)


@dataclass(frozen=True, slots=True)
class Admission:
    """A valid record, and the event that it becomes. ``named``: its id is derived and may come twice. ``is_answer``: it
    starts no saga, it belongs to one that runs."""

    origin: Envelope
    event: Envelope
    named: bool
    is_answer: bool = False


def admit(record: Record, saga: Saga, partitions: int, now_s: float) -> Admission:
    """What a record of the intake topic becomes.

    Plain JSON or a CloudEvent of the start event's type (or of the intake topic's own name), any key; or a CloudEvent of
    one of the saga's ``answers`` with the ``sagaid`` that it answers. Strict: a field that the contract does not name is a
    problem. Raises :class:`UndecodableRecord` or :class:`ContractViolation` with
    every problem listed.
    """
    value = record.value
    if value is not None and len(value) > MAX_RECORD_BYTES:
        raise UndecodableRecord("too large", [Problem("value", "value.too-large", f"more than {MAX_RECORD_BYTES} bytes")])
    origin, named = _origin(record)
    answer = next((each for each in saga.answers if named and each.event_type == origin.type), None)
    if answer is not None:
        return Admission(origin, _answer(origin, saga, answer, now_s), named=True, is_answer=True)
    starts = saga.starts
    if named and origin.type not in (starts.event_type, saga.intake):
        takes = " or ".join(each.event_type for each in (starts, *saga.answers))
        wrong = f"{origin.type} is not what {saga.name} takes in: send {takes}"
        raise UndecodableRecord("not for this intake", [Problem("ce_type", "intake.type", wrong)])
    data = _data(origin, starts)
    saga_id = saga_id_of(origin.source, origin.id) if named else _local_id(record.partition, partitions)
    start = Envelope(
        id=derived("start", saga_id),
        source=f"/sagas/{saga.name}",
        type=starts.event_type,
        data=data,
        time=timestamp(now_s),
        subject=origin.subject,
        dataschema=starts.dataschema(),
        saga=saga_id,
    )
    return Admission(origin, start, named)


def answer_id_of(saga: str, kind: str, source: str, event_id: str) -> str:
    """The id of the event that an answer from outside becomes: derived, so that the same answer counts once."""
    return derived("answer", saga, kind, source, event_id)


def _answer(origin: Envelope, saga: Saga, kind: type[Event], now_s: float) -> Envelope:
    if origin.saga is None:
        missing = f"{kind.event_type} answers a saga: say which, as ce_sagaid"
        raise UndecodableRecord("an answer to nobody", [Problem("ce_sagaid", "answer.no-saga", missing)])
    return Envelope(
        id=answer_id_of(origin.saga, kind.event_type, origin.source, origin.id),
        source=f"/sagas/{saga.name}",
        type=kind.event_type,
        data=_data(origin, kind),
        time=timestamp(now_s),
        subject=origin.subject,
        dataschema=kind.dataschema(),
        saga=origin.saga,
    )


def _data(origin: Envelope, kind: type[Event]) -> bytes:
    """What was sent, as its contract writes it."""
    version = origin.version()
    if version is not None and version > kind.event_version:
        known = f"version {version}, and this intake knows version {kind.event_version}: upgrade it before its producers"
        raise ContractViolation(kind.event_type, [Problem("ce_dataschema", "contract.future-version", known)])
    data = kind.from_json_strictly(origin.data).to_json()
    if len(data) > LARGEST_START:
        large = Problem("value", "value.too-large", f"{len(data)} bytes as an event, {LARGEST_START} fit")
        raise UndecodableRecord("too large", [large])
    return data


def _origin(record: Record) -> tuple[Envelope, bool]:
    """The record as an event, whether it is one or plain JSON; and whether it has a name of its own."""
    if is_event(record):
        return parse(record), True
    if record.value is None:
        raise UndecodableRecord("no application", [Problem("value", "value.null", "the record has no value")])
    headers = headers_of(record.headers)
    key = headers.get(IDEMPOTENCY_KEY)
    origin = Envelope(
        id=key or f"{record.topic}/{record.partition}/{record.offset}",
        source=f"/intake/{record.topic}",
        type=record.topic,
        data=record.value,
        subject=_subject(record.value),
        trace=carried_trace(headers).without_baggage(),
    )
    return origin, key is not None


def _subject(value: bytes) -> str | None:
    """The business id of plain JSON: its ``id``, or its first field whose name ends in ``_id``."""
    try:
        document: object = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    for name, member in cast("dict[str, object]", document).items():
        if (name == "id" or name.endswith("_id")) and isinstance(member, str | int):
            return str(member)[:200]
    return None


def _local_id(partition: int, partitions: int) -> str:
    """A new UUIDv7 that the lane itself owns, so that nothing needs a second hop."""
    while True:
        candidate = uuid7()
        if partition_of.__wrapped__(candidate.encode(), partitions) == partition:
            return candidate
