"""What every trace owes, whoever made it: one root, no orphan, no id twice, one saga. And what a report says of it."""

from dataclasses import replace

import pytest

from pavane_tracing.continuity import check_continuity
from pavane_tracing.finding import MOST_FINDINGS, ContinuityReport, Finding, Tally, assert_continuous
from pavane_tracing.span import Kind, SpanLink, SpanRow
from pavane_tracing.sweep import Sweep

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "a" * 32


def span(
    number: int, parent: int | None, *, kind: Kind = "INTERNAL", saga: str | None = "saga-1", trace: str = TRACE
) -> SpanRow:
    return SpanRow(
        trace_id=trace,
        span_id=f"{number:016x}",
        parent_span_id=f"{parent:016x}" if parent is not None else None,
        name=f"span {number}",
        kind=kind,
        start_ns=number,
        end_ns=number,
        service="x",
        attributes={"saga.id": saga} if saga is not None else {},
    )


WHOLE = [
    span(1, None),
    span(2, 1),
    span(3, 2),
    replace(span(5, None, trace=OTHER), links=(SpanLink(TRACE, f"{3:016x}"),)),
    span(6, 2, saga=None),
]


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_whole_trace_has_no_findings() -> None:
    report = check_continuity(WHOLE)
    assert report.findings == ()
    assert (report.sagas, report.spans, report.traces, report.roots, report.links) == (1, 5, 2, 2, 1)
    assert_continuous(report)


def test_an_orphan_is_found_and_may_be_allowed_for() -> None:
    report = check_continuity([*WHOLE, span(8, 7), span(9, 7)])
    assert codes(report.findings) == ["span.orphan", "span.orphan"]
    assert (report.orphans, report.missing) == (2, 1)
    assert_continuous(report, lost_allowed=1)
    with pytest.raises(AssertionError, match=r"x, span 8: the span that it is within is missing \(0000000000000007\)"):
        assert_continuous(report)


def test_a_parent_outside_is_a_root() -> None:
    rows = [span(2, 1), span(3, 2)]
    assert codes(check_continuity(rows).findings) == ["span.orphan"]
    assert check_continuity(rows, outside={f"{1:016x}"}).findings == ()


def test_two_roots_are_one_too_many() -> None:
    (finding,) = check_continuity([*WHOLE, span(9, None)]).findings
    assert str(finding) == "x, span 1: the trace has 2 roots, not one: x, span 9 beside the first"
    assert finding.code == "trace.roots"


def test_a_trace_that_goes_round_in_a_circle_has_no_root() -> None:
    (finding,) = check_continuity([span(1, 2), span(2, 1)]).findings
    assert str(finding) == f"trace {TRACE}: the trace has 0 roots, not one"


def test_a_doubled_span_is_found() -> None:
    assert codes(check_continuity([*WHOLE, WHOLE[1]]).findings) == ["span.doubled"]


def test_a_span_of_another_saga_than_its_parent_is_found() -> None:
    rows = [*WHOLE[:2], replace(WHOLE[2], attributes={"saga.id": "saga-2"})]
    assert codes(check_continuity(rows).findings) == ["saga.changed"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_saga_that_makes_a_trace_too_large_is_found(whole: bool) -> None:
    rows = [span(1, None), *(span(number, number // 2) for number in range(2, 2_009))]

    def report(rows: list[SpanRow]) -> ContinuityReport:
        if whole:
            return check_continuity(rows)
        with Sweep(kept=True) as sweep:
            sweep.add_spans(rows)
            return sweep.report()

    (finding,) = report(rows).findings
    assert (finding.code, finding.saga) == ("trace.large", "saga-1")
    assert "2008 spans" in finding.message
    assert report(rows[:1_999]).findings == ()


def test_a_trace_that_many_sagas_share_may_be_large() -> None:
    rows = [span(1, None, saga=None), *(span(number, 1, saga=f"saga-{number}") for number in range(2, 3_000))]
    assert check_continuity(rows).findings == ()


def test_a_report_keeps_the_first_thousand_findings_and_counts_all() -> None:
    tally = Tally()
    tally.find(Finding("span.orphan", f"hop {number}", "lost") for number in range(MOST_FINDINGS + 5))
    report = tally.report()
    assert len(report.findings) == MOST_FINDINGS
    assert report.counts == {"span.orphan": MOST_FINDINGS + 5}


def test_a_report_is_one_line() -> None:
    figures = "1 saga, 2 traces, 2 roots, 1 orphan, 6 spans, 0 hops; 1 span missing: 1 span.orphan"
    assert str(check_continuity([*WHOLE, span(8, 7)])) == figures
