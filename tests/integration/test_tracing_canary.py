"""A canary: what events hold, and what exceptions say of it, is in no span, whatever goes wrong; unless it is asked for."""

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import trace

from pavane import Agent, Context, Event, Retry, Saga
from pavane.runner import Surroundings, run
from pavane.settings import load_settings
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import Envelope
from pavane_events.event import Event as AnyEvent
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from support.collector import Collector, collecting
from support.stage import until

CANARY = "canary-7f3a91"
INTAKE = "canary.intake"
ONCE = Retry(attempts=2, first_s=0.0)


class Asked(Event, type="canary.asked"):
    name: str


class Weighed(Event, type="canary.weighed"):
    name: str


class Sung(Event, type="canary.sung"):
    song: str


def cage() -> tuple[Agent, Saga]:
    """A step that succeeds, one that asks a model and fails, an undo that fails first, an observer that fails."""
    agent = Agent("cage")
    undone: list[str] = []

    @agent.step(retry=ONCE)
    async def weigh(asked: Asked, ctx: Context) -> Weighed:
        if ctx.attempt == 1:
            trace.get_current_span().record_exception(KeyError(asked.name))
            raise ConnectionError(f"nobody knows {asked.name}")
        return Weighed(name=asked.name)

    @weigh.compensate(retry=ONCE)
    async def forget(asked: Asked, done: Weighed | None) -> None:
        undone.append(asked.name)
        if len(undone) == 1:
            raise ConnectionError(f"nobody can forget {asked.name}")

    @agent.step(effects=False, retry=ONCE, model="warbler-1")
    async def sing(weighed: Weighed, ctx: Context) -> Sung:
        ctx.usage(input_tokens=1, output_tokens=2)
        with pytest.raises(KeyError), trace.get_tracer("library").start_as_current_span("look up"):
            raise KeyError("of no interest")
        silent = ValueError(f"{weighed.name} does not sing")
        trace.get_current_span().record_exception(silent)
        raise silent

    @agent.observe
    async def watch(weighed: Weighed) -> None:
        raise LookupError(f"{weighed.name} is gone")

    del forget, sing, watch
    return agent, Saga("canary", starts=Asked, completes=Sung, intake=INTAKE)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


def fly(*bodies: AnyEvent | bytes) -> None:
    """A saga for each body, until all that can end have ended."""
    agent, saga = cage()

    async def scenario() -> None:
        stop = asyncio.Event()
        async with MemoryBus() as bus:
            await bus.create_topics([TopicSpec(INTAKE)])
            working = asyncio.create_task(run([agent], [saga], bus, stop, Surroundings.of(load_settings())))
            events = [
                Envelope(id=f"e-{number}", source="/test", type=Asked.event_type, data=body)
                for number, body in enumerate(each if isinstance(each, bytes) else each.to_json() for each in bodies)
            ]
            keys = [saga_id_of(event.source, event.id) for event in events]
            await bus.publish([event.to_message(INTAKE, key=key) for event, key in zip(events, keys, strict=True)])
            await until(lambda: ended(bus))
            stop.set()
            await working

    asyncio.run(scenario())


async def ended(bus: MemoryBus) -> bool:
    if SagaEnded.event_type not in await bus.topics():
        return False
    return bool([record async for record in bus.read(SagaEnded.event_type)])


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_no_span_tells_what_an_event_holds_whatever_fails(
    tracer: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAVANE_TRACER", tracer)
    fly(Asked(name=CANARY), b'{"name": ["' + CANARY.encode() + b'"]}', b'{"nobody": "' + CANARY.encode() + b'"')
    told = b"".join(request.SerializeToString() for request in collector.requests)
    names = {span.name for span in collector.spans()}
    assert {"process canary.asked", "invoke_agent cage", "look up", "saga canary end"} <= names
    assert any(span.status.code == 2 for span in collector.spans())
    assert CANARY.encode() not in told


def test_messages_for_models_are_told_to_who_asks_for_them(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    fly(Asked(name=CANARY))
    telling = {span.name for span in collector.spans() if CANARY.encode() in span.SerializeToString()}
    assert telling == {"invoke_agent cage"}
