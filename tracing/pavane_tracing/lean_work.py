"""Units of work whose spans are lean: the same interface as in :mod:`pavane_tracing.work`, without an object too many."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import Token
from functools import partial
from time import time_ns
from typing import Final, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.attributes import Attributes, Scalar, Told, common_attributes
from pavane_tracing.budget import FRESH, Budget, stamped
from pavane_tracing.conventions import MESSAGING, SAGA_ID, SAGA_NAME, SAGA_STEP, SAGA_UNDO, SPANS_DROPPED, Naming
from pavane_tracing.current import enter, leave
from pavane_tracing.edges import NEW_LINKED, Edge
from pavane_tracing.genai import INVOKE_AGENT, Invocation
from pavane_tracing.held import HeldSpans
from pavane_tracing.identity import new_span_id, new_trace_id
from pavane_tracing.layouts import Layout, Limits, MessageLayout, ProcessLayout
from pavane_tracing.lean import PASSING_KEY, LeanSpan, PassingSpan
from pavane_tracing.limited import begin
from pavane_tracing.messaging_metrics import Processing
from pavane_tracing.off import MeasuredOffWork
from pavane_tracing.propagation import SPAN_KEY, Origin, allowed_baggage, context_of, is_passed_by, origin_of
from pavane_tracing.sampling import SagaSampler
from pavane_tracing.span import SpanLink, SpanRow
from pavane_tracing.unfit import lose
from pavane_tracing.unit import UNIT_KEY, Service, Unit
from pavane_tracing.work import Point, Tracing, Work, entered, state_after

_MOST_LAYOUTS: Final = 4096
_hex: Final = bytes.fromhex


class Take(Protocol):
    """Takes a span that has ended, encoded. From any thread; never blocks, never raises."""

    def __call__(self, encoded: bytes, /) -> None: ...


class LeanWork(Work):
    """One unit of work. ``kept`` collects its spans where they are kept, ``take`` has them where they are exported."""

    __slots__ = ("_kept", "_layout", "_lean", "_saga", "_tail", "_take", "_tracing")

    def __init__(
        self,
        tracing: "LeanTracing",
        span: LeanSpan,
        layout: ProcessLayout,
        unit: Unit,
        saga: str | None,
        baggage: str | None,
        take: Take | None,
        processing: Processing | None,
        budget: Budget,
        *,
        sampled: bool,
    ) -> None:
        self._tracing = tracing
        self._budget = budget
        self._new_linked = tracing.new_linked
        self._lean = span
        self._layout: ProcessLayout | None = layout
        self._unit = unit
        self._saga = saga
        self._baggage = baggage
        self._take = take
        self._processing = processing
        self._kept: list[LeanSpan] | None = None
        """Beside the first; None where nothing is kept, and before there is any."""
        self._tail = "-01" if sampled else "-00"
        self._token: Token[Context] | None = None
        self._ended = False

    def attach(self) -> None:
        """Make the span the current one of the calling task, whatever was current before. Until detached, once."""
        if self._token is None:
            self._token = enter(self.context)

    def detach(self) -> None:
        """Restore what was current before :meth:`attach`; by the task that attached, in its ``finally``. Idempotent."""
        token, self._token = self._token, None
        if token is not None:
            leave(token)

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
        """As :meth:`Work.send` says."""
        within, tracing = self._layout, self._tracing
        layout: Layout
        said: dict[str, Scalar] | Told
        if within is None:
            said = tracing.messaging.send(topic, event_id, event_type, self._unit.common, saga, size)
            layout = tracing.other_layout(f"send {topic}", SpanKind.PRODUCER)
        else:
            layout = within.sends.get((topic, event_type)) or tracing.send_layout(within, topic, event_type)
            said = Told(tracing.messaging, event_id, self._saga if saga is None else saga, size, None)
        state = self._budget.take()
        if state is None:
            return self._begin(layout, said, edge)
        return self._make(layout, said, self._budget.none() if edge in self._new_linked else state)

    def point(self, name: str, *, links: Iterable[Trace] = (), attributes: Attributes | None = None) -> Trace:
        """A short INTERNAL span within this work, such as ``saga credit-decision start``."""
        merged: dict[str, Scalar] = {**self._unit.common, **(attributes or {})}
        return self._make(self._tracing.other_layout(name, SpanKind.INTERNAL), merged, self._lean.state, _links(links))

    def invoke(self, agent: str, attributes: Attributes) -> Invocation:
        """As :meth:`Work.invoke` says. The span is the SDK's: what it tells of takes seconds."""
        context = Context({UNIT_KEY: self._unit, SPAN_KEY: self._lean})
        merged = {**self._unit.common, **attributes}
        span = begin(self._tracing.own_tracer, f"{INVOKE_AGENT} {agent}", context, SpanKind.INTERNAL, merged)
        return Invocation(span, set_span_in_context(span, context))

    def belongs_to(self, saga: str, saga_name: str | None = None) -> None:
        """The work turns out to be of this saga: where the coordinator gives an intake's message its saga id."""
        found = common_attributes(saga, saga_name, None)
        self._unit.common.update(found)
        self._layout = None  # which knew another saga, or none
        if self._take is not None and not self._lean.sampled:
            self._take = self._tracing.held(saga)
        self._lean.say(found)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Something that happened within this work: the attempts of an in-lane retry are events of one span."""
        self._lean.add_event(name, attributes)

    def fail(self, code: str, message: str) -> None:
        """The work failed: status ERROR, and the error's stable code. The last call counts."""
        self._lean.say({MESSAGING.error_type: code})
        self._lean.set_status(StatusCode.ERROR, message)
        if self._processing is not None:
            self._processing.failed = code

    def end(self) -> None:
        """The work is done. Idempotent. A user's span still open in it will turn up in :meth:`Tracing.late`."""
        if not self._ended:
            self._ended = True
            span, unit = self._lean, self._unit
            if unit.dropped:
                span.say({SPANS_DROPPED: unit.dropped})
            span.end()
            unit.close()
            if self._take is not None:
                _hand_over(span, self._take)
            if self._processing is not None:
                self._processing.end(self.context)

    @property
    def context(self) -> Context:
        """In which the span is the current one."""
        context = Context({UNIT_KEY: self._unit, SPAN_KEY: self._lean})
        return context if self._baggage is None else context_of(None, self._baggage, context)

    @property
    def spans(self) -> list[SpanRow]:
        """The spans of this work that have ended; none where spans are not kept."""
        if self._take is not None:
            return []
        rows = _rows((self._lean, *(self._kept or ())))
        users = self._unit.rows()
        return sorted((*rows, *users), key=_started) if users else rows

    @property
    def trace(self) -> Trace:
        """The context of the span itself: what a timer, a delayed retry or a dead letter carries on."""
        return self._trace(self._lean.span_id, self._lean.state)

    def _make(
        self, layout: Layout, said: dict[str, Scalar] | Told, state: str | None, links: Sequence[SpanLink] = ()
    ) -> Trace:
        parent, take, span_id = self._lean, self._take, new_span_id()
        if take is not None and isinstance(said, Told) and parent.state is None:
            now = time_ns()
            parent.decode_ids()
            whole = layout.whole(parent.raw_trace, _hex(span_id), parent.raw_id, now, now + 1, said)
            if whole is not None:
                take(whole)
                return self._trace(span_id, state)
        self._end_at_once(
            LeanSpan(layout, parent.trace_id, span_id, None, said, links, parent_id=parent.span_id, state=parent.state)
        )
        return self._trace(span_id, state)

    def _begin(self, layout: Layout, said: dict[str, Scalar] | Told, edge: Edge) -> Trace:
        """A ``send`` span for which the trace has no room begins another one, linked to this work."""
        span = LeanSpan(layout, new_trace_id(), new_span_id(), None, said)
        span.add_link(self._lean.get_span_context())
        self._end_at_once(span)
        state = stamped(0 if edge in self._new_linked else FRESH - 1)
        return Trace(f"00-{span.trace_id}-{span.span_id}{self._tail}", state, self._baggage)

    def _end_at_once(self, span: LeanSpan) -> None:
        span.end_ns = span.start_ns + 1
        if self._take is None:
            if self._kept is None:
                self._kept = []
            self._kept.append(span)
        else:
            _hand_over(span, self._take)

    def _trace(self, span_id: str, state: str | None) -> Trace:
        return Trace(f"00-{self._lean.trace_id}-{span_id}{self._tail}", state, self._baggage)


class LeanTracing(Tracing):
    """The spans of one service, as lean ones. ``take`` has them where they are exported; else they are kept.

    ``held`` has those of unsampled sagas, which are not traced at all without it.
    """

    def __init__(
        self,
        service: Service,
        *,
        limits: Limits,
        sampler: SagaSampler,
        system: str = "pavane",
        baggage: Collection[str] = (),
        shutdown: Callable[[float], bool] | None = None,
        take: Take | None = None,
        held: HeldSpans | None = None,
        naming: Naming | None = None,
        content: bool = False,
        new_linked: Collection[Edge] = NEW_LINKED,
    ) -> None:
        super().__init__(
            service,
            keep=take is None,
            system=system,
            baggage=baggage,
            shutdown=shutdown,
            naming=naming,
            content=content,
            new_linked=new_linked,
        )
        self.messaging = self._messaging
        self.own_tracer = self._tracer
        self._limits = limits
        self._sampler = sampler
        self._follow = sampler.follow
        self._take = take
        self._held = held
        self._passes = sampler.follow and held is None
        """Whether what its sender did not sample leaves nothing at all."""
        self._processed: dict[object, ProcessLayout] = {}
        self._last_layout: ProcessLayout | None = None
        self._others: dict[tuple[str, SpanKind], Layout] = {}

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
        """As :meth:`Tracing.process` says."""
        incoming, saga = envelope.trace, envelope.saga
        if self._passes and is_passed_by(incoming):
            return PassingWork(incoming, saga, None if self._metrics is None else self._metrics.processing(topic, group))
        origin = origin_of(incoming)
        baggage = allowed_baggage(incoming.baggage, self._baggage) if incoming.baggage is not None else None
        root = root or origin is None or origin.left == 0
        trace_id = new_trace_id() if root or origin is None else origin.trace_id
        before = origin if origin is not None or not links else _first(links)
        sampled = before.sampled if before is not None and self._follow else self._sampler.samples_id(saga, trace_id)
        if self._held is not None and saga is not None:
            if sampled:
                self._held.follow(saga)
            else:
                sampled = self._held.has_failed(saga)
        take = self._take if sampled else self.held(saga or trace_id)
        if take is None and not (sampled and self.keep):
            metrics = self._metrics
            processing = None if metrics is None else metrics.processing(topic, group)
            return _passing(incoming, origin, trace_id, baggage, saga, processing, follow=self._follow)
        layout = self._process_layout(topic, group, partition, envelope.type, step, saga_name, undo)
        said = Told(self._messaging, envelope.id, saga, len(envelope.data), offset)
        linked = _links(links, origin) if links else () if origin is None else (SpanLink(origin.trace_id, origin.span_id),)
        span = LeanSpan(layout, trace_id, new_span_id(), None if root else origin, said, linked, sampled=sampled)
        unit = Unit(self._service, None, (saga, saga_name, step, envelope.id))
        if undo:
            unit.common[SAGA_UNDO] = True
        processing = None if self._metrics is None else self._metrics.processing(topic, group)
        budget = Budget(None, None) if root or origin is None else Budget(origin.left, origin.state)
        return LeanWork(self, span, layout, unit, saga, baggage, take, processing, budget, sampled=sampled)

    def failed(self, saga: str) -> None:
        """As :meth:`Tracing.failed` says."""
        if self._held is not None:
            self._held.fail(saga)

    def held(self, saga: str) -> Take | None:
        """What takes the spans of a saga (or trace) that is not sampled; None where nothing does."""
        if self._held is None or self._take is None:
            return None
        return partial(self._held.hold, saga, self._take)

    def send_layout(self, within: ProcessLayout, topic: str, event_type: str) -> MessageLayout:
        """The layout of ``send <topic>`` within such work."""
        fixed = {**_said_of_all(within), **self._messaging.send_fixed(topic, event_type)}
        made = MessageLayout(self.service, f"send {topic}", SpanKind.PRODUCER, fixed, self._limits, self._messaging)
        if len(within.sends) < _MOST_LAYOUTS:
            within.sends[topic, event_type] = made
        return made

    def other_layout(self, name: str, kind: SpanKind) -> Layout:
        """The layout of a span whose attributes are all its own."""
        layout = self._others.get((name, kind))
        if layout is None:
            layout = Layout(self.service, name, kind, {}, self._limits)
            if len(self._others) < _MOST_LAYOUTS:
                self._others[name, kind] = layout
        return layout

    def _process_layout(
        self, topic: str, group: str, partition: int, kind: str, step: str | None, saga_name: str | None, undo: bool
    ) -> ProcessLayout:
        last = self._last_layout
        if last is not None and last.is_of(topic, group, partition, kind, step, saga_name, undo):
            return last
        key = (topic, group, partition, kind, step, saga_name, undo)
        layout = self._processed.get(key)
        if layout is None:
            fixed = {
                **self._messaging.process_fixed(topic, group, partition, kind),
                **common_attributes(None, saga_name, step),
            }
            if undo:
                fixed[SAGA_UNDO] = True
            layout = ProcessLayout(
                self.service, f"process {topic}", SpanKind.CONSUMER, fixed, self._limits, self._messaging, key
            )
            if len(self._processed) < _MOST_LAYOUTS:
                self._processed[key] = layout
        self._last_layout = layout
        return layout

    def _point(self, name: str, kind: SpanKind, parent: Trace | None, attributes: Attributes, links: Iterable[Trace]) -> Point:
        origin, linked = entered(parent, links)
        led = [found for each in linked if (found := origin_of(each)) is not None]
        baggage = allowed_baggage(parent.baggage, self._baggage) if parent is not None else None
        trace_id = new_trace_id() if origin is None else origin.trace_id
        saga = attributes.get(SAGA_ID)
        before = origin or (led[0] if led else None)
        sampled = self._sampler.samples(before, saga if isinstance(saga, str) else None, trace_id)
        take = self._take if sampled else self.held(saga if isinstance(saga, str) else trace_id)
        span_id = new_span_id()
        rows: list[SpanRow] = []
        if take is not None or (sampled and self.keep):
            span = LeanSpan(self.other_layout(name, kind), trace_id, span_id, origin, dict(attributes), _links_to(led))
            span.end_ns = span.start_ns + 1
            if take is not None:
                _hand_over(span, take)
            else:
                rows = _rows((span,))
        flags = "01" if sampled else "00"
        return Point(Trace(f"00-{trace_id}-{span_id}-{flags}", state_after(origin), baggage), rows)


class PassingWork(MeasuredOffWork):
    """Unsampled work: no span, the sender's context is current and handed on, or one of this process's ``own``."""

    __slots__ = ("_own", "_token")

    def __init__(self, incoming: Trace, saga: str | None, processing: Processing | None, *, own: bool = False) -> None:
        self._incoming = incoming
        self._own = own
        self.saga = saga
        self._clock = processing
        self._token: Token[Context] | None = None

    def attach(self) -> None:
        """Make that context's span the current one, so that the user's own spans are not sampled either."""
        if self._token is None:
            incoming = self._incoming
            passing = PassingSpan(incoming, self.saga, own=self._own)
            context = Context({SPAN_KEY: passing, PASSING_KEY: passing})
            if incoming.baggage is not None:
                context = context_of(None, incoming.baggage, context)
            self._token = enter(context)

    def detach(self) -> None:
        """Restore what was current before. Idempotent."""
        token, self._token = self._token, None
        if token is not None:
            leave(token)


def _passing(
    incoming: Trace,
    origin: Origin | None,
    trace_id: str,
    baggage: str | None,
    saga: str | None,
    processing: Processing | None,
    *,
    follow: bool,
) -> Work:
    if origin is None:  # what comes of it is not sampled either, and is of one trace
        incoming = Trace(f"00-{trace_id}-{new_span_id()}-00")
    elif not follow:  # sampled or not where it comes from, here it is left out
        left_out = Trace(f"00-{origin.trace_id}-{new_span_id()}-00", origin.state, baggage)
        return PassingWork(left_out, saga, processing, own=True)
    elif baggage != incoming.baggage or origin.state != incoming.tracestate:
        incoming = Trace(incoming.traceparent, origin.state, baggage)
    return PassingWork(incoming, saga, processing)


def _hand_over(span: LeanSpan, take: Take) -> None:
    """A span that has ended is exported, or lost: whatever a step has put into it, its work goes on."""
    try:
        encoded = span.encoded()
    except Exception as error:  # what nobody has foreseen
        lose(error)
    else:
        take(encoded)


def _rows(spans: Iterable[LeanSpan]) -> list[SpanRow]:
    """Those that have ended, but for what cannot be told: as :func:`_hand_over`."""
    rows: list[SpanRow] = []
    for span in spans:
        if span.end_ns is not None:
            try:
                rows.append(span.to_row())
            except Exception as error:  # what nobody has foreseen
                lose(error)
    return rows


def _started(row: SpanRow) -> int:
    return row.start_ns


def _said_of_all(layout: Layout) -> dict[str, Scalar]:
    """What every span of the unit says."""
    return {key: layout.attributes[key] for key in (SAGA_NAME, SAGA_STEP, SAGA_UNDO) if key in layout.attributes}


def _first(links: Iterable[Trace]) -> Origin | None:
    """What led to a span that names no parent."""
    return next((found for each in links if (found := origin_of(each)) is not None), None)


def _links(traces: Iterable[Trace], origin: Origin | None = None) -> list[SpanLink]:
    """Links to the origin and to every other span named, each once; what cannot be read is left out."""
    named = [each for trace in traces if (each := origin_of(trace)) is not None]
    if origin is not None:
        named.insert(0, origin)
    return _links_to(named)


def _links_to(origins: Iterable[Origin]) -> list[SpanLink]:
    return list(dict.fromkeys([SpanLink(each.trace_id, each.span_id) for each in origins]))
