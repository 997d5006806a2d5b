"""Every kind of break, made in the spans of a real run: each is found, by the name of its hop, and nothing else is."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pavane_events.buses.address import open_bus
from pavane_saga.hops import sent_records
from pavane_saga.manifest import read_directory
from pavane_tracing.continuity import check_continuity
from pavane_tracing.finding import LOSSES, ContinuityReport, assert_continuous
from pavane_tracing.naming import is_send, is_work
from pavane_tracing.sent import Sent
from pavane_tracing.span import SpanLink, SpanRow
from pavane_tracing.store import all_spans
from pavane_tracing.sweep import Sweep
from unit import cli_toy

SHIPPED, REFUSED = cli_toy.saga_of("order-0"), cli_toy.saga_of("order-1")
NEW = "f" * 16


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind: one order that was shipped, one that was refused and undone."""

    rows: Sequence[SpanRow]
    log: Sequence[Sent]

    def work(self, step: str, *, saga: str = SHIPPED, event: str | None = None, undo: bool = False) -> SpanRow:
        """The ``process`` span of a step."""
        found = [
            row
            for row in self.rows
            if is_work(row)
            and row.text("saga.id") == saga
            and row.text("saga.step") == step
            and row.text("event.type") in (event, None if event else row.text("event.type"))
            and ("saga.undo" in row.attributes) == undo
        ]
        return found[0]

    def sent(self, kind: str, saga: str = SHIPPED) -> SpanRow:
        """The ``send`` span of an event."""
        (row,) = [
            row
            for row in self.rows
            if is_send(row) and row.text("saga.id") == saga and row.text("event.type") == kind and row.parent_span_id
        ]
        return row

    def check(self, rows: Iterable[SpanRow], *, kept: bool = True) -> ContinuityReport:
        """The report of these rows; the sweep on disk says the same as the check in memory."""
        changed = list(rows)
        report = check_continuity(changed, self.log, kept=kept)
        with Sweep(kept=kept) as sweep:
            sweep.add_spans(changed)
            sweep.add_log(self.log)
            swept = sweep.report()
        assert sorted(map(str, swept.findings)) == sorted(map(str, report.findings))
        assert str(swept) == str(report)
        return report

    def without(self, *dropped: SpanRow) -> list[SpanRow]:
        return [row for row in self.rows if row not in dropped]

    def changed(self, row: SpanRow, into: SpanRow) -> list[SpanRow]:
        return [into if each is row else each for each in self.rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    url = f"sqlite:///{tmp_path_factory.mktemp('hops') / 'bus.db'}"
    asyncio.run(cli_toy.perform(url, [20, cli_toy.REFUSED]))

    async def read() -> Run:
        async with await open_bus(url) as bus:
            log = [sent async for sent in sent_records(bus, await read_directory(bus))]
            return Run(await all_spans(bus), log)

    return asyncio.run(read())


def found(report: ContinuityReport) -> set[tuple[str, str]]:
    return {(finding.code, str(finding)) for finding in report.findings}


def test_a_run_as_it_was_is_whole_whether_kept_or_exported(run: Run) -> None:
    for kept in (True, False):
        report = run.check(run.rows, kept=kept)
        assert report.findings == ()
        assert (report.sagas, report.traces, report.roots, report.orphans, report.missing) == (2, 2, 2, 0, 0)
        assert report.hops > 15
        assert_continuous(report)


def test_a_process_span_that_is_lost_is_named_and_counts_once(run: Run) -> None:
    report = run.check(run.without(run.work("payment/charge")))
    assert found(report) >= {
        ("hop.lost", "toy.order-placed -> payment/charge: the process span is missing"),
    }
    assert {finding.code for finding in report.findings} == {"hop.lost", "span.orphan"}
    assert (report.missing, report.orphans) == (1, 1)


def test_an_arm_of_a_join_that_is_lost_leaves_no_orphan_and_is_named(run: Run) -> None:
    first = min((run.work("shipping/ship", event=kind) for kind in ("toy.paid", "toy.packed")), key=lambda row: row.start_ns)
    report = run.check(run.without(first))
    assert found(report) == {("hop.lost", f"{first.text('event.type')} -> shipping/ship: the process span is missing")}
    assert (report.missing, report.orphans) == (1, 0)


def test_the_process_span_of_an_undo_that_is_lost_is_named(run: Run) -> None:
    report = run.check(run.without(run.work("payment/charge", saga=REFUSED, undo=True)))
    assert ("hop.lost", "pavane.undo -> undo of payment/charge: the process span is missing") in found(report)
    assert report.missing == 1


def test_a_send_span_that_is_lost_is_named_by_who_missed_it(run: Run) -> None:
    send = run.sent("toy.paid")
    report = run.check(run.without(send))
    assert found(report) == {("span.orphan", f"toy.paid -> shipping/ship: the send span is missing ({send.span_id})")}
    assert report.missing == 1


def test_a_send_span_that_nobody_hangs_under_is_missed_by_its_record(run: Run) -> None:
    send = run.sent("pavane.saga-ended")
    report = run.check(run.without(send))
    assert found(report) == {("hop.unsent", f"pavane.saga-ended: the send span is missing ({send.span_id})")}
    assert report.missing == 1


def test_losses_are_allowed_up_to_a_number_and_nothing_else_is(run: Run) -> None:
    lost, doubled = run.work("payment/charge"), run.work("packing/pack")
    report = run.check([*run.without(lost), replace(doubled, span_id=NEW)])
    assert {finding.code for finding in report.broken()} == {"hop.lost", "span.orphan", "hop.doubled"}
    assert {finding.code for finding in report.broken(1)} == {"hop.doubled"}
    with pytest.raises(AssertionError, match=r"toy\.order-placed -> packing/pack: 2 spans did the same work"):
        assert_continuous(report, lost_allowed=1)


def test_a_process_span_under_the_root_is_flattened(run: Run) -> None:
    work = run.work("payment/charge")
    root = next(row for row in run.rows if row.trace_id == work.trace_id and row.parent_span_id is None)
    report = run.check(run.changed(work, replace(work, parent_span_id=root.span_id)))
    said = "the process span hangs under toy.order-placed -> coordinator, not under the send span"
    assert found(report) == {("hop.flattened", f"toy.order-placed -> payment/charge: {said}")}


def test_a_process_span_under_a_sibling_is_flattened(run: Run) -> None:
    work, sibling = run.work("payment/charge"), run.work("packing/pack")
    report = run.check(run.changed(work, replace(work, parent_span_id=sibling.span_id)))
    said = "the process span hangs under toy.order-placed -> packing/pack, not under the send span"
    assert found(report) == {("hop.flattened", f"toy.order-placed -> payment/charge: {said}")}


def test_a_process_span_that_became_a_root_is_flattened(run: Run) -> None:
    work = run.work("payment/charge")
    report = run.check(run.changed(work, replace(work, parent_span_id=None)))
    assert {code for code, _ in found(report)} == {"hop.flattened", "trace.roots"}


def test_a_send_span_under_somebody_elses_work_is_flattened(run: Run) -> None:
    send, other = run.sent("toy.paid"), run.work("packing/pack")
    report = run.check(run.changed(send, replace(send, parent_span_id=other.span_id)))
    said = "the send span hangs under toy.order-placed -> packing/pack, not under the work that sent it"
    assert found(report) == {("hop.flattened", f"payment/charge -> toy.paid: {said}")}


def test_a_link_that_is_dropped_is_missed(run: Run) -> None:
    work = run.work("payment/charge")
    report = run.check(run.changed(work, replace(work, links=())))
    assert found(report) == {("hop.unlinked", "toy.order-placed -> payment/charge: the link to the send span is missing")}


def test_the_link_of_a_join_to_its_other_input_is_missed(run: Run) -> None:
    last = max((run.work("shipping/ship", event=kind) for kind in ("toy.paid", "toy.packed")), key=lambda row: row.start_ns)
    other = "toy.packed" if last.text("event.type") == "toy.paid" else "toy.paid"
    own = tuple(link for link in last.links if link.span_id == last.parent_span_id)
    assert len(last.links) == 2
    report = run.check(run.changed(last, replace(last, links=own)))
    said = f"{last.text('event.type')} -> shipping/ship: the link of the join to {other} is missing"
    assert found(report) == {("hop.unlinked", said)}


def test_the_link_of_an_undo_to_what_it_undoes_is_missed(run: Run) -> None:
    undo = run.work("payment/charge", saga=REFUSED, undo=True)
    own = tuple(link for link in undo.links if link.span_id == undo.parent_span_id)
    report = run.check(run.changed(undo, replace(undo, links=own)))
    said = "pavane.undo -> undo of payment/charge: the link to what the step had sent is missing"
    assert found(report) == {("hop.unlinked", said)}


def test_work_that_is_there_twice_is_doubled_where_each_span_was_committed(run: Run) -> None:
    work = run.work("payment/charge")
    report = run.check([*run.rows, replace(work, span_id=NEW)])
    assert [finding.code for finding in report.findings] == ["hop.doubled"]
    assert report.findings[0].hop == "toy.order-placed -> payment/charge"


def test_work_that_was_done_again_after_a_loss_is_a_redelivery_where_one_committed(run: Run) -> None:
    work, send = run.work("payment/charge"), run.sent("toy.paid")
    again = [replace(work, span_id=NEW), replace(send, parent_span_id=NEW, span_id="e" * 16)]
    report = run.check([*run.rows, *again], kept=False)
    assert (report.findings, report.redelivered) == ((), 1)


def test_work_whose_two_spans_both_committed_is_doubled_wherever_it_is_kept(run: Run) -> None:
    work, send = run.work("payment/charge"), run.sent("toy.paid")
    twice = next(each for each in run.log if each.send == (send.trace_id, send.span_id))
    log = [*run.log, replace(twice, send=(send.trace_id, "e" * 16))]
    again = [replace(work, span_id=NEW), replace(send, parent_span_id=NEW, span_id="e" * 16)]
    report = replace(run, log=log).check([*run.rows, *again], kept=False)
    assert [finding.code for finding in report.findings] == ["hop.doubled"]


def test_a_later_attempt_is_none_twice_but_must_be_linked_to_the_first(run: Run) -> None:
    work = run.work("payment/charge")
    origin = SpanLink(work.trace_id, work.parent_span_id or "")
    later = replace(work, trace_id="9" * 32, span_id=NEW, parent_span_id=None, start_ns=work.start_ns + 1)
    attempt = replace(later, links=(origin, SpanLink(work.trace_id, work.span_id)))
    assert run.check([*run.rows, attempt]).findings == ()
    report = run.check([*run.rows, replace(later, links=(origin,))])
    said = "an attempt begins a trace without a link to the attempt before it"
    assert found(report) == {("hop.unlinked", f"toy.order-placed -> payment/charge: {said}")}
    report = run.check([*run.rows, replace(later, links=())])
    assert "hop.unlinked" in {finding.code for finding in report.findings}


def test_a_span_with_another_sagas_id_is_found_and_is_not_called_lost(run: Run) -> None:
    work = run.work("payment/charge")
    report = run.check(run.changed(work, replace(work, attributes={**work.attributes, "saga.id": REFUSED})))
    codes = {code for code, _ in found(report)}
    assert {"saga.changed", "hop.saga"} <= codes
    assert not codes & LOSSES


def test_a_span_of_another_service_is_found(run: Run) -> None:
    work = run.work("packing/pack")
    report = run.check(run.changed(work, replace(work, service="unknown_service")))
    said = "the process span is of service unknown_service, not packing"
    assert ("hop.service", f"toy.order-placed -> packing/pack: {said}") in found(report)


def test_a_record_without_a_context_is_untraced_and_so_is_one_that_carries_anothers(run: Run) -> None:
    paid = next(each for each in run.log if each.type == "toy.paid" and each.saga == SHIPPED)
    start = next(each for each in run.log if each.type == "toy.order-placed" and each.saga == SHIPPED)
    others = [each for each in run.log if each is not paid]
    bare = replace(run, log=[*others, replace(paid, send=None)]).check(run.rows)
    assert ("hop.untraced", "payment/charge -> toy.paid: the record names no span that sent it") in found(bare)
    borrowed = replace(run, log=[*others, replace(paid, send=start.send)]).check(run.rows)
    assert any(code == "hop.untraced" and "another's span" in said for code, said in found(borrowed))


def test_what_was_not_sampled_owes_no_span(run: Run) -> None:
    unsampled = replace(run, log=[replace(each, sampled=False) for each in run.log])
    assert unsampled.check([]).findings == ()
    assert run.check([]).missing > 15


def test_what_another_deployment_exported_is_passed_over(run: Run) -> None:
    strange = [replace(row, trace_id="7" * 32, attributes={**row.attributes, "saga.id": "strange"}) for row in run.rows]
    with Sweep(kept=False) as sweep:
        sweep.add_spans([*run.rows, *strange, *run.rows])
        sweep.add_log(run.log)
        report = sweep.report()
    assert (report.findings, report.traces, report.spans) == ((), 2, len(run.rows))


def test_the_same_saga_on_another_bus_is_passed_over(run: Run) -> None:
    def elsewhere(hexes: str) -> str:
        return hexes[::-1]

    again = [
        replace(
            row,
            trace_id=elsewhere(row.trace_id),
            span_id=elsewhere(row.span_id),
            parent_span_id=elsewhere(row.parent_span_id) if row.parent_span_id is not None else None,
            links=tuple(SpanLink(elsewhere(link.trace_id), elsewhere(link.span_id)) for link in row.links),
        )
        for row in run.rows
    ]
    report = run.check([*run.rows, *again], kept=False)
    assert (report.findings, report.spans) == ((), len(run.rows))


Break = Callable[[SpanRow, SpanRow], SpanRow | None]
BREAKS: dict[str, Break] = {
    "dropped": lambda row, other: None,
    "under another": lambda row, other: replace(row, parent_span_id=other.span_id),
    "a root": lambda row, other: replace(row, parent_span_id=None),
    "unlinked": lambda row, other: replace(row, links=()),
    "of another saga": lambda row, other: replace(row, attributes={**row.attributes, "saga.id": "another"}),
}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_process_span_can_be_touched_unnoticed(run: Run, data: st.DataObject) -> None:
    steps = [row for row in run.rows if is_work(row) and row.text("saga.step") is not None]
    row = data.draw(st.sampled_from(steps), label="row")
    in_trace = [each for each in run.rows if each.trace_id == row.trace_id]
    other = data.draw(st.sampled_from([each for each in in_trace if each.span_id not in (row.span_id, row.parent_span_id)]))
    name = data.draw(st.sampled_from(sorted(BREAKS)), label="break")
    changed = BREAKS[name](row, other)
    rows = [each for each in run.rows if each is not row] + ([changed] if changed is not None else [])
    assert run.check(rows).findings, name
    assert run.check(rows, kept=False).findings, name


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_order_in_which_spans_and_records_come_does_not_matter(run: Run, data: st.DataObject) -> None:
    shuffled = replace(run, rows=data.draw(st.permutations(run.rows)), log=data.draw(st.permutations(run.log)))
    lost = shuffled.rows[-1]
    assert shuffled.check(shuffled.without(lost)).counts == run.check(run.without(lost)).counts


def test_the_report_can_be_read_by_programs(run: Run, tmp_path: Path) -> None:
    document = run.check(run.without(run.work("packing/pack"))).to_json()
    assert document["counts"] == {"hop.lost": 1, "span.orphan": 1}
    assert document["missing"] == 1
