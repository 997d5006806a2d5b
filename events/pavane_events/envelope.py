"""Envelope: an event with everything the platform knows of it, and its place on the wire (CloudEvents 1.0).

Kafka binding: binary mode out; binary and structured mode in. A record is parsed once, however many lanes read it.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, cast

from pydantic_core import from_json, to_json

from pavane_events.compact import read_json, write_json
from pavane_events.errors import Problem, UndecodableRecord
from pavane_events.plain import Plain, plain
from pavane_events.record import Headers, Message, Record

JSON: Final = "application/json"
STRUCTURED: Final = "application/cloudevents+json"
MOST_CAUSES: Final = 16
MOST_PARTS: Final = 64
LONGEST_ATTRIBUTE: Final = 2048
"""Characters of one attribute, and of one id among the causes: they go into state, commands and headers of others."""
_LONGEST_TRACE: Final = 8192
_MOST_HEADERS: Final = 64
_LONGEST_NUMBER: Final = 9

_REQUIRED: Final = ("id", "source", "type")
_READ: Final = (*_REQUIRED, "time", "subject", "dataschema", "sagaid", "causationid", "step", "declaration")
_MEMBERS: Final = frozenset((*_READ, "specversion", "causes", "depth", "part", "datacontenttype", "traceparent", "tracestate"))
_CAUSES: Final = re.compile(r'\["[^"\\]+"(?:,"[^"\\]+")*\]')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTENT_TYPE: Final = ("content-type", JSON.encode())
_SPECVERSION: Final = ("ce_specversion", b"1.0")
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True, init=False, unsafe_hash=True)
class Trace:
    """The trace context that travels with a record, as its headers say it (W3C Trace Context, Baggage). Treat as immutable."""

    traceparent: str | None
    tracestate: str | None
    baggage: str | None

    def __init__(self, traceparent: str | None = None, tracestate: str | None = None, baggage: str | None = None) -> None:
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.baggage = baggage

    def stamped(self, tracestate: str | None) -> "Trace":
        """The same context with another ``tracestate``."""
        return Trace(self.traceparent, tracestate, self.baggage)

    def without_baggage(self) -> "Trace":
        """The same context as far as it says nothing of the user's."""
        return Trace(self.traceparent, self.tracestate)

    def said(self) -> dict[str, str]:
        """The headers that it has, by name."""
        named = (("traceparent", self.traceparent), ("tracestate", self.tracestate), ("baggage", self.baggage))
        return {name: value for name, value in named if value}


TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
_LISTS: Final = ("tracestate", "baggage")
"""Headers that may come in parts, which are one list in the order in which they came: W3C Trace Context 3.3.1, Baggage 3.2."""


NO_TRACE: Final = Trace()


@dataclass(slots=True, kw_only=True, init=False)
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

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 -- as CloudEvents calls it
        source: str,
        type: str,  # noqa: A002
        data: bytes,
        time: str | None = None,
        subject: str | None = None,
        dataschema: str | None = None,
        saga: str | None = None,
        causation: str | None = None,
        causes: tuple[str, ...] = (),
        step: str | None = None,
        depth: int = 0,
        part: int = 1,
        parts: int = 1,
        declaration: str | None = None,
        trace: Trace = NO_TRACE,
    ) -> None:
        self.id = id
        self.source = source
        self.type = type
        self.data = data
        self.time = time
        self.subject = subject
        self.dataschema = dataschema
        self.saga = saga
        self.causation = causation
        self.causes = causes
        self.step = step
        self.depth = depth
        self.part = part
        self.parts = parts
        self.declaration = declaration
        self.trace = trace

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
        """The event as one JSON object in structured mode: how commands carry a step's inputs and outputs.

        Data that is no JSON goes in as ``data_base64``, so that what comes out is JSON, whatever came in.
        """
        attributes: dict[str, object] = {
            name.removeprefix("ce_"): value.decode() for name, value in self._headers() if name.startswith("ce_")
        }
        attributes["datacontenttype"] = JSON
        for name in ("traceparent", "tracestate"):
            value = getattr(self.trace, name)
            if value:
                attributes[name] = value
        head = write_json(attributes)[:-1]
        if _is_json(self.data):
            return b"".join((head, b',"data":', self.data, b"}"))
        return b"".join((head, b',"data_base64":"', b64encode(self.data), b'"}'))

    def version(self) -> int | None:
        """The contract version named by ``ce_dataschema`` (``urn:pavane:<type>:1``), or None where it names none."""
        prefix = f"urn:pavane:{self.type}:"
        schema = self.dataschema
        if schema is None or not schema.startswith(prefix):
            return None
        number = schema[len(prefix) :]
        return int(number[: _LONGEST_NUMBER + 1]) if number.isascii() and number.isdecimal() else None

    def with_trace(self, trace: Trace) -> "Envelope":
        """The same event under another trace context."""
        return replace(self, trace=trace)

    def of_saga(self, saga: str) -> "Envelope":
        """The same event as part of a saga."""
        return replace(self, saga=saga)

    def _headers(self) -> Headers:
        headers: list[tuple[str, bytes]] = [
            _CONTENT_TYPE,
            _SPECVERSION,
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
            headers.append(("ce_causes", causes_header(self.causes)))
        if self.depth:
            headers.append(("ce_depth", b"%d" % self.depth))
        if self.step:
            headers.append(("ce_part", b"%d/%d" % (self.part, self.parts)))
        return (*headers, *trace_headers(self.trace))


def trace_headers(trace: Trace) -> list[tuple[str, bytes]]:
    """The headers of a trace context."""
    headers: list[tuple[str, bytes]] = []
    if trace.traceparent:
        headers.append(("traceparent", trace.traceparent.encode()))
        if trace.tracestate:
            headers.append(("tracestate", trace.tracestate.encode()))
    if trace.baggage:
        headers.append(("baggage", trace.baggage.encode()))
    return headers


def causes_header(causes: tuple[str, ...]) -> bytes:
    """The causes as a JSON array; the usual one id, of letters, digits and hyphens, needs no encoder."""
    if len(causes) == 1:
        (cause,) = causes
        if cause.isascii() and cause.replace("-", "").isalnum():
            return b'["%s"]' % cause.encode()
    return _ENCODE(causes).encode()


def is_event(record: Record) -> bool:
    """Whether a record claims to be a CloudEvent, in either mode; plain JSON does not."""
    for name, value in record.headers:
        lowered = name.lower()
        if lowered.startswith("ce_"):
            return True
        if lowered == "content-type" and value.lstrip().lower().startswith(b"application/cloudevents"):
            return True
    return False


def carried_trace(headers: Mapping[str, str]) -> Trace:
    """The trace context among headers or attributes. What no tracer can have written is left behind: it is not an error."""
    carried = {
        name: value
        for name in TRACE_HEADERS
        if (value := headers.get(name)) is not None and value.isascii() and len(value) <= _LONGEST_TRACE
    }
    return Trace(**carried)


def headers_of(headers: Headers) -> dict[str, str]:
    """Headers as text, by name in lower case. Of those that are there twice the first counts, but lists are joined."""
    found: dict[str, str] = {}
    for name, value in headers:
        lowered, text = name.lower(), value.decode(errors="replace")
        if lowered not in found:
            found[lowered] = text
        elif lowered in _LISTS:
            found[lowered] += f",{text}"
    return found


def unread(record: Record) -> Envelope:
    """What stands for a record in its trace: itself where it is an event, else its place, under the context that it carries.

    Of headers that are there twice the first counts, and lists are joined. Nothing but a trace is made of it.
    """
    if isinstance(record.parsed, Envelope):
        return record.parsed
    headers = headers_of(record.headers[:_MOST_HEADERS])
    place = f"{record.topic}/{record.partition}/{record.offset}"
    trace = carried_trace(headers).without_baggage()
    return Envelope(id=place, source=f"/{record.topic}", type=record.topic, data=record.value or b"", trace=trace)


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
    found = plain(*record.columns)
    if found is not None and record.value is not None:
        record.parsed = envelope = _of_plain(found, record.value)
        return envelope
    try:
        envelope = _parse_with_care(record)
    except UndecodableRecord as error:
        record.parsed = error
        raise
    record.parsed = envelope
    return envelope


def parse_structured(data: bytes) -> Envelope:
    """The event in one JSON object (structured mode). Raises :class:`UndecodableRecord`."""
    return _structured(data, NO_TRACE)


def read_structured(document: object, trace: Trace = NO_TRACE) -> Envelope:
    """The event in the JSON value of structured mode, which is used up. Raises :class:`UndecodableRecord`."""
    if not isinstance(document, dict):
        raise UndecodableRecord(
            "the record is no event", [Problem("value", "value.object", "a structured event is one JSON object")]
        )
    members = cast("dict[str, object]", document)
    data = _data(members.pop("data", None), members.pop("data_base64", None))
    usual = _usual(members, data, trace)
    if usual is not None:
        return usual
    attributes: dict[str, str] = {}
    for name, member in members.items():
        if isinstance(member, str):
            attributes[name.lower()] = member
        elif isinstance(member, int) and not isinstance(member, bool):
            attributes[name.lower()] = str(member)
    if trace.traceparent is None:
        trace = carried_trace(attributes)
    return _envelope(attributes, data, trace, "")


def _of_plain(found: Plain, data: bytes) -> Envelope:
    identity, source, kind, time, subject, schema, saga, causation, causes, step, depth, declaration, parent, state = found
    return Envelope(
        id=identity,
        source=source,
        type=kind,
        data=data,
        time=time,
        subject=subject,
        dataschema=schema,
        saga=saga,
        causation=causation,
        causes=causes,
        step=step,
        depth=depth,
        declaration=declaration,
        trace=NO_TRACE if parent is None and state is None else Trace(parent, state),
    )


def _parse_with_care(record: Record) -> Envelope:
    problems: list[Problem] = []
    headers: dict[str, str] = {}
    if len(record.headers) > _MOST_HEADERS:
        problems.append(Problem("headers", "headers.too-many", f"more than {_MOST_HEADERS} headers"))
    for name, value in record.headers[:_MOST_HEADERS]:
        lowered = name.lower()
        before = headers.get(lowered)
        if before is not None and lowered not in _LISTS:
            problems.append(Problem(lowered, "header.doubled", "the header is there more than once: send it once"))
            continue
        try:
            headers[lowered] = value.decode() if before is None else f"{before},{value.decode()}"
        except UnicodeDecodeError:
            if lowered.startswith("ce_") or lowered in ("content-type", "traceparent"):
                problems.append(Problem(lowered, "header.encoding", "the header is not UTF-8"))
    if record.value is None:
        problems.append(Problem("value", "value.null", "an event has a value: a null one is for compacted tables only"))
    if problems or record.value is None:
        raise UndecodableRecord("the record is no event", problems)
    trace = carried_trace(headers)
    if headers.get("content-type", "").partition(";")[0].strip().lower() == STRUCTURED:
        return _structured(record.value, trace)
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
    return _envelope(attributes, record.value, trace, "ce_")


def _structured(value: bytes, trace: Trace) -> Envelope:
    try:
        document = read_json(value)
    except (ValueError, RecursionError):
        raise UndecodableRecord("the record is no event", [Problem("value", "value.json", "not JSON")]) from None
    return read_structured(document, trace)


def _usual(members: Mapping[str, object], data: bytes, trace: Trace) -> Envelope | None:
    """The event where its attributes are as :meth:`Envelope.to_structured` writes them; None where anything is unusual.

    Then :func:`_envelope` says what it is; both give the same (``tests/unit/test_envelope_structured.py``).
    """
    if not members.keys() <= _MEMBERS:
        return None
    texts = cast("Mapping[str, str]", members)
    try:
        together = "".join(texts.values())
    except TypeError:
        return None
    if len(together) > LONGEST_ATTRIBUTE or not (together.isascii() and together.isprintable()):
        return None
    get = texts.get
    identity, source, kind, time = get("id"), get("source"), get("type"), get("time")
    saga, causes, depth = get("sagaid"), get("causes"), _count(get("depth", "0"))
    if get("specversion") != "1.0" or get("part", "1/1") != "1/1" or depth is None:
        return None
    if not (identity and source and kind) or (saga and "/" in saga) or (time is not None and not _is_timestamp(time)):
        return None
    if causes is not None and not _CAUSES.fullmatch(causes):
        return None
    found = tuple(causes[2:-2].split('","')) if causes is not None else ()
    if len(found) > MOST_CAUSES:
        return None
    return Envelope(
        id=identity,
        source=source,
        type=kind,
        data=data,
        time=time,
        subject=get("subject") or None,
        dataschema=get("dataschema") or None,
        saga=saga or None,
        causation=get("causationid") or None,
        causes=found,
        step=get("step") or None,
        depth=depth,
        declaration=get("declaration") or None,
        trace=trace if trace.traceparent is not None else Trace(get("traceparent"), get("tracestate")),
    )


def _data(data: object, data_base64: object) -> bytes:
    try:
        if data_base64 is None:
            return _text(data)
        if data is None and isinstance(data_base64, str):
            return b64decode(data_base64, validate=True)
    except (ValueError, RecursionError):
        pass
    problem = Problem("data", "value.data", "must be JSON in UTF-8, nested not too deeply, or else data_base64")
    raise UndecodableRecord("the record is no event", [problem])


def _text(data: object) -> bytes:
    try:
        return to_json(data, inf_nan_mode="constants")
    except ValueError:  # nested deeply, or no Unicode text
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def _is_json(data: bytes) -> bool:
    """Whether data is JSON that can be read back also when it lies a few levels deep in a document."""
    try:
        from_json(data)
    except ValueError:
        return False
    return True


def _envelope(attributes: dict[str, str], data: bytes, trace: Trace, prefix: str) -> Envelope:
    problems: list[Problem] = []
    if attributes.get("specversion") != "1.0":
        problems.append(Problem(f"{prefix}specversion", "specversion", "must be 1.0 (CloudEvents 1.0)"))
    problems.extend(
        Problem(f"{prefix}{name}", "attribute.missing", "the attribute is required and must not be empty")
        for name in _REQUIRED
        if not attributes.get(name)
    )
    _check_texts(attributes, problems, prefix)
    time = attributes.get("time")
    if time is not None and not _is_timestamp(time):
        problems.append(Problem(f"{prefix}time", "time", "must be an RFC 3339 timestamp"))
    causes = _causes(attributes.get("causes"), problems, prefix)
    depth = _count(attributes.get("depth", "0"))
    part, _, parts = attributes.get("part", "1/1").partition("/")
    counted = _count(part), _count(parts)
    if depth is None:
        problems.append(Problem(f"{prefix}depth", "depth", "must be a whole number"))
    if counted[0] is None or counted[1] is None or not 1 <= counted[0] <= counted[1] <= MOST_PARTS:
        problems.append(Problem(f"{prefix}part", "part", "must read like 1/2"))
    if problems:
        raise UndecodableRecord("the record is no event", problems)
    return Envelope(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        data=data,
        time=time,
        subject=attributes.get("subject") or None,
        dataschema=attributes.get("dataschema") or None,
        saga=attributes.get("sagaid") or None,
        causation=attributes.get("causationid") or None,
        causes=causes,
        step=attributes.get("step") or None,
        depth=depth or 0,
        part=counted[0] or 1,
        parts=counted[1] or 1,
        declaration=attributes.get("declaration") or None,
        trace=trace,
    )


def _check_texts(attributes: Mapping[str, str], problems: list[Problem], prefix: str) -> None:
    texts = {name: text for name in _READ if (text := attributes.get(name))}
    if "/" in texts.get("sagaid", ""):
        problems.append(Problem(f"{prefix}sagaid", "sagaid", "must not contain '/'"))
    joined = "".join(texts.values())
    if len(joined) <= LONGEST_ATTRIBUTE and joined.isprintable():
        return  # nearly always: nothing can be wrong
    for name, text in texts.items():
        if len(text) > LONGEST_ATTRIBUTE:
            problems.append(
                Problem(f"{prefix}{name}", "attribute.too-long", f"must not have more than {LONGEST_ATTRIBUTE} characters")
            )
        if _CONTROL.search(text):
            problems.append(Problem(f"{prefix}{name}", "attribute.characters", "must not contain control characters"))


def _is_plain(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= LONGEST_ATTRIBUTE and not _CONTROL.search(text)


def _causes(text: str | None, problems: list[Problem], prefix: str) -> tuple[str, ...]:
    if text is None:
        return ()
    try:
        causes: object = json.loads(text)
    except (ValueError, RecursionError):
        causes = None
    if isinstance(causes, list):
        found = cast("list[object]", causes)
        if 0 < len(found) <= MOST_CAUSES and all(map(_is_plain, found)):
            return tuple(cast("list[str]", found))
    problems.append(Problem(f"{prefix}causes", "causes", f"must be a JSON array of 1 to {MOST_CAUSES} event ids"))
    return ()


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER else None


def _is_timestamp(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
