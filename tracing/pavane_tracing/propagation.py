"""W3C Trace Context and Baggage between what a record carries and what OpenTelemetry understands.

Whatever a header says, nothing here raises: a malformed ``traceparent`` is no parent, a malformed ``tracestate`` is
dropped alone. A context is replaced on its way out, never appended to. https://www.w3.org/TR/trace-context-2/
"""

import re
from collections.abc import Collection
from urllib.parse import unquote

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from pavane_events.envelope import NO_TRACE, Trace

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_STATE_MEMBER = re.compile(
    r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)
_MOST_STATE_MEMBERS = 32
_MOST_STATE_CHARACTERS = 512
_MOST_BAGGAGE_CHARACTERS = 8192
_FLAGS = tuple(TraceFlags(value) for value in range(256))


def span_context(trace: Trace) -> SpanContext | None:
    """The remote span that a record names as its own, or None where it names none or says so badly."""
    header = trace.traceparent
    if header is None:
        return None
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (more is not None and version == "00"):
        return None
    state = trace.tracestate
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        True,
        _FLAGS[int(flags, 16)] if version == "00" else _FLAGS[int(flags, 16) & TraceFlags.SAMPLED],
        _trace_state(state) if state else None,
    )
    return context if context.is_valid else None


def trace_of(context: SpanContext, kept_baggage: str | None = None) -> Trace:
    """The trace context as a record carries it; :data:`NO_TRACE` for an invalid one."""
    trace_id, span_id, _, flags, state, valid = context
    if not valid:
        return NO_TRACE
    return Trace(
        traceparent=f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}",
        tracestate=state.to_header() if state else None,
        baggage=kept_baggage,
    )


def allowed_baggage(header: str | None, allowed: Collection[str]) -> str | None:
    """The members of a baggage header whose names are allowed, as they were; None where nothing is left."""
    if header is None or not allowed or len(header) > _MOST_BAGGAGE_CHARACTERS:
        return None
    members = (member.strip() for member in header.split(","))
    return ",".join(member for member in members if member.partition("=")[0].strip() in allowed) or None


def context_of(parent: SpanContext | None, kept_baggage: str | None = None, within: Context | None = None) -> Context:
    """The remote parent and the baggage that is allowed, as a context; nothing of the caller's current one is in it."""
    context = Context() if within is None else within
    if parent is not None:
        context = set_span_in_context(NonRecordingSpan(parent), context)
    if kept_baggage is not None:
        for member in kept_baggage.split(","):
            name, _, value = member.partition(";")[0].partition("=")
            context = baggage.set_baggage(name.strip(), unquote(value.strip()), context)
    return context


def _trace_state(header: str) -> TraceState | None:
    if len(header) > _MOST_STATE_CHARACTERS:
        return None
    members = [member for member in (part.strip(" \t") for part in header.split(",")) if member]
    if len(members) > _MOST_STATE_MEMBERS or not all(map(_STATE_MEMBER.fullmatch, members)):
        return None
    pairs = [(name, value) for name, _, value in (member.partition("=") for member in members)]
    return TraceState(pairs) if len({name for name, _ in pairs}) == len(pairs) else None
