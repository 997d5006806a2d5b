"""Sampling by saga: one decision from its id, in every process; and what is held of the sagas that were left out."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from pavane_events.envelope import Envelope, Trace
from pavane_events.errors import ConfigurationError
from pavane_tracing.held import HeldSpans
from pavane_tracing.here import log_ids
from pavane_tracing.options import TracingOptions
from pavane_tracing.propagation import origin_of
from pavane_tracing.sampling import SagaSampler, sampler_of
from pavane_tracing.setup import make_tracing
from pavane_tracing.work import Tracing
from support.collector import Collector, collecting

SAMPLED = Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01")
UNSAMPLED = Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-00")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        yield running


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_saga_that_a_small_share_samples_a_larger_one_samples_too(saga: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    trace_id = "0" * 32
    assert SagaSampler(small).samples_id(saga, trace_id) <= SagaSampler(large).samples_id(saga, trace_id)
    assert SagaSampler(1.0).samples_id(saga, trace_id)
    assert not SagaSampler(0.0).samples_id(saga, trace_id)


def test_about_as_many_are_sampled_as_asked_for_and_in_every_trace_alike() -> None:
    sampler = SagaSampler(0.25)
    sagas = [f"saga-{number}" for number in range(10_000)]
    assert 2_300 < sum(sampler.samples_id(saga, "f" * 32) for saga in sagas) < 2_700
    assert all(sampler.samples_id(saga, "f" * 32) == sampler.samples_id(saga, "0" * 32) for saga in sagas)


def test_what_was_decided_before_is_followed_unless_it_is_not_to_be() -> None:
    sampled, unsampled = origin_of(SAMPLED), origin_of(UNSAMPLED)
    assert SagaSampler(0.0).samples(sampled, "saga", "f" * 32)
    assert not SagaSampler(1.0).samples(unsampled, "saga", "f" * 32)
    assert SagaSampler(1.0, follow=False).samples(unsampled, "saga", "f" * 32)
    assert not SagaSampler(0.0, follow=False).samples(sampled, "saga", "f" * 32)


def test_the_standard_variables_choose_the_sampler() -> None:
    def chosen(name: str, argument: str = "") -> tuple[float, bool] | None:
        sampler = sampler_of({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
        return (sampler.share, sampler.follow) if sampler is not None else None

    assert chosen("") == (1.0, True)
    assert chosen("always_on") == (1.0, False)
    assert chosen("parentbased_always_off") == (0.0, True)
    assert chosen("parentbased_traceidratio", "0.1") == (0.1, True)
    assert chosen("traceidratio") == (1.0, False)
    assert chosen("jaeger_remote") is None


@pytest.mark.parametrize("argument", ["many", "1.5", "-0.1", "nan"])
def test_a_share_that_is_none_is_refused(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_SAMPLER_ARG"):
        sampler_of({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument})


def test_held_spans_go_out_when_their_saga_fails_and_those_that_come_later_at_once() -> None:
    out: list[str] = []
    held = HeldSpans()
    held.hold("good", out.append, "good 1")
    held.hold("bad", out.append, "bad 1")
    held.hold("bad", out.append, "bad 2")
    assert out == []
    held.fail("bad")
    held.fail("bad")
    held.hold("bad", out.append, "bad 3")
    assert out == ["bad 1", "bad 2", "bad 3"]
    assert held.has_failed("bad")
    assert not held.has_failed("good")


def test_no_more_are_held_than_there_is_room_for_and_the_oldest_saga_goes_first() -> None:
    out: list[int] = []
    held = HeldSpans(most_spans=10)
    for number in range(30):
        held.hold(f"saga-{number // 3}", out.append, number)
    for number in range(10):
        held.fail(f"saga-{number}")
    assert out == list(range(21, 30))


class Interrupted(str):
    """Another span of its saga ends wherever somebody looks it up, as a signal's handler may have it."""

    __slots__ = ("ends",)
    ends: Callable[[], None]

    def __hash__(self) -> int:
        self.ends()
        return super().__hash__()

    __eq__ = str.__eq__


def test_a_span_that_ends_while_one_is_being_held_is_held_too() -> None:
    out: list[str] = []
    held = HeldSpans(most_spans=10)
    saga = Interrupted("saga")
    saga.ends = lambda: held.hold("saga", out.append, "within")
    holding = threading.Thread(target=held.hold, args=(saga, out.append, "around"), daemon=True)
    holding.start()
    holding.join(20)
    assert not holding.is_alive()
    held.fail("saga")
    assert sorted(set(out)) == ["around", "within"]


def work(tracing: Tracing, saga: str, *, sampled: bool = False) -> Trace:
    """One unit of work with a span of the user's in it, which is to be sampled or not."""
    envelope = Envelope(id=f"event of {saga}", source="/x", type="a.b", data=b"{}", saga=saga, trace=UNSAMPLED)
    unit = tracing.process(envelope, topic="a.b", partition=0, offset=0, group="g")
    with unit, trace.get_tracer("user").start_as_current_span("inner") as inner:
        assert inner.get_span_context().trace_flags.sampled == sampled
    sent = unit.send("c.d", "out", "c.d", saga=saga)
    unit.end()
    return sent


def names(spans: list[Span]) -> list[str]:
    return sorted(span.name for span in spans)


def test_an_unsampled_saga_is_exported_when_it_fails_with_the_users_spans_in_their_place(collector: Collector) -> None:
    tracing = make_tracing("service", keep=False, options=TracingOptions(unsampled="held"))
    assert (work(tracing, "on its way").traceparent or "").endswith("-00")
    assert (work(tracing, "fallen").traceparent or "").endswith("-00")
    tracing.failed("fallen")
    assert (work(tracing, "fallen", sampled=True).traceparent or "").endswith("-01"), "what comes of it is sampled from now on"
    assert tracing.shutdown(10)
    spans = collector.spans()
    assert names(spans) == ["inner", "inner", "process a.b", "process a.b", "send c.d", "send c.d"]
    assert {value.value.string_value for span in spans for value in span.attributes if value.key == "saga.id"} == {"fallen"}
    processes = {span.span_id for span in spans if span.name == "process a.b"}
    assert {span.parent_span_id for span in spans if span.name != "process a.b"} == processes


@pytest.mark.parametrize("limit", ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
def test_limits_leave_the_users_spans_with_their_saga(
    collector: Collector, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limit, "1")
    tracing = make_tracing("service", keep=False, options=TracingOptions(unsampled="held"))
    work(tracing, f"cut, {limit}")
    work(tracing, f"cut, but not {limit}")
    tracing.failed(f"cut, {limit}")
    assert tracing.shutdown(10)
    assert names(collector.spans()) == ["inner", "process a.b", "send c.d"]


def test_who_is_not_told_that_a_saga_failed_learns_it_from_what_comes_sampled(collector: Collector) -> None:
    tracing = make_tracing("service", keep=False, options=TracingOptions(unsampled="held"))
    work(tracing, "worse")
    work(tracing, "better")
    envelope = Envelope(id="later", source="/x", type="a.b", data=b"{}", saga="worse", trace=SAMPLED)
    tracing.process(envelope, topic="a.b", partition=0, offset=1, group="g").end()
    assert tracing.shutdown(10)
    assert names(collector.spans()) == ["inner", "process a.b", "process a.b", "send c.d"]


def test_a_forked_process_holds_nothing_of_its_parent_s_and_waits_for_no_lock_of_its() -> None:
    out: list[str] = []
    held = HeldSpans()
    held.hold("saga", out.append, "the parent's")
    with held._lock:  # pyright: ignore[reportPrivateUsage]  # as a thread of the parent may, at that moment
        child = os.fork()
        if child == 0:
            held.hold("saga", out.append, "the child's")
            held.fail("saga")
            os._exit(0 if out == ["the child's"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    held.fail("saga")
    assert out == ["the parent's"]


def test_work_that_turns_out_to_be_of_a_saga_is_held_with_it(collector: Collector) -> None:
    tracing = make_tracing("service", keep=False, options=TracingOptions(unsampled="held"))
    unit = tracing.process(
        Envelope(id="e", source="/x", type="a.b", data=b"{}", trace=UNSAMPLED), topic="a.b", partition=0, offset=0, group="g"
    )
    unit.belongs_to("bad", "decision")
    unit.point("saga decision start")
    unit.end()
    tracing.failed("bad")
    assert tracing.shutdown(10)
    assert names(collector.spans()) == ["process a.b", "saga decision start"]


def test_who_only_sends_exports_at_once_and_without_holding_nothing_is_made(collector: Collector) -> None:
    sender = make_tracing("sender", keep=False, options=TracingOptions(unsampled="held").of_a_sender())
    point = sender.send_root("a.b", "e", "a.b", saga="any")
    assert (point.trace.traceparent or "").endswith("-00")
    plain = make_tracing("plain", keep=False)
    work(plain, "any")
    plain.failed("any")
    assert sender.shutdown(10)
    assert plain.shutdown(10)
    assert names(collector.spans()) == ["send a.b"]


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_a_log_line_of_an_unsampled_saga_names_it_too(tracer: Literal["lean", "sdk"]) -> None:
    tracing = make_tracing("plain", keep=False, options=TracingOptions(tracer=tracer))
    envelope = Envelope(id="e", source="/x", type="a.b", data=b"{}", saga="any", trace=UNSAMPLED)
    with tracing.process(envelope, topic="a.b", partition=0, offset=0, group="g"):
        if tracer == "lean":
            assert log_ids() == {"trace_id": "a" * 32, "span_id": "b" * 16, "saga_id": "any"}
        with trace.get_tracer("user").start_as_current_span("asks a bureau"):
            within = log_ids()
            assert (within["trace_id"], within["saga_id"]) == ("a" * 32, "any")
    assert log_ids() == {}
    assert tracing.shutdown(10)


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize(("sampler", "share"), [("always_off", ""), ("traceidratio", "0"), ("traceidratio", "0.000001")])
@pytest.mark.parametrize("incoming", [SAMPLED, UNSAMPLED])
def test_who_follows_nobody_leaves_out_what_others_sampled_and_says_so(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    tracer: Literal["lean", "sdk"],
    sampler: str,
    share: str,
    incoming: Trace,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
    envelope = Envelope(id="e", source="/x", type="a.b", data=b"{}", saga="saga", trace=incoming)
    unit = tracing.process(envelope, topic="a.b", partition=0, offset=0, group="g")
    with unit, trace.get_tracer("user").start_as_current_span("inner") as inner:
        assert not inner.is_recording()
    sent = origin_of(unit.send("c.d", "out", "c.d", saga="saga"))
    unit.end()
    assert sent is not None
    assert (sent.trace_id, sent.sampled) == ("a" * 32, False)
    assert tracing.shutdown(10)
    assert collector.spans() == []


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize(
    ("sampler", "sampled", "exported"),
    [
        ("always_off", True, []),
        ("always_on", False, ["request"]),
        ("parentbased_always_off", True, ["request"]),
        ("parentbased_always_on", False, []),
    ],
)
def test_outside_any_work_a_user_s_span_is_sampled_by_the_same_rule(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    tracer: Literal["lean", "sdk"],
    sampler: str,
    sampled: bool,
    exported: list[str],
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
    remote = trace.NonRecordingSpan(trace.SpanContext(5, 6, True, trace.TraceFlags(int(sampled))))
    trace.get_tracer("web").start_span("request", trace.set_span_in_context(remote)).end()
    assert tracing.shutdown(10)
    assert names(collector.spans()) == exported


@pytest.mark.usefixtures("collector", "half")
@pytest.mark.parametrize(
    ("options", "variable"),
    [
        (TracingOptions(unsampled="held"), "PAVANE_TRACE_KEEP"),
        (TracingOptions(spool=Path("spool")), "PAVANE_TRACE_SPOOL"),
    ],
)
@pytest.mark.parametrize("why", ["sdk", "grpc", "half"])
def test_what_the_stock_sdk_cannot_do_is_refused(
    options: TracingOptions, variable: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "sdk":
        options = replace(options, tracer="sdk")
    elif why == "grpc":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    else:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "half")
    with pytest.raises(ConfigurationError, match=f"{variable}.*{why}"):
        make_tracing("service", keep=False, options=options)


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize("unsampled", ["held", "exported"])
def test_failed_sagas_cannot_be_exported_after_all_where_spans_are_kept_on_the_bus(
    unsampled: Literal["held", "exported"], tracer: Literal["lean", "sdk"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused, not left out in silence; where no span is made, nothing is asked of anybody."""
    options = TracingOptions(tracer=tracer, unsampled=unsampled)
    with pytest.raises(ConfigurationError, match=r"PAVANE_TRACE_KEEP: .*OTEL_EXPORTER_OTLP_ENDPOINT"):
        make_tracing("service", keep=True, options=options)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert not make_tracing("service", keep=True, options=options).keep


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings two samplers along: one is one, the other is not."""
    about = tmp_path / "half-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 1\n")
    (tmp_path / "half_sampler.py").write_text(
        "from opentelemetry.sdk.trace.sampling import TraceIdRatioBased\n"
        "def made(argument):\n    return TraceIdRatioBased(float(argument))\n"
        "def none(argument):\n    return None\n"
    )
    names = "half = half_sampler:made\nnone = half_sampler:none\n"
    (about / "entry_points.txt").write_text(f"[opentelemetry_traces_sampler]\n{names}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("half")
def test_a_sampler_that_a_package_brings_along_decides(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "half")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracing = make_tracing("service", keep=False)
    for number in range(200):
        tracing.send_root("a.b", f"e{number}", "a.b", saga="one saga")
    assert tracing.shutdown(10)
    assert 60 < len(collector.spans()) < 140


@pytest.mark.usefixtures("collector", "half")
@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize(("name", "argument"), [("paretnbased_always_on", ""), ("none", ""), ("half", "many")])
def test_a_sampler_that_nobody_knows_is_refused(
    tracer: Literal["lean", "sdk"], name: str, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    with pytest.raises(ConfigurationError, match=f"OTEL_TRACES_SAMPLER.*{name}"):
        make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))


def test_the_stock_sdk_samples_by_saga_and_says_why_it_is_there(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    with caplog.at_level("INFO", "pavane.tracing"):
        tracing = make_tracing("service", keep=False, options=TracingOptions(tracer="sdk"))
    assert "stock SDK: PAVANE_TRACER=sdk" in caplog.text
    for number in range(100):
        saga = f"saga-{number}"
        begun = tracing.point("saga x start", None, saga=saga)
        later = tracing.point("fired", None, links=[begun.trace], saga=saga)
        tracing.send_root("a.b", f"e{number}", "a.b", saga=saga, links=[later.trace])
    assert tracing.shutdown(10)
    found = Counter(each.value.string_value for span in collector.spans() for each in span.attributes if each.key == "saga.id")
    rule = SagaSampler(0.5)
    sagas = [f"saga-{number}" for number in range(100)]
    assert found == {saga: 3 for saga in sagas if rule.samples_id(saga, "0" * 32)}


@pytest.mark.slow
def test_six_processes_export_the_sagas_that_failed_whole_and_of_the_others_only_what_was_sent_to_them(tmp_path: Path) -> None:
    with collecting() as collector:
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
            "PAVANE_TRACE_KEEP": "failed",
        }
        command = [sys.executable, "-m", "pavane", "demo", "--processes", "--count", "60", "--keep", str(tmp_path / "demo")]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        spans = collector.spans()
    known = {span.span_id for span in spans}
    assert len(known) == len(spans)
    assert [span.name for span in spans if span.parent_span_id and span.parent_span_id not in known] == []
    said = [{each.key: each.value.string_value for each in span.attributes} for span in spans]
    ended = Counter(each["saga.verdict"] for each in said if "saga.verdict" in each)
    assert set(ended) == {"compensated"}
    kept = {each["saga.id"] for each, span in zip(said, spans, strict=True) if span.parent_span_id}
    assert len(kept) == ended["compensated"] > 10
