"""Spans as rows: out of the SDK, onto the bus, and back."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes

from pavane_events.bus import Bus
from pavane_events.envelope import Envelope
from pavane_events.errors import UnknownTopic
from pavane_events.record import Message, Record
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import FinishedEvent, SpanEvent, SpanLink, SpanRow, Value, row_from_json, row_of
from pavane_tracing.store import MAX_SPANS_BYTES, SPANS_TOPIC, all_spans, decode, encode, spans_of
from pavane_tracing.work import Tracing

ROW = SpanRow(
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    span_id="00f067aa0ba902b7",
    parent_span_id=None,
    name="process credit.submitted",
    kind="CONSUMER",
    start_ns=1_700_000_000_000_000_000,
    end_ns=1_700_000_000_000_001_000,
    service="credit-score",
    attributes={"saga.id": "saga-1", "pavane.offset": 41},
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
attributes = st.dictionaries(st.text(), cast("st.SearchStrategy[Value]", values), max_size=4)
rows = st.builds(
    SpanRow,
    trace_id=st.text(),
    span_id=st.text(),
    parent_span_id=st.none() | st.text(),
    name=st.text(),
    kind=st.sampled_from(["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]),
    start_ns=st.integers(0, 2**63),
    end_ns=st.integers(0, 2**63),
    service=st.text(),
    attributes=attributes,
    links=st.lists(st.builds(SpanLink, st.text(), st.text()), max_size=2).map(tuple),
    events=st.lists(st.builds(SpanEvent, st.text(), st.integers(0, 2**63), attributes), max_size=2).map(tuple),
    status=st.sampled_from(["UNSET", "OK", "ERROR"]),
    status_message=st.none() | st.text(),
)


def record(message: Message, offset: int = 0) -> Record:
    return Record(message.topic, 0, offset, message.key, message.value, message.headers, 0)


class ReadOnlyBus:
    """As much of a bus as reading spans needs."""

    def __init__(self, messages: Sequence[Message] | None) -> None:
        self._messages = messages

    async def read(self, topic: str, *, key: bytes | None = None) -> AsyncIterator[Record]:
        if self._messages is None:
            raise UnknownTopic(topic)
        for offset, message in enumerate(self._messages):
            if message.topic == topic and key in (None, message.key):
                yield record(message, offset)


def bus_with(*messages: Message) -> Bus:
    return cast("Bus", ReadOnlyBus(messages))


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    made = make_tracing("credit-score", keep=True)
    yield made
    made.shutdown(1)


@given(rows)
def test_a_row_survives_json(row: SpanRow) -> None:
    assert row_from_json(json.loads(json.dumps(row.to_json()))) == row


@given(st.lists(rows, max_size=4))
def test_rows_survive_the_bus(found: list[SpanRow]) -> None:
    assert decode(record(encode(found, "saga-1"))) == found


@given(st.binary(max_size=60) | st.none() | st.sampled_from([b"[{}]", b"{}", b"[1]", b"[" * 100_000, b"7"]))
def test_junk_on_the_topic_is_passed_over(value: bytes | None) -> None:
    assert decode(record(Message(SPANS_TOPIC, value))) == []


@pytest.mark.parametrize("field", ["traceId", "kind", "startTimeUnixNano", "links", "status", "attributes"])
def test_a_row_with_a_wrong_field_is_refused(field: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        row_from_json({**ROW.to_json(), field: 7.5})


def test_the_json_has_the_names_of_otlp_and_leaves_out_what_is_empty() -> None:
    assert ROW.to_json() == {
        "traceId": ROW.trace_id,
        "spanId": ROW.span_id,
        "name": ROW.name,
        "kind": "CONSUMER",
        "startTimeUnixNano": ROW.start_ns,
        "endTimeUnixNano": ROW.end_ns,
        "attributes": ROW.attributes,
        "service": "credit-score",
    }
    full = replace(ROW, parent_span_id="1", links=(SpanLink("2", "3"),), events=(SpanEvent("seen", 4, {}),), status="ERROR")
    added = {key: value for key, value in full.to_json().items() if key not in ROW.to_json()}
    assert added == {
        "parentSpanId": "1",
        "links": [{"traceId": "2", "spanId": "3"}],
        "events": [{"name": "seen", "timeUnixNano": 4, "attributes": {}}],
        "status": {"code": "ERROR", "message": None},
    }


def test_the_spans_of_one_work_are_one_message_of_its_saga(tracing: Tracing) -> None:
    event = Envelope(id="event-1", source="/agents/x", type="credit.submitted", data=b"{}", saga="saga-1")
    work = tracing.process(event, topic="credit.submitted", partition=3, offset=41, group="credit-score")
    with work, trace.get_tracer("user").start_as_current_span("ask") as span:
        span.set_attribute("odd", {"list": [1, 2.5, True], "bytes": b"\x00\xff", "none": None})
        span.add_event("seen", {"names": ("a", "b")})
    work.send("credit.scored", "event-2", "credit.scored")
    work.end()
    message = encode(work.spans, "saga-1", partition=3)
    assert (message.topic, message.key, message.partition) == (SPANS_TOPIC, b"saga-1", 3)
    back = decode(record(message))
    assert [row.name for row in back] == ["process credit.submitted", "ask", "send credit.scored"]
    assert back[1].attributes["odd"] == {"list": [1, 2.5, True], "bytes": "AP8=", "none": None}
    assert back[1].events[0].attributes == {"names": ["a", "b"]}
    assert [back[0], back[2]] == [work.spans[0], work.spans[2]]


def test_spans_that_are_too_large_together_keep_the_platforms_own() -> None:
    own = [replace(ROW, span_id="a"), replace(ROW, span_id="b", kind="PRODUCER")]
    fat = [
        replace(ROW, span_id=f"u{number}", kind="INTERNAL", attributes={"text": f"{number}" * 150_000}) for number in range(3)
    ]
    event = SpanEvent("seen", 1, {"text": "x" * 300_000})
    noisy = replace(ROW, span_id="noisy", kind="INTERNAL", events=(event,))
    huge = replace(ROW, span_id="huge", name="n" * 300_000, kind="INTERNAL")
    message = encode([*fat, noisy, huge, *own], "saga-1")
    assert message.size() < MAX_SPANS_BYTES
    kept = {row.span_id: row for row in decode(record(message))}
    assert set(kept) == {"a", "b", "u0", "u1", "u2", "noisy"}
    assert kept["u0"].text("text") is not None
    assert kept["u1"].attributes == {}
    assert kept["noisy"].events == ()
    assert kept["a"].attributes["pavane.spans.dropped"] == 1


def test_nothing_but_a_span_too_large_leaves_nothing() -> None:
    assert decode(record(encode([replace(ROW, name="n" * 300_000)], None))) == []


def test_a_sagas_spans_are_read_back_in_order_with_what_led_to_it() -> None:
    origin = replace(ROW, span_id="1", start_ns=1, attributes={}, kind="PRODUCER")
    first = replace(ROW, span_id="2", start_ns=2, parent_span_id="1")
    second = replace(ROW, span_id="3", start_ns=3, parent_span_id="2")
    foreign = replace(ROW, trace_id="f" * 32, attributes={"saga.id": "saga-2"})
    bus = bus_with(encode([second], "saga-1"), encode([foreign], "saga-2"), encode([first], "saga-1"), encode([origin], None))
    assert asyncio.run(spans_of(bus, "saga-1")) == [origin, first, second]
    assert asyncio.run(spans_of(bus, "saga-2")) == [foreign]
    assert len(asyncio.run(all_spans(bus))) == 4
    assert encode([], None).key is None


def test_where_nothing_was_ever_kept_there_is_nothing() -> None:
    bus = cast("Bus", ReadOnlyBus(None))
    assert asyncio.run(spans_of(bus, "saga-1")) == []
    assert asyncio.run(all_spans(bus)) == []


class PlainSpan:
    """A finished span that is not the SDK's."""

    name = "x"
    parent: SpanContext | None = None
    kind = SpanKind.SERVER
    start_time: int | None = None
    end_time: int | None = None
    attributes: Attributes = {"a": 1}  # noqa: RUF012
    events: Sequence[FinishedEvent] = ()
    links: Sequence[Link] = ()
    status = Status(StatusCode.OK)

    def get_span_context(self) -> SpanContext | None:
        return None


def test_a_span_of_another_make_is_a_row_too() -> None:
    row = row_of(PlainSpan(), "x")
    assert (row.trace_id, row.kind, row.status, row.attributes) == ("", "SERVER", "OK", {"a": 1})
