"""Who takes the spans of a traced run: a real Jaeger, or a sink that thanks and forgets, each a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


class Sink(BaseHTTPRequestHandler):
    """Takes whatever it is given."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Called by the server."""
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def main() -> None:
    """Serve until killed; the first line says where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
