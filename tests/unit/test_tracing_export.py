"""The export of spans: to a real receiver, and what becomes of them when it is slow, refuses, or is away."""

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from pavane_events.errors import ConfigurationError
from pavane_tracing import metrics
from pavane_tracing.batching import Batching, batching_of
from pavane_tracing.endpoint import Endpoint, endpoint_of
from pavane_tracing.export import SpanExport
from pavane_tracing.options import TracingOptions
from pavane_tracing.outbox import Outbox
from pavane_tracing.setup import make_tracing
from pavane_tracing.spool import Spool
from support.collector import Collector, collecting
from support.exporting import SOON, add, export_to, numbers, poison, until


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_span_arrives_once_in_requests_of_bounded_size(collector: Collector, compression: str | None) -> None:
    export = export_to(collector.url, compression=compression)
    for number in range(95):
        add(export, number)
    assert export.flush(10)
    assert numbers(collector) == list(range(95))
    assert all(len(each.scope_spans[0].spans) <= 10 for request in collector.requests for each in request.resource_spans)
    assert {each["content-type"] for each in collector.headers} == {"application/x-protobuf"}
    assert export.shutdown(5)


def test_what_does_not_fill_a_request_waits_for_what_comes_next(collector: Collector) -> None:
    """Or for its time: small requests cost as much as large ones."""
    export = export_to(collector.url, batching=Batching(per_request=10, delay_s=60))
    for begun in range(0, 95, 19):
        for number in range(begun, begun + 19):
            add(export, number)
        until(lambda: export.waiting < 10)
    assert export.flush(10)
    assert numbers(collector) == list(range(95))
    assert [len(each.resource_spans[0].scope_spans[0].spans) for each in collector.requests] == [*(9 * [10]), 5]
    assert export.shutdown(5)


def test_they_are_sent_by_themselves_after_a_while_and_at_once_where_they_fill_a_request(collector: Collector) -> None:
    export = export_to(collector.url, batching=Batching(per_request=10, delay_s=0.2))
    add(export, 0)
    until(lambda: numbers(collector) == [0])
    begun = time.monotonic()
    for number in range(1, 11):
        add(export, number)
    until(lambda: len(numbers(collector)) == 11)
    assert time.monotonic() - begun < 5
    assert export.shutdown(5)


def test_what_comes_while_the_collector_is_away_arrives_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as first:
        port = first.server_port
    export = export_to(f"http://127.0.0.1:{port}")
    for number in range(200):
        add(export, number)
    assert not export.flush(0.3)
    with collecting(port) as back:
        for number in range(200, 300):
            add(export, number)
        assert export.flush(10)
        assert numbers(back) == list(range(300))
        assert export.shutdown(5)
    assert "dropped" not in caplog.text


@pytest.mark.parametrize("status", [502, 0])
def test_one_request_that_is_never_taken_holds_up_no_other_and_is_lost_in_the_end(
    status: int, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status_of = poison(5, status)
    export = export_to(collector.url, batching=Batching(per_request=1, delay_s=0.02), first_pause_s=0.002)
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            add(export, number)
        until(lambda: len(numbers(collector)) == 19)
        others = itertools.count(20)

        def is_given_up() -> bool:
            add(export, next(others))
            return "again and again while others were taken" in caplog.text

        until(is_given_up)
        assert export.flush(5)
    assert numbers(collector) == [number for number in range(next(others)) if number != 5]
    assert export.shutdown(5)


def test_requests_are_bounded_in_bytes_and_a_burst_of_large_spans_is_not_lost(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """More than there is room for in requests waits where it is while the collector takes them."""
    collector.status_of = lambda body: 413 if len(body) > 5_000_000 else 200
    collector.pause_s = 0.05
    export = export_to(collector.url, batching=Batching(delay_s=0.02))
    for number in range(500):
        add(export, number, "x" * 80_000)
    until(lambda: len(collector.spans()) == 500)
    assert numbers(collector) == list(range(500))
    assert collector.asked == len(collector.requests), "none was too large"
    assert "dropped" not in caplog.text
    assert export.shutdown(5)


def test_what_an_endpoint_takes_at_once_is_learned(collector: Collector) -> None:
    collector.status_of = lambda body: 413 if len(body) > 200_000 else 200
    export = export_to(collector.url, batching=Batching(delay_s=60))
    for number in range(100):
        add(export, number, "x" * 10_000)
    assert export.flush(10)
    refused = collector.asked - len(collector.requests)
    assert refused
    for number in range(100, 300):
        add(export, number, "x" * 10_000)
    assert export.flush(10)
    assert numbers(collector) == list(range(300))
    assert collector.asked - len(collector.requests) == refused
    assert export.shutdown(5)


@pytest.mark.parametrize("spooled", [True, False])
def test_a_request_that_is_too_large_is_sent_in_parts(collector: Collector, tmp_path: Path, spooled: bool) -> None:
    collector.status_of = lambda body: 413 if len(body) > 1_000 else 200
    spool = Spool(tmp_path, 1_000_000)
    batching = Batching(per_request=100, delay_s=60)
    away = export_to("http://127.0.0.1:9" if spooled else collector.url, batching=batching, spool=spool)
    for number in range(100):
        add(away, number)
    assert away.shutdown(0.5)
    if spooled:
        assert list(tmp_path.glob("*.otlp"))
        back = export_to(collector.url, spool=spool)
        until(lambda: len(collector.spans()) == 100)
        assert back.shutdown(5)
    assert numbers(collector) == list(range(100))


def test_of_a_request_with_one_span_that_is_refused_that_one_is_lost(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status_of = poison(5, 400)
    export = export_to(collector.url, batching=Batching(per_request=1_000, delay_s=60))
    for number in range(1_000):
        add(export, number)
    assert export.flush(10)
    assert numbers(collector) == [number for number in range(1_000) if number != 5]
    with caplog.at_level(logging.WARNING):
        assert export.shutdown(5)


def test_a_collector_that_refuses_everything_is_not_asked_of_every_span(collector: Collector) -> None:
    collector.status = 400
    export = export_to(collector.url, batching=Batching(per_request=1_000, delay_s=60))
    for number in range(3_000):
        add(export, number)
    assert export.flush(10)
    assert collector.asked < 50
    collector.status = 200
    add(export, 3_000)
    assert export.flush(10)
    assert numbers(collector) == [3_000]
    assert export.shutdown(5)


def test_an_answer_that_dribbles_holds_nobody_up_for_longer_than_the_time_out(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """The spans are taken where it has begun to say so."""
    collector.dribble = "body"
    export = export_to(collector.url, timeout_s=0.3)
    add(export, 0)
    assert export.flush(5)
    collector.dribble = "head"
    add(export, 1)
    with caplog.at_level(logging.DEBUG):
        until(lambda: "has not answered within 0.3 s" in caplog.text, 5)
    collector.dribble = ""
    assert export.flush(5)
    assert numbers(collector) == [0, 1]
    assert export.shutdown(5)


def test_of_a_long_answer_the_beginning_is_read(collector: Collector) -> None:
    collector.page = b"x" * 50_000_000
    begun = time.monotonic()
    assert Endpoint(f"{collector.url}/v1/traces").connect().send(b"").taken
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_refusal_that_says_where_to(
    status: int, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status, collector.location = status, "https://gateway/v1/traces"
    export = export_to(collector.url)
    with caplog.at_level(logging.WARNING):
        add(export, 0)
        assert export.flush(5)
    assert f"answered {status}" in caplog.text
    assert "'https://gateway/v1/traces'" in caplog.text
    assert export.shutdown(5)
    assert collector.asked == 1


def asked(collector: Collector, times: int) -> None:
    until(lambda: collector.asked == times)


def test_one_request_that_is_not_taken_holds_up_none_that_comes_later(collector: Collector) -> None:
    collector.status_of = poison(0, 502)
    export = export_to(collector.url, first_pause_s=60)
    for number in range(5):
        add(export, number)
        asked(collector, number + 1)
    until(lambda: numbers(collector) == [1, 2, 3, 4])
    assert not export.shutdown(0.1)


def test_what_is_never_taken_does_not_keep_the_last_spans_of_a_process_back(collector: Collector) -> None:
    collector.status_of = poison(0, 502)
    export = export_to(collector.url, batching=Batching(per_request=1, delay_s=60), first_pause_s=60)
    for number in range(10):
        add(export, number)
    assert not export.shutdown(1)
    assert numbers(collector) == list(range(1, 10))


def test_an_outage_is_no_fault_of_any_request_however_long_it_is(collector: Collector) -> None:
    collector.status = 502
    export = export_to(collector.url, first_pause_s=0.00001)
    add(export, 0)
    until(lambda: collector.asked > 20)
    collector.status = 200
    until(lambda: numbers(collector) == [0])
    assert export.shutdown(5)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_collector_that_says_later_is_asked_later(collector: Collector, status: int) -> None:
    collector.status = status
    export = export_to(collector.url)
    add(export, 0)
    until(lambda: collector.asked >= 2)
    collector.status = 200
    until(lambda: numbers(collector) == [0])
    assert export.shutdown(5)


def test_a_collector_that_says_when_is_not_asked_before(collector: Collector) -> None:
    collector.status, collector.retry_after = 429, "3600"
    export = export_to(collector.url)
    add(export, 0)
    until(lambda: collector.asked == 1)
    add(export, 1)
    time.sleep(0.3)
    assert collector.asked == 1
    collector.status = 200
    assert export.flush(5)  # unless it is the last moment
    assert numbers(collector) == [0, 1]
    assert export.shutdown(5)


@pytest.mark.parametrize("when", ["Mon, 01 Jan 2024 00:00:00 GMT", "0.000001", "0"])
def test_a_collector_that_says_at_once_is_not_asked_without_a_pause(when: str, collector: Collector) -> None:
    collector.status, collector.retry_after = 429, when
    export = export_to(collector.url, first_pause_s=0.1)
    add(export, 0)
    until(lambda: collector.asked == 1)
    time.sleep(1.0)
    assert collector.asked <= 5
    collector.status = 200
    until(lambda: numbers(collector) == [0])
    assert export.shutdown(5)


def test_whatever_fails_in_the_thread_that_sends_is_told_and_it_lives_on(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("timeout value is too large")

    export = export_to(collector.url)
    with monkeypatch.context() as broken:
        broken.setattr(Outbox, "first", fail)
        add(export, 0)
        until(lambda: "the export of spans failed" in caplog.text)
    assert "timeout value is too large" in caplog.text
    assert export.flush(5)
    assert numbers(collector) == [0]
    assert export.shutdown(5)


@pytest.mark.parametrize("when", ["1e300", "999999999", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_collector_that_says_never_is_asked_within_minutes(when: str, collector: Collector) -> None:
    collector.status, collector.retry_after = 503, when
    export = export_to(collector.url)
    add(export, 0)
    until(lambda: export._next_try > 0)  # pyright: ignore[reportPrivateUsage]
    assert 200 < export._next_try - time.monotonic() <= 300  # pyright: ignore[reportPrivateUsage]
    assert not export.shutdown(0.1)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, int]]:
    """Spans are counted anew; what is counted so far."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    monkeypatch.setattr(metrics, "_EXPORTED", meter.create_counter("exported"))
    monkeypatch.setattr(metrics, "_DROPPED", meter.create_counter("dropped"))

    def read() -> dict[str, int]:
        data = reader.get_metrics_data()
        found: dict[str, int] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = sum(int(getattr(point, "value", 0)) for point in metric.data.data_points)
        return found

    return read


def test_what_is_refused_for_good_or_in_part_is_told_and_counted(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch)
    export = export_to(collector.url)
    with caplog.at_level(logging.WARNING):
        collector.status = 400
        add(export, 0)
        add(export, 1)
        assert export.flush(5)
        assert "answered 400" in caplog.text
        collector.status, collector.rejected = 200, 1
        add(export, 2)
        add(export, 3)
        assert export.flush(5)
        assert read() == {"exported": 1, "dropped": 3}
        collector.rejected = 0
        add(export, 4)
        assert export.flush(5)
    assert read() == {"exported": 2, "dropped": 3}
    assert "spans are exported again" in caplog.text
    assert export.shutdown(5)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_of_requests_that_are_taken_in_part_one_line_tells_why_and_one_that_it_is_over(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch)
    export = export_to(collector.url)
    collector.said = "attribute too long"
    for rejected in (1, 1, 99, 1, -7):
        collector.rejected = rejected
        add(export, 0)
        add(export, 1)
        assert export.flush(5)
    assert read() == {"exported": 5, "dropped": 5}
    told = warnings(caplog)
    assert told[0].endswith("the endpoint rejected spans: attribute too long")
    assert [line.partition(":")[0] for line in told[1:]] == [
        "spans are exported again",
        "the OTLP endpoint took spans, and says",
    ]
    assert export.shutdown(5)


def test_the_stock_sdk_s_export_counts_alike(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")
    with caplog.at_level(logging.WARNING):
        refused = make_tracing("service", keep=False, options=TracingOptions(tracer="sdk"))
        collector.status = 400
        for number in range(3):
            refused.send_root("t", f"e{number}", "t")
        assert refused.shutdown(10)
        assert read() == {"dropped": 3}
        tracing = make_tracing("service", keep=False, options=TracingOptions(tracer="sdk"))
        collector.status, collector.pause_s = 200, 0.3
        for number in range(200):
            tracing.send_root("t", f"e{number}", "t")
        assert tracing.shutdown(10)
    assert "spans come faster than they are sent" in caplog.text
    found = read()
    assert found["dropped"] > 100
    assert (found["exported"], found["exported"] + found["dropped"]) == (len(collector.spans()), 203)


def test_more_than_may_wait_is_dropped_and_told_and_blocks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as collector:
        collector.pause_s = 0.5
        export = export_to(collector.url, batching=Batching(most_waiting=20, per_request=20, delay_s=5))
        with caplog.at_level(logging.WARNING):
            begun = time.monotonic()
            for number in range(2_000):
                add(export, number)
            assert time.monotonic() - begun < 0.4
            assert export.flush(30)
        assert 20 <= len(numbers(collector)) < 2_000
        assert "spans are dropped" in caplog.text
        assert export.shutdown(5)


def test_a_dead_collector_holds_a_shutdown_up_no_longer_than_it_may() -> None:
    with collecting() as hanging:
        hanging.pause_s = 3.0
        export = export_to(hanging.url)
        add(export, 0)
        begun = time.monotonic()
        assert not export.shutdown(0.3)
        assert time.monotonic() - begun < 1.5


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_exports_its_own_spans_and_none_of_its_parents(collector: Collector) -> None:
    export = export_to(collector.url, batching=Batching(per_request=500, delay_s=60))
    add(export, 0)
    child = os.fork()
    if child == 0:
        add(export, 1)
        os._exit(0 if export.flush(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert numbers(collector) == [1]
    assert export.shutdown(5)
    assert numbers(collector) == [0, 1]


def test_spans_may_come_from_many_threads_at_once(collector: Collector) -> None:
    export = export_to(collector.url, batching=Batching(most_waiting=100_000, per_request=512, delay_s=0.01))

    def many(first: int) -> None:
        for number in range(first, first + 2_000):
            add(export, number)

    threads = [threading.Thread(target=many, args=(first,)) for first in range(0, 10_000, 2_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert export.flush(20)
    assert numbers(collector) == list(range(10_000))
    assert export.shutdown(5)


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:9/v1/traces", {"x": "\u4f60"}),
        ("http://127.0.0.1:9/v1/traces", {"\u4f60": "x"}),
        ("http://[::1/v1/traces", {}),
        (f"http://{'a' * 70}/v1/traces", {}),
        ("http:///v1/traces", {}),
        ("nowhere", {}),
    ],
)
def test_what_cannot_be_sent_at_all_is_the_reason_that_is_told_and_the_thread_lives_on(
    url: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint(url, headers)
    answer = endpoint.connect().send(b"x")
    assert not answer.taken
    assert answer.why
    export = SpanExport(endpoint, lambda spans: b"", batching=SOON, first_pause_s=0.02)
    add(export, 0)
    with caplog.at_level(logging.WARNING):
        assert not export.shutdown(0.5)
    assert f"work goes on: {answer.why}" in caplog.text


@pytest.mark.parametrize("when", ["soon", "Mon, 01 Jan 0001 00:00:00 -0000", "1e300", "-1"])
def test_a_collector_that_says_when_in_no_way_that_can_be_understood_is_asked_later(collector: Collector, when: str) -> None:
    collector.status, collector.retry_after = 503, when
    answer = Endpoint(f"{collector.url}/v1/traces").connect().send(b"x")
    assert (answer.taken, answer.again) == (False, True)


def test_the_standard_variables_say_where_and_how(tmp_path: Path) -> None:
    for name in ("ca.pem", "me.pem", "me.key"):
        (tmp_path / name).touch()
    found = endpoint_of(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://gateway:4318/",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret,tenant=a%20b",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{tmp_path}/ca.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": f"{tmp_path}/me.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": f"{tmp_path}/me.key",
        }
    )
    assert found.url == "http://gateway:4318/v1/traces"
    assert found.headers == {"api-key": "secret", "tenant": "a b"}
    assert (found.compression, found.timeout_s) == ("gzip", 3.0)
    session = found.connect().session
    assert (session.verify, session.cert) == (f"{tmp_path}/ca.pem", (f"{tmp_path}/me.pem", f"{tmp_path}/me.key"))
    assert session.headers["api-key"] == "secret"
    assert endpoint_of({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/here"}).url == "http://x/here"
    assert endpoint_of({}).url == "http://localhost:4318/v1/traces"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://localhost"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:many"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"https://{'a' * 70}/v1/traces"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x=%E4%BD%A0"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=a%0Ab"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x%E4=a"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/nowhere/me.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nowhere/me.key"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "99999999999999"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 5_000),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "99999999999"),
    ],
)
def test_what_cannot_be_followed_is_refused(variable: str, value: str) -> None:
    follow = batching_of if variable.startswith("OTEL_BSP") else endpoint_of
    with pytest.raises(ConfigurationError, match=f"{variable}:"):
        follow({variable: value})


def test_all_that_is_wrong_with_the_endpoint_is_told_at_once_and_no_secret_with_it() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@[::1",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret%0A1",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/nowhere/me.key",
    }
    with pytest.raises(ConfigurationError) as raised:
        endpoint_of(variables)
    assert {problem.where for problem in raised.value.problems} == set(variables)
    assert "api-key" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://otel_collector:4318", "HTTPS://[::1]:4318/x", "http://me:secret@gateway", "http://b\u00fccher.example"]
)
def test_an_endpoint_that_can_be_asked_is_not_refused(url: str) -> None:
    assert endpoint_of({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url, "OTEL_EXPORTER_OTLP_HEADERS": "x=%C3%A9"}).url == url


def test_batches_are_as_large_as_the_variables_say() -> None:
    variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "250"}
    assert batching_of(variables) == Batching(most_waiting=100, per_request=100, delay_s=0.25)
    assert batching_of({}) == Batching()
    assert 0 < batching_of({"OTEL_BSP_SCHEDULE_DELAY": "0"}).delay_s < 0.1
