"""The stock SDK's export of spans: one exporter and one thread for all services of the process, its failures told once."""

import atexit
import threading
from collections.abc import Callable, Mapping, Sequence
from os import environ

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from pavane_tracing.losses import Losses
from pavane_tracing.variables import TRACES_PROTOCOL, protocol_of

_STOP_TIMEOUT_S = 1.0


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


class StockExport:
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
        flushed = within(processor.force_flush, timeout_s)
        with self._lock:
            self._services -= 1
            running = self._running
            if self._services or running is None:
                return flushed
            self._running = None
        if not flushed:
            running[0].shutdown()  # ends the wait for the next try
        within(processor.shutdown, _STOP_TIMEOUT_S)
        atexit.unregister(processor.shutdown)
        return flushed


STOCK_EXPORT = StockExport()
"""The process's."""


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
