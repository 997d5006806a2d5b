"""Trace context on its way in and out: what is well formed comes back as it was, what is not is no parent."""

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags, TraceState, get_current_span

from pavane_events.envelope import NO_TRACE, Trace
from pavane_tracing.propagation import allowed_baggage, context_of, is_passed_by, span_context, trace_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"

contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.just(True),
    st.integers(0, 255).map(TraceFlags),
    st.dictionaries(
        st.from_regex(r"[a-z][_0-9a-z\-*/]{0,30}", fullmatch=True),
        st.from_regex(r"[!-+\--<>-~]{1,30}", fullmatch=True),
        max_size=5,
    ).map(lambda pairs: TraceState(list(pairs.items()))),
)


@given(contexts)
def test_a_context_survives_the_way_out_and_in(context: SpanContext) -> None:
    assert span_context(trace_of(context)) == context


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{30,34}-[0-9a-f]{14,18}-[0-9a-f]{2}.?"), st.text())
def test_junk_is_no_parent_and_no_error(header: str, state: str) -> None:
    context = span_context(Trace(traceparent=header, tracestate=state))
    assert context is None or context.is_valid


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        TRACEPARENT.upper(),
        TRACEPARENT + "\n",
        TRACEPARENT + "-more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f" {TRACEPARENT}",
        "00-" + "１" * 32 + f"-{SPAN_ID}-01",
    ],
)
def test_a_malformed_traceparent_is_no_parent(header: str) -> None:
    assert span_context(Trace(traceparent=header)) is None


@given(st.integers(0, 54), st.sampled_from("0a-gA \n１"))
def test_a_traceparent_is_read_as_its_grammar_says_wherever_it_differs(place: int, character: str) -> None:
    header = TRACEPARENT[:place] + character + TRACEPARENT[place + 1 :]
    well_formed = re.fullmatch("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", header) is not None
    assert (span_context(Trace(traceparent=header)) is not None) == well_formed


@given(
    st.integers(0, 54), st.sampled_from("0a-gA \n１"), st.booleans(), st.none() | st.just("a=b"), st.none() | st.just("c=d")
)
def test_an_unsampled_record_is_passed_by_only_where_nothing_else_is_said(
    place: int, character: str, null: bool, state: str | None, baggage: str | None
) -> None:
    unsampled = f"00-{TRACE_ID}-{'0' * 16 if null else SPAN_ID}-00"
    header = unsampled[:place] + character + unsampled[place + 1 :]
    found = span_context(Trace(header))
    plain = found is not None and header == f"00-{found.trace_id:032x}-{found.span_id:016x}-00"
    assert is_passed_by(Trace(header, state, baggage)) == (plain and state is None and baggage is None)
    assert not is_passed_by(Trace(f"00-{'0' * 32}-{SPAN_ID}-00"))
    assert not is_passed_by(NO_TRACE)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    context = span_context(Trace(traceparent=f"cc-{TRACE_ID}-{SPAN_ID}-09-what-comes"))
    assert context is not None
    assert context.trace_id == int(TRACE_ID, 16)
    assert context.trace_flags == TraceFlags.SAMPLED


@pytest.mark.parametrize(
    "state",
    ["a=b,a=c", "A=b", "a=b=c", "=", "a=" + "x" * 300, ",".join(f"k{number}=v" for number in range(33)), "x" * 600],
)
def test_a_malformed_tracestate_is_dropped_alone_and_quietly(state: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        context = span_context(Trace(traceparent=TRACEPARENT, tracestate=state))
    assert context is not None
    assert not context.trace_state
    assert not caplog.records


def test_a_tracestate_is_carried_with_its_order() -> None:
    context = span_context(Trace(traceparent=TRACEPARENT, tracestate="rojo=00f067aa0ba902b7 , ,t61@congo=t61rcWkgMzE"))
    assert context is not None
    assert trace_of(context) == Trace(traceparent=TRACEPARENT, tracestate="rojo=00f067aa0ba902b7,t61@congo=t61rcWkgMzE")


def test_an_invalid_context_is_no_trace() -> None:
    assert trace_of(INVALID_SPAN_CONTEXT) is NO_TRACE


def test_only_the_baggage_on_the_list_goes_on() -> None:
    header = "tenant=acme;meta=1, email=a%40b.example ,region = eu"
    assert allowed_baggage(header, {"tenant", "region"}) == "tenant=acme;meta=1,region = eu"
    assert allowed_baggage(header, ()) is None
    assert allowed_baggage(header, {"other"}) is None
    assert allowed_baggage(None, {"tenant"}) is None
    assert allowed_baggage("tenant=" + "x" * 9000, {"tenant"}) is None


def test_a_context_holds_the_parent_and_the_baggage_and_nothing_else() -> None:
    parent = span_context(Trace(traceparent=TRACEPARENT))
    context = context_of(parent, "tenant=acme%20corp;meta=1")
    assert get_current_span(context).get_span_context() == parent
    assert dict(baggage.get_all(context)) == {"tenant": "acme corp"}
    assert not dict(context_of(None))
