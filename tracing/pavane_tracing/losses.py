"""Losses: one line when spans begin to be lost and one when they no longer are, in the place of a library's many."""

import logging
import threading
from types import TracebackType

log = logging.getLogger("pavane.tracing")

_EXPORTERS = ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
_LISTENING = threading.local()


class Losses:
    """What became of the spans that were to be exported. Safe from any thread.

    As a context manager it hears what the library logs of trouble within the block, by this thread; that is logged as
    DEBUG only. Others' use of the same library is left alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: int | None = None
        self._trouble: str | None = None
        for name in _EXPORTERS:
            logging.getLogger(name).addFilter(_hear)

    def __enter__(self) -> None:
        _LISTENING.losses = self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _LISTENING.losses = None

    def hear(self, trouble: str) -> None:
        """The library is in trouble, which need not be a loss yet: it tries again. The first of a row is the reason."""
        log.debug("exporting spans: %s", trouble)
        with self._lock:
            self._trouble = self._trouble or trouble

    def lose(self, count: int, why: str | None = None) -> None:
        """So many spans are lost. The first of a row are told, with ``why`` and what trouble was heard of."""
        with self._lock:
            begins, self._lost, trouble = self._lost is None, (self._lost or 0) + count, self._trouble
        if begins:
            reason = "; ".join(filter(None, (why, trouble))) or "no reason given"
            log.warning("spans are dropped until the OTLP endpoint takes them again, work goes on: %s", reason)

    def arrive(self) -> None:
        """Spans have arrived. Told where some were lost before."""
        with self._lock:
            lost, self._lost, self._trouble = self._lost, None, None
        if lost is not None:
            log.warning("spans are exported again: %d or more were dropped meanwhile", lost)


def _hear(record: logging.LogRecord) -> bool:
    """A filter: whether a library's line is to be logged as it is."""
    losses: object = getattr(_LISTENING, "losses", None)
    if not isinstance(losses, Losses) or record.levelno < logging.WARNING:
        return True
    losses.hear(record.getMessage())
    return False
