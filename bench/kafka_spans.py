"""Who takes the spans of a traced run: a real Jaeger, or a sink that thanks and forgets, each a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

from pavane.dev.jaeger import LocalJaeger, Ports
from pavane.dev.jaeger_build import jaeger_binary


@contextmanager
def a_collector(kind: str) -> Generator[str | None]:
    """Its OTLP endpoint over HTTP; None where there is none."""
    if kind == "none":
        yield None
    elif kind == "jaeger":
        binary = jaeger_binary(lambda line: print(line, file=sys.stderr))
        with tempfile.TemporaryDirectory() as folder, LocalJaeger(binary, Path(folder), Ports.free()) as jaeger:
            yield jaeger.otlp_http
    else:
        with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as sink:
            assert sink.stdout is not None
            try:
                yield sink.stdout.readline().strip()
            finally:
                sink.kill()


class Counting:
    """A collector that can be asked how many spans it was given."""

    def __init__(self, url: str) -> None:
        self.url = url

    def spans(self) -> int:
        """So many, since it was started."""
        with urlopen(self.url, timeout=60) as response:
            return int(response.read())

    def check(self, expected: int, whose: str) -> int:
        """So many, where that is as expected within a hundredth, for a start has spans of its own; else it ends here."""
        found = self.spans()
        if abs(found - expected) > expected * 0.01:
            raise SystemExit(f"{whose}: {found} spans arrived where {expected} were made: the figures are worth nothing")
        return found


@contextmanager
def a_counting_collector() -> Generator[Counting]:
    """A process of its own, that counts only when it is asked."""
    with a_collector("null") as url:
        assert url is not None
        yield Counting(url)


_BODIES: list[bytes] = []


class Sink(BaseHTTPRequestHandler):
    """Takes whatever it is given, and keeps it to be counted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Called by the server."""
        _BODIES.append(self.rfile.read(int(self.headers.get("content-length", "0"))))
        self._answer(b"")

    def do_GET(self) -> None:
        """Called by the server."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        count = 0
        for body in _BODIES:
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            count += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        self._answer(str(count).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def main() -> None:
    """Serve until killed; the first line says where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
