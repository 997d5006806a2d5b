"""Sets OpenTelemetry's SDK up, and is the only module that imports it.

Follows the standard ``OTEL_*`` variables, and no others: where an OTLP endpoint is named (or
``OTEL_TRACES_EXPORTER=otlp``), spans are exported; else they are kept if the caller keeps spans; else there are none.
Metrics are exported where ``OTEL_METRICS_EXPORTER=otlp`` or an endpoint of their own says so: many that take traces take
no metrics.
"""

import atexit
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from os import environ
from typing import TYPE_CHECKING, NamedTuple, cast

from opentelemetry.context import Context
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.conventions import OPT_IN, Naming, naming_for
from pavane_tracing.edges import Edge
from pavane_tracing.genai import CAPTURE, captures_content
from pavane_tracing.lean_work import LeanTracing
from pavane_tracing.losses import Losses
from pavane_tracing.options import TracingOptions
from pavane_tracing.routing import global_routes
from pavane_tracing.sampling import SagaSampler, sampler_of
from pavane_tracing.span import FinishedSpan
from pavane_tracing.spool import Spool
from pavane_tracing.unit import Service, Strays, unit_in
from pavane_tracing.work import SCOPE, Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

    from pavane_tracing.export import SpanExport

_STOP_TIMEOUT_S = 1.0
_TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def make_tracing(
    service: str,
    *,
    keep: bool,
    system: str = "pavane",
    baggage: Collection[str] = (),
    options: TracingOptions | None = None,
) -> Tracing:
    """The tracing of one service, as the environment asks for it. Call :meth:`Tracing.shutdown` when the service ends.

    ``keep``: the caller can publish spans to the local store; they are kept where they are not exported. Raises
    :class:`ConfigurationError` for a variable that cannot be followed.
    """
    if is_disabled(environ):
        return Tracing.off()
    exporting = _is_exporting(environ)
    if not (exporting or keep):
        return Tracing.off()
    chosen = options or TracingOptions()
    naming, content = naming_for(environ.get(OPT_IN, "")), captures_content(environ.get(CAPTURE, ""))
    words = _Words(system, baggage, naming, content, chosen.new_linked)
    sampler = sampler_of(environ) if chosen.tracer == "lean" else None
    if sampler is None or (exporting and _protocol(environ, _TRACES_PROTOCOL) == "grpc"):
        return _with_sdk(service, words, exporting=exporting)
    return _lean(service, words, chosen, sampler, exporting=exporting)


class _Words(NamedTuple):
    """What spans say, under which names, and where their traces end."""

    system: str
    baggage: Collection[str]
    naming: Naming
    content: bool
    new_linked: Collection[Edge]


def _lean(service: str, words: _Words, options: TracingOptions, sampler: SagaSampler, *, exporting: bool) -> Tracing:
    """The platform's own spans are lean; the user's are the SDK's, and are sampled as the work is that they belong to."""
    resource = Resource.create({"service.name": service})
    limits = _limits()
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sampler.share)), resource=resource, shutdown_on_exit=False, span_limits=limits
    )
    owner = Service(service, provider)
    routes = global_routes()
    export = _LEAN_EXPORT.join(options) if exporting else None
    provider.add_span_processor(_UnitProcessor(owner.strays, keep=export is None))
    if export is not None:
        provider.add_span_processor(_Handing(export))

    def shutdown(timeout_s: float) -> bool:
        routes.remove(provider)
        return export is None or _LEAN_EXPORT.leave(timeout_s)

    routes.add(provider)
    return LeanTracing(
        owner,
        limits=limits,
        sampler=sampler,
        shutdown=shutdown,
        take=export.taker(service, resource.attributes) if export is not None else None,
        **words._asdict(),
    )


def _with_sdk(service: str, words: _Words, *, exporting: bool) -> Tracing:
    """All spans are the SDK's."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    owner = Service(service, provider)
    routes = global_routes()
    processor = _EXPORT.join() if exporting else None

    def shutdown(timeout_s: float) -> bool:
        routes.remove(provider)
        return processor is None or _EXPORT.leave(processor, timeout_s)

    provider.add_span_processor(_UnitProcessor(owner.strays, keep=not exporting))
    if processor is not None:
        provider.add_span_processor(processor)
    routes.add(provider)
    return Tracing(owner, keep=not exporting, shutdown=shutdown, **words._asdict())


def start_metrics(service: str) -> Callable[[float], bool]:
    """Export this process's metrics, where the environment asks for it. What it returns stops that: within so many seconds.

    Once per process. Raises :class:`ConfigurationError` for a variable that cannot be followed.
    """
    if not _wants_metrics(environ):
        return lambda timeout_s: True
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(_metric_exporter(environ))
    provider = MeterProvider([reader], Resource.create({"service.name": service}), shutdown_on_exit=False)
    set_meter_provider(provider)
    return lambda timeout_s: _within(provider.shutdown, timeout_s)


def is_disabled(variables: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry is switched off altogether, or no exporter of traces is wanted."""
    return (
        variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or variables.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )


class _UnitProcessor(SpanProcessor):
    """Puts each span into the unit of work it is started in: the user's get its saga, all are collected if kept."""

    def __init__(self, strays: Strays, *, keep: bool) -> None:
        self._strays = strays
        self._keep = keep

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Called by the SDK; the live span is a readable one, too."""
        scope = span.instrumentation_scope
        own = scope is not None and scope.name == SCOPE
        unit = unit_in(parent_context)
        if unit is not None and not own:
            span.set_attributes(unit.common)
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


class _Handing(SpanProcessor):
    """Hands the user's spans to the export of the platform's own."""

    def __init__(self, export: "SpanExport") -> None:
        self._export = export

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self._export.add(span)


class _LeanExport:
    """One export, and its one thread, for all services of the process. The last one to leave shuts it down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: SpanExport | None = None
        self._services = 0

    def join(self, options: TracingOptions) -> "SpanExport":
        """A service has come. Raises :class:`ConfigurationError` for a variable that cannot be followed."""
        from pavane_tracing.endpoint import endpoint_of
        from pavane_tracing.export import SpanExport, batching_of

        with self._lock:
            if self._running is None:
                spool = _spool(options)
                self._running = SpanExport(endpoint_of(environ), _encoded, batching=batching_of(environ), spool=spool)
                atexit.register(self._running.shutdown, _STOP_TIMEOUT_S)
            self._services += 1
            return self._running

    def leave(self, timeout_s: float) -> bool:
        """A service has gone; whether all spans so far were handed over in time."""
        with self._lock:
            self._services -= 1
            running = self._running
            if self._services or running is None:
                return running is None or running.flush(timeout_s)
            self._running = None
        atexit.unregister(running.shutdown)
        return running.shutdown(timeout_s)


_LEAN_EXPORT = _LeanExport()


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


def _limits() -> SpanLimits:
    try:
        return SpanLimits()
    except ValueError as error:
        problem = Problem("OTEL_*_LIMIT", "tracing.limits", str(error))
        raise ConfigurationError("tracing cannot be set up", [problem]) from None


class _Watched(SpanExporter):
    """An exporter whose failures are told once, not line by line."""

    def __init__(self, exporter: SpanExporter, losses: Losses) -> None:
        self._exporter = exporter
        self._losses = losses

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by the SDK's thread, or by the one that flushes."""
        with self._losses:
            result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._losses.arrive()
        else:
            self._losses.lose(len(spans))
        return result

    def shutdown(self) -> None:
        """Ends the wait for the next try, too. Idempotent."""
        with self._losses:
            self._exporter.shutdown()


class _Batches(BatchSpanProcessor):
    """The SDK's queue; a full one is told like any other loss."""

    def __init__(self, exporter: SpanExporter, losses: Losses) -> None:
        super().__init__(exporter)
        self._losses = losses

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK."""
        with self._losses:
            super().on_end(span)


class _Export:
    """One exporter, and its one thread, for all services of the process. The last one to leave shuts it down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[SpanExporter, BatchSpanProcessor] | None = None
        self._services = 0

    def join(self) -> BatchSpanProcessor:
        """A service has come."""
        with self._lock:
            if self._running is None:
                losses = Losses()
                exporter = _Watched(_exporter(environ), losses)
                self._running = exporter, _Batches(exporter, losses)
                atexit.register(self._running[1].shutdown)
            self._services += 1
            return self._running[1]

    def leave(self, processor: BatchSpanProcessor, timeout_s: float) -> bool:
        """A service has gone; whether all spans so far were handed over in time."""
        flushed = _within(processor.force_flush, timeout_s)
        with self._lock:
            self._services -= 1
            running = self._running
            if self._services or running is None:
                return flushed
            self._running = None
        if not flushed:
            running[0].shutdown()  # ends the wait for the next try
        _within(processor.shutdown, _STOP_TIMEOUT_S)
        atexit.unregister(processor.shutdown)
        return flushed


_EXPORT = _Export()


def _within(act: Callable[[], object], timeout_s: float) -> bool:
    """Act in a thread of its own: the SDK ignores the time-out of a flush, and a shutdown takes none."""
    worker = threading.Thread(target=act, name="pavane-tracing-flush", daemon=True)
    worker.start()
    worker.join(timeout_s)
    return not worker.is_alive()


def _is_exporting(variables: Mapping[str, str]) -> bool:
    wanted = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if wanted not in ("", "otlp"):
        raise ConfigurationError(
            "tracing cannot be set up",
            [Problem("OTEL_TRACES_EXPORTER", "tracing.exporter", "use otlp, or none to switch tracing off")],
        )
    return wanted == "otlp" or any(variables.get(name, "").strip() for name in _ENDPOINTS)


def _wants_metrics(variables: Mapping[str, str]) -> bool:
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    wanted = variables.get("OTEL_METRICS_EXPORTER", "").strip().lower()
    if wanted not in ("", "otlp", "none"):
        raise ConfigurationError(
            "metrics cannot be set up",
            [Problem("OTEL_METRICS_EXPORTER", "metrics.exporter", "use otlp, or none to switch metrics off")],
        )
    return wanted == "otlp" or (wanted == "" and bool(variables.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "").strip()))


def _metric_exporter(variables: Mapping[str, str]) -> "MetricExporter":
    if _protocol(variables, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

    return OverHttp()


def _exporter(variables: Mapping[str, str]) -> SpanExporter:
    if _protocol(variables, _TRACES_PROTOCOL) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp()


def _protocol(variables: Mapping[str, str], own: str) -> str:
    names = (own, "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((variables[name].strip() for name in names if variables.get(name, "").strip()), "http/protobuf")
    if protocol not in ("grpc", "http/protobuf"):
        raise ConfigurationError(
            "telemetry cannot be set up",
            [Problem("OTEL_EXPORTER_OTLP_PROTOCOL", "tracing.protocol", "use http/protobuf or grpc")],
        )
    return protocol
