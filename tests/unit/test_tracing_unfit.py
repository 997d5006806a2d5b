"""Wrong calls of OpenTelemetry's interface: whatever a step does to a span, ours raises nothing, and the work goes on."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from operator import methodcaller
from typing import Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.trace import Span, SpanContext, Status, StatusCode

from pavane import Agent, Context, Event, Retry, Saga
from pavane.runner import Surroundings
from pavane_events.envelope import Envelope, Trace
from pavane_events.record import Record
from pavane_tracing import handing, otlp, unfit
from pavane_tracing.handing import UnitProcessor
from pavane_tracing.lean_work import LeanTracing
from pavane_tracing.options import TracingOptions
from pavane_tracing.sampling import SagaSampler
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanLink
from pavane_tracing.stock_sampling import BySaga
from pavane_tracing.store import decode, encode
from pavane_tracing.unfit import is_fit
from pavane_tracing.unit import Service
from pavane_tracing.work import Tracing, Work
from support.collector import collecting
from support.quiet import quiet
from support.stage import stage

Tracer = Literal["lean", "sdk"]
Call = Callable[[Span], object]
SENT = Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01")
ENVELOPE = Envelope(id="e", source="/x", type="a.b", data=b"{}", saga="s", trace=SENT)


class Sulking:
    """Nobody can look at it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __bool__ = __hash__ = __len__ = __repr__ = __str__  # type: ignore[assignment]


def endless() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


def nested(levels: int) -> list[object]:
    found: list[object] = []
    for _ in range(levels):
        found = [found]
    return found


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "ERROR", "a\ud800", "x" * 300]),
    st.binary(max_size=3),
    st.builds(Sulking),
    st.builds(endless),
    st.integers(0, 450).map(nested),
    st.dictionaries(st.none() | st.integers(0, 3) | st.sampled_from(["", "k", "k\ud800"]), st.none() | st.builds(Sulking)),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers()), max_size=2),
    st.sampled_from([*StatusCode, ValueError("secret"), ValueError, object()]),
    st.builds(Status, st.sampled_from(["ERROR", 2, *StatusCode]), st.none() | st.just("why") | st.just(3)),
    st.builds(SpanContext, st.integers(-1, 2**129), st.integers(-1, 2**65), st.sampled_from([True, 1, "yes"])),
    st.builds(SpanContext, st.just(1.5), st.just(2), st.just(False)),
)
calls = st.one_of(
    st.builds(methodcaller, st.sampled_from(["set_attributes", "update_name", "end"]), anything),
    st.builds(methodcaller, st.just("set_attribute"), anything, anything),
    st.builds(methodcaller, st.just("add_event"), anything, anything, anything),
    st.builds(methodcaller, st.just("add_event"), st.just("event"), st.none(), anything),
    st.builds(methodcaller, st.sampled_from(["add_link", "set_status"]), anything, anything),
    st.builds(methodcaller, st.just("record_exception"), anything, anything, anything, anything),
)


class Fit(SpanProcessor):
    """What would be exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        if is_fit(span):
            self.spans.append(span)


@pytest.fixture(autouse=True, scope="module")
def quiet_about_wrong_calls() -> Iterator[None]:
    """Every one of them is told."""
    with quiet("opentelemetry", "pavane.tracing"):
        yield


def badly(span: Span, wrong: list[Call], *, ours: bool) -> None:
    """What the SDK raises from its own methods is its own affair."""
    for call in wrong:
        try:
            call(span)
        except Exception:
            assert not ours


def worked(tracing: Tracing, provider: TracerProvider, of_ours: list[Call], of_users: list[Call]) -> Work:
    """A unit of work in which a step does that to the current span, and to one of its own."""
    work = tracing.process(ENVELOPE, topic="a.b", partition=0, offset=0, group="g", step="g/s")
    with work:
        badly(trace.get_current_span(), of_ours, ours=isinstance(tracing, LeanTracing))
        inner = provider.get_tracer("user").start_span("inner")
        badly(inner, of_users, ours=False)
        inner.end()
    work.send("c.d", "out", "c.d", saga="s")
    work.fail("code", "message")
    work.end()
    return work


def made(tracer: Tracer, taken: list[bytes] | None, fit: Fit) -> tuple[Tracing, TracerProvider]:
    provider = TracerProvider(BySaga(SagaSampler()), shutdown_on_exit=False)
    owner = Service("service", provider)
    provider.add_span_processor(UnitProcessor(owner.strays, SpanLimits(), keep=taken is None))
    provider.add_span_processor(fit)
    if tracer == "sdk":
        return Tracing(owner, keep=taken is None), provider
    take = taken.append if taken is not None else None
    return LeanTracing(owner, limits=SpanLimits(), sampler=SagaSampler(), take=take), provider


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@given(st.lists(calls, max_size=6), st.lists(calls, max_size=6))
def test_whatever_is_done_to_spans_they_are_exported_or_lost_one_by_one(
    tracer: Tracer, of_ours: list[Call], of_users: list[Call]
) -> None:
    taken, fit = list[bytes](), Fit()
    tracing, provider = made(tracer, taken, fit)
    worked(tracing, provider, of_ours, of_users)
    encode_spans(fit.spans)
    if tracer == "lean":
        request = ExportTraceServiceRequest.FromString(b"".join(otlp.resource_spans(b"", otlp.scope("pavane"), taken)))
        _, process = request.resource_spans[0].scope_spans[0].spans
        assert process.kind == process.SPAN_KIND_CONSUMER
        assert process.end_time_unix_nano
        assert len(process.trace_id) == 16


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@given(st.lists(calls, max_size=6), st.lists(calls, max_size=6))
def test_whatever_is_done_to_spans_they_are_kept_or_lost_one_by_one(
    tracer: Tracer, of_ours: list[Call], of_users: list[Call]
) -> None:
    tracing, provider = made(tracer, None, Fit())
    rows = worked(tracing, provider, of_ours, of_users).spans
    assert {row.kind for row in rows} >= ({"CONSUMER", "PRODUCER"} if tracer == "lean" else {"PRODUCER"})
    message = encode(rows, "s")
    record = Record(message.topic, 0, 0, message.key, message.value, message.headers, 0)
    assert [row.span_id for row in decode(record)] == [row.span_id for row in rows]


def span_of(tracing: Tracing) -> tuple[Work, Span]:
    work = tracing.process(ENVELOPE, topic="a.b", partition=0, offset=0, group="g", step="g/s")
    with work:
        return work, trace.get_current_span()


def test_what_is_none_is_passed_over_and_the_rest_of_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tracing, _ = made("lean", None, Fit())
    work, span = span_of(tracing)
    wrong: list[Call] = [
        methodcaller("set_status", "ERROR"),
        methodcaller("set_status", Status("ERROR")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        methodcaller("add_event", None),
        methodcaller("update_name", 3),
        methodcaller("add_link", None),
        methodcaller("set_attributes", [("a", 1)]),
    ]
    with caplog.at_level("WARNING", "pavane.tracing"):
        badly(span, wrong, ours=True)
    assert [record.message.split()[0] for record in caplog.records if record.name == "pavane.tracing"] == [
        "set_status",
        "set_status",
        "add_event",
        "update_name",
        "add_link",
        "set_attributes",
    ]
    described: list[Call] = [
        methodcaller("set_attributes", {1: "one"}),
        methodcaller("add_event", "event", 5, 1.5),
        methodcaller("set_status", StatusCode.ERROR, ValueError("secret")),
        methodcaller("end", 1.5),
    ]
    badly(span, described, ours=True)
    work.end()
    (row,) = work.spans
    assert (row.name, row.links, row.attributes["1"]) == ("process a.b", (SpanLink("a" * 32, "b" * 16),), "one")
    assert [event.name for event in row.events] == ["event"]
    assert (row.status, row.status_message) == ("ERROR", None)
    assert row.start_ns < row.end_ns
    assert row.start_ns <= row.events[0].time_ns


def test_a_span_of_the_sdks_that_nobody_could_read_is_lost_alone_told_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    monkeypatch.setattr(unfit, "count_dropped", lost.append)
    tracing, provider = made("lean", None, Fit())
    work, _ = span_of(tracing)
    work.attach()
    wrong: list[Call] = [
        methodcaller("update_name", None),  # which the SDK exports as an empty one
        methodcaller("update_name", 3),
        methodcaller("add_event", "event", None, 1.5),
        methodcaller("set_status", Status("ERROR")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        methodcaller("end", -1),
    ]
    for each in wrong:
        inner = provider.get_tracer("user").start_span("inner")
        badly(inner, [each, methodcaller("end")], ours=True)
    work.detach()
    lost.clear()  # as what would have been exported
    work.end()
    with caplog.at_level("WARNING", "pavane.tracing"):
        rows = work.spans
    assert [row.name for row in rows] == ["process a.b", ""]
    assert lost == [1, 1, 1, 1]
    assert caplog.text.count("a span is lost, work goes on") == 4


def of_a_numbered_version() -> Span:
    return trace.get_tracer("library", 1.0).start_span("bad")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def linked_to(context: SpanContext) -> Span:
    span = trace.get_tracer("library").start_span("bad")
    span.add_link(context, {"why": "it says something"})
    return span


def deep(levels: int, *, in_event: bool = False) -> Span:
    span = trace.get_tracer("library").start_span("bad")
    value = cast("list[str]", nested(levels))
    span.add_event("event", {"deep": value}) if in_event else span.set_attribute("deep", value)
    return span


BAD: dict[str, Callable[[], Span]] = {
    "a version that is a number": of_a_numbered_version,
    "a trace id that is too large": partial(linked_to, SpanContext(1 << 129, 5, True)),
    "a span id that is too large": partial(linked_to, SpanContext(1, 1 << 65, True)),
    **{f"{levels} levels": partial(deep, levels) for levels in (46, 47, 48, 49, 60)},
    **{f"{levels} levels in an event": partial(deep, levels, in_event=True) for levels in (46, 47, 48, 49, 60)},
}


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize("bad", BAD)
def test_a_request_loses_what_cannot_be_encoded_or_read_and_nothing_else(
    bad: str, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
        work = tracing.process(ENVELOPE, topic="a.b", partition=0, offset=0, group="g")
        with work:
            trace.get_tracer("good").start_span("before").end()
            BAD[bad]().end()
            trace.get_tracer("good").start_span("after").end()
        work.end()
        assert tracing.shutdown(10)
    names = sorted(span.name for span in collector.spans())
    assert [name for name in names if name != "bad"] == ["after", "before", "process a.b"]


def test_a_span_that_the_encoder_refuses_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(_: ReadableSpan) -> bool:
        return True

    monkeypatch.setattr(handing, "is_fit", fit)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing = make_tracing("service", keep=False)
        for number in range(20):
            (of_a_numbered_version() if number in (3, 11) else trace.get_tracer("good").start_span("good")).end()
        tracing.shutdown(10)
    assert [span.name for span in collector.spans()] == ["good"] * 18


class Asked(Event, type="unfit.asked", version=1):
    n: int


class Answered(Event, type="unfit.answered", version=1):
    n: int


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize("exported", [True, False])
def test_a_step_that_calls_the_current_span_wrongly_does_its_work(
    tracer: Tracer, exported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Agent("one")

    @one.step(effects=False, retry=Retry(attempts=1))
    async def answer(asked: Asked, ctx: Context) -> Answered:
        span = trace.get_current_span()
        wrong: list[Call] = [
            methodcaller("set_status", "ERROR"),
            methodcaller("set_status", Status(2)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            methodcaller("add_event", None, None, -5),
            methodcaller("end", 2**70),
        ]
        badly(span, wrong, ours=True)
        return Answered(n=asked.n)

    saga = Saga("unfit", starts=Asked, completes=Answered, intake="unfit.in")

    async def scenario() -> str:
        surroundings = Surroundings(tracing_options=TracingOptions(tracer=tracer))
        async with stage([one], [saga], surroundings=surroundings) as running:
            return await running.ended(await running.publish({"n": 1}))

    with collecting() as collector:
        if exported:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        assert asyncio.run(scenario()) == "completed"
