"""W3C Trace Context and Baggage between what a record carries and what OpenTelemetry understands.

Whatever a header says, nothing here raises: a malformed ``traceparent`` is no parent, a malformed ``tracestate`` is
dropped alone. A context is replaced on its way out, never appended to. https://www.w3.org/TR/trace-context-2/
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from mypy_extensions import mypyc_attr
from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from pavane_events.envelope import NO_TRACE, Trace
from pavane_tracing.budget import split_state, stamped

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_STATE_MEMBER: Final = re.compile(
    r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)
_MOST_STATE_MEMBERS: Final = 32
_MOST_STATE_CHARACTERS: Final = 512
_MOST_BAGGAGE_CHARACTERS: Final = 8192
_SHAPES: Final = bytes(48 if chr(each) in "0123456789abcdef" else each if each == 45 else 0 for each in range(256))
_USUAL: Final = b"00-" + 32 * b"0" + b"-" + 16 * b"0" + b"-00"
"""A ``traceparent``, each of its digits a 0."""

_FLAGS: Final = {f"{flags:02x}": (TraceFlags(flags), bool(flags & TraceFlags.SAMPLED)) for flags in range(256)}
_RECORDED: Final = _FLAGS["01"]
_NO_TRACE_ID, _NO_SPAN_ID = "0" * 32, "0" * 16
_NULL_TRACE, _NULL_SPAN = f"00-{_NO_TRACE_ID}", f"-{_NO_SPAN_ID}-00"
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
SPAN_KEY: Final = next(iter(set_span_in_context(NonRecordingSpan(INVALID_SPAN_CONTEXT), Context())))
"""Under which a context has its current span: one dictionary is made where the API's own functions make three."""


@mypyc_attr(free_list_len=1)
@dataclass(slots=True, init=False)
class Origin:
    """The remote span that a record names as its own, in the words of its header: ids in hex. Treat as immutable.

    ``state`` is what other vendors say, where it is valid, with nothing but commas between; ``left`` our own budget, where
    there is one: 0 where the sender has stamped that a new trace begins here.
    """

    trace_id: str
    span_id: str
    flags: TraceFlags
    state: str | None
    sampled: bool
    """Whether its sender recorded it, by its flags."""
    left: int | None = None

    def __init__(
        self, trace_id: str, span_id: str, flags: TraceFlags, state: str | None, sampled: bool, left: int | None = None
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.state = state
        self.sampled = sampled
        self.left = left

    @property
    def begins(self) -> bool:
        """Whether what it led to begins a new trace, linked to it."""
        return self.left == 0


def origin_of(trace: Trace) -> Origin | None:
    """The remote span that a record names as its own, or None where it names none or says so badly."""
    header = trace.traceparent
    if header is None:
        return None
    if _is_usual(header):
        version, trace_id, span_id = "00", header[3:35], header[36:52]
        flags = "01" if header.endswith("-01") else header[53:]
    else:
        match = _TRACEPARENT.fullmatch(header)
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if version == "ff" or (more is not None and version == "00"):
            return None
    if trace_id == _NO_TRACE_ID or span_id == _NO_SPAN_ID:
        return None
    kept, sampled = _RECORDED if flags == "01" else _FLAGS[flags]
    if version != "00":
        kept = SAMPLED if sampled else UNSAMPLED
    if not trace.tracestate:
        return Origin(trace_id, span_id, kept, None, sampled)
    others, left = split_state(trace.tracestate)
    state = trace_state(others) if others else None
    return Origin(trace_id, span_id, kept, state.to_header() if state else None, sampled, left)


def is_passed_by(trace: Trace) -> bool:
    """Whether all that a record says of its trace is that its span was not sampled: the usual way, and nothing beside it."""
    header = trace.traceparent
    return (
        header is not None
        and trace.tracestate is None
        and trace.baggage is None
        and header.endswith("-00")
        and _is_usual(header)
        and not header.startswith(_NULL_TRACE)
        and not header.endswith(_NULL_SPAN)
    )


def _is_usual(header: str) -> bool:
    """Whether a ``traceparent`` is well formed, and of the version that nearly all of them are."""
    return header.startswith("00-") and header.isascii() and header.encode().translate(_SHAPES) == _USUAL


def span_context(trace: Trace) -> SpanContext | None:
    """The remote span that a record names as its own, or None where it names none or says so badly."""
    origin = origin_of(trace)
    if origin is None:
        return None
    return SpanContext(int(origin.trace_id, 16), int(origin.span_id, 16), True, origin.flags, trace_state(origin.state))


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


def is_continued(trace: Trace) -> bool:
    """Whether a context says that its trace goes on: it hands on a budget. One from an older version says nothing."""
    origin = origin_of(trace)
    return origin is not None and bool(origin.left)


def begun_anew(trace: Trace) -> Trace:
    """The same context, stamped so that whoever goes on from it begins a new trace, linked to it."""
    if trace.traceparent is None:
        return trace
    others = split_state(trace.tracestate)[0] if trace.tracestate else None
    return trace.stamped(stamped(0, others))


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


def trace_state(header: str | None) -> TraceState | None:
    """What vendors added to the context; None where there is nothing, or it is malformed."""
    if header is None or len(header) > _MOST_STATE_CHARACTERS:
        return None
    members = [member for member in (part.strip(" \t") for part in header.split(",")) if member]
    if len(members) > _MOST_STATE_MEMBERS or not all(map(_STATE_MEMBER.fullmatch, members)):
        return None
    pairs = [(name, value) for name, _, value in (member.partition("=") for member in members)]
    return TraceState(pairs) if len({name for name, _ in pairs}) == len(pairs) else None
