"""Tracing switched off: nothing is recorded, and the incoming context goes on as it came."""

import pytest
from opentelemetry.context import get_current

from pavane_events.envelope import NO_TRACE, Envelope, Trace
from pavane_tracing.setup import make_tracing
from pavane_tracing.work import Tracing

INCOMING = Trace(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", tracestate="a=b")


def test_the_incoming_context_goes_on_unchanged() -> None:
    event = Envelope(id="1", source="/s", type="t", data=b"{}", trace=INCOMING)
    work = Tracing.off().process(event, topic="t", partition=0, offset=0, group="g", root=True, undo=True)
    before = get_current()
    with work:
        assert get_current() is before
        work.event("retry", {"attempt": 2})
        work.belongs_to("saga-1")
        work.fail("code", "message")
        work.attach()
        work.detach()
    assert work.send("t", "2", "t") is INCOMING
    assert work.point("saga x start") is INCOMING
    assert work.trace is INCOMING
    work.end()
    work.end()
    assert work.spans == []


def test_outside_any_work_the_parent_goes_on() -> None:
    off = Tracing.off()
    assert off.point("saga x end", INCOMING) == (INCOMING, [])
    assert off.point("saga x end", None) == (NO_TRACE, [])
    assert off.send_root("t", "1", "t") == (NO_TRACE, [])
    assert off.send_root("t", "1", "t", parent=INCOMING) == (INCOMING, [])
    assert off.late() == []
    assert off.shutdown(0)


def test_baggage_goes_nowhere_without_a_list() -> None:
    event = Envelope(id="1", source="/s", type="t", data=b"{}", trace=Trace(traceparent="x", baggage="email=a"))
    work = Tracing.off().process(event, topic="t", partition=0, offset=0, group="g")
    assert work.send("t", "2", "t") == Trace(traceparent="x")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_SDK_DISABLED", "true"), ("OTEL_SDK_DISABLED", " TRUE "), ("OTEL_TRACES_EXPORTER", "none")],
)
def test_the_standard_variables_switch_it_off(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    assert make_tracing("x", keep=True) is Tracing.off()


def test_spans_that_nobody_wants_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert make_tracing("x", keep=False) is Tracing.off()
