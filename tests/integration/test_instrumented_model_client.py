"""The client of a model's provider, instrumented: its calls, whole or streamed, nest in the step that makes them."""

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor  # pyright: ignore[reportMissingTypeStubs]

from pavane import Agent, Context, Event, Retry, Saga
from pavane.runner import Surroundings
from pavane.settings import load_settings
from support.collector import Collector, collecting
from support.serving import serving
from support.stage import stage

OPENAI = "opentelemetry.instrumentation.genai.openai"
MODEL = "judge-1"
ONCE = Retry(attempts=1)
SAID = ("fit", " for", " credit")


class Asked(Event, type="model.asked"):
    n: int


class Judged(Event, type="model.judged"):
    text: str


class Confirmed(Event, type="model.confirmed"):
    text: str


class _Complete(BaseHTTPRequestHandler):
    """A chat completion as the provider's API gives it, whole or in pieces."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["model"] == MODEL
        if asked.get("stream"):
            deltas = [*({"content": each} for each in SAID), {}]
            parts = [{"choices": [{"index": 0, "delta": each, "finish_reason": None if each else "stop"}]} for each in deltas]
            told = [_head("chat.completion.chunk") | each for each in parts]
            body = "".join([f"data: {json.dumps(each)}\n\n" for each in told]) + "data: [DONE]\n\n"
            self._answer("text/event-stream", body)
        else:
            message = {"role": "assistant", "content": "".join(SAID)}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
            whole = {**_head("chat.completion"), "choices": choices, "usage": usage}
            self._answer("application/json", json.dumps(whole))

    def _answer(self, kind: str, body: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _head(kind: str) -> dict[str, object]:
    return {"id": "chat-1", "object": kind, "created": 1, "model": MODEL}


@pytest.fixture
def provider() -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Complete)) as server:
        yield f"http://127.0.0.1:{server.server_port}/v1"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    OpenAIInstrumentor().instrument()
    with collecting() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        yield server
    OpenAIInstrumentor().uninstrument()


def question(text: str) -> ChatCompletionUserMessageParam:
    return {"role": "user", "content": text}


def agents(provider: str) -> list[Agent]:
    """One that waits for the whole answer, and says what it took; one that reads it piece by piece, in a thread."""
    judge, clerk = Agent("judge"), Agent("clerk")

    @judge.step(effects=False, retry=ONCE, model=MODEL)
    async def decide(asked: Asked, ctx: Context) -> Judged:
        async with AsyncOpenAI(base_url=provider, api_key="none", max_retries=0) as client:
            said = await client.chat.completions.create(model=MODEL, messages=[question(f"n={asked.n}")])
        assert said.usage is not None
        ctx.usage(input_tokens=said.usage.prompt_tokens, output_tokens=said.usage.completion_tokens)
        return Judged(text=said.choices[0].message.content or "")

    @clerk.step(effects=False, retry=ONCE)
    def confirm(judged: Judged) -> Confirmed:
        with OpenAI(base_url=provider, api_key="none", max_retries=0) as client:
            pieces = client.chat.completions.create(model=MODEL, messages=[question(judged.text)], stream=True)
            return Confirmed(text="".join([each.choices[0].delta.content or "" for each in pieces]))

    return [judge, clerk]


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_calls_of_a_model_nest_in_the_step_that_makes_them(
    tracer: str, provider: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAVANE_TRACER", tracer)
    saga_type = Saga("advice", starts=Asked, completes=Confirmed, intake="model.intake")

    async def scenario() -> str:
        around = Surroundings.of(load_settings())
        async with stage(agents(provider), [saga_type], surroundings=around) as running:
            saga = await running.publish({"n": 1})
            assert await running.ended(saga) == "completed"
        return saga

    saga = asyncio.run(scenario())
    spans = collector.received()
    (invoked,) = [span for span in spans if span.name == "invoke_agent judge"]
    (confirming,) = [span for span in spans if span.name == "process model.judged" and span.service == "clerk"]
    by_service = {span.service: span for span in spans if span.scope == OPENAI}
    assert len([span for span in spans if span.scope == OPENAI]) == len(by_service) == 2
    for service, around, step in (("judge", invoked, "judge/decide"), ("clerk", confirming, "clerk/confirm")):
        call = by_service[service]
        assert (call.parent, call.trace, call.name) == (around.id, around.trace, f"chat {MODEL}")
        assert (call.texts["saga.id"], call.texts["saga.step"]) == (saga, step)
        assert (call.texts["gen_ai.operation.name"], call.texts["gen_ai.request.model"]) == ("chat", MODEL)
    assert invoked.texts["gen_ai.operation.name"] == "invoke_agent"
