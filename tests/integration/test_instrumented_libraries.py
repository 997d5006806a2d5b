"""Instrumented libraries that steps use: their spans nest in the step's, say its saga, and go out in our requests."""

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # pyright: ignore[reportMissingTypeStubs]
from sqlalchemy import Engine, create_engine, text

from pavane import Agent, Event, Retry, Saga
from pavane.runner import Surroundings
from pavane.settings import load_settings
from support.collector import Collector, collecting
from support.serving import serving
from support.stage import stage

HTTPX, SQLALCHEMY = "opentelemetry.instrumentation.httpx", "opentelemetry.instrumentation.sqlalchemy"
ONCE = Retry(attempts=1)


class Asked(Event, type="library.asked"):
    n: int


class Found(Event, type="library.found"):
    n: int


class Noted(Event, type="library.noted"):
    n: int


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Bureau)
        self.server.traceparents.append(self.headers["traceparent"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Bureau(ThreadingHTTPServer):
    """A server that a step asks."""

    daemon_threads = True

    def __init__(self) -> None:
        self.traceparents: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)


@pytest.fixture
def bureau() -> Iterator[Bureau]:
    with serving(Bureau()) as server:
        yield server


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        yield server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'notes.db'}")
    HTTPXClientInstrumentor().instrument()
    SQLAlchemyInstrumentor().instrument(engine=made)
    yield made
    SQLAlchemyInstrumentor().uninstrument()
    HTTPXClientInstrumentor().uninstrument()
    made.dispose()


def agents(bureau: Bureau, engine: Engine) -> list[Agent]:
    """One that asks a model and a server, one that writes to a database in a thread."""
    finder, clerk = Agent("finder"), Agent("clerk")

    @finder.step(effects=False, retry=ONCE, model="guess-1")
    async def find(asked: Asked) -> Found:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{bureau.server_port}/inquiries")
        assert answer.status_code == 200
        return Found(n=asked.n)

    @clerk.step(effects=False, retry=ONCE)
    def note(found: Found) -> Noted:
        with engine.begin() as connection:
            connection.execute(text("create table if not exists note (n integer)"))
            connection.execute(text("insert into note values (:n)"), {"n": found.n})
        return Noted(n=found.n)

    return [finder, clerk]


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_spans_of_http_and_of_a_database_nest_in_the_step_that_uses_them(
    tracer: str, bureau: Bureau, collector: Collector, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAVANE_TRACER", tracer)
    saga_type = Saga("library", starts=Asked, completes=Noted, intake="library.intake")

    async def scenario() -> str:
        around = Surroundings.of(load_settings())
        async with stage(agents(bureau, engine), [saga_type], surroundings=around) as running:
            saga = await running.publish({"n": 1})
            assert await running.ended(saga) == "completed"
        return saga

    saga = asyncio.run(scenario())
    spans = collector.received()
    (get,) = [span for span in spans if span.scope == HTTPX]
    (invoked,) = [span for span in spans if span.name == "invoke_agent finder"]
    assert (get.parent, get.trace, get.service) == (invoked.id, invoked.trace, "finder")
    assert (get.texts["saga.id"], get.texts["saga.step"]) == (saga, "finder/find")
    assert [each[3:52] for each in bureau.traceparents] == [f"{get.trace}-{get.id}"]
    statements = [span for span in spans if span.scope == SQLALCHEMY]
    (noted,) = [span for span in spans if span.name == "process library.found" and span.service == "clerk"]
    assert {span.name.partition(" ")[0] for span in statements} == {"connect", "create", "insert"}
    assert {(span.parent, span.trace, span.service) for span in statements} == {(noted.id, noted.trace, "clerk")}
    assert {(span.texts["saga.id"], span.texts["saga.step"]) for span in statements} == {(saga, "clerk/note")}
