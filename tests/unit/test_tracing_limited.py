"""Limits: a step may say as much as it likes, and its spans are found by what the platform says of them all the same."""

from collections.abc import Mapping
from typing import Literal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.continuity import check_continuity
from pavane_tracing.limited import LimitedAttributes
from pavane_tracing.options import TracingOptions
from pavane_tracing.sent import Sent
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanRow

SAGA = "01997f4e-7b1c-7cc0-8f0e-3f3c1f2b9a77"
SENT = Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01")
TALKATIVE = {f"key {number}": "a long text" for number in range(140)}
Tracer = Literal["lean", "sdk"]


def kept(tracer: Tracer, said: Mapping[str, str]) -> list[SpanRow]:
    """Of a step that says this of the current span, of one that it begins, and of one that begins with it."""
    tracing = make_tracing("g", keep=True, options=TracingOptions(tracer=tracer))
    envelope = Envelope(id="an event", source="/x", type="a.b", data=b"{}", saga=SAGA, trace=SENT)
    work = tracing.process(envelope, topic="a.b", partition=0, offset=0, group="g", step="g/s")
    with work:
        trace.get_current_span().set_attributes(said)
        with trace.get_tracer("user").start_as_current_span("one") as span:
            for key, value in said.items():
                span.set_attribute(key, value)
        trace.get_tracer("user").start_span("two", attributes=said).end()
        work.send("c.d", "another event", "c.d", saga=SAGA)
        work.point("point", attributes={"what the platform says": "in full"})
    work.fail("code", "message")
    work.end()
    assert tracing.shutdown(1)
    return work.spans


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize(
    ("variable", "limit", "count"),
    [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3", 128),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2", 2),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0", 0),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "128", 128),
    ],
)
def test_what_the_platform_says_is_on_every_span_whole_and_is_not_counted(
    tracer: Tracer, variable: str, limit: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, limit)
    rows = {row.name: row.attributes for row in kept(tracer, TALKATIVE)}
    assert sorted(rows) == ["one", "point", "process a.b", "send c.d", "two"]
    assert all((said["saga.id"], said["saga.step"]) == (SAGA, "g/s") for said in rows.values())
    assert rows["process a.b"]["event.id"] == rows["process a.b"]["messaging.message.id"] == "an event"
    assert rows["process a.b"]["messaging.destination.name"] == "a.b"
    assert rows["process a.b"]["error.type"] == "code"
    assert rows["send c.d"]["event.id"] == "another event"
    assert rows["point"]["what the platform says"] == "in full"
    last = dict(list(TALKATIVE.items())[len(TALKATIVE) - count :])
    cut = 3 if "LENGTH" in variable else None
    for name in ("process a.b", "one", "two"):
        users = {key: value for key, value in rows[name].items() if key in TALKATIVE}
        assert users == {key: value[:cut] for key, value in last.items()}, name


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize("variable", ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
def test_no_limit_has_the_continuity_check_miss_a_span(tracer: Tracer, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    rows = kept(tracer, TALKATIVE)
    (sent,) = [(row.trace_id, row.span_id) for row in rows if row.name == "send c.d"]
    log = [
        Sent("a.b", "an event", "a.b", SAGA, ("a" * 32, "b" * 16), kind="event"),
        Sent("c.d", "another event", "c.d", SAGA, sent, kind="event", step="g/s", causes=("an event",)),
    ]
    assert check_continuity(rows, log, outside=["b" * 16]).findings == ()


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_who_speaks_last_is_heard(tracer: Tracer) -> None:
    rows = {row.name: row.attributes for row in kept(tracer, {"saga.name": "mine", "error.type": "mine", "event.id": "mine"})}
    assert rows["process a.b"] == {**rows["process a.b"], "saga.name": "mine", "error.type": "code", "event.id": "mine"}
    assert rows["one"] == {**rows["one"], "saga.name": "mine", "event.id": "mine"}
    assert rows["two"] == {**rows["two"], "saga.name": "mine", "event.id": "an event"}


def test_a_key_is_there_once_and_attributes_are_a_mapping() -> None:
    said = LimitedAttributes(SpanLimits(max_span_attributes=2, max_span_attribute_length=3), {"a": "one", "b": "two"}, 7)
    said.say({"b": "whole", "c": 1})
    said["d"] = "whole"
    said["c"] = "whole"
    said.update({"e": [1]})
    assert dict(said) == said.copy() == {"b": "whole", "c": "who", "d": "who", "e": (1,)}
    assert (len(said), said.dropped) == (4, 8)
    del said["d"]
    assert list(said) == ["b", "c", "e"]
