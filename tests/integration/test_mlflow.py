"""A real MLflow takes the same spans as Jaeger, and shows what a step with a model was given, gave, and cost."""

import asyncio
import json
from collections.abc import Mapping
from typing import cast

import pytest

from pavane import Agent, Context, Event, Saga
from pavane.runner import Surroundings
from support.mlflow import MlflowServer
from support.stage import stage

PAUSE_S = 0.05


class Asked(Event, type="ml.asked"):
    question: str


class Answered(Event, type="ml.answered"):
    answer: str


def an_agent() -> Agent:
    """An agent that asks a model twice for each answer."""
    agent = Agent("librarian")

    @agent.step(effects=False, model="gpt-5-mini", provider="openai")
    async def answer(asked: Asked, ctx: Context) -> Answered:
        ctx.usage(input_tokens=100, output_tokens=20)
        await asyncio.sleep(PAUSE_S)
        ctx.usage(input_tokens=11, output_tokens=2)
        return Answered(answer=f"{asked.question}? Yes.")

    return agent


async def a_saga() -> str:
    saga = Saga("library", starts=Asked, completes=Answered, intake="ml.intake")
    async with stage([an_agent()], [saga], surroundings=Surroundings()) as running:
        return await running.ended(await running.publish({"question": "Größer"}))


def test_latency_messages_and_tokens_are_there(mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in mlflow.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    assert asyncio.run(a_saga()) == "completed"
    (trace,) = mlflow.traces()
    spans = {str(each["name"]): each for each in cast("list[Mapping[str, object]]", trace["spans"])}
    assert {"process ml.intake", "process ml.asked", "send ml.answered", "saga library end"} <= set(spans)
    invoked = spans["invoke_agent librarian"]
    assert invoked["type"] == "AGENT"
    (given,) = cast("list[dict[str, object]]", invoked["inputs"])
    (gave,) = cast("list[dict[str, object]]", invoked["outputs"])
    assert (given["role"], content_of(given)) == ("user", {"question": "Größer"})
    assert (gave["role"], content_of(gave)) == ("assistant", {"answer": "Größer? Yes."})
    assert trace["tokens"] == {"input_tokens": 111, "output_tokens": 22, "total_tokens": 133}
    assert cast("int", invoked["duration_ns"]) >= PAUSE_S * 1e9
    assert cast("int", trace["duration_ms"]) >= PAUSE_S * 1e3
    attributes = cast("Mapping[str, object]", invoked["attributes"])
    assert (attributes["gen_ai.request.model"], attributes["saga.step"]) == ("gpt-5-mini", "librarian/answer")


def content_of(message: Mapping[str, object]) -> object:
    (part,) = cast("list[dict[str, str]]", message["parts"])
    assert part["type"] == "text"
    return json.loads(part["content"])
