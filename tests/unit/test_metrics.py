"""Metrics reach a receiver: what is parked, what ended, what is overdue; and nothing is exported that nobody asked for."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pavane import Agent, Event, Rejected, Retry, Saga
from pavane_events.errors import ConfigurationError
from pavane_tracing.setup import start_metrics
from support.stage import stage, until

TESTS = Path(__file__).parents[1]


class Asked(Event, type="m.asked"):
    way: str


class Answered(Event, type="m.answered"):
    way: str


def child() -> None:
    """A process with one saga of each kind: completed, parked, reported as overdue."""
    agent = Agent("clerk")

    @agent.step(retry=Retry(attempts=1))
    async def answer(asked: Asked) -> Answered:
        if asked.way == "parked":
            raise Rejected("no")
        if asked.way == "overdue":
            await asyncio.sleep(0.3)
        return Answered(way=asked.way)

    @answer.compensate(retry=Retry(attempts=1))
    async def take_back(asked: Asked, done: Answered | None) -> None:
        raise ConnectionError("down")

    saga = Saga("m", starts=Asked, completes=Answered, intake="m.intake", deadline=timedelta(seconds=0.1), overdue="report")

    async def scenario() -> None:
        async with stage([agent], [saga]) as running:
            await running.ended(await running.publish({"way": "completed"}))
            await running.ended(await running.publish({"way": "overdue"}))
            await running.publish({"way": "parked"})

            async def is_parked() -> bool:
                return bool(await running.dead("clerk"))

            await until(is_parked)
            await asyncio.sleep(0.05)

    stop = start_metrics("shop")
    asyncio.run(scenario())
    assert stop(10.0)


class Receiver(HTTPServer):
    """A collector that takes metrics."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, ExportMetricsServiceRequest]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, ExportMetricsServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run_child(receiver: Receiver, **variables: str) -> dict[tuple[str, str], float]:
    """The points that a child exported, by metric and by what tells its points apart."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment = {**others, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}", **variables}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS), others.get("PYTHONPATH", ""))))
    command = [sys.executable, "-c", "from unit.test_metrics import child; child()"]
    done = subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    points: dict[tuple[str, str], float] = {}
    for path, request in receiver.requests:
        if path != "/v1/metrics":
            continue
        for resource in request.resource_metrics:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert names["service.name"] == "shop"
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.sum.data_points:
                        told = {each.key: each.value.string_value for each in point.attributes}
                        assert told.pop("saga.name") == "m"
                        points[metric.name, " ".join(value for _, value in sorted(told.items()))] = point.as_int
    return points


def test_what_is_parked_ended_and_overdue_is_counted(receiver: Receiver) -> None:
    assert run_child(receiver, OTEL_METRICS_EXPORTER="otlp") == {
        ("pavane.saga.ended", "completed"): 2,
        ("pavane.saga.overdue", ""): 1,
        ("pavane.saga.parked", "attempts.exhausted clerk/answer"): 1,
    }


def test_metrics_are_not_sent_to_an_endpoint_that_is_named_for_traces(receiver: Receiver) -> None:
    assert run_child(receiver) == {}


def test_a_variable_that_cannot_be_followed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    with pytest.raises(ConfigurationError, match="use otlp, or none"):
        start_metrics("shop")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ConfigurationError, match="use http/protobuf or grpc"):
        start_metrics("shop")
