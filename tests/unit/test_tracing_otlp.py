"""The bytes that lean spans are exported as: read by OpenTelemetry's own classes they say what the stock SDK's say."""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags
from opentelemetry.util.types import AnyValue

from pavane_events.envelope import Envelope, Trace
from pavane_events.errors import BusError
from pavane_tracing import otlp
from pavane_tracing.attributes import Scalar
from pavane_tracing.edges import Edge
from pavane_tracing.handing import UnitProcessor
from pavane_tracing.lean_work import LeanTracing
from pavane_tracing.propagation import origin_of
from pavane_tracing.sampling import SagaSampler
from pavane_tracing.stock_sampling import BySaga
from pavane_tracing.unit import Service
from pavane_tracing.work import Tracing
from support.quiet import quiet

texts = st.text(max_size=200)
scalars = texts | st.integers(-(2**70), 2**70) | st.booleans() | st.floats(allow_nan=False) | st.binary(max_size=20)
values = st.recursive(
    scalars | st.none(), lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3), max_leaves=5
)
attributes = st.dictionaries(st.text(min_size=1, max_size=30), values, max_size=4)
few = st.dictionaries(st.text(min_size=1, max_size=30), texts | st.integers(-5, 2**40) | st.booleans(), max_size=3)
contexts = st.builds(SpanContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans(), st.just(TraceFlags(1)))


def sent_by(trace_id: int, span_id: int, state: str | None, flags: str) -> Trace:
    return Trace(f"00-{trace_id:032x}-{span_id:016x}-{flags}", state)


states = st.none() | st.sampled_from(["vendor=1,other=x:y", "pavane=0", "pavane=2,vendor=1", "pavane=9", "pavane=480"])
traces = st.builds(
    sent_by, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), states, st.sampled_from(["01", "01", "01", "00"])
)
edges = st.sampled_from(get_args(Edge))
names = st.from_regex(r"[a-z]{1,9}(-[a-z]{1,9})?", fullmatch=True)
errors = [ValueError("secret"), BusError("secret"), ExceptionGroup("secret", [KeyError("secret")])]
LATE_NS = 2**62
"""When a span ends that somebody ends himself."""
by_the_platform = st.one_of(
    st.builds(
        methodcaller,
        st.just("send"),
        names,
        texts,
        names,
        saga=st.none() | texts,
        size=st.none() | st.integers(0, 2**40),
        edge=edges,
    ),
    st.builds(methodcaller, st.just("carry"), edges),
    st.builds(methodcaller, st.just("point"), texts, attributes=few, links=st.lists(traces)),
    st.builds(methodcaller, st.just("event"), texts, few),
    st.builds(methodcaller, st.just("fail"), texts, texts),
    st.builds(methodcaller, st.just("belongs_to"), texts, names),
)
by_the_user = st.one_of(
    st.builds(methodcaller, st.just("set_attributes"), attributes),
    st.builds(methodcaller, st.just("set_attribute"), st.text(min_size=1), values),
    st.builds(methodcaller, st.just("add_event"), texts, attributes, st.just(5)),
    st.builds(methodcaller, st.just("add_link"), contexts, attributes),
    st.builds(methodcaller, st.just("set_status"), st.sampled_from(StatusCode), st.none() | texts),
    st.builds(methodcaller, st.just("update_name"), texts),
    st.builds(methodcaller, st.just("record_exception"), st.sampled_from(errors), attributes, st.just(5), st.booleans()),
)
acts = st.tuples(st.just(True), by_the_user) | st.tuples(st.just(False), by_the_platform)
"""What is done, and whether it is done to the current span, through OpenTelemetry's own interface."""
limits = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            [
                "OTEL_ATTRIBUTE_COUNT_LIMIT",
                "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
                "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
                "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
                "OTEL_SPAN_EVENT_COUNT_LIMIT",
                "OTEL_SPAN_LINK_COUNT_LIMIT",
                "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
                "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
            ],
            st.integers(0, 5).map(str),
        ),
    },
)


Told = tuple[str | None, int | None]
"""What other vendors say, and our budget."""


@dataclass
class Story:
    """A unit of work, and all that is done in it."""

    envelope: Envelope
    topic: str
    partition: int
    offset: int
    step: str | None
    saga_name: str | None
    links: Sequence[Trace]
    root: bool
    undo: bool
    acts: Sequence[tuple[bool, methodcaller]]
    point: tuple[str, Mapping[str, str | int | bool]]
    shares: tuple[int, int] | None
    resource: Mapping[str, str | int | bool]
    ended: bool

    def happen(self, tracing: Tracing) -> list[Told]:
        """What is told to whoever goes on with a trace."""
        work = tracing.process(
            self.envelope,
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            group="group",
            step=self.step,
            saga_name=self.saga_name,
            links=self.links,
            root=self.root,
            undo=self.undo,
        )
        if self.shares is not None:
            work.split(*self.shares)
        told: list[object] = []
        with work:
            for on_span, act in self.acts:
                told.append(act(trace.get_current_span() if on_span else work))
            if self.ended:
                trace.get_current_span().end(LATE_NS)
        work.end()
        name, said = self.point
        parent, saga = self.envelope.trace, self.envelope.saga
        told.append(tracing.point(name, parent, links=self.links, attributes=said, saga=saga).trace)
        told.append(tracing.send_root(self.topic, "event", "type", saga=saga, size=self.offset, links=self.links).trace)
        contexts = [origin_of(each) for each in told if isinstance(each, Trace)]
        return [(each.state, each.left) for each in contexts if each is not None and each.sampled]


stories = st.builds(
    Story,
    st.builds(
        Envelope,
        id=texts,
        source=st.just("/x"),
        type=st.just("a.b"),
        data=st.binary(max_size=300),
        saga=st.none() | texts,
        trace=st.just(Trace()) | traces,
    ),
    names,
    st.integers(0, 200),
    st.integers(0, 2**50),
    st.none() | names,
    st.none() | names,
    st.lists(traces, max_size=4),
    st.booleans(),
    st.booleans(),
    st.lists(acts, max_size=8),
    st.tuples(texts, few),
    st.none() | st.tuples(st.integers(1, 5), st.integers(0, 9)),
    few,
    st.booleans(),
)


class Collected(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@contextmanager
def environment(variables: Mapping[str, str]) -> Generator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def of_the_sdk(stories: Sequence[Story], bounds: SpanLimits) -> tuple[ExportTraceServiceRequest, list[Told]]:
    resource = Resource({**stories[0].resource, "service.name": "service"})
    provider = TracerProvider(BySaga(SagaSampler()), resource, shutdown_on_exit=False, span_limits=bounds)
    collected, owner = Collected(), Service("service", provider)
    provider.add_span_processor(UnitProcessor(owner.strays, bounds, keep=False))
    provider.add_span_processor(collected)
    tracing = Tracing(owner, keep=False)
    told = [each for story in stories for each in story.happen(tracing)]
    return read(encode_spans(collected.spans).SerializePartialToString()), told


def of_ours(stories: Sequence[Story], bounds: SpanLimits) -> tuple[ExportTraceServiceRequest, list[Told]]:
    taken: list[bytes] = []
    provider = TracerProvider(span_limits=bounds, shutdown_on_exit=False)
    tracing = LeanTracing(Service("service", provider), limits=bounds, sampler=SagaSampler(), take=taken.append)
    told = [each for story in stories for each in story.happen(tracing)]
    resource = otlp.resource({**stories[0].resource, "service.name": "service"})
    spans = b"".join(taken)
    return read(b"".join(otlp.resource_spans(resource, otlp.scope("pavane"), [spans])) if spans else b""), told


def read(encoded: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(encoded)
    return request


def pairs(given: Iterable[KeyValue]) -> list[bytes]:
    return sorted(each.SerializeToString(deterministic=True) for each in given)


def comparable(request: ExportTraceServiceRequest) -> list[dict[str, object]]:
    """All spans, field by field, but for ids of one's own and times of one's own. Attributes have no order."""
    if not request.resource_spans:
        return []
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    assert scope.scope.name == "pavane"
    own = {span.span_id: number for number, span in enumerate(scope.spans)}
    roots = {span.trace_id: number for number, span in enumerate(scope.spans) if not span.parent_span_id}
    about = pairs(resource.resource.attributes)
    return [{**_fields(span, own, roots), "resource": about} for span in scope.spans]


def _fields(span: Span, own: Mapping[bytes, int], roots: Mapping[bytes, int]) -> dict[str, object]:
    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert len(span.span_id) == 8
    return {
        "trace": roots.get(span.trace_id, span.trace_id),
        "parent": own.get(span.parent_span_id, span.parent_span_id),
        "state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "ended late": span.end_time_unix_nano == LATE_NS,
        "attributes": pairs(span.attributes),
        "dropped": (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
        "status": span.status.SerializeToString(),
        "links": [
            (
                roots.get(each.trace_id, each.trace_id),
                own.get(each.span_id, each.span_id),
                each.flags,
                pairs(each.attributes),
                each.dropped_attributes_count,
            )
            for each in span.links
        ],
        "events": [
            (each.name, min(each.time_unix_nano, 6), pairs(each.attributes), each.dropped_attributes_count)
            for each in span.events
        ],
    }


@given(stories, limits)
def test_every_field_of_every_span_is_what_the_sdk_would_have_sent(story: Story, variables: Mapping[str, str]) -> None:
    with environment(variables):
        bounds = SpanLimits()
    with quiet("opentelemetry"):  # it tells of every value that it cuts
        both_say_the_same([story], bounds)


def both_say_the_same(stories: Sequence[Story], bounds: SpanLimits) -> None:
    their_request, they_told = of_the_sdk(stories, bounds)
    our_request, we_told = of_ours(stories, bounds)
    theirs, ours = sorted(comparable(their_request), key=str), sorted(comparable(our_request), key=str)
    assert we_told == they_told
    for mine, its in zip(ours, theirs, strict=True):
        assert mine == its


@pytest.mark.parametrize("state", ["a=1,, ,b=2,", " a=1 ,\tb=2 ", "pavane=9,, a=1", "a=1,a=2", "A=1", "a=", ","])
def test_what_other_vendors_say_is_told_and_handed_on_as_the_sdk_does_it(state: str) -> None:
    envelope = Envelope(id="e", source="/x", type="a.b", data=b"", trace=sent_by(1, 1, state, "01"))
    acts = [(False, methodcaller("send", "c.d", "out", "c.d"))]
    story = Story(envelope, "a.b", 0, 0, None, None, (), False, False, acts, ("point", {}), None, {}, ended=False)
    both_say_the_same([story], SpanLimits())


long = st.sampled_from([0, 1, 36, 36, 126, 127, 128, 253, 254, 255, 256]).map("u".__mul__) | st.just("\N{EURO SIGN}" * 30)
"""Texts around the lengths at which an encoding changes."""
large = st.integers(0, 9).map(lambda bytes_of_it: (1 << 7 * bytes_of_it) - 1) | st.integers(0, 2**20)
percent = st.sampled_from(["a", "%b", "100%"])


def usual(name: str) -> st.SearchStrategy[Story]:
    """A message like most, and what is sent for it; ``name``: what all that spans have in common is called."""
    send = st.builds(
        methodcaller,
        st.just("send"),
        st.just(name),
        long,
        st.just(name),
        saga=st.none() | long,
        size=st.none() | large,
    )
    return st.builds(
        Story,
        st.builds(
            Envelope,
            id=long,
            source=st.just("/x"),
            type=st.just(name),
            data=large.map(lambda number: b"." * min(number, 300)),
            saga=st.none() | long,
            trace=traces,
        ),
        st.just(name),
        st.just(7),
        large,
        st.just(name),
        st.just(name),
        st.just(()),
        st.just(False),
        st.just(False),
        st.lists(st.tuples(st.just(False), send), max_size=2),
        st.just(("point", {})),
        st.none(),
        st.just({}),
        st.just(False),
    )


@given(percent.flatmap(lambda name: st.lists(usual(name), min_size=1, max_size=20)))
def test_spans_that_say_what_all_say_are_filled_into_patterns_without_a_mistake(stories: Sequence[Story]) -> None:
    both_say_the_same(stories, SpanLimits())


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_whole_number_is_read_as_it_was_written(number: int) -> None:
    written = otlp.attributes({"n": number}) if number < 2**63 else b""
    if written:
        (attribute,) = Span.FromString(written).attributes
        assert attribute.value.int_value == number


@given(st.dictionaries(st.text(min_size=1), st.text() | st.integers(0, 2**63 - 1) | st.floats(allow_nan=False)))
def test_attributes_that_differ_are_written_like_those_that_never_change(said: dict[str, Scalar]) -> None:
    parts: list[bytes] = []
    otlp.append_values(parts, said)
    assert b"".join(parts) == otlp.attributes(said)


def listed(value: AnyValue) -> AnyValue:
    return [value]


def mapped(value: AnyValue) -> AnyValue:
    return {"k": value}


@pytest.mark.parametrize("tracer", [of_ours, of_the_sdk])
@pytest.mark.parametrize("within", [listed, mapped])
@pytest.mark.parametrize(("levels", "told"), [(0, True), (20, True), (100, False)])
def test_a_value_that_is_nested_too_deep_is_left_out_or_the_whole_request_could_not_be_read(
    tracer: Callable[[Sequence[Story], SpanLimits], tuple[ExportTraceServiceRequest, list[Told]]],
    within: Callable[[AnyValue], AnyValue],
    levels: int,
    told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    value: AnyValue = "x"
    for _ in range(levels):
        value = within(value)
    acts = [(True, methodcaller("set_attribute", "k", value)), (True, methodcaller("add_event", "e", {"k": value}))]
    envelope = Envelope(id="e", source="/x", type="a.b", data=b"", trace=Trace())
    story = Story(envelope, "a.b", 0, 0, None, None, (), False, False, acts, ("point", {}), None, {}, ended=False)
    request, _ = tracer([story], SpanLimits())
    (process,) = [span for span in request.resource_spans[0].scope_spans[0].spans if span.name == "process a.b"]
    assert ("k" in [each.key for each in process.attributes]) == told
    assert bool(process.events[0].attributes) == told
