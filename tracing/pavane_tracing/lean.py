"""Lean spans: the platform's own spans as records, at a fraction of the SDK's cost, and the same when they are read.

They implement OpenTelemetry's API, so the user's spans, which are the SDK's, nest inside them. What spans of one kind
share is in their :class:`~pavane_tracing.layouts.Layout`.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from time import time_ns
from types import TracebackType
from typing import Final, NamedTuple, cast

from mypy_extensions import mypyc_attr
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import create_key
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

from pavane_events.envelope import Trace
from pavane_tracing import otlp
from pavane_tracing.attributes import EXCEPTION, Scalar, Told, exception_attributes
from pavane_tracing.attributes import Attributes as Said
from pavane_tracing.layouts import Layout, below
from pavane_tracing.limited import LimitedAttributes
from pavane_tracing.propagation import SAMPLED, UNSAMPLED, Origin, span_context, trace_state
from pavane_tracing.span import KINDS, STATUSES, SpanEvent, SpanLink, SpanRow, is_time, plain_attributes
from pavane_tracing.unfit import passed_over

PASSING_KEY: Final = create_key("pavane.passing")
"""In OpenTelemetry's context: the :class:`PassingSpan` that work goes on in, whatever span has begun since."""
_UNSET: Final = Status(StatusCode.UNSET)
_hex: Final = bytes.fromhex
_IDS: Final = 16 + 8
"""Bytes of a trace's and a span's."""


class LeanEvent(NamedTuple):
    """Something that happened within a span."""

    name: str
    time_ns: int
    attributes: BoundedAttributes


class LeanLink(NamedTuple):
    """A link that the user added."""

    link: SpanLink
    remote: bool
    attributes: BoundedAttributes
    says_something: bool
    """Else it is left out: it leads nowhere, and has nothing beside."""


@mypyc_attr(free_list_len=1)
class LeanSpan:
    """A span that is a record and no more. For one thread at a time."""

    __slots__ = (
        "_bounded",
        "_context",
        "_dropped_events",
        "_dropped_links",
        "_events",
        "_more_links",
        "_name",
        "_said",
        "_status",
        "end_ns",
        "layout",
        "links",
        "parent_id",
        "raw_id",
        "raw_parent",
        "raw_trace",
        "remote",
        "sampled",
        "span_id",
        "start_ns",
        "state",
        "trace_id",
    )

    def __init__(
        self,
        layout: Layout,
        trace_id: str,
        span_id: str,
        origin: Origin | None,
        said: dict[str, Scalar] | Told,
        links: Sequence[SpanLink] = (),
        *,
        parent_id: str | None = None,
        state: str | None = None,
        sampled: bool = True,
    ) -> None:
        """``origin``: its parent in another process or message; ``parent_id``: within the same work."""
        self.layout = layout
        self.trace_id = trace_id
        self.span_id = span_id
        self._said = said
        self.links = links
        self.remote = origin is not None
        self.sampled = sampled
        if origin is None:
            self.parent_id = parent_id
            self.state = state
        else:
            self.parent_id = origin.span_id
            self.state = origin.state
        self.end_ns: int | None = None
        self.raw_trace = self.raw_id = self.raw_parent = b""
        self._bounded: LimitedAttributes | None = None
        self._context: SpanContext | None = None
        self._events: list[LeanEvent] | None = None
        self._more_links: list[LeanLink] | None = None
        self._name: str | None = None
        self._status = _UNSET
        self._dropped_events = 0
        self._dropped_links = 0
        if len(links) > layout.most_links:
            self._keep_last_links(layout.most_links)
        self.start_ns = time_ns()

    def get_span_context(self) -> SpanContext:
        """Its identity."""
        context = self._context
        if context is None:
            trace, span = int(self.trace_id, 16), int(self.span_id, 16)
            context = self._context = SpanContext(
                trace, span, False, SAMPLED if self.sampled else UNSAMPLED, trace_state(self.state)
            )
        return context

    def is_recording(self) -> bool:
        """Until it has ended."""
        return self.end_ns is None

    def end(self, end_time: object = None) -> None:
        """The first call counts. It never ends before it began, whatever the clock says."""
        if self.end_ns is None:
            if end_time is None:
                self.end_ns = max(time_ns(), self.start_ns + 1)
            else:
                self.end_ns = _time("end", end_time)

    def say(self, found: Said) -> None:
        """The platform adds attributes, while it records; limits do not touch them."""
        if self.end_ns is None:
            self._bound().say(found)

    def set_attributes(self, attributes: object) -> None:
        """Add attributes, while it records."""
        if self.end_ns is None:
            try:
                bounded = cast("MutableMapping[object, object]", self._bound())
                for key, value in cast("Mapping[object, object]", attributes).items():
                    bounded[str(key) if key and not isinstance(key, str) else key] = value
            except Exception:  # no mapping, or values that cannot be looked at
                passed_over("set_attributes", attributes)

    def set_attribute(self, key: object, value: object) -> None:
        """Add one attribute, while it records."""
        if self.end_ns is None:
            try:
                cast("MutableMapping[object, object]", self._bound())[key] = value
            except Exception:  # a value that cannot be looked at
                passed_over("set_attribute", value)

    def add_event(self, name: object, attributes: object = None, timestamp: object = None) -> None:
        """Add an event, while it records."""
        if self.end_ns is None:
            if not isinstance(name, str):
                passed_over("add_event", name)
                return
            limits = self.layout.bounds
            bounded = self._described("add_event", attributes, limits.max_event_attributes)
            events = self._events = self._events or []
            events.append(LeanEvent(name, time_ns() if timestamp is None else _time("add_event", timestamp), bounded))
            if below(limits.max_events, len(events)):
                del events[0]
                self._dropped_events += 1

    def add_link(self, context: object, attributes: object = None) -> None:
        """Add a link, while it records."""
        if self.end_ns is None:
            bounded = self._described("add_link", attributes, self.layout.bounds.max_link_attributes)
            link = _link(context, bounded)
            if link is None:
                passed_over("add_link", context)
            elif link.says_something:
                links = self._more_links = self._more_links or []
                links.append(link)
                if len(self.links) + len(links) > self.layout.most_links:
                    self._keep_last_links(self.layout.most_links - len(links))

    def update_name(self, name: object) -> None:
        """Call it something else, while it records."""
        if self.end_ns is None:
            if isinstance(name, str):
                self._name = name
            else:
                passed_over("update_name", name)

    def set_status(self, status: object, description: object = None) -> None:
        """Set the status, while it records; the last one counts, but nothing overrides OK, and UNSET nothing."""
        if self.end_ns is None and self._status.status_code is not StatusCode.OK:
            given = status if isinstance(status, Status) else _status(status, description)
            if given is None or not _is_code(given.status_code):
                passed_over("set_status", status)
            elif given.status_code is not StatusCode.UNSET:
                self._status = given

    def record_exception(
        self, exception: object, attributes: object = None, timestamp: object = None, escaped: object = False
    ) -> None:
        """An event that names the exception's type; its message may hold data, so it stays out."""
        try:
            said = exception_attributes(exception, attributes, escaped=escaped)
        except Exception:  # whatever its own methods raise
            passed_over("record_exception", exception)
            return
        self.add_event(EXCEPTION, said, timestamp)

    def __enter__(self) -> "LeanSpan":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def encoded(self) -> bytes:
        """The ended span in OTLP's protobuf, framed."""
        said = self._said
        if isinstance(said, Told) and self._is_plain():
            self.decode_ids()
            whole = self.layout.whole(
                self.raw_trace, self.raw_id, self.raw_parent, self.start_ns, self.end_ns or self.start_ns, said
            )
            if whole is not None:
                return whole
        parts = [
            otlp.identity(self.trace_id, self.span_id, self.parent_id),
            otlp.times(self.start_ns, self.end_ns or self.start_ns, remote=self.remote),
        ]
        if self.state is not None:
            parts.append(otlp.state(self.state))
        bounded, layout = self._bounded, self.layout
        if bounded is None and self._name is None:
            parts.append(layout.encoded)
            otlp.append_values(parts, self._values())
        else:
            parts.append(layout.head if self._name is None else otlp.head(self._name, layout.kind))
            parts.append(otlp.attributes(self.attributes if bounded is None else bounded.copy()))
        for link in self.links:
            parts.append(otlp.remote_link(link))  # noqa: PERF401 one link, mostly
        if self._is_rare():
            self._append_rare(parts)
        return otlp.framed(parts)

    def to_row(self) -> SpanRow:
        """The ended span as a row."""
        status = self._status
        return SpanRow(
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_span_id=self.parent_id,
            name=self.name,
            kind=KINDS[self.layout.kind],
            start_ns=self.start_ns,
            end_ns=self.end_ns or self.start_ns,
            service=self.layout.service,
            attributes=plain_attributes(self.attributes if self._bounded is None else self._bounded.copy()),
            links=(*self.links, *(each.link for each in self._more_links or ())),
            events=tuple([_event(each) for each in self._events or ()]),
            status=STATUSES[status.status_code],
            status_message=status.description,
        )

    @property
    def parent(self) -> SpanContext | None:
        """As the SDK's spans have it, which some users of the API look at."""
        if self.parent_id is None:
            return None
        flags = SAMPLED if self.sampled else UNSAMPLED
        trace, span = int(self.trace_id, 16), int(self.parent_id, 16)
        return SpanContext(trace, span, self.remote, flags, trace_state(self.state))

    @property
    def name(self) -> str:
        """As the SDK's spans have it."""
        return self.layout.name if self._name is None else self._name

    @property
    def kind(self) -> SpanKind:
        """As the SDK's spans have it."""
        return self.layout.kind

    @property
    def start_time(self) -> int:
        """As the SDK's spans have it: nanoseconds since 1970."""
        return self.start_ns

    @property
    def end_time(self) -> int | None:
        """As the SDK's spans have it: nanoseconds since 1970; None until it has ended."""
        return self.end_ns

    @property
    def status(self) -> Status:
        """As the SDK's spans have it."""
        return self._status

    @property
    def attributes(self) -> Mapping[str, AnyValue]:
        """All that was said of it."""
        return {**self.layout.attributes, **self._values()} if self._bounded is None else self._bounded

    def decode_ids(self) -> None:
        """See that ``raw_trace``, ``raw_id`` and ``raw_parent`` are there: its ids as bytes."""
        if not self.raw_trace:
            raw = _hex(self.trace_id + self.span_id + (self.parent_id or ""))
            self.raw_trace, self.raw_id, self.raw_parent = raw[:16], raw[16:24], raw[24:]

    def _values(self) -> dict[str, Scalar]:
        """What it says beside its layout, and what the user added."""
        return self._said.values() if isinstance(self._said, Told) else self._said

    def _bound(self) -> LimitedAttributes:
        """All attributes, the user's within the limits: from the first that is added."""
        if self._bounded is None:
            self._bounded = LimitedAttributes(self.layout.bounds)
            self._bounded.say({**self.layout.attributes, **self._values()})
        return self._bounded

    def _described(self, call: str, attributes: object, most: int | None) -> BoundedAttributes:
        """What an event or a link says, within the limits; nothing where that is no mapping."""
        longest = self.layout.bounds.max_attribute_length
        try:
            return BoundedAttributes(most, cast("Attributes", attributes), max_value_len=longest, immutable=True)
        except Exception:  # no mapping, or values that cannot be looked at
            passed_over(call, attributes)
            return BoundedAttributes(most, None, max_value_len=longest, immutable=True)

    def _keep_last_links(self, count: int) -> None:
        kept = self.links[len(self.links) - count :] if count > 0 else ()
        self._dropped_links += len(self.links) - len(kept)
        self.links = kept
        if count < 0 and self._more_links is not None:
            del self._more_links[:-count]
            self._dropped_links -= count

    def _is_plain(self) -> bool:
        """Whether it is as its layout's pattern has it."""
        if self.parent_id is None or self.state is not None or self._name is not None or self._is_rare():
            return False
        if not self.layout.linked:
            return not self.links and not self.remote
        if not self.remote or len(self.links) != 1:
            return False
        link = self.links[0]
        return link.span_id == self.parent_id and link.trace_id == self.trace_id

    def _is_rare(self) -> bool:
        if self._status is not _UNSET or self._events is not None or self._more_links is not None:
            return True
        return self._bounded is not None or self._dropped_links > 0

    def _append_rare(self, parts: list[bytes]) -> None:
        parts += [
            otlp.link_to(each.link, each.attributes, each.attributes.dropped, remote=each.remote)
            for each in self._more_links or ()
        ]
        parts += [otlp.event(*each, each.attributes.dropped) for each in self._events or ()]
        if self._status is not _UNSET:
            parts.append(otlp.status(self._status.status_code, self._status.description))
        dropped = self._bounded.dropped if self._bounded is not None else 0
        parts.append(otlp.dropped_counts(dropped, self._dropped_events, self._dropped_links))


class PassingSpan:
    """The current one while a message is at work that is not sampled: it records nothing. It is the span that sent it, or,
    where that one's decision is not followed, one of this process (``own``), which the user's spans follow."""

    def __init__(self, context: Trace, saga: str | None, *, own: bool = False) -> None:
        self._context = context
        self._own = own
        self.saga = saga

    def get_span_context(self) -> SpanContext:
        """The identity of that span."""
        found = span_context(self._context)
        if found is None:
            return INVALID_SPAN_CONTEXT
        if self._own:
            return SpanContext(found.trace_id, found.span_id, False, found.trace_flags, found.trace_state)
        return found

    def is_recording(self) -> bool:
        """Never."""
        return False

    def end(self, end_time: object = None) -> None:
        """It is not ours to end."""

    def set_attributes(self, attributes: object) -> None:
        """Nothing is kept."""

    def set_attribute(self, key: object, value: object) -> None:
        """Nothing is kept."""

    def add_event(self, name: object, attributes: object = None, timestamp: object = None) -> None:
        """Nothing is kept."""

    def add_link(self, context: object, attributes: object = None) -> None:
        """Nothing is kept."""

    def update_name(self, name: object) -> None:
        """Nothing is kept."""

    def set_status(self, status: object, description: object = None) -> None:
        """Nothing is kept."""

    def record_exception(
        self, exception: object, attributes: object = None, timestamp: object = None, escaped: object = False
    ) -> None:
        """Nothing is kept."""

    def __enter__(self) -> "PassingSpan":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


Span.register(LeanSpan)
Span.register(PassingSpan)
"""They are spans of OpenTelemetry's, and do not derive from its class: compiled, objects of a class whose bases are not
compiled take several times as long to make."""


def _event(each: LeanEvent) -> SpanEvent:
    return SpanEvent(each.name, each.time_ns, plain_attributes(each.attributes))


def _time(call: str, given: object) -> int:
    """When a caller says that it was: now, where what he says is no time."""
    if isinstance(given, int) and is_time(given):
        return given
    passed_over(call, given)
    return time_ns()


def _status(code: object, description: object) -> Status | None:
    """None for what is no code. A description that is no text is left out."""
    if not isinstance(code, StatusCode):
        return None
    if description is None or isinstance(description, str):
        return Status(code, description)
    passed_over("set_status", description)
    return Status(code)


def _is_code(given: object) -> bool:
    return isinstance(given, StatusCode)


def _link(context: object, bounded: BoundedAttributes) -> LeanLink | None:
    """None for what is no span context, or one that no link can lead to: its ids are no numbers, or too large."""
    if not isinstance(context, SpanContext):
        return None
    try:
        target = SpanLink(f"{context.trace_id:032x}", f"{context.span_id:016x}")
        raw = _hex(target.trace_id + target.span_id)
        says = context.is_valid or bool(bounded) or bounded.dropped > 0 or bool(context.trace_state)
        return LeanLink(target, context.is_remote, bounded, says) if len(raw) == _IDS else None
    except (TypeError, ValueError):
        return None
