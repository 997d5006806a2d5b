"""An outage of the collector: spans are made at a steady rate while it refuses them, and after it is back; what arrives.

    python -m bench.outage [--rate 3000] [--seconds 600] [--after 30] [--answer-ms 0]

One process, one service, its spool in a temporary directory; every second span is a ``send`` within a ``process``. The
collector is another thread of the same process: its memory counts, too.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from pavane_events.envelope import Envelope, Trace
from pavane_events.ids import uuid7
from pavane_tracing.endpoint import Endpoint
from pavane_tracing.export import SpanExport
from pavane_tracing.identity import new_span_id, new_trace_id
from pavane_tracing.lean_work import LeanTracing
from pavane_tracing.sampling import SagaSampler
from pavane_tracing.spool import Spool
from pavane_tracing.unit import Service

_SPOOL_BYTES = 256 * 1024 * 1024
_MIB = 1024 * 1024
_PATIENCE_S = 300.0


class Refusing(ThreadingHTTPServer):
    """Answers 503 until it is back, then takes and counts. ``answer_s``: how long it thinks then."""

    daemon_threads = True
    is_back = False

    def __init__(self, answer_s: float) -> None:
        self.answer_s = answer_s
        self.seen: set[bytes] = set()
        self.taken = 0
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Called by the server."""
        collector = self.server
        assert isinstance(collector, Refusing)
        body = self.rfile.read(int(self.headers["content-length"]))
        is_back = collector.is_back
        if is_back:
            time.sleep(collector.answer_s)
        self.send_response(200 if is_back else 503)
        self.send_header("content-length", "0")
        self.end_headers()
        if is_back:
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            ids = [span.span_id for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
            collector.taken += len(ids)
            collector.seen.update(ids)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def refusing(answer_s: float) -> Generator[Refusing]:
    """A collector, while the block lasts."""
    with Refusing(answer_s) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


def make_spans(tracing: LeanTracing, rate: float, seconds: float) -> int:
    """So many a second, for so long; how many it were."""
    begun, made = time.monotonic(), 0
    while (elapsed_s := time.monotonic() - begun) < seconds:
        while made < elapsed_s * rate:
            saga = uuid7()
            sent = Trace(f"00-{new_trace_id()}-{new_span_id()}-01")
            event = Envelope(id=uuid7(), source="/bench", type="bench.hop", data=b"x" * 300, saga=saga, trace=sent)
            work = tracing.process(
                event, topic="bench.hop", partition=made % 4, offset=made, group="relay", step="relay/pass", saga_name="bench"
            )
            with work:
                work.send("bench.next", uuid7(), "bench.next", saga=saga, size=300)
            work.end()
            made += 2
        time.sleep(0.01)
    return made


def main() -> None:
    """Ends with 1 where a span is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=3000.0, help="spans a second")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long the outage lasts")
    parser.add_argument("--after", type=float, default=30.0, help="for how many seconds spans are made when it is over")
    parser.add_argument("--answer-ms", type=float, default=0.0, help="how long the collector takes to answer then")
    options = parser.parse_args()
    with refusing(options.answer_ms / 1000) as collector, tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), _SPOOL_BYTES)
        spool.open()
        endpoint = Endpoint(f"http://127.0.0.1:{collector.server_port}/v1/traces")
        export = SpanExport(endpoint, lambda spans: b"", spool=spool)
        take = export.taker("relay", {"service.name": "relay"})
        service = Service("relay", TracerProvider(shutdown_on_exit=False))
        tracing = LeanTracing(service, limits=SpanLimits(), sampler=SagaSampler(), system="kafka", take=take)
        made = make_spans(tracing, options.rate, options.seconds)
        waiting = sum(each.stat().st_size for each in Path(folder).iterdir())
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{made} spans in {options.seconds:g} s, {waiting / _MIB:.0f} MiB in the spool, at most {peak_mb:.0f} MB of memory"
        )
        collector.is_back, back_s = True, time.monotonic()
        made += make_spans(tracing, options.rate, options.after)
        while len(collector.seen) < made and time.monotonic() - back_s < _PATIENCE_S:
            time.sleep(0.1)
        lasted_s = time.monotonic() - back_s
        print(f"{len(collector.seen)} of {made} arrived, {collector.taken} in all, {lasted_s:.0f} s after it was back")
        export.shutdown(5.0)
        sys.exit(len(collector.seen) < made)


if __name__ == "__main__":
    main()
