"""Metrics reach a receiver: how sagas fare, and messages by OpenTelemetry's names; and nothing that nobody asked for."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import pytest
from opentelemetry.metrics import get_meter_provider
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.metrics import MeterProvider

from pavane import Agent, Event, Rejected, Retry, Saga
from pavane.runner import Surroundings
from pavane_events.buses.memory import MemoryBus
from pavane_events.errors import ConfigurationError
from pavane_saga.facts import Fired
from pavane_tracing.messaging_metrics import (
    CONSUMED,
    DURATIONS_S,
    OPERATION_DURATION,
    PROCESS_DURATION,
    SENT,
    messaging_metrics,
)
from pavane_tracing.metering import start_metrics
from pavane_tracing.store import all_spans
from pavane_tracing.work import Tracing
from support.serving import serving
from support.stage import stage, until

TESTS = Path(__file__).parents[1]
UNITS = MappingProxyType({SENT: "{message}", CONSUMED: "{message}", PROCESS_DURATION: "s", OPERATION_DURATION: "s"})


class Asked(Event, type="m.asked"):
    way: str


class AskedForLong(Event, type="m.asked-for-long"):
    way: str


class Answered(Event, type="m.answered"):
    way: str


class AnsweredAtLast(Event, type="m.answered-at-last"):
    way: str


def child() -> None:
    """A process with sagas of each kind, and one more after a restart. It prints the traces that it kept.

    Completed (twice), reported as overdue, parked.
    """
    agent = Agent("clerk")
    reported = asyncio.Event()

    @agent.step(retry=Retry(attempts=1))
    async def answer(asked: Asked) -> Answered:
        if asked.way == "parked":
            raise Rejected("no")
        return Answered(way=asked.way)

    @answer.compensate(retry=Retry(attempts=1))
    async def take_back(asked: Asked, done: Answered | None) -> None:
        raise ConnectionError("down")

    @agent.step(effects=False)
    async def answer_late(asked: AskedForLong) -> AnsweredAtLast:
        await reported.wait()
        return AnsweredAtLast(way=asked.way)

    saga = Saga("m", starts=Asked, completes=Answered, intake="m.intake")
    deadline = timedelta(seconds=0.1)
    late = Saga("late", starts=AskedForLong, completes=AnsweredAtLast, intake="l.intake", deadline=deadline, overdue="report")

    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        around = Surroundings(trace="TRACED" in os.environ)
        async with stage([agent], [saga, late], bus=bus, surroundings=around) as running:
            await running.ended(await running.publish({"way": "completed"}))
            overdue = await running.publish({"way": "overdue"}, to=late)

            async def is_reported() -> bool:
                return any(isinstance(fact, Fired) for fact in await running.facts(overdue))

            await until(is_reported)
            reported.set()
            await running.ended(overdue)
            await running.publish({"way": "parked"})

            async def is_parked() -> bool:
                return bool(await running.dead("clerk"))

            await until(is_parked)
        async with stage([agent], [saga, late], bus=bus, surroundings=around) as running:
            await running.ended(await running.publish({"way": "completed"}, name="again"))
            assert await asyncio.to_thread(flush)
            print(json.dumps(sorted({row.trace_id for row in await all_spans(bus)})))

    stop = start_metrics("shop")
    asyncio.run(scenario())
    assert stop(10.0)


def flush() -> bool:
    """While lanes are held: what is open there is told."""
    provider = get_meter_provider()
    return not isinstance(provider, MeterProvider) or provider.force_flush()


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
    with serving(Receiver()) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Points:
    """What a child exported last of each metric: sums, counts of histograms by the same key, and traces of exemplars."""

    sums: Mapping[tuple[str, str], float]
    counts: Mapping[tuple[str, str], int]
    bounds: Mapping[str, Sequence[float]]
    exemplars: Mapping[str, set[str]]
    kept: set[str]
    """The traces whose spans were kept."""

    def of(self, name: str) -> dict[str, float]:
        """The points of one metric, by what tells them apart."""
        return {said: value for (each, said), value in {**self.sums, **self.counts}.items() if each == name}


def run_child(receiver: Receiver, **variables: str) -> Points:
    others = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment = {**others, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "", **variables}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS), others.get("PYTHONPATH", ""))))
    command = [sys.executable, "-c", "from unit.test_metrics import child; child()"]
    done = subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    points = Points({}, {}, {}, {}, set(json.loads(done.stdout)))
    for path, request in receiver.requests:
        if path == "/v1/metrics":
            for resource in request.resource_metrics:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                assert names["service.name"] == "shop"
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        points = read(metric, points)
    return points


def read(metric: Metric, points: Points) -> Points:
    """The points that are known, and those of one more metric."""
    sums = {(metric.name, key_of(point.attributes)): point.as_int for point in metric.sum.data_points}
    found = metric.histogram.data_points
    counts = {(metric.name, key_of(point.attributes)): point.count for point in found}
    bounds = {metric.name: tuple(found[0].explicit_bounds)} if found else {}
    traces = {each.trace_id.hex() for point in (*found, *metric.sum.data_points) for each in point.exemplars}
    seen = points.exemplars.get(metric.name, set[str]())
    return Points(
        {**points.sums, **sums},
        {**points.counts, **counts},
        {**points.bounds, **bounds},
        {**points.exemplars, metric.name: seen | traces},
        points.kept,
    )


def key_of(attributes: Iterable[KeyValue]) -> str:
    return " ".join(f"{each.key}={each.value.string_value}" for each in sorted(attributes, key=lambda each: each.key))


def endpoint(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.server_port}"


@pytest.fixture
def points(receiver: Receiver) -> Points:
    return run_child(receiver, OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint(receiver))


@pytest.fixture
def traced(receiver: Receiver) -> Points:
    return run_child(receiver, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{endpoint(receiver)}/v1/metrics", TRACED="1")


def test_how_sagas_fare_is_counted(points: Points) -> None:
    ends = {"saga.name=m saga.verdict=completed": 2, "saga.name=late saga.verdict=completed": 1}
    assert points.of("pavane.saga.ended") == ends
    assert points.of("pavane.saga.overdue") == {"saga.name=late": 1}
    assert points.of("pavane.saga.parked") == {"error.type=attempts.exhausted saga.name=m saga.step=clerk/answer": 1}
    assert points.of("pavane.saga.duration") == ends
    assert points.of("pavane.saga.open") == {"saga.name=m": 1}, "the parked one, counted by its lane's holder only"


def test_messages_are_counted_by_topic_and_group(points: Points) -> None:
    system = "messaging.operation.name={} messaging.system=pavane"
    sent = points.of("messaging.client.sent.messages")
    assert sent[f"messaging.destination.name=m.asked {system.format('send')}"] == 3
    assert sent[f"messaging.destination.name=m.answered {system.format('send')}"] == 2
    consumed = points.of("messaging.client.consumed.messages")
    heard = "messaging.consumer.group.name={} messaging.destination.name=m.asked " + system.format("receive")
    assert consumed[heard.format("clerk")] == consumed[heard.format("pavane.coordinator")] == 3


def test_work_is_timed_and_its_failures_are_told_apart(points: Points) -> None:
    worked = points.of("messaging.process.duration")
    what = "messaging.consumer.group.name=clerk messaging.destination.name={} messaging.operation.name=process"
    system = "messaging.system=pavane"
    assert worked[f"{what.format('m.asked')} {system}"] == 2
    assert worked[f"error.type=rejected {what.format('m.asked')} {system}"] == 1
    assert worked[f"error.type=attempts.exhausted {what.format('clerk.commands')} {system}"] == 1
    commits = points.of("messaging.client.operation.duration")
    how = "messaging.operation.name=commit messaging.operation.type=settle messaging.system=pavane"
    assert commits[f"messaging.consumer.group.name=clerk {how}"] >= 3
    for name in ("messaging.process.duration", "messaging.client.operation.duration"):
        assert points.bounds[name] == DURATIONS_S


def test_every_messaging_metric_is_one_of_opentelemetry() -> None:
    known = vars(import_module("opentelemetry.semconv._incubating.metrics.messaging_metrics"))
    for name in (SENT, CONSUMED, PROCESS_DURATION, OPERATION_DURATION):
        constant = name.upper().replace(".", "_")
        assert known[constant] == name
        made = known[f"create_{constant.lower()}"](MeterProvider().get_meter("x"))
        assert (made.name, made.unit) == (name, UNITS[name])


def test_the_newer_names_are_used_where_they_are_asked_for(receiver: Receiver) -> None:
    variables = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SEMCONV_STABILITY_OPT_IN": "messaging/dup"}
    points = run_child(receiver, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint(receiver), **variables)
    sent = points.of("messaging.client.sent.messages")
    assert all("messaging.system=pavane messaging.system.name=pavane" in key for key in sent)


def test_a_measurement_of_a_traced_unit_of_work_carries_its_trace(traced: Points) -> None:
    for name in ("messaging.process.duration", "pavane.saga.duration", "pavane.saga.parked"):
        assert traced.exemplars[name]
        assert traced.exemplars[name] <= traced.kept


def test_without_traces_there_are_no_exemplars(points: Points) -> None:
    assert points.kept == set()
    assert not any(points.exemplars.values())


def test_metrics_are_not_sent_to_an_endpoint_that_is_named_for_traces(receiver: Receiver) -> None:
    points = run_child(receiver, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint(receiver))
    assert (points.sums, points.counts) == ({}, {})


def test_where_nobody_measures_nothing_stands_between_an_agent_and_its_bus() -> None:
    assert messaging_metrics("pavane") is None
    assert Tracing.off().measured(None) is Tracing.off()


def test_a_variable_that_cannot_be_followed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    with pytest.raises(ConfigurationError, match="use otlp, or none"):
        start_metrics("shop")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ConfigurationError, match="use http/protobuf or grpc"):
        start_metrics("shop")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_METRICS_EXEMPLAR_FILTER", "bogus")]
    + [
        (f"OTEL_METRIC_EXPORT_{name}", value)
        for name in ("INTERVAL", "TIMEOUT")
        for value in ("0", "-5", "often", "nan", "1e99")
    ],
)
def test_what_the_sdk_cannot_follow_is_refused_by_its_name(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"{variable}: use"):
        start_metrics("shop")
