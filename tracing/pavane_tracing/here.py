"""Here: what a log line says of the unit of work and of the span that it is written in, by us, a step, or its libraries."""

from collections.abc import Mapping

from opentelemetry.context import get_value
from opentelemetry.trace import get_current_span

from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.lean import PASSING_KEY, PassingSpan
from pavane_tracing.off import untraced_work
from pavane_tracing.propagation import span_context
from pavane_tracing.unit import unit_in


def log_ids() -> Mapping[str, str]:
    """``trace_id``, ``span_id`` and ``saga_id``, as far as there are such; nothing outside any unit of work and span.

    Where tracing is off there is no span, and the trace is the one that the input came in, if any.
    """
    unit, untraced, passing = unit_in(None), untraced_work(), get_value(PASSING_KEY)
    span = get_current_span().get_span_context()
    ids: dict[str, str] = {}
    if span.is_valid:
        ids = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    elif untraced is not None:
        came_in = span_context(untraced.trace)
        ids = {"trace_id": f"{came_in.trace_id:032x}"} if came_in is not None else ids
    if unit is not None:
        saga = unit.common.get(SAGA_ID)
    elif isinstance(passing, PassingSpan):
        saga = passing.saga
    else:
        saga = untraced.saga if untraced is not None else None
    return {**ids, "saga_id": str(saga)} if saga is not None else ids
