"""Where the user's spans, which are the SDK's, meet those of the lean tracer: in one export, and held together."""

import atexit
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from os import environ
from typing import TYPE_CHECKING, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.attributes import EXCEPTION, exception_attributes
from pavane_tracing.batching import batching_of
from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.ending import ENDING, STOP_S
from pavane_tracing.forking import before_child_ends
from pavane_tracing.held import MOST_SPANS, HeldSpans
from pavane_tracing.layouts import Limits
from pavane_tracing.limited import LimitedAttributes
from pavane_tracing.options import TracingOptions
from pavane_tracing.span import FinishedSpan
from pavane_tracing.spool import Spool
from pavane_tracing.unfit import is_fit
from pavane_tracing.unit import Strays, unit_in
from pavane_tracing.work import SCOPE

if TYPE_CHECKING:
    from pavane_tracing.export import SpanExport


class Handing(SpanProcessor):
    """Hands the user's spans to the export of the platform's own; those of unsampled sagas are held with them.

    Which saga that is its unit says as a span begins: its attributes are whatever limits have left of them.
    """

    def __init__(self, export: "SpanExport", held: HeldSpans | None) -> None:
        self._export = export
        self._held = held
        self._sagas: OrderedDict[int, str] = OrderedDict()
        """Of the spans that are open, by their ids."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Called by the SDK."""
        context, unit = span.get_span_context(), unit_in(parent_context)
        if self._held is not None and unit is not None and not context.trace_flags.sampled:
            saga = unit.common.get(SAGA_ID)
            if isinstance(saga, str):
                self._sagas[context.span_id] = saga
                if len(self._sagas) > MOST_SPANS:
                    self._sagas.popitem(last=False)

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK."""
        context = span.get_span_context()
        if context is None:
            return
        if context.trace_flags.sampled:
            if is_fit(span):
                self._export.add(span)
        elif self._held is not None:
            saga = self._sagas.pop(context.span_id, None)
            if saga is not None and is_fit(span):
                self._held.hold(saga, self._export.add, span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Called by the SDK: send what the export has, the platform's own spans among it."""
        return self._export.flush(timeout_millis / 1000)


class UnitProcessor(SpanProcessor):
    """Puts each span into the unit of work it is started in: the user's get its saga, all are collected if kept.

    Of an exception that is recorded on a span of the platform's own, only the type is told, as by the lean ones. What the
    platform says of a span is outside its limits, as it is on those.
    """

    def __init__(self, strays: Strays, limits: Limits, *, keep: bool) -> None:
        self._strays = strays
        self._limits = limits
        self._keep = keep

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Called by the SDK; the live span is a readable one, too."""
        scope = span.instrumentation_scope
        own = scope is not None and scope.name == SCOPE
        unit = unit_in(parent_context)
        if own:
            span.record_exception = partial(_record_type, span)  # type: ignore[method-assign]
            span._attributes = LimitedAttributes(self._limits)  # pyright: ignore[reportPrivateUsage]
        elif unit is not None:
            said = LimitedAttributes(self._limits, span.attributes, span.dropped_attributes)
            said.say(unit.common)
            span._attributes = said  # pyright: ignore[reportPrivateUsage]
        if not self._keep:
            return
        span_id = span.get_span_context().span_id
        if unit is None or unit.closed:
            self._strays.expect(span_id)
        else:
            unit.add(span_id, span, always=own)

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK."""
        context = span.get_span_context()
        if context is not None:
            self._strays.ended(context.span_id, span)


def _record_type(
    span: Span, exception: BaseException, attributes: Attributes = None, timestamp: int | None = None, escaped: bool = False
) -> None:
    span.add_event(EXCEPTION, exception_attributes(exception, attributes, escaped=escaped), timestamp)


class RecordOnly(Sampler):
    """For spans within unsampled work whose spans are held: they are recorded, and tell others that they are not sampled."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Called by the SDK."""
        return SamplingResult(Decision.RECORD_ONLY, attributes, trace_state)

    def get_description(self) -> str:
        """Called by the SDK."""
        return "RecordOnly"


class LeanExport:
    """One export, and its one thread, for all services of the process. The last one to leave shuts it down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: SpanExport | None = None
        self._services = 0
        self._held = HeldSpans()

    def join(self, options: TracingOptions) -> "SpanExport":
        """A service has come. Raises :class:`ConfigurationError` for a variable that cannot be followed."""
        from pavane_tracing.endpoint import endpoint_of
        from pavane_tracing.export import SpanExport

        with self._lock:
            if self._running is None:
                spool = _spool(options)
                self._running = SpanExport(endpoint_of(environ), _encoded, batching=batching_of(environ), spool=spool)
                atexit.register(self._running.shutdown, STOP_S)
                before_child_ends(self._running, _end)
            self._services += 1
            return self._running

    def held_for(self, options: TracingOptions) -> HeldSpans | None:
        """Where the spans of unsampled sagas are held; None where they are not made."""
        if options.unsampled == "dropped":
            return None
        return self._held if options.unsampled == "held" else HeldSpans(0)

    def leave(self, timeout_s: float) -> bool:
        """A service has gone. The last one waits for the spans of all; whether they were handed over in time.

        One that leaves while others stay does not wait: its spans go out with theirs. Else a collector that is away would
        hold up each of them, and what they need to end.
        """
        with self._lock:
            self._services -= 1
            running = self._running
            if self._services or running is None:
                return True
            self._running = None
        atexit.unregister(running.shutdown)
        with ENDING.of_spans(timeout_s) as within_s:
            return running.shutdown(within_s)


LEAN_EXPORT = LeanExport()
"""The process's."""


def _end(export: "SpanExport") -> None:
    export.shutdown(STOP_S)


def _encoded(spans: Sequence[FinishedSpan]) -> bytes:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return bytes(encode_spans(cast("Sequence[ReadableSpan]", spans)).SerializePartialToString())


def _spool(options: TracingOptions) -> Spool | None:
    if options.spool is None:
        return None
    spool = Spool(options.spool, options.spool_bytes)
    try:
        spool.open()
    except OSError as error:
        problem = Problem("PAVANE_TRACE_SPOOL", "tracing.spool", f"{options.spool} cannot be used: {error}")
        raise ConfigurationError("tracing cannot be set up", [problem]) from None
    return spool
