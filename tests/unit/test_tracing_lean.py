"""Lean spans say what the SDK's say: the same rows from the same work, but for ids and times."""

import asyncio
from dataclasses import replace
from typing import Literal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.layouts import Layout
from pavane_tracing.lean import LeanSpan
from pavane_tracing.options import TracingOptions
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanRow

SENT = Trace(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
UNSAMPLED = Trace(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-00")


def rows_of(trace_context: Trace, tracer: Literal["lean", "sdk"]) -> list[SpanRow]:
    """A unit of work with everything in it that a unit can have."""
    tracing = make_tracing("service", keep=True, options=TracingOptions(tracer=tracer))
    try:
        envelope = Envelope(id="e", source="/x", type="a.b", data=b"{}", saga="s", trace=trace_context)
        other = Trace(traceparent="00-" + "c" * 32 + "-" + "d" * 16 + "-01")
        work = tracing.process(envelope, topic="a.b", partition=1, offset=7, group="g", step="g/s", links=(other,))
        with work:
            with trace.get_tracer("user").start_as_current_span("inner"):
                pass
            work.event("retry", {"attempt": 1})
            work.send("c.d", "e2", "c.d", saga="s", size=5)
            work.point("saga x start", attributes={"k": "v"})
            work.fail("code", "message")
        work.end()
        return work.spans
    finally:
        tracing.shutdown(1.0)


def comparable(rows: list[SpanRow]) -> list[SpanRow]:
    """Without what differs from run to run: ids of one's own, and times."""
    names = {row.span_id: row.name for row in rows}
    return [
        replace(
            row,
            span_id="",
            parent_span_id=names.get(row.parent_span_id or "", row.parent_span_id),
            start_ns=0,
            end_ns=0,
            events=tuple(replace(event, time_ns=0) for event in row.events),
        )
        for row in rows
    ]


@pytest.mark.parametrize("context", [SENT, UNSAMPLED])
def test_lean_and_sdk_spans_make_the_same_rows(context: Trace) -> None:
    lean = comparable(rows_of(context, "lean"))
    assert lean == comparable(rows_of(context, "sdk"))
    assert len(lean) == (4 if context is SENT else 0)


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_who_looks_at_the_current_span_as_at_the_sdks_finds_what_it_has(tracer: Literal["lean", "sdk"]) -> None:
    tracing = make_tracing("service", keep=True, options=TracingOptions(tracer=tracer))
    envelope = Envelope(id="e", source="/x", type="a.b", data=b"{}", saga="s", trace=SENT)
    work = tracing.process(envelope, topic="a.b", partition=1, offset=7, group="g", step="g/s")
    with work:
        span = trace.get_current_span()
    found = {name: getattr(span, name) for name in ("parent", "name", "kind", "end_time", "attributes", "status")}
    assert found["parent"] == SpanContext(
        0xA * 0x11111111111111111111111111111111, 0xB * 0x1111111111111111, True, TraceFlags(1)
    )
    assert (found["name"], found["kind"], found["end_time"]) == ("process a.b", SpanKind.CONSUMER, None)
    assert found["attributes"]["saga.id"] == "s"
    assert found["status"].status_code is StatusCode.UNSET
    work.end()
    assert tracing.shutdown(1)


def test_an_ended_span_records_nothing_more() -> None:
    async def scenario() -> None:
        layout = Layout("service", "name", SpanKind.INTERNAL, {"a": 1}, SpanLimits())
        span = LeanSpan(layout, "a" * 32, "b" * 16, None, {})
        span.update_name("other")
        span.add_link(span.get_span_context())
        span.record_exception(ValueError("secret"))
        span.set_status(StatusCode.OK)
        span.set_status(StatusCode.ERROR, "too late")
        span.end(5)
        before = span.to_row()
        span.set_attribute("b", 2)
        span.set_attributes({"c": 3})
        span.add_event("late")
        span.add_link(span.get_span_context())
        span.update_name("late")
        span.set_status(StatusCode.ERROR)
        span.end(6)
        assert span.to_row() == before
        assert (before.end_ns, span.is_recording(), before.name) == (5, False, "other")
        assert "secret" not in str(before.events)
        assert before.status == "OK"

    asyncio.run(scenario())


def test_no_span_ends_when_it_begins_for_jaeger_warns_of_those() -> None:
    assert all(row.start_ns < row.end_ns for row in rows_of(SENT, "lean"))
