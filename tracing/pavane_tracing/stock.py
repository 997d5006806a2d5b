"""The stock SDK's export of spans: one exporter and one thread for all services of the process, its failures told once."""

import atexit
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from os import environ

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from pavane_tracing.batching import Batching, batching_of
from pavane_tracing.ending import ENDING, STOP_S
from pavane_tracing.forking import after_fork, before_child_ends
from pavane_tracing.losses import Losses
from pavane_tracing.metrics import count_dropped, count_exported
from pavane_tracing.unfit import is_fit
from pavane_tracing.variables import TRACES_PROTOCOL, protocol_of

log = logging.getLogger("pavane.tracing")

_FOR_SHUTDOWN = 0.25
"""The share of the time to leave that the SDK's own shutdown has, after a flush that took all of the rest."""
_FLUSH_S = 30.0
"""How long a flush may take unless it is told."""
_USUAL = Batching(2_048, 512, 5.0)
"""The SDK's own."""


class _Watched(SpanExporter):
    """An exporter whose failures are told once, not line by line, and counted as the lean tracer's are."""

    def __init__(self, exporter: SpanExporter, losses: Losses) -> None:
        self._exporter = exporter
        self._losses = losses
        self._lock = threading.Lock()
        self._waiting = 0
        after_fork(self._begin)

    def expect(self, most: int) -> bool:
        """Whether one more span may wait for its export; else it is lost."""
        with self._lock:
            room = self._waiting < most
            self._waiting += room
        if not room:
            self._losses.hear("spans come faster than they are sent")
            self._losses.lose(1)
            count_dropped(1)
        return room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by the SDK's thread, or by the one that flushes."""
        with self._lock:
            self._waiting -= len(spans)
        result = SpanExportResult.FAILURE
        with self._losses:
            try:
                result = self._exporter.export(spans)
            except Exception as error:  # whatever users put into their spans
                self._losses.hear(f"spans cannot be exported: {error!r}")
        if result is SpanExportResult.SUCCESS:
            self._losses.arrive()
            count_exported(len(spans))
        else:
            self._losses.lose(len(spans))
            count_dropped(len(spans))
        return result

    def shutdown(self) -> None:
        """Ends the wait for the next try, too. Idempotent."""
        with self._losses:
            self._exporter.shutdown()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0


class _Batches(BatchSpanProcessor):
    """The SDK's queue. It is never full, for it drops what it cannot hold without counting it: that is done here."""

    def __init__(self, exporter: _Watched, batching: Batching) -> None:
        super().__init__(exporter, batching.most_waiting, batching.delay_s * 1000, batching.per_request)
        self._watched = exporter
        self._most = batching.most_waiting

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled and is_fit(span) and self._watched.expect(self._most):
            super().on_end(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send what waits. The SDK's own takes no notice of the time-out."""
        return within(super().force_flush, _FLUSH_S if timeout_millis is None else timeout_millis / 1000)


class StockExport:
    """One exporter, and its one thread, for all services of the process. The last one to leave shuts it down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[SpanExporter, _Batches] | None = None
        self._services = 0

    def join(self, why: str) -> _Batches:
        """A service has come, whose spans are the SDK's for this reason. Raises :class:`ConfigurationError`."""
        with self._lock:
            if self._running is None:
                log.info("spans are made and exported by the stock SDK: %s", why)
                losses, batching = Losses(), batching_of(environ, _USUAL)
                exporter = _Watched(_exporter(environ), losses)
                self._running = exporter, _Batches(exporter, batching)
                atexit.register(self._running[1].shutdown)
                before_child_ends(self._running[1], _end)
            self._services += 1
            return self._running[1]

    def leave(self, processor: _Batches, timeout_s: float) -> bool:
        """A service has gone. The last one waits for the spans of all; whether they were handed over in time."""
        with self._lock:
            self._services -= 1
            running = self._running
            if self._services or running is None:
                return True
            self._running = None
        atexit.unregister(processor.shutdown)
        with ENDING.of_spans(timeout_s) as within_s:
            flushed = processor.force_flush(round(within_s * (1 - _FOR_SHUTDOWN) * 1000))
            if not flushed:
                running[0].shutdown()  # ends the wait for the next try
            within(processor.shutdown, within_s * _FOR_SHUTDOWN)
        return flushed


STOCK_EXPORT = StockExport()
"""The process's."""


def _end(processor: _Batches) -> None:
    processor.force_flush(round(STOP_S * 1000))


def within(act: Callable[[], object], timeout_s: float) -> bool:
    """Act in a thread of its own: the SDK ignores the time-out of a flush, and a shutdown takes none."""
    worker = threading.Thread(target=act, name="pavane-tracing-flush", daemon=True)
    worker.start()
    worker.join(timeout_s)
    return not worker.is_alive()


def _exporter(variables: Mapping[str, str]) -> SpanExporter:
    if protocol_of(variables, TRACES_PROTOCOL) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp()
