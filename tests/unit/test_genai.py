"""A step that works with a model has a span of its own within its work, by OpenTelemetry's GenAI conventions."""

import asyncio
import json
import os
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Literal

import pytest
from opentelemetry import trace

import pavane_tracing.genai as names
from pavane import Agent, Context, Event, Rejected, Retry, Saga
from pavane.runner import Surroundings
from pavane_events.envelope import Envelope
from pavane_events.errors import ConfigurationError, DeclarationError
from pavane_tracing.genai import CAPTURE, captures_content
from pavane_tracing.options import TracingOptions
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanRow
from pavane_tracing.store import spans_of
from support.stage import Stage, stage

user_tracer = trace.get_tracer("a.model's.client")


class Asked(Event, type="g.asked"):
    question: str


class Answered(Event, type="g.answered"):
    answer: str


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def librarian() -> Agent:
    agent = Agent("librarian")

    @agent.step(effects=False, model="gpt-5-mini", provider="openai")
    async def answer(asked: Asked, ctx: Context) -> Answered:
        with user_tracer.start_as_current_span("chat gpt-5-mini"):
            ctx.usage(input_tokens=100, output_tokens=20)
        ctx.usage(input_tokens=11, output_tokens=2)
        return Answered(answer=f"{asked.question} Yes.")

    return agent


def spans_told_by(agent: Agent, verdict: str = "completed", *, trace: bool = True) -> list[SpanRow]:
    saga = Saga("library", starts=Asked, completes=Answered, intake="g.intake")

    async def kept(running: Stage, saga_id: str) -> list[SpanRow]:
        assert await running.ended(saga_id) == verdict
        return await spans_of(running.bus, saga_id)

    async def scenario() -> list[SpanRow]:
        async with stage([agent], [saga], surroundings=Surroundings(trace=trace)) as running:
            return await kept(running, await running.publish({"question": "Really?"}))

    return asyncio.run(scenario())


def invocations(rows: list[SpanRow]) -> list[SpanRow]:
    return [row for row in rows if row.name.startswith("invoke_agent")]


def test_every_name_is_one_of_opentelemetry() -> None:
    module: ModuleType = import_module("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    used = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert len(used) == 8
    assert used <= known
    assert module.GenAiOperationNameValues.INVOKE_AGENT.value == names.INVOKE_AGENT


def test_the_span_is_within_the_process_span_and_says_who_what_and_how_much() -> None:
    rows = spans_told_by(librarian())
    (invoked,) = invocations(rows)
    process = next(row for row in rows if row.span_id == invoked.parent_span_id)
    assert (process.name, process.service) == ("process g.asked", "librarian")
    assert (invoked.name, invoked.kind, invoked.status) == ("invoke_agent librarian", "INTERNAL", "UNSET")
    told = {name: value for name, value in invoked.attributes.items() if name.startswith("gen_ai.")}
    assert told == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "librarian",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": 111,
        "gen_ai.usage.output_tokens": 22,
    }
    assert invoked.text("saga.step") == "librarian/answer"
    assert invoked.text("saga.id") == process.text("saga.id")


def test_the_spans_of_a_models_client_nest_in_it() -> None:
    rows = spans_told_by(librarian())
    (invoked,) = invocations(rows)
    chat = next(row for row in rows if row.name == "chat gpt-5-mini")
    assert chat.parent_span_id == invoked.span_id
    sent = next(row for row in rows if row.name == "send g.answered")
    assert sent.parent_span_id == invoked.parent_span_id, "what it sends is the work's, not the model's"


@pytest.mark.parametrize("said", ["true", "SPAN_ONLY", "span_and_event"])
def test_messages_are_told_where_somebody_asked_for_them(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPTURE, said)
    (invoked,) = invocations(spans_told_by(librarian()))
    given = json.loads(invoked.text("gen_ai.input.messages") or "")
    gave = json.loads(invoked.text("gen_ai.output.messages") or "")
    assert given == [{"role": "user", "parts": [{"type": "text", "content": '{"question":"Really?"}'}]}]
    part = {"type": "text", "content": '{"answer":"Really? Yes."}'}
    assert gave == [{"role": "assistant", "parts": [part], "finish_reason": "stop"}]


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10"),
    ],
)
def test_limits_leave_what_the_platform_says_of_a_model(
    limit: str, most: str, tracer: Literal["lean", "sdk"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limit, most)
    tracing = make_tracing("service", keep=True, options=TracingOptions(tracer=tracer))
    work = tracing.process(
        Envelope(id="e", source="/x", type="g.asked", data=b"{}"), topic="t", partition=0, offset=0, group="g"
    )
    with work, suppress(ConnectionError), work.invoke("librarian", {"gen_ai.operation.name": "invoke_agent"}) as invocation:
        invocation.given(["a text of some length"])
        invocation.used(10, 20)
        trace.get_current_span().set_attributes({"of the user's": 1, "another": 2})
        raise ConnectionError
    work.end()
    (invoked,) = invocations(work.spans)
    assert {name: invoked.attributes.get(name) for name in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")} == {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
    }
    assert invoked.text("error.type") == "ConnectionError"
    assert json.loads(invoked.text("gen_ai.input.messages") or "")
    tracing.shutdown(1)


@pytest.mark.parametrize("said", ["", "false", "NO_CONTENT", "EVENT_ONLY"])
def test_messages_are_private_otherwise(said: str) -> None:
    assert not captures_content(said)


def test_a_slip_in_what_is_to_be_told_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="use SPAN_ONLY, SPAN_AND_EVENT, EVENT_ONLY or NO_CONTENT"):
        captures_content("SPANS")


def test_each_attempt_is_an_invocation_and_a_failed_one_says_why() -> None:
    agent = Agent("librarian")

    @agent.step(effects=False, model="gpt-5-mini", retry=Retry(attempts=3, first_s=0.0))
    def answer(asked: Asked, ctx: Context) -> Answered:  # in a thread
        ctx.usage(input_tokens=10)
        if ctx.attempt == 1:
            raise ConnectionError("the model is away")
        if ctx.attempt == 2:
            raise Rejected("it will not answer that")
        return Answered(answer="never")

    rows = invocations(spans_told_by(agent, "compensated"))
    assert [(row.status, row.text("error.type")) for row in rows] == [("ERROR", "ConnectionError"), ("ERROR", "rejected")]
    assert [row.attributes["gen_ai.usage.input_tokens"] for row in rows] == [10, 10]
    assert not any("gen_ai.provider.name" in row.attributes for row in rows)


def test_a_step_works_with_its_model_where_nobody_traces() -> None:
    assert spans_told_by(librarian(), trace=False) == []


def test_a_step_without_a_model_tells_no_tokens() -> None:
    agent = Agent("librarian")

    @agent.step(effects=False)
    async def answer(asked: Asked, ctx: Context) -> Answered:
        ctx.usage(input_tokens=10)
        return Answered(answer="Yes.")

    rows = spans_told_by(agent)
    assert invocations(rows) == []
    assert not any(name.startswith("gen_ai.") for row in rows for name in row.attributes)


@pytest.mark.parametrize(("model", "provider"), [("", None), (None, "openai")])
def test_a_model_has_a_name(model: str | None, provider: str | None) -> None:
    agent = Agent("librarian")

    async def answer(asked: Asked) -> Answered:
        return Answered(answer="Yes.")

    with pytest.raises(DeclarationError, match="say which model the step works with"):
        agent.step(effects=False, model=model, provider=provider)(answer)


def test_tokens_that_nothing_records_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent("forgetful-librarian")

    @agent.step(effects=False, retry=Retry(attempts=3, first_s=0.0))
    async def answer(asked: Asked, ctx: Context) -> Answered:
        ctx.usage(input_tokens=100, output_tokens=20)
        if ctx.attempt < 3:
            raise ConnectionError("busy")
        return Answered(answer=asked.question)

    spans_told_by(agent)
    Context.fake().usage(input_tokens=1)
    lines = [record.getMessage() for record in caplog.records if "model" in record.getMessage()]
    assert lines == ["forgetful-librarian/answer tells what a model used, which nothing records: say @agent.step(model=...)"]
