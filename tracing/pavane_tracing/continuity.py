"""The continuity check: one trace follows every message, without gaps, and what says otherwise is named."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pavane_events.envelope import Envelope
from pavane_tracing.conventions import EVENT_ID, SAGA_ID
from pavane_tracing.propagation import span_context
from pavane_tracing.span import SpanRow

Code = Literal[
    "span.doubled",
    "span.orphan",
    "trace.roots",
    "saga.changed",
    "event.saga",
    "event.untraced",
    "event.unsent",
    "event.unprocessed",
    "event.unreachable",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One break in continuity: a stable code, the span (or event) it was found at, and a sentence."""

    code: Code
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} at {self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class ContinuityReport:
    """What was looked at, and every break that was found. ``orphans`` may be the children of a process that died."""

    spans: int
    traces: int
    roots: int
    links: int
    events: int
    orphans: int
    findings: tuple[Finding, ...]

    def others(self) -> tuple[Finding, ...]:
        """The findings that a killed process does not explain."""
        return tuple(finding for finding in self.findings if finding.code != "span.orphan")


def check_continuity(
    rows: Sequence[SpanRow], events: Iterable[Envelope] = (), *, outside: Collection[str] = ()
) -> ContinuityReport:
    """Look for breaks in a set of spans that is meant to be whole.

    ``events``: committed events that somebody consumes: each must have a ``send`` span, and a ``process`` span that is
    its child or linked to it. ``outside``: ids of spans in which a trace began before it came here (a gateway's).
    """
    traces: dict[str, dict[str, SpanRow]] = defaultdict(dict)
    for row in rows:
        traces[row.trace_id][row.span_id] = row
    committed = tuple(events)
    findings = [
        *_doubled(rows),
        *(finding for trace_id, spans in traces.items() for finding in _tree_findings(trace_id, spans, outside)),
        *_saga_findings(rows, committed),
        *_event_findings(rows, committed),
    ]
    return ContinuityReport(
        spans=len(rows),
        traces=len(traces),
        roots=sum(row.parent_span_id is None or row.parent_span_id in outside for row in rows),
        links=sum(len(row.links) for row in rows),
        events=len(committed),
        orphans=sum(finding.code == "span.orphan" for finding in findings),
        findings=tuple(findings),
    )


def assert_continuous(report: ContinuityReport, *, orphans_allowed: int = 0) -> None:
    """Raise AssertionError with every finding; orphans are passed over up to the number allowed (killed processes)."""
    wrong = report.findings if report.orphans > orphans_allowed else report.others()
    if wrong:
        listed = "\n".join(f"  - {finding}" for finding in wrong[:50])
        raise AssertionError(f"{len(wrong)} breaks in {report.spans} spans of {report.traces} traces:\n{listed}")


def _doubled(rows: Sequence[SpanRow]) -> Iterator[Finding]:
    for span_id, count in Counter(row.span_id for row in rows).items():
        if count > 1:
            yield Finding("span.doubled", span_id, f"{count} spans have this id")


def _tree_findings(trace_id: str, spans: Mapping[str, SpanRow], outside: Collection[str]) -> Iterator[Finding]:
    roots = 0
    for row in spans.values():
        parent = row.parent_span_id
        if parent is None or parent in outside:
            roots += 1
        elif parent not in spans:
            yield Finding("span.orphan", row.span_id, f"{_called(row)}: its parent {parent} is not in trace {trace_id}")
        elif _differs(row, spans[parent]):
            yield Finding("saga.changed", row.span_id, f"{_called(row)}: another saga.id than its parent's")
    if roots != 1:
        yield Finding("trace.roots", trace_id, f"the trace has {roots} roots, not one")


def _saga_findings(rows: Sequence[SpanRow], events: Sequence[Envelope]) -> Iterator[Finding]:
    sagas: dict[str, str] = {event.id: event.saga for event in events if event.saga is not None}
    for row in rows:
        event_id, saga = row.text(EVENT_ID), row.text(SAGA_ID)
        if event_id is not None and saga is not None and sagas.setdefault(event_id, saga) != saga:
            message = f"{_called(row)}: saga.id {saga}, but event {event_id} is of saga {sagas[event_id]}"
            yield Finding("event.saga", row.span_id, message)


def _event_findings(rows: Sequence[SpanRow], events: Sequence[Envelope]) -> Iterator[Finding]:
    sends = {(row.trace_id, row.span_id) for row in rows if row.kind == "PRODUCER"}
    consumers = [row for row in rows if row.kind == "CONSUMER"]
    reached = {(row.trace_id, row.parent_span_id) for row in consumers}
    reached |= {(link.trace_id, link.span_id) for row in consumers for link in row.links}
    processed = {row.text(EVENT_ID) for row in consumers}
    for event in events:
        context = span_context(event.trace)
        if context is None:
            yield Finding("event.untraced", event.id, f"{event.type}: no traceparent that can be read")
            continue
        send = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        if send not in sends:
            yield Finding("event.unsent", event.id, f"{event.type}: its send span {send[1]} is missing")
        elif send not in reached and event.id in processed:
            yield Finding("event.unreachable", event.id, f"{event.type}: processed, but not under its send span")
        elif send not in reached:
            yield Finding("event.unprocessed", event.id, f"{event.type}: no process span")


def _differs(row: SpanRow, parent: SpanRow) -> bool:
    mine, its = row.text(SAGA_ID), parent.text(SAGA_ID)
    return mine is not None and its is not None and mine != its


def _called(row: SpanRow) -> str:
    return f"{row.service}, {row.name}"
