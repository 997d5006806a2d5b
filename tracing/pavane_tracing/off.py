"""Tracing switched off: the same interface, no spans, and the incoming context handed on as it came."""

from collections.abc import Iterable

from opentelemetry.trace import INVALID_SPAN, NoOpTracerProvider

from pavane_events.envelope import NO_TRACE, Envelope, Trace
from pavane_tracing.attributes import Attributes
from pavane_tracing.edges import NEW_LINKED, Edge
from pavane_tracing.genai import Invocation
from pavane_tracing.propagation import begun_anew, origin_of
from pavane_tracing.span import SpanRow
from pavane_tracing.unit import Service
from pavane_tracing.work import Point, Tracing, Work


class OffWork(Work):
    """A unit of work that nobody watches."""

    __slots__ = ("_incoming",)

    def __init__(self, incoming: Trace) -> None:
        self._incoming = incoming

    def attach(self) -> None:
        """Nothing: what is current stays so."""

    def detach(self) -> None:
        """Nothing."""

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
        """Nothing."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Nothing."""

    def fail(self, code: str, message: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    @property
    def spans(self) -> list[SpanRow]:
        """None."""
        return []

    @property
    def trace(self) -> Trace:
        """The context that came in."""
        return self._incoming


_UNTRACED = OffWork(NO_TRACE)
"""One for all, since it keeps nothing."""


class OffTracing(Tracing):
    """Hands contexts on, but for baggage: that goes by allow-list, and here nothing is allowed."""

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
        return _UNTRACED if envelope.trace is NO_TRACE else OffWork(_without_baggage(envelope.trace))

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


NO_TRACING: Tracing = OffTracing(Service("", NoOpTracerProvider()), keep=False)
"""The one instance that is needed. :meth:`Tracing.off` returns it."""
