"""The budget of a trace: however hops follow one another, no trace of a saga is larger than it may be, and none is cut off."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.budget import FRESH, MOST_IN_TRACE, Budget, split_state, stamped
from pavane_tracing.continuity import check_continuity
from pavane_tracing.finding import ContinuityReport, assert_continuous
from pavane_tracing.options import TracingOptions
from pavane_tracing.propagation import origin_of
from pavane_tracing.sent import Sent, span_of
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanRow
from pavane_tracing.work import Tracing

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAGA = "saga-1"
LARGEST = FRESH + 1
"""Spans of a trace in which each message is worked on once: what it begins with, and the span that brought it in."""
LARGEST_ORDINARY = 450
"""Spans of a chain that never rolls over."""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(params=["lean", "sdk"])
def tracing(request: pytest.FixtureRequest) -> Iterator[Tracing]:
    tracer: Literal["lean", "sdk"] = request.param
    made = make_tracing("agent", keep=True, options=TracingOptions(tracer=tracer))
    yield made
    made.shutdown(1)


@dataclass
class Hops:
    """A saga of hops under one tracing: who works on what, in any order, and what was seen of it."""

    tracing: Tracing
    rows: list[SpanRow] = field(default_factory=list[SpanRow])
    events: list[Envelope] = field(default_factory=list[Envelope])
    pending: list[Envelope] = field(default_factory=list[Envelope])
    works: Counter[str] = field(default_factory=Counter[str])
    """How many have worked on each event, each a step of its own."""

    def begin(self) -> None:
        sent = self.tracing.send_root("start", "e0", "start", saga=SAGA)
        self.rows += sent.spans
        self._sent("e0", sent.trace)

    def hop(self, completing: Envelope, outputs: int, arms: Sequence[Envelope] = (), *, goes_on: bool = True) -> None:
        work = self.tracing.process(
            completing,
            topic=completing.type,
            partition=0,
            offset=len(self.rows),
            group="agent",
            step=f"agent/step-{self.works[completing.id]}",
            links=[arm.trace for arm in arms],
        )
        if outputs != 1:
            work.split(outputs)
        for _ in range(outputs):
            event_id = f"e{len(self.events)}"
            trace = work.send("next", event_id, "next", saga=SAGA)
            if goes_on:
                self._sent(event_id, trace)
        work.end()
        self.works[completing.id] += 1
        self.rows += work.spans

    def drain(self) -> None:
        """What is left is worked on, and leads to nothing."""
        while self.pending:
            self.hop(self.pending.pop(), 0)

    def _sent(self, event_id: str, trace: Trace) -> None:
        event = Envelope(id=event_id, source="/a", type="next", data=b"{}", saga=SAGA, trace=trace)
        self.events.append(event)
        self.pending.append(event)

    def seen(self) -> tuple[ContinuityReport, Counter[str]]:
        """No break, every new trace is linked to the one before, every span names the saga; the sizes of the traces."""
        log = [Sent(each.type, each.id, each.type, SAGA, span_of(each)[0], kind="event") for each in self.events]
        report = check_continuity(self.rows, log)
        works = [row for row in self.rows if row.kind == "CONSUMER"]
        reached = {(link.trace_id, link.span_id) for row in works for link in row.links}
        assert {span_of(each)[0] for each in self.events} <= reached
        assert_continuous(report)
        known = {(row.trace_id, row.span_id) for row in self.rows}
        roots = [row for row in self.rows if row.parent_span_id is None]
        first, *further = sorted(roots, key=lambda row: row.start_ns)
        assert not first.links
        for root in further:
            assert root.links
            assert all((link.trace_id, link.span_id) in known and link.trace_id != root.trace_id for link in root.links[:1])
        assert {row.text("saga.id") for row in self.rows} == {SAGA}
        return report, Counter(row.trace_id for row in self.rows)


def test_a_chain_of_ten_thousand_hops_rolls_over_with_links(tracing: Tracing) -> None:
    hops = Hops(tracing)
    hops.begin()
    for _ in range(10_000):
        hops.hop(hops.pending.pop(), 1)
    hops.drain()
    _, sizes = hops.seen()
    assert max(sizes.values()) <= LARGEST
    assert len(sizes) == pytest.approx(20_000 / FRESH, abs=3)


def test_a_chain_of_some_hundred_spans_is_one_trace(tracing: Tracing) -> None:
    hops = Hops(tracing)
    hops.begin()
    while len(hops.rows) < LARGEST_ORDINARY:
        hops.hop(hops.pending.pop(), 1)
    hops.drain()
    _, sizes = hops.seen()
    assert len(sizes) == 1


@pytest.mark.parametrize("outputs", [50, 400, 5_000])
def test_a_wide_fan_out_is_shared_out_and_what_has_no_room_begins_traces_of_its_own(tracing: Tracing, outputs: int) -> None:
    hops = Hops(tracing)
    hops.begin()
    hops.hop(hops.pending.pop(), outputs)
    assert len(hops.pending) == outputs
    for event in tuple(hops.pending):
        hops.pending.remove(event)
        hops.hop(event, 1)
    hops.drain()
    _, sizes = hops.seen()
    assert max(sizes.values()) <= LARGEST
    assert (len(sizes) == 1) == (outputs == 50)


def test_a_fan_out_in_every_hop_stays_below(tracing: Tracing) -> None:
    hops = Hops(tracing)
    hops.begin()
    for _ in range(11):  # 4,095 events
        generation, hops.pending = hops.pending, []
        for event in generation:
            hops.hop(event, 2)
    hops.drain()
    _, sizes = hops.seen()
    assert max(sizes.values()) <= LARGEST


def test_four_that_work_on_every_event_of_a_long_chain_stay_below(tracing: Tracing) -> None:
    hops = Hops(tracing)
    hops.begin()
    for _ in range(1_000):
        event = hops.pending.pop()
        hops.hop(event, 1)
        for _ in range(3):
            hops.hop(event, 1, goes_on=False)
    hops.drain()
    _, sizes = hops.seen()
    assert max(sizes.values()) < MOST_IN_TRACE


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from([0, 1, 1, 1, 2, 2, 3, 7, 64, 300]), st.integers(0, 3)), max_size=400
    )
)
def test_no_tree_of_hops_makes_a_trace_too_large_or_cuts_it_off(drawn: list[tuple[int, int, int]]) -> None:
    tracing = make_tracing("agent", keep=True)
    try:
        hops = Hops(tracing)
        hops.begin()
        for place, outputs, joined in drawn:
            if not hops.pending:
                break
            completing = hops.pending.pop(place % len(hops.pending))
            arms = [hops.pending.pop(place % len(hops.pending)) for _ in range(min(joined, len(hops.pending)))]
            hops.hop(completing, outputs, arms)
        hops.drain()
        _, sizes = hops.seen()
        assert max(sizes.values()) <= LARGEST
    finally:
        tracing.shutdown(1)


@given(st.integers(1, FRESH), st.integers(0, 600), st.integers(0, 100), st.integers(1, 700))
def test_a_unit_never_hands_on_more_than_it_has(left: int, count: int, spare: int, sends: int) -> None:
    budget = Budget(left, None)
    if count != 1:
        budget.split(count, spare)
    spent = 1
    for _ in range(sends):
        state = budget.take()
        if state is not None:
            spent += 1 + (split_state(state)[1] or 0)
    assert spent <= left


VENDORS = ",".join(f"v{number}=x" for number in range(32))


@pytest.mark.parametrize(
    ("header", "others", "left"),
    [
        ("pavane=478", None, 478),
        ("pavane=0", None, 0),
        ("rojo=1,congo=t61", "rojo=1,congo=t61", None),
        ("pavane=12,rojo=1", "rojo=1", 12),
        ("rojo=1 , pavane=12 ,congo=t61", "rojo=1,congo=t61", 12),
        ("mypavane=3", "mypavane=3", None),
        ("pavane=481", None, None),
        ("pavane=-1,a=b", "a=b", None),
        ("pavane=junk", None, None),
        ("pavane=5,pavane=7,a=b", "a=b", 5),
    ],
)
def test_our_member_is_told_from_those_of_others(header: str, others: str | None, left: int | None) -> None:
    origin = origin_of(Trace(PARENT, header))
    assert origin is not None
    assert (origin.state, origin.left) == (others, left)


@pytest.mark.parametrize("vendors", ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=" + "x" * 255 + ",b=" + "y" * 250])
def test_members_of_others_survive_untouched_and_ours_goes_first(tracing: Tracing, vendors: str) -> None:
    trace = Trace(PARENT, vendors)
    for hop in range(1, 4):
        event = Envelope(id="1", source="/s", type="t", data=b"{}", trace=trace)
        work = tracing.process(event, topic="t", partition=0, offset=0, group="g")
        trace = work.send("t", "2", "t")
        work.end()
        assert trace.tracestate == f"pavane={FRESH - 2 * hop},{vendors}"


def test_of_thirty_two_members_of_others_the_last_one_makes_room() -> None:
    assert stamped(9, VENDORS) == "pavane=9," + VENDORS.removesuffix(",v31=x")


def test_a_message_stamped_so_begins_a_new_trace_whatever_the_receiver_would_choose(tracing: Tracing) -> None:
    event = Envelope(id="1", source="/s", type="t", data=b"{}", trace=Trace(PARENT, "pavane=0,rojo=1"))
    work = tracing.process(event, topic="t", partition=0, offset=0, group="g", root=False)
    sent = work.send("t", "2", "t")
    work.end()
    row = work.spans[0]
    assert row.parent_span_id is None
    assert [link.span_id for link in row.links] == ["00f067aa0ba902b7"]
    assert sent.tracestate == f"pavane={FRESH - 2}"


def test_a_context_from_outside_that_says_so_is_linked_and_not_gone_on_with(tracing: Tracing) -> None:
    sent = tracing.send_root("t", "1", "t", parent=Trace(PARENT, "pavane=0"))
    (row,) = sent.spans
    assert (row.parent_span_id, [link.span_id for link in row.links]) == (None, ["00f067aa0ba902b7"])
    assert sent.trace.tracestate is None
    goes_on = tracing.send_root("t", "1", "t", parent=Trace(PARENT, "pavane=30,rojo=1"))
    assert goes_on.spans[0].parent_span_id == "00f067aa0ba902b7"
    assert goes_on.trace.tracestate == "pavane=29,rojo=1"
