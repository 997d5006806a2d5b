"""Tracing switched off: the same interface, no spans, and the incoming context handed on as it came."""

from collections.abc import Iterable
from contextvars import ContextVar, Token
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NoOpTracerProvider

from pavane_events.envelope import NO_TRACE, Envelope, Trace
from pavane_tracing.attributes import Attributes
from pavane_tracing.edges import NEW_LINKED, Edge
from pavane_tracing.genai import Invocation
from pavane_tracing.messaging_metrics import MessagingMetrics, Processing
from pavane_tracing.propagation import begun_anew, origin_of
from pavane_tracing.span import SpanRow
from pavane_tracing.unit import Service
from pavane_tracing.work import Point, Tracing, Work


class OffWork(Work):
    """A unit of work that nobody watches. It is known while it is current, for log lines."""

    __slots__ = ("_incoming", "_last", "saga")

    def __init__(self, incoming: Trace, saga: str | None) -> None:
        self._incoming = incoming
        self._last: Token[OffWork | None] | None = None
        self.saga = saga

    def attach(self) -> None:
        """Make it the one that :func:`untraced_work` finds; the current span stays as it is."""
        if self._last is None:
            self._last = _HERE.set(self)

    def detach(self) -> None:
        """Restore the one before. Idempotent."""
        last, self._last = self._last, None
        if last is not None:
            _HERE.reset(last)

    def split(self, count: int, spare: int = 0) -> None:
        """Nothing: what makes no spans uses nothing up."""

    def send(
        self,
        topic: str,
        event_id: str,
        event_type: str,
        *,
        saga: str | None = None,
        size: int | None = None,
        edge: Edge = "event",
    ) -> Trace:
        """The context that came in."""
        return self._incoming

    def carry(self, edge: Edge) -> Trace:
        """The context that came in, by the default policy: whoever goes on from it may be traced."""
        return begun_anew(self._incoming) if edge in NEW_LINKED else self._incoming

    def point(self, name: str, *, links: Iterable[Trace] = (), attributes: Attributes | None = None) -> Trace:
        """The context that came in."""
        return self._incoming

    def invoke(self, agent: str, attributes: Attributes) -> Invocation:
        """Nothing but the block."""
        return Invocation(INVALID_SPAN, None)

    def belongs_to(self, saga: str, saga_name: str | None = None) -> None:
        """The work turns out to be of this saga."""
        self.saga = saga

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Nothing."""

    def fail(self, code: str, message: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    @property
    def context(self) -> Context | None:
        """None."""
        return None

    @property
    def spans(self) -> list[SpanRow]:
        """None."""
        return []

    @property
    def trace(self) -> Trace:
        """The context that came in."""
        return self._incoming


class MeasuredOffWork(OffWork):
    """A unit of work of which nobody watches more than how long it takes."""

    __slots__ = ("_clock",)

    def __init__(self, incoming: Trace, saga: str | None, processing: Processing | None) -> None:
        super().__init__(incoming, saga)
        self._clock = processing

    def fail(self, code: str, message: str) -> None:
        """What is measured is that of a failure."""
        if self._clock is not None:
            self._clock.failed = code

    def end(self) -> None:
        """Measure. Idempotent."""
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.end(None)


_HERE: "Final[ContextVar[OffWork | None]]" = ContextVar("pavane.untraced", default=None)


def untraced_work() -> OffWork | None:
    """The unit of work that is current and that nobody watches; it reaches child tasks and threads as a span does."""
    return _HERE.get()


class OffTracing(Tracing):
    """Hands contexts on, but for baggage: that goes by allow-list, and here nothing is allowed."""

    def measured(self, metrics: MessagingMetrics | None) -> Tracing:
        """Itself where nothing is measured, for it is everybody's; else one that measures."""
        if metrics is None:
            return self
        own = OffTracing(self._service, keep=False)
        own._metrics = metrics
        return own

    def process(
        self,
        envelope: Envelope,
        *,
        topic: str,
        partition: int,
        offset: int,
        group: str,
        step: str | None = None,
        saga_name: str | None = None,
        links: Iterable[Trace] = (),
        root: bool = False,
        undo: bool = False,
    ) -> Work:
        """A unit of work that hands on the event's context."""
        if self._metrics is not None:
            processing = self._metrics.processing(topic, group)
            return MeasuredOffWork(_without_baggage(envelope.trace), envelope.saga, processing)
        return OffWork(_without_baggage(envelope.trace), envelope.saga)

    def point(
        self,
        name: str,
        parent: Trace | None,
        *,
        links: Iterable[Trace] = (),
        attributes: Attributes | None = None,
        saga: str | None = None,
        saga_name: str | None = None,
    ) -> Point:
        """The parent's context."""
        return Point(_without_baggage(parent or NO_TRACE), [])

    def send_root(
        self,
        topic: str,
        event_id: str,
        event_type: str,
        *,
        saga: str | None = None,
        size: int | None = None,
        parent: Trace | None = None,
        links: Iterable[Trace] = (),
    ) -> Point:
        """The parent's context, if there is one; else that of the first link, stamped so that a new trace begins at it."""
        first = next((each for each in links if origin_of(each) is not None), NO_TRACE)
        return Point(_without_baggage(parent if parent is not None else begun_anew(first)), [])


def _without_baggage(trace: Trace) -> Trace:
    if trace.baggage is None:
        return trace
    return Trace(traceparent=trace.traceparent, tracestate=trace.tracestate)


NO_TRACING: Final[Tracing] = OffTracing(Service("", NoOpTracerProvider()), keep=False)
"""The one instance that is needed. :meth:`Tracing.off` returns it."""
