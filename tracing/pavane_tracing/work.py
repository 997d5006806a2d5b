"""Tracing of one service, and a unit of work: what a lane opens around one message, and the coordinator likewise.

Only OpenTelemetry's API is used here: :mod:`pavane_tracing.setup` makes the real thing, :mod:`pavane_tracing.off` one
that costs nothing and hands the incoming context on.
"""

from collections.abc import Callable, Collection, Iterable
from contextvars import Token
from types import TracebackType
from typing import Final, NamedTuple, Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.attributes import Attributes, MessagingAttributes, common_attributes
from pavane_tracing.budget import FRESH, Budget, stamped
from pavane_tracing.conventions import MESSAGING, SAGA_UNDO, SPANS_DROPPED, Naming
from pavane_tracing.edges import NEW_LINKED, Edge
from pavane_tracing.genai import INVOKE_AGENT, Invocation
from pavane_tracing.limited import begin, say
from pavane_tracing.messaging_metrics import MessagingMetrics, Processing
from pavane_tracing.propagation import Origin, allowed_baggage, context_of, origin_of, span_context, trace_of
from pavane_tracing.span import SpanRow
from pavane_tracing.unfit import rows_of
from pavane_tracing.unit import Service, Unit

FLUSH_S: Final = 2.0
"""How long the end of a process waits for its collectors, whatever it exports: what dead ones may cost."""

SCOPE: Final = "pavane"
"""The instrumentation scope of the platform's own spans."""


class Point(NamedTuple):
    """A span outside any unit of work: its context, and itself as a row to be kept (none where spans are not kept)."""

    trace: Trace
    spans: list[SpanRow]


class Work:
    """One unit of work: the span ``process <topic>`` and all that is started within it.

    Belongs to one task, except that user code may start spans in threads and child tasks. Sends and events come
    before :meth:`end`; :attr:`spans` is read after it, and published in the commit that the unit is part of.
    """

    __slots__ = (
        "_baggage",
        "_budget",
        "_common",
        "_context",
        "_ended",
        "_messaging",
        "_new_linked",
        "_processing",
        "_span",
        "_token",
        "_tracer",
        "_unit",
    )

    def __init__(
        self,
        span: Span,
        context: Context,
        unit: Unit,
        *,
        tracer: Tracer,
        messaging: MessagingAttributes,
        baggage: str | None,
        processing: Processing | None = None,
        budget: Budget,
        new_linked: Collection[Edge],
    ) -> None:
        self._span = span
        self._context = set_span_in_context(span, context)
        self._unit = unit
        self._tracer = tracer
        self._messaging = messaging
        self._common = unit.common
        self._baggage = baggage
        self._processing = processing
        self._budget = budget
        self._new_linked = new_linked
        self._token: Token[Context] | None = None
        self._ended = False

    def attach(self) -> None:
        """Make the span the current one of the calling task, whatever was current before. Until detached, once."""
        if self._token is None:
            self._token = attach(self._context)

    def detach(self) -> None:
        """Restore what was current before :meth:`attach`; by the task that attached, in its ``finally``. Idempotent."""
        token, self._token = self._token, None
        if token is not None:
            detach(token)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    def split(self, count: int, spare: int = 0) -> None:
        """So many messages will be sent: what is left of the trace's budget is shared out among them. Unsaid it is one.

        Before the first one. ``spare``: spans kept back for messages beyond these that lead to little. What is sent beyond
        both begins a trace of its own.
        """
        self._budget.split(count, spare)

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
        """The context for a message that this work sends: that of a span ``send <topic>``, begun and ended here.

        ``saga`` where the message belongs to another saga than this work does; ``size`` is its body's, in bytes. It is
        stamped by the policy of its ``edge`` and by the budget. Where not even that span has room, it begins a new trace.
        """
        attributes = self._messaging.send(topic, event_id, event_type, self._common, saga, size)
        state = self._budget.take()
        if state is None:
            led = [Link(self._span.get_span_context())]
            span = begin(self._tracer, f"send {topic}", self._unit.context(), SpanKind.PRODUCER, attributes, led)
            span.end()
            state = stamped(FRESH - 1)
            sent = trace_of(span.get_span_context(), self._baggage)
        else:
            sent = self._short(f"send {topic}", SpanKind.PRODUCER, attributes, None)
        return sent.stamped(self._budget.none() if edge in self._new_linked else state)

    def point(self, name: str, *, links: Iterable[Trace] = (), attributes: Attributes | None = None) -> Trace:
        """A short INTERNAL span within this work, such as ``saga credit-decision start``."""
        merged = {**self._common, **attributes} if attributes else self._common
        return self._short(name, SpanKind.INTERNAL, merged, _links(links))

    def invoke(self, agent: str, attributes: Attributes) -> Invocation:
        """A span ``invoke_agent <agent>`` within this work, begun here: for the call of a step that works with a model."""
        merged = {**self._common, **attributes}
        span = begin(self._tracer, f"{INVOKE_AGENT} {agent}", self._context, SpanKind.INTERNAL, merged)
        return Invocation(span, set_span_in_context(span, self._context))

    def belongs_to(self, saga: str, saga_name: str | None = None) -> None:
        """The work turns out to be of this saga: where the coordinator gives an intake's message its saga id."""
        found = common_attributes(saga, saga_name, None)
        self._common.update(found)
        say(self._span, found)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Something that happened within this work: the attempts of an in-lane retry are events of one span."""
        self._span.add_event(name, attributes)

    def fail(self, code: str, message: str) -> None:
        """The work failed: status ERROR, and the error's stable code. The last call counts."""
        say(self._span, {MESSAGING.error_type: code})
        self._span.set_status(StatusCode.ERROR, message)
        if self._processing is not None:
            self._processing.failed = code

    def end(self) -> None:
        """The work is done. Idempotent. A user's span still open in it will turn up in :meth:`Tracing.late`."""
        if not self._ended:
            self._ended = True
            if self._unit.dropped:
                say(self._span, {SPANS_DROPPED: self._unit.dropped})
            self._span.end()
            self._unit.close()
            if self._processing is not None:
                self._processing.end(self._context)

    @property
    def context(self) -> Context | None:
        """In which measurements of this work are made, where they are not made within it; None where nobody watches."""
        return self._context

    @property
    def spans(self) -> list[SpanRow]:
        """The spans of this work that have ended; none where spans are not kept."""
        return self._unit.rows()

    @property
    def trace(self) -> Trace:
        """The context of the span itself: what is told of it elsewhere, as in a dead letter."""
        return trace_of(self._span.get_span_context(), self._baggage)

    def carry(self, edge: Edge) -> Trace:
        """The context of the span itself, stamped: for what goes on from it later without a message, a delayed retry."""
        state = self._budget.none() if edge in self._new_linked else self._budget.take() or self._budget.none()
        return self.trace.stamped(state)

    def _short(self, name: str, kind: SpanKind, attributes: Attributes, links: list[Link] | None) -> Trace:
        span = begin(self._tracer, name, self._context, kind, attributes, links)
        span.end()
        return trace_of(span.get_span_context(), self._baggage)


class Tracing:
    """The spans of one service. Made by :func:`pavane_tracing.setup.make_tracing`; safe from any task or thread.

    ``keep``: finished spans are collected for the local store. ``system`` is what messages travel on (``kafka``, else
    ``pavane``). ``baggage`` names the members of incoming baggage that are handed on; no other ever is.
    ``naming``: if not the default one.
    ``content``: what a step that works with a model was given and gave is told on its span. ``new_linked``: the edges at
    which a new trace begins.
    """

    def __init__(
        self,
        service: Service,
        *,
        keep: bool,
        system: str = "pavane",
        baggage: Collection[str] = (),
        shutdown: Callable[[float], bool] | None = None,
        naming: Naming | None = None,
        content: bool = False,
        new_linked: Collection[Edge] = NEW_LINKED,
    ) -> None:
        self.service = service.name
        self.new_linked = frozenset(new_linked)
        self.keep = keep
        self.content = content
        self._service = service
        self._tracer = service.provider.get_tracer(SCOPE)
        self._messaging = MessagingAttributes(system, naming)
        self._baggage = frozenset(baggage)
        self._shutdown = shutdown
        self._metrics: MessagingMetrics | None = None

    def measured(self, metrics: MessagingMetrics | None) -> "Tracing":
        """The same, or as good as: how long each unit of work takes is measured from now on, where there are metrics."""
        self._metrics = metrics
        return self

    @staticmethod
    def off() -> "Tracing":
        """Tracing that is switched off: no span, no cost, and every message carries the context that came in."""
        from pavane_tracing.off import NO_TRACING

        return NO_TRACING

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
        """Begin the span ``process <topic>``: child of the span that sent the event, and linked to it.

        ``links``: the other inputs of a join; for an ``undo``, what the step said that it undoes. It is the root of a new
        trace, and only linked, where the event is stamped so, or the receiver says ``root``: nobody sent a timer.
        """
        incoming = envelope.trace
        named = origin_of(incoming)
        root = root or (named is not None and named.begins)
        origin = span_context(incoming)
        baggage = allowed_baggage(incoming.baggage, self._baggage) if incoming.baggage is not None else None
        common = common_attributes(envelope.saga, saga_name, step, envelope.id)
        attributes = self._messaging.process(envelope, topic, partition, offset, group, common)
        if undo:
            common[SAGA_UNDO] = attributes[SAGA_UNDO] = True
        unit = Unit(self._service, common)
        context = context_of(None if root else origin, baggage, unit.context())
        linked = _links(links, origin)
        span = begin(self._tracer, f"process {topic}", context, SpanKind.CONSUMER, attributes, linked)
        return Work(
            span,
            context,
            unit,
            tracer=self._tracer,
            messaging=self._messaging,
            baggage=baggage,
            processing=None if self._metrics is None else self._metrics.processing(topic, group),
            budget=Budget(None, None) if root or named is None else Budget(named.left, named.state),
            new_linked=self.new_linked,
        )

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
        """A short INTERNAL span outside any work; without a parent it is the root of a new trace."""
        merged = {**common_attributes(saga, saga_name, None), **(attributes or {})}
        return self._point(name, SpanKind.INTERNAL, parent, merged, links)

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
        """The context for a message sent from outside any work: that of a span ``send <topic>``.

        It begins a trace of its own, unless ``parent`` is a context that the caller was given from outside, and that goes on.
        """
        attributes = self._messaging.send(topic, event_id, event_type, {}, saga, size)
        return self._point(f"send {topic}", SpanKind.PRODUCER, parent, attributes, links)

    def failed(self, saga: str) -> None:
        """A saga has failed: where spans of unsampled sagas are held, those of this one are exported, and all to come."""

    def late(self) -> list[SpanRow]:
        """Spans that ended outside any unit of work, or after theirs: taken by this call. At most the last 1,000."""
        return rows_of(self._service.strays.take(), self.service)

    def shutdown(self, timeout_s: float) -> bool:
        """The service ends. Idempotent.

        The last one of the process exports what is not exported yet, for at most that long (it blocks); False if the time
        ran out. Those before it do not wait: what is theirs goes out with the others' spans.
        """
        shutdown, self._shutdown = self._shutdown, None
        return shutdown(timeout_s) if shutdown is not None else True

    def _point(self, name: str, kind: SpanKind, parent: Trace | None, attributes: Attributes, links: Iterable[Trace]) -> Point:
        unit = Unit(self._service, {})
        baggage = allowed_baggage(parent.baggage, self._baggage) if parent is not None else None
        origin, led = entered(parent, links)
        context = context_of(
            span_context(parent) if origin is not None and parent is not None else None, baggage, unit.context()
        )
        span = begin(self._tracer, name, context, kind, attributes, _links(led))
        span.end()
        unit.close()
        return Point(trace_of(span.get_span_context(), baggage).stamped(state_after(origin)), unit.rows())


def entered(parent: Trace | None, links: Iterable[Trace]) -> tuple[Origin | None, tuple[Trace, ...]]:
    """What a span outside any work is a child of, and linked to: to its parent only, where that says that a trace begins."""
    origin = origin_of(parent) if parent is not None else None
    if parent is not None and origin is not None and origin.begins:
        return None, (parent, *links)
    return origin, tuple(links)


def state_after(origin: Origin | None) -> str | None:
    """What a single span hands on of what its parent says; nothing where it begins a trace: then nothing is used up yet."""
    if origin is None:
        return None
    return origin.state if origin.left is None else stamped(origin.left - 1, origin.state)


def _links(traces: Iterable[Trace], origin: SpanContext | None = None) -> list[Link]:
    """Links to the origin and to every other span named, each once; what cannot be read is left out."""
    found = {} if origin is None else {origin[:2]: origin}
    for trace in traces:
        context = span_context(trace)
        if context is not None:
            found.setdefault(context[:2], context)
    return [Link(context) for context in found.values()]
