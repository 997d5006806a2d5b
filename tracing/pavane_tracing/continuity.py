"""The continuity check: one trace follows every message, without gaps, and what says otherwise is named."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pavane_tracing.budget import MOST_IN_TRACE
from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.finding import ContinuityReport, Finding, Tally
from pavane_tracing.hops import check_hops
from pavane_tracing.naming import is_send, is_work, links_of, name_of, record_of
from pavane_tracing.sent import Sent
from pavane_tracing.span import SpanRow


def check_continuity(
    rows: Sequence[SpanRow], log: Iterable[Sent] = (), *, outside: Collection[str] = (), kept: bool = True
) -> ContinuityReport:
    """Look for breaks in a set of spans that is meant to be whole: of one saga, or of a few that fit into memory.

    ``log``: what the topics prove; without it only what spans say of each other is looked at. ``outside``: ids of spans
    in which a trace began before it came here (a gateway's). ``kept``: each span was published in the commit of its work,
    so that none can be of work that was done again; of exported spans only the log tells.
    """
    records: dict[str, list[Sent]] = {}
    for sent in log:
        records.setdefault(sent.saga, []).append(sent)
    traces = _by_trace(rows if kept else own_traces(rows, [sent for told in records.values() for sent in told]))
    tally = Tally()
    spans: dict[str, list[SpanRow]] = {}
    for trace_id, found in traces.items():
        check_trace(trace_id, found, tally, outside)
        for saga, row in by_saga(found):
            spans.setdefault(saga, []).append(row)
    for saga in sorted(spans.keys() | records.keys()):
        if kept or saga in records:  # of what was exported, a saga that no record is of is another deployment's
            check_hops(saga, spans.get(saga, ()), records.get(saga, ()), tally, kept=kept)
    return tally.report()


def own_traces(rows: Iterable[SpanRow], log: Sequence[Sent]) -> list[SpanRow]:
    """The spans of the traces that these records are of, out of exported ones; see :func:`is_own`."""
    return [row for spans in _by_trace(rows).values() if is_own(spans, log) for row in spans]


def is_own(rows: Sequence[SpanRow], log: Sequence[Sent]) -> bool:
    """Whether a whole trace tells of these records, and not of the same saga on another bus.

    Ids are derived, so the same application decided again, on a new bus, has the same ids: of such a run a trace has work
    on these records, and neither sent one of them nor is linked to one.
    """
    sends = {sent.send for sent in log}
    records = {(sent.topic, sent.id) for sent in log}
    if None in sends or not any(is_work(row) and record_of(row) in records for row in rows):
        return True
    return any((row.trace_id, row.span_id) in sends or not sends.isdisjoint(links_of(row)) for row in rows)


def _by_trace(rows: Iterable[SpanRow]) -> dict[str, list[SpanRow]]:
    traces: dict[str, list[SpanRow]] = {}
    for row in rows:
        traces.setdefault(row.trace_id, []).append(row)
    return traces


def by_saga(rows: Sequence[SpanRow]) -> Iterator[tuple[str, SpanRow]]:
    """The spans of one trace, each with the sagas that it concerns: its own, its parent's; of no saga's own, all of them."""
    spans = {row.span_id: row for row in rows}
    sagas = {saga for row in rows if (saga := row.text(SAGA_ID)) is not None}
    for row in rows:
        parent = spans.get(row.parent_span_id or "")
        concerned = {row.text(SAGA_ID), parent.text(SAGA_ID) if parent is not None else None}
        for saga in sagas & concerned or sagas:
            yield saga, row


def check_trace(trace_id: str, rows: Sequence[SpanRow], tally: Tally, outside: Collection[str] = ()) -> None:
    """Look at one whole trace: one root, no orphan, no id twice, no saga that changes on the way or has too much of it."""
    spans = {row.span_id: row for row in rows}
    tally.traces += 1
    tally.spans += len(rows)
    tally.links += sum(len(row.links) for row in rows)
    roots = [row for row in spans.values() if row.parent_span_id is None or row.parent_span_id in outside]
    orphans = [row for row in spans.values() if row not in roots and row.parent_span_id not in spans]
    tally.roots += len(roots)
    tally.orphans += len(orphans)
    tally.missing += len({row.parent_span_id for row in orphans})
    tally.find(_doubled(rows))
    tally.find(_orphaned(row) for row in orphans)
    if len(roots) != 1 and not (orphans and not roots):  # without its root a trace has orphans, and they say so
        tally.find([_rooted(trace_id, roots)])
    tally.find(_changed(spans))
    tally.find(_large(trace_id, rows))


def _doubled(rows: Sequence[SpanRow]) -> Iterator[Finding]:
    counted = Counter(row.span_id for row in rows)
    for row in {row.span_id: row for row in rows}.values():
        if counted[row.span_id] > 1:
            message = f"{counted[row.span_id]} spans have the id {row.span_id}"
            yield Finding("span.doubled", name_of(row), message, row.trace_id, row.text(SAGA_ID))


def _orphaned(row: SpanRow) -> Finding:
    if is_work(row):
        lost = "the send span is missing"
    elif is_send(row):
        lost = "the process span that sent it is missing"
    else:
        lost = "the span that it is within is missing"
    message = f"{lost} ({row.parent_span_id})"
    return Finding("span.orphan", name_of(row), message, row.trace_id, row.text(SAGA_ID))


def _rooted(trace_id: str, roots: Sequence[SpanRow]) -> Finding:
    first = min(roots, key=lambda row: row.start_ns, default=None)
    saga = next(filter(None, (row.text(SAGA_ID) for row in roots)), None)
    others = ", ".join(name_of(row) for row in sorted(roots, key=lambda row: row.start_ns)[1:4])
    beside = f": {others} beside the first" if others else ""
    return Finding(
        "trace.roots",
        name_of(first) if first is not None else f"trace {trace_id}",
        f"the trace has {len(roots)} roots, not one{beside}",
        trace_id,
        saga,
    )


def _changed(spans: Mapping[str, SpanRow]) -> Iterator[Finding]:
    for row in spans.values():
        parent = spans.get(row.parent_span_id or "")
        mine, its = row.text(SAGA_ID), parent.text(SAGA_ID) if parent is not None else None
        if mine is not None and its is not None and mine != its:
            yield Finding("saga.changed", name_of(row), f"saga.id {mine}, and its parent's is {its}", row.trace_id, its)


def _large(trace_id: str, rows: Sequence[SpanRow]) -> Iterator[Finding]:
    """Sagas with more spans in this trace than a backend may take; of one that outsiders began, each saga's part counts."""
    if len(rows) < MOST_IN_TRACE:
        return
    for saga, count in Counter(row.text(SAGA_ID) for row in rows).items():
        if saga is not None and count >= MOST_IN_TRACE:
            message = f"the saga has {count} spans in it, and {MOST_IN_TRACE} are too many"
            yield Finding("trace.large", f"trace {trace_id}", message, trace_id, saga)
