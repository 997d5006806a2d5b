"""Forked children: what they record arrives, and nobody waits for a collector that is away."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Literal

import pytest
from opentelemetry import trace

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.options import TracingOptions
from pavane_tracing.routing import global_routes
from pavane_tracing.setup import make_tracing
from support.collector import Collector, collecting

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

SENT = Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01")
ENVELOPE = Envelope(id="e", source="/x", type="a.b", data=b"{}", saga="s", trace=SENT)
FORK = multiprocessing.get_context("fork")
Tracer = Literal["lean", "sdk"]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


def compute(number: int) -> int:
    """What a child does."""
    with trace.get_tracer("user").start_as_current_span(f"child {number}"):
        return number


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_a_child_that_multiprocessing_forks_sends_its_spans_before_it_ends(collector: Collector, tracer: Tracer) -> None:
    tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
    with tracing.process(ENVELOPE, topic="a.b", partition=0, offset=0, group="g"):
        child = FORK.Process(target=compute, args=(1,))
        child.start()
        child.join()
        with ProcessPoolExecutor(1, mp_context=FORK) as pool:
            assert pool.submit(compute, 2).result() == 2
    assert child.exitcode == 0
    assert sorted(span.name for span in collector.spans()) == ["child 1", "child 2"]
    assert {span.trace_id.hex() for span in collector.spans()} == {"a" * 32}
    assert tracing.shutdown(5)


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_a_child_of_a_process_whose_collector_is_away_waits_a_second(monkeypatch: pytest.MonkeyPatch, tracer: Tracer) -> None:
    with collecting() as gone:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.url)
    tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
    child = FORK.Process(target=compute, args=(1,))
    begun = time.monotonic()
    child.start()
    child.join()
    assert child.exitcode == 0
    assert time.monotonic() - begun < 5
    tracing.shutdown(0.1)


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_the_global_provider_is_flushed_as_the_sdks_in_a_child_that_forks_itself_too(
    collector: Collector, tracer: Tracer
) -> None:
    tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
    other = make_tracing("other", keep=False, options=TracingOptions(tracer=tracer))
    compute(1)
    child = os.fork()
    if child == 0:
        compute(2)
        os._exit(0 if global_routes().force_flush(10_000) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [span.name for span in collector.spans()] == ["child 2"]
    global_routes().shutdown()
    assert sorted(span.name for span in collector.spans()) == ["child 1", "child 2"]
    compute(3)
    assert other.shutdown(5)
    assert tracing.shutdown(5)
    assert sorted(span.name for span in collector.spans()) == ["child 1", "child 2", "child 3"]


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
def test_a_flush_lasts_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch, tracer: Tracer) -> None:
    with collecting() as gone:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.url)
    tracing = make_tracing("service", keep=False, options=TracingOptions(tracer=tracer))
    compute(1)
    begun = time.monotonic()
    assert not global_routes().force_flush(200)
    assert time.monotonic() - begun < 2
    tracing.shutdown(0.1)
