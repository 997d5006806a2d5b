"""The continuity check finds every kind of break, and none where there is none."""

from dataclasses import replace

import pytest

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.continuity import Finding, assert_continuous, check_continuity
from pavane_tracing.span import Kind, SpanLink, SpanRow

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "a" * 32


def span(
    number: int,
    parent: int | None,
    *,
    kind: Kind = "CONSUMER",
    event: str | None = None,
    saga: str | None = "saga-1",
    trace: str = TRACE,
    links: tuple[SpanLink, ...] = (),
) -> SpanRow:
    found = {"event.id": event, "saga.id": saga}
    return SpanRow(
        trace_id=trace,
        span_id=f"{number:016x}",
        parent_span_id=f"{parent:016x}" if parent is not None else None,
        name=f"span {number}",
        kind=kind,
        start_ns=number,
        end_ns=number,
        service="x",
        attributes={key: value for key, value in found.items() if value is not None},
        links=links,
    )


def event(event_id: str, send: int, *, saga: str = "saga-1", trace: str = TRACE) -> Envelope:
    carried = Trace(traceparent=f"00-{trace}-{send:016x}-01")
    return Envelope(id=event_id, source="/x", type="t", data=b"{}", saga=saga, trace=carried)


WHOLE = [
    span(1, None, kind="PRODUCER", event="e1"),
    span(2, 1, event="e1"),
    span(3, 2, kind="PRODUCER", event="e2"),
    span(4, 3, event="e2"),
    span(5, None, event="e2", trace=OTHER, links=(SpanLink(TRACE, f"{3:016x}"),)),
    span(6, 4, kind="INTERNAL", saga=None),
]
EVENTS = [event("e1", 1), event("e2", 3)]


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_whole_trace_has_no_findings() -> None:
    report = check_continuity(WHOLE, EVENTS)
    assert report.findings == ()
    assert (report.spans, report.traces, report.roots, report.links, report.events) == (6, 2, 2, 1, 2)
    assert_continuous(report)


def test_an_orphan_is_found_and_may_be_allowed_for() -> None:
    report = check_continuity([*WHOLE, span(8, 7)])
    assert codes(report.findings) == ["span.orphan"]
    assert report.orphans == 1
    assert_continuous(report, orphans_allowed=1)
    with pytest.raises(AssertionError, match=r"span\.orphan at 0000000000000008"):
        assert_continuous(report)


def test_a_parent_outside_is_a_root() -> None:
    rows = [span(2, 1), span(3, 2, kind="PRODUCER")]
    assert codes(check_continuity(rows).findings) == ["span.orphan", "trace.roots"]
    assert check_continuity(rows, outside={f"{1:016x}"}).findings == ()


def test_two_roots_are_one_too_many() -> None:
    assert codes(check_continuity([*WHOLE, span(9, None)]).findings) == ["trace.roots"]


def test_a_doubled_span_is_found() -> None:
    assert codes(check_continuity([*WHOLE, WHOLE[1]]).findings) == ["span.doubled"]


def test_a_span_of_another_saga_is_found_by_its_parent_and_by_its_event() -> None:
    rows = [*WHOLE[:3], replace(WHOLE[3], attributes={"saga.id": "saga-2", "event.id": "e2"})]
    assert codes(check_continuity(rows).findings) == ["saga.changed", "event.saga"]
    assert codes(check_continuity(rows, EVENTS).findings) == ["saga.changed", "event.saga"]


def test_every_event_must_be_reachable() -> None:
    events = [
        replace(event("e3", 1), trace=Trace(traceparent="junk")),
        event("e4", 77),
        event("e5", 11),
        event("e6", 12),
    ]
    rows = [
        *WHOLE,
        span(11, 4, kind="PRODUCER", event="e5"),
        span(12, 4, kind="PRODUCER", event="e6"),
        span(13, 4, event="e6"),
    ]
    report = check_continuity(rows, events)
    assert codes(report.findings) == ["event.untraced", "event.unsent", "event.unprocessed", "event.unreachable"]
    with pytest.raises(AssertionError, match="4 breaks"):
        assert_continuous(report, orphans_allowed=5)
