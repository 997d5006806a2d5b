"""Unfit spans: a step may put into a span what OpenTelemetry's interface does not take. The span is lost, its work goes on.

The SDK finds out as it exports, and drops all that the request holds; where spans are kept, nobody could read that unit's.
"""

import logging
from collections.abc import Iterable
from typing import Final, Protocol

from pavane_tracing.metrics import count_dropped
from pavane_tracing.span import FinishedSpan, SpanRow, Unfit, check_fit, row_of, said_in

log = logging.getLogger("pavane.tracing")

_DEEPEST: Final = 94
"""Messages of protobuf within a value. Those who read a request read 100 within each other, and refuse all of it beyond."""


class Scope(Protocol):
    """Whose span it is: a library, in one of its versions, as it has named itself."""

    @property
    def name(self) -> object: ...
    @property
    def version(self) -> object: ...
    @property
    def schema_url(self) -> object: ...


class ExportedSpan(FinishedSpan, Protocol):
    """What is looked at of one of the SDK's spans before it is exported."""

    @property
    def instrumentation_scope(self) -> Scope | None: ...


def is_fit(span: ExportedSpan) -> bool:
    """Whether a span of the SDK's can be exported, and be read. One that cannot be is lost: told, and counted."""
    try:
        check_fit(span)
        for text in (span.name, span.status.description, *(event.name for event in span.events), *_words_of(span)):
            str(text or "").encode()
        for link in span.links:
            link.context.trace_id.to_bytes(16)
            link.context.span_id.to_bytes(8)
        if any(depth > _DEEPEST for _, depth in said_in(span)):
            raise Unfit("it has values within values, too deep to be read")
    except Exception as error:  # whatever was put into it
        lose(error)
        return False
    return True


def _words_of(span: ExportedSpan) -> tuple[object, ...]:
    """What its tracer has said of itself. Raises :class:`Unfit` for what is no text."""
    scope = span.instrumentation_scope
    words = () if scope is None else (scope.name, scope.version, scope.schema_url)
    for word in words:
        if word is not None and not isinstance(word, str):
            raise Unfit(f"its tracer has {type(word).__name__} for a name, a version or an address")
    return words


def rows_of(spans: Iterable[FinishedSpan], service: str) -> list[SpanRow]:
    """Finished spans as rows, but for those that cannot be: they are lost, told, and counted."""
    rows: list[SpanRow] = []
    for span in spans:
        try:
            rows.append(row_of(span, service))
        except Exception as error:  # whatever was put into it
            lose(error)
    return rows


def lose(error: Exception) -> None:
    """A span is lost, for it cannot be told."""
    log.warning("a span is lost, work goes on: %r", error)
    count_dropped(1)


def passed_over(call: str, given: object) -> None:
    """A call of OpenTelemetry's interface is passed over, or a part of it; what was given may hold data, so it is not told."""
    log.warning("%s does not take %s: it is passed over", call, type(given).__name__)
