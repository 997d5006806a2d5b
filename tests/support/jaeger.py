"""A real Jaeger for tests: one that is named, one in Docker, or one built from source; and what it says of its traces.

``PAVANE_JAEGER=http://HOST:16686,http://HOST:4318,http://HOST:4317`` names a running one: its query address, its OTLP
addresses over HTTP and (it may be left out) over gRPC. It may hold traces of others: a test looks for its own only.
"""

import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from pavane.dev.jaeger import JaegerFailed, LocalJaeger, Ports, is_ready
from pavane.dev.jaeger_build import jaeger_binary
from pavane_events.errors import ConfigurationError
from support.jaeger_docker import IMAGE, OTLP_GRPC, OTLP_HTTP, QUERY, JaegerContainer, start_container
from support.require import unavailable

NAMED = "PAVANE_JAEGER"
PRODUCER, CONSUMER = 4, 5
_ERROR = 2
_ANSWER_S = 30.0
_LOOK_S = 0.02
_A_DAY_MS = 86_400_000

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TracedSpan:
    """A span as Jaeger has it. ``tags`` are its attributes as text; ``links`` are pairs of trace and span."""

    trace: str
    id: str
    parent: str | None
    name: str
    service: str
    kind: int
    tags: Mapping[str, str]
    links: tuple[tuple[str, str], ...]
    failed: bool


@dataclass(frozen=True, slots=True)
class JaegerServer:
    """A running Jaeger. ``kill`` ends it as a crash does; None for one that is not ours to end."""

    query: str
    otlp_http: str
    otlp_grpc: str | None
    kill: Callable[[], None] | None

    def services(self) -> set[str]:
        """Whoever has sent spans."""
        return {str(each) for each in _list(self._get("/api/v3/services")["services"])}

    def traces_with(self, tag: str, value: str, services: Collection[str]) -> set[str]:
        """The ids of the traces in which a span of one of these services has that tag."""
        found: set[str] = set()
        for service in services:
            query = urlencode({"service": service, "limit": 100, "tags": json.dumps({tag: value})})
            found |= {str(_object(each)["traceID"]).zfill(32) for each in _list(self._get(f"/api/traces?{query}")["data"])}
        return found

    def trace(self, trace_id: str) -> list[TracedSpan]:
        """Every span of one trace."""
        result = _object(self._get(f"/api/v3/traces/{trace_id}")["result"])
        return [
            _span(_object(span), _tags(_object(_object(resource)["resource"]))["service.name"])
            for resource in _list(result["resourceSpans"])
            for scope in _list(_object(resource)["scopeSpans"])
            for span in _list(_object(scope)["spans"])
        ]

    def edges(self) -> set[tuple[str, str]]:
        """Which service's spans have children of which other service."""
        query = urlencode({"endTs": int(time.time() * 1000), "lookback": _A_DAY_MS})
        found = [_object(each) for each in _list(self._get(f"/api/dependencies?{query}")["data"])]
        return {(str(each["parent"]), str(each["child"])) for each in found}

    def settle(self) -> None:
        """Wait until whatever it has taken so far can be read: it answers senders before it has stored what they sent."""
        trace, span, now = secrets.token_hex(16), secrets.token_hex(8), time.time_ns()
        times = {"startTimeUnixNano": str(now), "endTimeUnixNano": str(now)}
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "settled"}}]}
        scope = {"spans": [{"traceId": trace, "spanId": span, "name": "settled", "kind": 1, **times}]}
        body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}).encode()
        sent = Request(f"{self.otlp_http}/v1/traces", body, {"Content-Type": "application/json"})
        urlopen(sent, timeout=_ANSWER_S).close()
        give_up = time.monotonic() + _ANSWER_S
        while not is_ready(f"{self.query}/api/v3/traces/{trace}"):
            assert time.monotonic() < give_up, "Jaeger takes spans and does not store them"
            time.sleep(_LOOK_S)

    def _get(self, path: str) -> Json:
        with urlopen(self.query + path, timeout=_ANSWER_S) as response:
            return _object(json.loads(response.read()))


def roots_of(spans: list[TracedSpan]) -> list[TracedSpan]:
    """The spans that nothing led to: of a whole trace, one."""
    return [span for span in spans if span.parent is None]


def orphans_of(spans: list[TracedSpan]) -> list[TracedSpan]:
    """The spans whose parent is not there: of a whole trace, none."""
    known = {span.id for span in spans}
    return [span for span in spans if span.parent is not None and span.parent not in known]


@contextmanager
def a_jaeger() -> Generator[JaegerServer]:
    """The one that is named, or one of our own: one in memory looks through all it has, whoever's it is, at each search."""
    named = os.environ.get(NAMED, "").strip()
    if named:
        yield _named(named)
        return
    with _running() as server:
        yield server


@pytest.fixture(scope="session")
def jaeger() -> Iterator[JaegerServer]:
    """A Jaeger for the whole session, and for others: look for traces of your own."""
    with a_jaeger() as server:
        yield server


@pytest.fixture
def own_jaeger() -> Iterator[JaegerServer]:
    """A Jaeger for one test alone, empty, that may be killed. It is never the one that is named."""
    with _running() as server:
        yield server


def _named(named: str) -> JaegerServer:
    parts = [part.strip().rstrip("/") for part in named.split(",")]
    if len(parts) not in (2, 3) or not all(part.startswith("http") for part in parts):
        example = ",".join(f"http://127.0.0.1:{port}" for port in (QUERY, OTLP_HTTP, OTLP_GRPC))
        raise pytest.UsageError(f"{NAMED} names the addresses of queries, OTLP over HTTP, and OTLP over gRPC: {example}")
    query, otlp_http, otlp_grpc = [*parts, None][:3]
    assert query is not None
    assert otlp_http is not None
    if not is_ready(f"{query}/api/services"):
        unavailable("jaeger", f"{NAMED} names {query}, and no Jaeger answers there")
    return JaegerServer(query, otlp_http, otlp_grpc, None)


@contextmanager
def _running() -> Generator[JaegerServer]:
    """One of our own, on ports of its own, for as long as the block lasts."""
    container = start_container()
    if isinstance(container, JaegerContainer):
        try:
            query, otlp_http, otlp_grpc = map(container.address, (QUERY, OTLP_HTTP, OTLP_GRPC))
            yield JaegerServer(query, otlp_http, otlp_grpc, container.kill)
        finally:
            container.stop()
        return
    with tempfile.TemporaryDirectory(prefix="pavane-jaeger-") as folder, ExitStack() as stack:
        local = _built(Path(folder), stack)
        if isinstance(local, str):
            unavailable("jaeger", f"{NAMED} names none; {IMAGE} in Docker: {container}; built here: {local}")
        yield JaegerServer(local.query, local.otlp_http, local.otlp_grpc, local.kill)


def _built(folder: Path, stack: ExitStack) -> LocalJaeger | str:
    """A running one out of the cache folder, built first if need be; or why there is none."""
    try:
        binary = jaeger_binary(lambda said: print(said, flush=True))
        return stack.enter_context(LocalJaeger(binary, folder, Ports.free()))
    except ConfigurationError as error:
        return "; ".join(map(str, error.problems))
    except (JaegerFailed, TimeoutError) as error:
        return str(error)


def _span(span: Json, service: str) -> TracedSpan:
    links = [_object(each) for each in _list(span.get("links"))]
    return TracedSpan(
        trace=str(span["traceId"]),
        id=str(span["spanId"]),
        parent=str(span["parentSpanId"]) if span.get("parentSpanId") else None,
        name=str(span["name"]),
        service=service,
        kind=cast("int", span["kind"]),
        tags=_tags(span),
        links=tuple((str(each["traceId"]), str(each["spanId"])) for each in links),
        failed=_object(span["status"]).get("code") == _ERROR,
    )


def _tags(holder: Json) -> dict[str, str]:
    pairs = [_object(each) for each in _list(holder.get("attributes"))]
    return {str(pair["key"]): "".join(map(str, _object(pair["value"]).values())) for pair in pairs}


def _object(value: object) -> Json:
    assert isinstance(value, dict), value
    return cast("Json", value)


def _list(value: object) -> Sequence[object]:
    """An array; nothing found is null."""
    assert value is None or isinstance(value, list), value
    return cast("Sequence[object]", value or ())
