"""A receiver of spans over OTLP, on loopback: for tests of what leaves a process."""

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


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


class SpanReceiver(HTTPServer):
    """Takes whatever is sent to ``/v1/traces``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def endpoint(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to be."""
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> Sequence[ReceivedSpan]:
        """Every span so far."""
        return [
            ReceivedSpan(
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.name,
                next(each.value.string_value for each in resource.resource.attributes if each.key == "service.name"),
                scope.scope.name,
                {each.key: each.value.string_value for each in span.attributes if each.value.HasField("string_value")},
            )
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def receiving() -> Generator[SpanReceiver]:
    """A receiver at work until the block is left."""
    with SpanReceiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, SpanReceiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
