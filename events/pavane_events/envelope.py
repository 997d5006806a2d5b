"""Envelope: an event with everything the platform knows of it, and its place on the wire (CloudEvents 1.0).

Kafka binding: binary mode out; binary and structured mode in. A record is parsed once, however many lanes read it.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, cast

from pavane_events.errors import Problem, UndecodableRecord
from pavane_events.record import Headers, Message, Record

JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
MOST_CAUSES = 16
_MOST_HEADERS = 64

_REQUIRED = ("id", "source", "type")
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Trace(NamedTuple):
    """The trace context that travels with a record, as its headers say it (W3C Trace Context, Baggage)."""

    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None


NO_TRACE = Trace()


@dataclass(slots=True, kw_only=True)
class Envelope:
    """An event on its way. Treat as immutable (:func:`dataclasses.replace` makes another).

    ``data`` is the event as JSON, not yet held against any contract. ``causation`` is the input that completed the
    step, ``causes`` are the ids of all its inputs, ``step`` is ``agent/step``, ``depth`` is one more than the deepest
    cause's, ``part`` and ``parts`` count the outputs of one step, ``declaration`` is the version its lane declared.
    """

    id: str
    source: str
    type: str
    data: bytes
    time: str | None = None
    subject: str | None = None
    dataschema: str | None = None
    saga: str | None = None
    causation: str | None = None
    causes: tuple[str, ...] = ()
    step: str | None = None
    depth: int = 0
    part: int = 1
    parts: int = 1
    declaration: str | None = None
    trace: Trace = NO_TRACE

    def to_message(self, topic: str | None = None, *, key: str | None = None, partition: int | None = None) -> Message:
        """The event as a message in binary mode; topic and key default to type and saga (else subject)."""
        chosen = key or self.saga or self.subject
        return Message(
            topic=topic or self.type,
            value=self.data,
            key=chosen.encode() if chosen else None,
            headers=self._headers(),
            partition=partition,
            parsed=self,
        )

    def to_structured(self) -> bytes:
        """The event as one JSON object in structured mode: how commands carry a step's inputs and outputs."""
        attributes: dict[str, object] = {
            name.removeprefix("ce_"): value.decode() for name, value in self._headers() if name.startswith("ce_")
        }
        attributes["datacontenttype"] = JSON
        for name in ("traceparent", "tracestate"):
            value = getattr(self.trace, name)
            if value:
                attributes[name] = value
        return _ENCODE(attributes).encode()[:-1] + b',"data":' + self.data + b"}"

    def version(self) -> int | None:
        """The contract version named by ``ce_dataschema`` (``urn:pavane:<type>:1``), or None where it names none."""
        prefix = f"urn:pavane:{self.type}:"
        schema = self.dataschema
        if schema is None or not schema.startswith(prefix) or not schema[len(prefix) :].isdecimal():
            return None
        return int(schema[len(prefix) :])

    def with_trace(self, trace: Trace) -> "Envelope":
        """The same event under another trace context."""
        return replace(self, trace=trace)

    def of_saga(self, saga: str) -> "Envelope":
        """The same event as part of a saga."""
        return replace(self, saga=saga)

    def _headers(self) -> Headers:
        headers: list[tuple[str, bytes]] = [
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_id", self.id.encode()),
            ("ce_source", self.source.encode()),
            ("ce_type", self.type.encode()),
        ]
        for name, value in (
            ("ce_time", self.time),
            ("ce_subject", self.subject),
            ("ce_dataschema", self.dataschema),
            ("ce_sagaid", self.saga),
            ("ce_causationid", self.causation),
            ("ce_step", self.step),
            ("ce_declaration", self.declaration),
        ):
            if value:
                headers.append((name, value.encode()))
        if self.causes:
            headers.append(("ce_causes", _ENCODE(self.causes).encode()))
        if self.depth:
            headers.append(("ce_depth", str(self.depth).encode()))
        if self.step:
            headers.append(("ce_part", f"{self.part}/{self.parts}".encode()))
        trace = self.trace
        if trace.traceparent:
            headers.append(("traceparent", trace.traceparent.encode()))
            if trace.tracestate:
                headers.append(("tracestate", trace.tracestate.encode()))
        if trace.baggage:
            headers.append(("baggage", trace.baggage.encode()))
        return tuple(headers)


def is_event(record: Record) -> bool:
    """Whether a record claims to be a CloudEvent, in either mode; plain JSON does not."""
    for name, value in record.headers:
        if name.startswith("ce_") or (name == "content-type" and value.startswith(b"application/cloudevents")):
            return True
    return False


def parse(record: Record) -> Envelope:
    """The event that a record carries, whichever mode it is in. Parsed once per record, failures too.

    Raises :class:`UndecodableRecord` with every problem: a null value, a header missing, doubled or malformed, a value
    that is no JSON. The data is checked to be JSON in structured mode only: in binary mode the contract does that.
    """
    parsed = record.parsed
    if isinstance(parsed, Envelope):
        return parsed
    if isinstance(parsed, UndecodableRecord):
        raise parsed
    try:
        envelope = _parse(record)
    except UndecodableRecord as error:
        record.parsed = error
        raise
    record.parsed = envelope
    return envelope


def parse_structured(data: bytes) -> Envelope:
    """The event in one JSON object (structured mode). Raises :class:`UndecodableRecord`."""
    return _structured(data, NO_TRACE)


def _parse(record: Record) -> Envelope:
    problems: list[Problem] = []
    headers: dict[str, str] = {}
    if len(record.headers) > _MOST_HEADERS:
        problems.append(Problem("headers", "headers.too-many", f"more than {_MOST_HEADERS} headers"))
    for name, value in record.headers[:_MOST_HEADERS]:
        lowered = name.lower()
        if lowered in headers and lowered not in ("tracestate", "baggage"):
            problems.append(Problem(lowered, "header.doubled", "the header is there more than once: send it once"))
            continue
        try:
            headers[lowered] = value.decode()
        except UnicodeDecodeError:
            if lowered.startswith("ce_") or lowered in ("content-type", "traceparent"):
                problems.append(Problem(lowered, "header.encoding", "the header is not UTF-8"))
    if record.value is None:
        problems.append(Problem("value", "value.null", "an event has a value: a null one is for compacted tables only"))
    if problems or record.value is None:
        raise UndecodableRecord("the record is no event", problems)
    trace = Trace(traceparent=headers.get("traceparent"), tracestate=headers.get("tracestate"), baggage=headers.get("baggage"))
    if headers.get("content-type", "").partition(";")[0].strip().lower() == STRUCTURED:
        return _structured(record.value, trace)
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
    return _envelope(attributes, record.value, trace, "ce_")


def _structured(value: bytes, trace: Trace) -> Envelope:
    try:
        document: object = json.loads(value)
    except (ValueError, RecursionError):
        raise UndecodableRecord("the record is no event", [Problem("value", "value.json", "not JSON")]) from None
    if not isinstance(document, dict):
        raise UndecodableRecord(
            "the record is no event", [Problem("value", "value.object", "a structured event is one JSON object")]
        )
    members = cast("dict[str, object]", document)
    data = json.dumps(members.pop("data", None), separators=(",", ":"), ensure_ascii=False).encode()
    attributes: dict[str, str] = {}
    for name, member in members.items():
        if isinstance(member, str):
            attributes[name.lower()] = member
        elif isinstance(member, int) and not isinstance(member, bool):
            attributes[name.lower()] = str(member)
    if trace.traceparent is None and "traceparent" in attributes:
        trace = Trace(traceparent=attributes["traceparent"], tracestate=attributes.get("tracestate"))
    return _envelope(attributes, data, trace, "")


def _envelope(attributes: dict[str, str], data: bytes, trace: Trace, prefix: str) -> Envelope:
    problems: list[Problem] = []
    if attributes.get("specversion") != "1.0":
        problems.append(Problem(f"{prefix}specversion", "specversion", "must be 1.0 (CloudEvents 1.0)"))
    problems.extend(
        Problem(f"{prefix}{name}", "attribute.missing", "the attribute is required and must not be empty")
        for name in _REQUIRED
        if not attributes.get(name)
    )
    time = attributes.get("time")
    if time is not None and not _is_timestamp(time):
        problems.append(Problem(f"{prefix}time", "time", "must be an RFC 3339 timestamp"))
    causes = _causes(attributes.get("causes"), problems, prefix)
    depth = _count(attributes.get("depth", "0"))
    part, _, parts = attributes.get("part", "1/1").partition("/")
    counted = _count(part), _count(parts)
    if depth is None:
        problems.append(Problem(f"{prefix}depth", "depth", "must be a whole number"))
    if counted[0] is None or counted[1] is None or not 1 <= counted[0] <= counted[1] <= MOST_CAUSES * 4:
        problems.append(Problem(f"{prefix}part", "part", "must read like 1/2"))
    if problems:
        raise UndecodableRecord("the record is no event", problems)
    return Envelope(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        data=data,
        time=time,
        subject=attributes.get("subject"),
        dataschema=attributes.get("dataschema"),
        saga=attributes.get("sagaid"),
        causation=attributes.get("causationid"),
        causes=causes,
        step=attributes.get("step"),
        depth=depth or 0,
        part=counted[0] or 1,
        parts=counted[1] or 1,
        declaration=attributes.get("declaration"),
        trace=trace,
    )


def _causes(text: str | None, problems: list[Problem], prefix: str) -> tuple[str, ...]:
    if text is None:
        return ()
    try:
        causes: object = json.loads(text)
    except (ValueError, RecursionError):
        causes = None
    if isinstance(causes, list):
        found = cast("list[object]", causes)
        if 0 < len(found) <= MOST_CAUSES and all(isinstance(cause, str) for cause in found):
            return tuple(cast("list[str]", found))
    problems.append(Problem(f"{prefix}causes", "causes", f"must be a JSON array of 1 to {MOST_CAUSES} event ids"))
    return ()


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _is_timestamp(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
