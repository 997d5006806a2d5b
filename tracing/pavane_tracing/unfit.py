"""Unfit spans: a step may put into a span what OpenTelemetry's interface does not take. The span is lost, its work goes on.

The SDK finds out as it exports, and drops all that the request holds; where spans are kept, nobody could read that unit's.
"""

import logging
from collections.abc import Iterable

from pavane_tracing.metrics import count_dropped
from pavane_tracing.span import FinishedSpan, SpanRow, check_fit, row_of

log = logging.getLogger("pavane.tracing")


def is_fit(span: FinishedSpan) -> bool:
    """Whether a span of the SDK's can be exported. One that cannot be is lost: told, and counted."""
    try:
        check_fit(span)
        for text in (span.name, span.status.description, *(event.name for event in span.events)):
            str(text or "").encode()
    except Exception as error:  # whatever was put into it
        lose(error)
        return False
    return True


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
