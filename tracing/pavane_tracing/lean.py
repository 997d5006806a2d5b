"""Lean spans: the platform's own spans where they are only kept and not exported, at a third of the SDK's cost.

They implement OpenTelemetry's API, so the user's spans, which are the SDK's, nest inside them.
"""

from collections.abc import Mapping, Sequence
from random import getrandbits
from time import time_ns
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.util.types import AnyValue, Attributes

from pavane_tracing.unit import unit_in

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)


class LeanEvent(NamedTuple):
    """Something that happened within a span."""

    name: str
    timestamp: int
    attributes: Attributes


class LeanSpan(Span):
    """A span that is a record and no more. It owns the attributes it is given. For one thread at a time."""

    __slots__ = (
        "_context",
        "attributes",
        "end_time",
        "events",
        "kind",
        "links",
        "name",
        "parent",
        "start_time",
        "status",
    )

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AnyValue],
        links: Sequence[Link],
        start_time: int,
    ) -> None:
        self.name = name
        self._context = context
        self.parent = parent
        self.kind = kind
        self.attributes = attributes
        self.links = links
        self.start_time = start_time
        self.end_time: int | None = None
        self.events: list[LeanEvent] = []
        self.status = _UNSET

    def get_span_context(self) -> SpanContext:
        """Its identity."""
        return self._context

    def is_recording(self) -> bool:
        """Until it has ended."""
        return self.end_time is None

    def end(self, end_time: int | None = None) -> None:
        """The first call counts."""
        if self.end_time is None:
            self.end_time = end_time if end_time is not None else time_ns()

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Add attributes, while it records."""
        if self.end_time is None:
            self.attributes.update(attributes)

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Add one attribute, while it records."""
        if self.end_time is None:
            self.attributes[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Add an event, while it records."""
        if self.end_time is None:
            self.events.append(LeanEvent(name, timestamp if timestamp is not None else time_ns(), attributes))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link, while it records."""
        if self.end_time is None:
            self.links = [*self.links, Link(context, attributes)]

    def update_name(self, name: str) -> None:
        """Call it something else, while it records."""
        if self.end_time is None:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status, while it records; the last one counts, but nothing overrides OK."""
        if self.end_time is None and self.status.status_code is not StatusCode.OK:
            self.status = status if isinstance(status, Status) else Status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """An event that names the exception's type; its message may hold data, so it stays out."""
        kind = type(exception)
        name = {"exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.escaped": str(escaped)}
        self.add_event("exception", {**name, **(attributes or {})}, timestamp)


class LeanTracer:
    """Starts lean spans. The sampling of the parent is followed; a trace that begins here is sampled."""

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
    ) -> Span:
        """A span within the context's; the unit of work in the context keeps it."""
        origin = get_current_span(context).get_span_context()
        parent = origin if origin.is_valid else None
        span_id = getrandbits(64) or 1
        if parent is None:
            identity = SpanContext(getrandbits(128) or 1, span_id, False, _SAMPLED)
        elif parent.trace_flags & TraceFlags.SAMPLED:
            identity = SpanContext(parent.trace_id, span_id, False, _SAMPLED, parent.trace_state)
        else:
            unsampled = SpanContext(parent.trace_id, span_id, False, TraceFlags(0), parent.trace_state)
            return NonRecordingSpan(unsampled)
        owned = attributes if isinstance(attributes, dict) else dict(attributes or {})
        span = LeanSpan(name, identity, parent, kind, owned, links or (), time_ns())
        unit = unit_in(context)
        if unit is not None:
            unit.add(span_id, span, always=True)
        return span
