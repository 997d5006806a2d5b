"""Exports of spans, to collectors that a test has."""

import time
from collections.abc import Callable

from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import SpanKind

from pavane_tracing.batching import Batching
from pavane_tracing.endpoint import Endpoint
from pavane_tracing.export import SpanExport
from pavane_tracing.layouts import Layout
from pavane_tracing.lean import LeanSpan
from pavane_tracing.spool import Spool
from support.collector import Collector

LAYOUT = Layout("service", "work", SpanKind.INTERNAL, {"fixed": 1}, SpanLimits())
SOON = Batching(most_waiting=10_000, per_request=10, delay_s=0.02)


def export_to(
    url: str,
    *,
    batching: Batching = SOON,
    spool: Spool | None = None,
    timeout_s: float = 5.0,
    compression: str | None = None,
    first_pause_s: float = 0.02,
) -> SpanExport:
    """An export with a spool or none, which is quick to try and to look again."""
    endpoint = Endpoint(f"{url}/v1/traces", timeout_s=timeout_s, compression=compression)
    return SpanExport(
        endpoint, lambda spans: b"", batching=batching, spool=spool, first_pause_s=first_pause_s, look_again_s=0.1
    )


def span(number: int, text: str = "") -> bytes:
    """One that has ended, encoded."""
    made = LeanSpan(LAYOUT, f"{number + 1:032x}", f"{number + 1:016x}", None, {"number": number, "text": text})
    made.end()
    return made.encoded()


def add(export: SpanExport, number: int, text: str = "") -> None:
    """A span of the service ends."""
    export.taker("service", {"service.name": "service"})(span(number, text))


def poison(number: int, status: int) -> Callable[[bytes], int]:
    """How a collector answers to a request with this span, while it takes all others."""
    span_id = b"\x12\x08" + (number + 1).to_bytes(8, "big")
    return lambda body: status if span_id in body else 200


def numbers(collector: Collector) -> list[int]:
    """Of the spans that have arrived."""
    return sorted(int.from_bytes(each.span_id, "big") - 1 for each in collector.spans())


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
