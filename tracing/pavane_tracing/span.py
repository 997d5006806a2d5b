"""A finished span as a row: small, without the SDK, and the same whether it was just ended or read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol, cast

from mypy_extensions import mypyc_attr
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
StatusName = Literal["UNSET", "OK", "ERROR"]
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
    def name(self) -> str: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def attributes(self) -> Attributes: ...


class FinishedSpan(Protocol):
    """What a row needs of the SDK's ``ReadableSpan``."""

    @property
    def name(self) -> str: ...
    def get_span_context(self) -> SpanContext | None: ...
    @property
    def parent(self) -> SpanContext | None: ...
    @property
    def kind(self) -> SpanKind: ...
    @property
    def start_time(self) -> int | None: ...
    @property
    def end_time(self) -> int | None: ...
    @property
    def attributes(self) -> Attributes: ...
    @property
    def events(self) -> Sequence[FinishedEvent]: ...
    @property
    def links(self) -> Sequence[Link]: ...
    @property
    def status(self) -> Status: ...


def row_of(span: FinishedSpan, service: str) -> SpanRow:
    """A finished span as a row. ``service`` names the agent whose unit of work it belongs to."""
    context = span.get_span_context()
    parent, status, links, events = span.parent, span.status, span.links, span.events
    return SpanRow(
        trace_id=f"{context.trace_id:032x}" if context else "",
        span_id=f"{context.span_id:016x}" if context else "",
        parent_span_id=f"{parent.span_id:016x}" if parent else None,
        name=span.name,
        kind=KINDS[span.kind],
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        service=service,
        attributes=plain_attributes(span.attributes),
        links=tuple([_link(link.context) for link in links]) if links else (),
        events=tuple([SpanEvent(event.name, event.timestamp, plain_attributes(event.attributes)) for event in events])
        if events
        else (),
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


def _link(context: SpanContext) -> SpanLink:
    return SpanLink(f"{context.trace_id:032x}", f"{context.span_id:016x}")


def plain_attributes(attributes: Attributes) -> Mapping[str, Value]:
    """Attributes as a row has them, a copy."""
    if not attributes:
        return {}
    # The SDK hands out a proxy around its own mapping; its copy() takes the dict behind it in one go.
    plain: Mapping[str, AnyValue] = attributes.copy() if isinstance(attributes, MappingProxyType) else dict(attributes)
    return cast("Mapping[str, Value]", plain)
