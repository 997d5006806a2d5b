"""A finished span as a row: small, without the SDK, and the same whether it was just ended or read back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeVar, cast

from mypy_extensions import mypyc_attr
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
StatusName = Literal["UNSET", "OK", "ERROR"]
Known = TypeVar("Known")
Value = str | int | float | bool | list["Value"] | dict[str, "Value"] | None


@mypyc_attr(free_list_len=1)
@dataclass(slots=True, init=False, unsafe_hash=True)
class SpanLink:
    """Another span that this one has to do with. Treat as immutable."""

    trace_id: str
    span_id: str

    def __init__(self, trace_id: str, span_id: str) -> None:
        self.trace_id = trace_id
        self.span_id = span_id


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened within a span, such as a retry."""

    name: str
    time_ns: int
    attributes: Mapping[str, Value]


@dataclass(slots=True)
class SpanRow:
    """A finished span, as it is kept and drawn. Treat as immutable. Ids are hex, times nanoseconds since 1970.

    As JSON the names are those of OTLP's JSON encoding, with attributes as a plain object.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: Kind
    start_ns: int
    end_ns: int
    service: str
    attributes: Mapping[str, Value] = field(default_factory=dict[str, Value])
    links: tuple[SpanLink, ...] = ()
    events: tuple[SpanEvent, ...] = ()
    status: StatusName = "UNSET"
    status_message: str | None = None

    def text(self, key: str) -> str | None:
        """An attribute that is text, or None."""
        value = self.attributes.get(key)
        return value if isinstance(value, str) else None

    def to_json(self) -> dict[str, object]:
        """The row as a JSON object; what is empty is left out."""
        document: dict[str, object] = {
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": self.start_ns,
            "endTimeUnixNano": self.end_ns,
            "attributes": self.attributes,
            "service": self.service,
        }
        if self.parent_span_id is not None:
            document["parentSpanId"] = self.parent_span_id
        if self.links:
            document["links"] = [{"traceId": link.trace_id, "spanId": link.span_id} for link in self.links]
        if self.events:
            document["events"] = [
                {"name": event.name, "timeUnixNano": event.time_ns, "attributes": event.attributes} for event in self.events
            ]
        if self.status != "UNSET" or self.status_message is not None:
            document["status"] = {"code": self.status, "message": self.status_message}
        return document


class FinishedEvent(Protocol):
    """An event of a :class:`FinishedSpan`."""

    @property
    def name(self) -> object: ...
    @property
    def timestamp(self) -> object: ...
    @property
    def attributes(self) -> Attributes: ...


class FinishedSpan(Protocol):
    """What a row needs of the SDK's ``ReadableSpan``, which holds whatever a caller put there: see :func:`check_fit`."""

    @property
    def name(self) -> object: ...
    def get_span_context(self) -> SpanContext | None: ...
    @property
    def parent(self) -> SpanContext | None: ...
    @property
    def kind(self) -> SpanKind: ...
    @property
    def start_time(self) -> object: ...
    @property
    def end_time(self) -> object: ...
    @property
    def attributes(self) -> Attributes: ...
    @property
    def events(self) -> Sequence[FinishedEvent]: ...
    @property
    def links(self) -> Sequence[Link]: ...
    @property
    def status(self) -> Status: ...


class Unfit(ValueError):
    """A span in which something is that OpenTelemetry's interface does not take: nobody could read it."""


def check_fit(span: FinishedSpan) -> None:
    """Raises :class:`Unfit` unless names are texts (None: an empty one), and kind, status and times what they are called."""
    _check(span.name, span.start_time)
    _check(None, span.end_time)
    if not _is_among(KINDS, span.kind):
        raise Unfit("its kind is none")
    if not _is_among(STATUSES, span.status.status_code):
        raise Unfit("its status is none")
    for event in span.events:
        _check(event.name, event.timestamp)


def said_in(span: FinishedSpan) -> Iterator[tuple[object, int]]:
    """Every value in the attributes of a span, its events and links, however deep within others, and every key within others;
    with how many of protobuf's messages are around it there."""
    left: list[tuple[object, int]] = []
    for said in (span.attributes, *(event.attributes for event in span.events), *(link.attributes for link in span.links)):
        if said:
            left += [(value, 0) for value in said.values()]
    while left:
        value, depth = left.pop()
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            depth += _SEQUENCE
            left += [(each, depth) for each in cast("Sequence[object]", value)]
        elif isinstance(value, Mapping):
            depth += _MAPPING
            for key, each in cast("Mapping[object, object]", value).items():
                left += ((key, depth), (each, depth))
        yield value, depth


_SEQUENCE: Final = 2
_MAPPING: Final = 3
"""Messages for each level of values within values."""


def is_time(given: object) -> bool:
    """Whether it is one that a span can have: nanoseconds since 1970 in 64 bits."""
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= _LATEST_NS


_LATEST_NS: Final = 2**64 - 1


def _check(name: object, time_ns: object) -> None:
    if name is not None and not isinstance(name, str):
        raise Unfit(f"it has {type(name).__name__} for a name")
    if time_ns is not None and not is_time(time_ns):
        raise Unfit(f"it has {type(time_ns).__name__} for a time, or one out of range")


def _is_among(known: Mapping[Known, object], given: object) -> bool:
    return any(given is each for each in known)


def row_of(span: FinishedSpan, service: str) -> SpanRow:
    """A finished span as a row. ``service`` names the agent whose unit of work it belongs to. Raises :class:`Unfit`."""
    check_fit(span)
    context = span.get_span_context()
    parent, status, links, events = span.parent, span.status, span.links, span.events
    return SpanRow(
        trace_id=f"{context.trace_id:032x}" if context else "",
        span_id=f"{context.span_id:016x}" if context else "",
        parent_span_id=f"{parent.span_id:016x}" if parent else None,
        name=cast("str", span.name or ""),
        kind=KINDS[span.kind],
        start_ns=cast("int", span.start_time or 0),
        end_ns=cast("int", span.end_time or 0),
        service=service,
        attributes=plain_attributes(span.attributes),
        links=tuple([_link(link.context) for link in links]) if links else (),
        events=tuple([_event(event) for event in events]) if events else (),
        status=STATUSES[status.status_code],
        status_message=status.description,
    )


def row_from_json(document: object) -> SpanRow:
    """The row that :meth:`SpanRow.to_json` made. Raises KeyError, TypeError or ValueError for anything else."""
    entry = _object(document)
    status = _object(entry.get("status", {"code": "UNSET"}))
    parent, message = entry.get("parentSpanId"), status.get("message")
    return SpanRow(
        trace_id=_text(entry["traceId"]),
        span_id=_text(entry["spanId"]),
        parent_span_id=_text(parent) if parent is not None else None,
        name=_text(entry["name"]),
        kind=KINDS[SpanKind[_text(entry["kind"])]],
        start_ns=_number(entry["startTimeUnixNano"]),
        end_ns=_number(entry["endTimeUnixNano"]),
        service=_text(entry["service"]),
        attributes=_values(entry["attributes"]),
        links=tuple(
            SpanLink(_text(link["traceId"]), _text(link["spanId"])) for link in map(_object, _list(entry.get("links", [])))
        ),
        events=tuple(
            SpanEvent(_text(event["name"]), _number(event["timeUnixNano"]), _values(event["attributes"]))
            for event in map(_object, _list(entry.get("events", [])))
        ),
        status=STATUSES[StatusCode[_text(status["code"])]],
        status_message=_text(message) if message is not None else None,
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("text expected")


def _number(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError("whole number expected")


def _list(value: object) -> list[object]:
    if isinstance(value, list):
        return cast("list[object]", value)
    raise TypeError("array expected")


def _object(value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    raise TypeError("object expected")


def _values(value: object) -> Mapping[str, Value]:
    return cast("Mapping[str, Value]", _object(value))


KINDS: Final[Mapping[SpanKind, Kind]] = {
    SpanKind.INTERNAL: "INTERNAL",
    SpanKind.SERVER: "SERVER",
    SpanKind.CLIENT: "CLIENT",
    SpanKind.PRODUCER: "PRODUCER",
    SpanKind.CONSUMER: "CONSUMER",
}
STATUSES: Final[Mapping[StatusCode, StatusName]] = {
    StatusCode.UNSET: "UNSET",
    StatusCode.OK: "OK",
    StatusCode.ERROR: "ERROR",
}


def _event(event: FinishedEvent) -> SpanEvent:
    return SpanEvent(cast("str", event.name or ""), cast("int", event.timestamp or 0), plain_attributes(event.attributes))


def _link(context: SpanContext) -> SpanLink:
    return SpanLink(f"{context.trace_id:032x}", f"{context.span_id:016x}")


def plain_attributes(attributes: Attributes) -> Mapping[str, Value]:
    """Attributes as a row has them, a copy."""
    if not attributes:
        return {}
    # The SDK hands out a proxy around its own mapping; its copy() takes the dict behind it in one go.
    plain: Mapping[str, AnyValue] = attributes.copy() if isinstance(attributes, MappingProxyType) else dict(attributes)
    return cast("Mapping[str, Value]", plain)
