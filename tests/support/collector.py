"""An OTLP collector on the loopback interface that takes spans, or does not, as it is told."""

import gzip
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.serving import serving

_UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it was sent. ``scope``: the library that made it; ``texts``: its attributes that are text."""

    trace: str
    id: str
    parent: str
    name: str
    service: str
    scope: str
    texts: Mapping[str, str]


class Collector(ThreadingHTTPServer):
    """``status`` is what it answers, or ``status_of`` a body, without a word where that is 0; ``retry_after`` and ``location``
    go with it; ``pause_s`` is how long it thinks. Where it dribbles, its answer, or the body of it, never ends.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.status_of: Callable[[bytes], int] | None = None
        self.retry_after: str | None = None
        self.location: str | None = None
        self.rejected = 0
        self.said = ""
        self.page = b""
        self.pause_s = 0.0
        self.dribble: Literal["", "head", "body"] = ""
        self.asked = 0
        super().__init__(("127.0.0.1", port), _Collect)

    @property
    def url(self) -> str:
        """The endpoint, to which /v1/traces is added."""
        return f"http://127.0.0.1:{self.server_port}"

    def received(self) -> list[ReceivedSpan]:
        """All spans it has taken, with whose they are and who made them."""
        return [
            _received(span, _texts(resource.resource.attributes)["service.name"], scope.scope.name)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def spans(self) -> list[Span]:
        """All spans it has taken."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _received(span: Span, service: str, scope: str) -> ReceivedSpan:
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return ReceivedSpan(*ids, span.name, service, scope, _texts(span.attributes))


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes if each.value.HasField("string_value")}


class _Collect(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        collector = self.server
        assert isinstance(collector, Collector)
        body = self.rfile.read(int(self.headers["content-length"]))
        collector.asked += 1
        time.sleep(collector.pause_s)
        status = collector.status_of(body) if collector.status_of is not None else collector.status
        if status == 0:
            self.close_connection = True
            return
        if collector.dribble == "head":
            self._dribble(b"HTTP/1.1 2")
            return
        self.send_response(status)
        if collector.retry_after is not None:
            self.send_header("Retry-After", collector.retry_after)
        if collector.location is not None:
            self.send_header("Location", collector.location)
        answer = collector.page
        if status == 200:
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            unpacked = _UNPACK[self.headers.get("content-encoding", "")](body)
            collector.requests.append(ExportTraceServiceRequest.FromString(unpacked))
            if collector.rejected or collector.said:
                partial = ExportTracePartialSuccess(rejected_spans=collector.rejected, error_message=collector.said)
                answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
        self.send_header("Content-Length", str(len(answer) + 1_000_000 * bool(collector.dribble)))
        self.end_headers()
        if collector.dribble == "body":
            self._dribble(b"")
            return
        with suppress(OSError):  # not all of a page is read
            self.wfile.write(answer)

    def _dribble(self, begins: bytes) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(begins)
            while True:
                self.wfile.write(b"x")
                time.sleep(0.02)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def collecting(port: int = 0) -> Generator[Collector]:
    """A collector that answers while the block lasts."""
    with serving(Collector(port)) as collector:
        yield collector
