"""Setting the SDK up: where spans go, by the standard variables, and what it costs to start."""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Literal

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

import pavane_tracing
from pavane_events.envelope import Envelope
from pavane_events.errors import ConfigurationError
from pavane_tracing.options import TracingOptions
from pavane_tracing.setup import make_tracing
from pavane_tracing.work import Tracing
from support.serving import serving

EVENT = Envelope(id="event-1", source="/agents/x", type="credit.submitted", data=b"{}", saga="saga-1")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


class Receiver(HTTPServer):
    """An OTLP receiver on the loopback interface."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), _Receive)


class _Receive(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.paths.append(self.path)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as server:
        yield server


def work_once(tracing: Tracing) -> None:
    work = tracing.process(EVENT, topic="credit.submitted", partition=3, offset=41, group="credit-score")
    with work, trace.get_tracer("the user's").start_as_current_span("ask"):
        pass
    work.send("credit.scored", "event-2", "credit.scored")
    work.fail("step.failed", "no answer")
    work.end()
    assert work.spans == []


def texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in attributes}


def test_spans_reach_an_otlp_receiver_each_under_its_own_service(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=not-this")
    services = [make_tracing(name, keep=True, system="kafka") for name in ("credit-score", "income")]
    for tracing in services:
        assert not tracing.keep
        work_once(tracing)
    assert [tracing.shutdown(10) for tracing in services] == [True, True]

    assert set(receiver.paths) == {"/v1/traces"}
    seen: dict[str, list[tuple[str, dict[str, str], int]]] = {}
    for request in receiver.requests:
        for resource in request.resource_spans:
            described = texts(resource.resource.attributes)
            assert described["deployment.environment.name"] == "test"
            for scope in resource.scope_spans:
                for span in scope.spans:
                    entry = (span.name, texts(span.attributes), span.status.code)
                    seen.setdefault(described["service.name"], []).append(entry)
    assert set(seen) == {"credit-score", "income"}
    for spans in seen.values():
        by_name = {name: (attributes, status) for name, attributes, status in spans}
        assert set(by_name) == {"process credit.submitted", "send credit.scored", "ask"}
        attributes, status = by_name["process credit.submitted"]
        assert status == 2
        assert attributes["messaging.system"] == "kafka"
        assert attributes["messaging.kafka.offset"] == ""
        assert attributes["error.type"] == "step.failed"
        assert {attributes["saga.id"] for attributes, _ in by_name.values()} == {"saga-1"}


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_resource_detectors_say_where_spans_come_from(
    tracer: Literal["lean", "sdk"], monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    tracing = make_tracing("x", keep=False, options=TracingOptions(tracer=tracer))
    work_once(tracing)
    assert tracing.shutdown(10)
    resources = [each for request in receiver.requests for each in request.resource_spans]
    assert sum(len(scope.spans) for each in resources for scope in each.scope_spans) == 3
    for each in resources:
        said = {attribute.key: attribute.value for attribute in each.resource.attributes}
        assert said["process.pid"].int_value == os.getpid()
        assert said["service.name"].string_value == "x"


def test_the_endpoint_of_traces_alone_is_enough(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}/here")
    tracing = make_tracing("x", keep=False)
    work_once(tracing)
    assert tracing.shutdown(10)
    assert receiver.paths == ["/here"]


def test_a_sampler_is_followed(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = make_tracing("x", keep=False)
    work_once(tracing)
    assert tracing.shutdown(10)
    assert receiver.requests == []


def test_shutting_down_is_bounded_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = make_tracing("x", keep=False)
    work_once(tracing)
    begun = time.monotonic()
    assert not tracing.shutdown(0.2)
    assert time.monotonic() - begun < 2
    assert tracing.shutdown(0.2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
)
def test_what_cannot_be_followed_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        make_tracing("x", keep=True)


LIMITS = ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"]


def test_every_limit_that_cannot_be_followed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "0")
    for name, value in zip(LIMITS, ("many", "-1", "1.5"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        make_tracing("x", keep=True)
    assert {problem.where for problem in raised.value.problems} == set(LIMITS)


def test_a_limit_that_the_sdk_cannot_follow_where_it_is_imported_is_told_by_its_name() -> None:
    """One of them it reads as early as that."""
    command = [sys.executable, "-m", "pavane", "run", "nowhere:agent"]
    environment = {**os.environ, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: use a whole number" in done.stderr


def test_a_service_that_goes_leaves_the_exporter_to_the_others(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
    first, second = make_tracing("first", keep=False), make_tracing("second", keep=False)
    assert first.shutdown(10)
    work_once(second)
    assert second.shutdown(10)
    (request,) = receiver.requests
    assert sorted(scope.scope.name for each in request.resource_spans for scope in each.scope_spans) == [
        "pavane",
        "the user's",
    ]


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_only_the_last_service_to_go_waits_for_the_collector(
    tracer: Literal["lean", "sdk"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    services = [make_tracing(f"service-{number}", keep=False, options=TracingOptions(tracer=tracer)) for number in range(4)]
    for tracing in services:
        work_once(tracing)
    begun = time.monotonic()
    assert [tracing.shutdown(0.5) for tracing in services] == [True, True, True, False]
    assert time.monotonic() - begun < 1


def test_grpc_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    tracing = make_tracing("x", keep=True)
    assert not tracing.keep
    assert tracing.shutdown(5)


def modules_after(code: str, **variables: str) -> set[str]:
    """What a fresh interpreter has imported after some code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_no_exporter_is_imported_before_it_is_needed() -> None:
    made = "from pavane_tracing.setup import make_tracing\nmake_tracing('x', keep=True)"
    modules = modules_after(made)
    assert "opentelemetry.sdk.trace" in modules
    assert not {name for name in modules if name.startswith(("opentelemetry.exporter", "grpc", "requests", "google"))}


def test_grpc_is_imported_where_it_is_asked_for() -> None:
    made = "from pavane_tracing.setup import make_tracing\nmake_tracing('x', keep=True).shutdown(1)"
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    modules = modules_after(made, **endpoint)
    assert "opentelemetry.exporter.otlp.proto.grpc.trace_exporter" in modules
    assert "opentelemetry.exporter.otlp.proto.http.trace_exporter" not in modules


def test_a_unit_of_work_does_not_need_the_sdk() -> None:
    modules = modules_after("import pavane_tracing.work, pavane_tracing.off, pavane_tracing.store")
    assert not {name for name in modules if name.startswith("opentelemetry.sdk")}


def test_the_sdk_is_imported_only_where_it_is_set_up() -> None:
    importing: set[str] = set()
    for path in Path(pavane_tracing.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opentelemetry.sdk"):
                importing.add(path.name)
            if isinstance(node, ast.Import) and any(name.name.startswith("opentelemetry.sdk") for name in node.names):
                importing.add(path.name)
    assert importing == {"setup.py", "handing.py", "stock.py", "stock_sampling.py", "metering.py"}


def test_a_process_that_forgets_to_shut_down_still_exports(receiver: Receiver) -> None:
    code = (
        "from pavane_tracing.setup import make_tracing\nmake_tracing('forgetful', keep=False).send_root('t', 'event-1', 't')"
    )
    modules_after(code, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.server_port}")
    assert len(receiver.requests) == 1


def test_a_global_provider_of_the_users_own_is_left_alone() -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
mine = TracerProvider()
trace.set_tracer_provider(mine)
from pavane_tracing.setup import make_tracing
make_tracing('x', keep=True)
assert trace.get_tracer_provider() is mine
"""
    modules_after(code)


def test_without_any_service_left_the_users_spans_go_nowhere() -> None:
    tracing = make_tracing("x", keep=True)
    tracing.shutdown(1)
    with trace.get_tracer("the user's").start_as_current_span("ask") as span:
        assert not span.is_recording()
