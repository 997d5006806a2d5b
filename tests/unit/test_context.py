"""The context: what a step may know of its work, and a fake one for trying a step as a plain function."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span
from structlog.testing import capture_logs

from pavane import Context
from pavane.breaker import Breakers

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def context_of(deadline: datetime | None = None) -> Context:
    return Context(saga="s", step="a/b", key="k", breakers=Breakers(time.time, {}), attempt=2, deadline=deadline)


def test_the_idempotency_key_is_made_when_first_asked_for_and_once() -> None:
    made: list[str] = []

    def key() -> str:
        made.append("key")
        return "key"

    context = Context(saga="s", step="a/b", key=key, breakers=Breakers(time.time, {}))
    assert made == []
    assert [context.idempotency_key, context.idempotency_key] == ["key", "key"]
    assert made == ["key"]


def test_what_remains_until_the_deadline_is_never_negative() -> None:
    assert context_of().remaining_s(NOW) is None
    context = context_of(NOW + timedelta(seconds=30))
    assert context.remaining_s(NOW) == 30
    assert context.remaining_s(NOW + timedelta(minutes=1)) == 0
    assert context_of(datetime.now(UTC) + timedelta(hours=1)).remaining_s() == pytest.approx(3600, abs=60)


def test_breakers_are_the_agents_and_the_same_by_name() -> None:
    context = context_of()
    assert context.breaker("bank") is context.breaker("bank")
    assert context.breaker("bank") is not context.breaker("bureau")


def test_the_logger_says_saga_step_attempt_and_trace_with_every_line() -> None:
    with capture_logs() as lines:
        context_of().logger.warning("outside any trace")
        with use_span(NonRecordingSpan(SpanContext(0xA1, 0xB2, is_remote=False))):
            context_of().logger.warning("slow bureau", bureau="x")
    outside, line = lines
    assert outside.keys().isdisjoint({"trace_id", "span_id"})
    assert {name: line[name] for name in ("event", "saga_id", "step", "attempt", "bureau")} == {
        "event": "slow bureau",
        "saga_id": "s",
        "step": "a/b",
        "attempt": 2,
        "bureau": "x",
    }
    assert (line["trace_id"], line["span_id"]) == (f"{0xA1:032x}", f"{0xB2:016x}")


def test_without_tracing_the_span_takes_attributes_all_the_same() -> None:
    context_of().span.set_attribute("bureau", "x")


def test_a_fake_context_stands_alone_and_each_is_another_saga() -> None:
    one, other = Context.fake(), Context.fake(saga="s", attempt=3, outcome="unknown", key="k")
    assert one.saga
    assert one.idempotency_key != Context.fake().idempotency_key
    assert (one.attempt, one.outcome, one.deadline) == (1, "done", None)
    assert (other.saga, other.attempt, other.outcome, other.idempotency_key) == ("s", 3, "unknown", "k")


def test_a_fake_contexts_breaker_works() -> None:
    async def scenario() -> None:
        async with Context.fake().breaker("bank") as breaker:
            assert breaker.state == "closed"

    asyncio.run(scenario())
