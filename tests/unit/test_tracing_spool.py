"""The spool: spans that no collector takes wait on disk, for this process or another one, and are sent when one does."""

import itertools
import logging
import os
import shutil
import socket
from pathlib import Path

import pytest

from pavane_events.errors import ConfigurationError
from pavane_tracing import otlp
from pavane_tracing.batching import Batching
from pavane_tracing.options import TracingOptions
from pavane_tracing.setup import make_tracing
from pavane_tracing.spool import Emptying, Spool
from pavane_tracing.work import SCOPE
from support.collector import Collector, collecting
from support.exporting import SOON, add, export_to, numbers, poison, span, until

NOWHERE = "http://127.0.0.1:9"
UNWRITABLE = Path("/proc")
"""Nobody may make a file there, not even root."""


def spool_in(directory: Path) -> Spool:
    """One that is open, with room for everything."""
    spool = Spool(directory, 50_000_000)
    spool.open()
    return spool


def leave_behind(directory: Path, spans: range) -> None:
    """As a process does that ends while no collector takes its spans: a request for each."""
    spool, resource, scope = spool_in(directory), otlp.resource({"service.name": "service"}), otlp.scope(SCOPE)
    for number in spans:
        assert spool.put(b"".join(otlp.resource_spans(resource, scope, [span(number)])), 1) is None
    assert len(files(directory)) >= len(spans)


def asked_again(collector: Collector, times: int) -> None:
    """Wait until it was asked so many times more."""
    before = collector.asked
    until(lambda: collector.asked >= before + times)


def files(directory: Path) -> list[Path]:
    """The requests that wait there."""
    return sorted(directory.glob("*.otlp"))


def test_the_spool_holds_an_outage_and_the_next_process_sends_what_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 50_000_000)
    spool.open()
    with collecting() as first:
        port = first.server_port
    export = export_to(f"http://127.0.0.1:{port}", batching=Batching(per_request=500, delay_s=0.01), spool=spool)
    for number in range(30_000):
        if number % 5_000 == 0:
            until(lambda: export.waiting < 3_000)
        add(export, number)
    until(lambda: any((tmp_path / "spool").glob("*.otlp")))
    assert export.shutdown(0.2), "what the spool has is not lost"
    with collecting(port) as back:
        following = export_to(f"http://127.0.0.1:{port}", spool=spool)
        add(following, 30_000)
        until(lambda: len(back.spans()) >= 30_001)
        assert numbers(back) == list(range(30_001))
        assert following.shutdown(5)
    assert not list((tmp_path / "spool").glob("*.otlp"))


def test_an_outage_within_one_process_is_bridged_by_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 50_000_000)
    spool.open()
    with collecting() as collector:
        export = export_to(collector.url, batching=Batching(per_request=500, delay_s=0.01), spool=spool)
        add(export, 0)
        assert export.flush(5)
        collector.status = 503
        for number in range(1, 20_001):
            if number % 5_000 == 0:
                until(lambda: export.waiting < 3_000)
            add(export, number)
        until(lambda: any(tmp_path.glob("*.otlp")))
        collector.status = 200
        until(lambda: len(collector.spans()) >= 20_001)
        assert numbers(collector) == list(range(20_001))
        assert export.shutdown(5)
    assert not list(tmp_path.glob("*.otlp"))


def test_a_spool_that_is_full_or_gone_loses_what_is_too_much_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "small", 1_000)
    spool.open()
    export = export_to("http://127.0.0.1:9", spool=spool)
    with caplog.at_level(logging.WARNING):
        for number in range(200):
            add(export, number)
        assert not export.shutdown(0.2)
    assert "spans are dropped" in caplog.text
    assert f"the spool {tmp_path / 'small'} is full" in caplog.text
    assert 0 < sum(each.stat().st_size for each in (tmp_path / "small").iterdir()) <= 1_000
    missing = Spool(tmp_path / "missing", 3_000)
    assert missing.put(b"x", 1)
    assert missing.emptying() is None


def test_one_process_at_a_time_empties_a_spool(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    assert spool.put(b"first", 3) is None
    (tmp_path / "0-1-0-5.otlp").write_bytes(b"damaged")
    turn = turn_of(spool)
    assert had(turn) == (None, 5)
    assert spool_in(tmp_path).emptying() is None
    assert spool.put(b"second", 4) is None
    assert had(turn) == (b"first", 3)
    turn.end()
    turn = turn_of(spool_in(tmp_path))
    assert had(turn) == (b"second", 4)
    assert turn.next() is None
    turn.end()


def turn_of(spool: Spool) -> Emptying:
    """Its turn to be emptied, which nobody has."""
    turn = spool.emptying()
    assert turn is not None
    return turn


def had(turn: Emptying) -> tuple[bytes | None, int]:
    """What is next there; it is over then."""
    spooled = turn.next()
    assert spooled is not None
    body = spooled.body()
    turn.remove(spooled)
    return body, spooled.spans


def test_what_cannot_be_removed_is_not_had_again(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    (tmp_path / "0-1-0-5.otlp").mkdir()
    for _ in range(2):
        turn = turn_of(spool)
        spooled = turn.next()
        if spooled is not None:
            turn.remove(spooled)
        assert turn.next() is None
        turn.end()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_its_parents_turn(tmp_path: Path) -> None:
    turn = turn_of(spool_in(tmp_path))
    asked, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer)
        os.read(asked, 1)
        os._exit(0)
    turn.end()
    turn_of(spool_in(tmp_path)).end()
    os.close(answer)
    assert os.waitpid(child, 0)[1] == 0
    os.close(asked)


def test_what_a_killed_process_had_begun_to_write_is_cleared_away(tmp_path: Path) -> None:
    old, new = tmp_path / "1.part", tmp_path / "2.part"
    old.write_bytes(b"half")
    new.write_bytes(b"being written")
    os.utime(old, (0, 0))
    Spool(tmp_path, 10).open()
    assert not old.exists()
    assert new.exists()


def test_what_comes_while_a_backlog_is_sent_is_sent_between_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The queue is gathered between the backlog's requests: far more comes meanwhile than may wait there."""
    leave_behind(tmp_path, range(200))
    with collecting() as collector:
        collector.pause_s = 0.01
        batching = Batching(most_waiting=100, per_request=20, delay_s=0.02)
        export = export_to(collector.url, batching=batching, spool=spool_in(tmp_path))
        until(lambda: collector.asked > 2)
        for first in range(200, 1_000, 50):
            for number in range(first, first + 50):
                add(export, number)
            asked_again(collector, 5)
        assert files(tmp_path), "the backlog is not sent yet"
        assert numbers(collector)[-1] > 800, "nor does what is fresh wait for it"
        until(lambda: len(collector.spans()) >= 1_000)
        assert numbers(collector) == list(range(1_000))
        assert export.shutdown(5)
    assert "dropped" not in caplog.text
    assert not files(tmp_path)


def test_a_flush_waits_for_what_is_fresh_and_for_the_backlog(tmp_path: Path) -> None:
    leave_behind(tmp_path, range(100))
    with collecting() as collector:
        collector.pause_s = 0.005
        export = export_to(collector.url, spool=spool_in(tmp_path))
        until(lambda: collector.asked > 2)
        for number in range(100, 115):
            add(export, number)
        assert export.flush(10)
        assert numbers(collector) == list(range(115))
        assert export.shutdown(5)


def test_a_flush_fails_while_the_collector_does_not_take_what_is_in_the_spool(tmp_path: Path) -> None:
    leave_behind(tmp_path, range(3))
    with collecting() as collector:
        collector.status = 503
        export = export_to(collector.url, spool=spool_in(tmp_path))
        assert not export.flush(0.1)
        collector.status = 200
        assert export.flush(10)
        assert numbers(collector) == [0, 1, 2]
        assert export.shutdown(5)


def test_a_request_there_that_is_never_taken_holds_up_no_other_and_is_lost_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_behind(tmp_path, range(30))
    with collecting() as collector:
        collector.status_of = poison(0, 502)
        export = export_to(collector.url, spool=spool_in(tmp_path), first_pause_s=0.002)
        until(lambda: numbers(collector) == list(range(1, 30)) and len(files(tmp_path)) == 1)
        others = itertools.count(30)

        def is_given_up() -> bool:
            add(export, next(others))
            return not files(tmp_path)

        with caplog.at_level(logging.WARNING):
            until(is_given_up)
        assert "again and again while others were taken" in caplog.text
        assert export.shutdown(5)


def test_what_is_put_there_while_it_is_emptied_is_sent_too(tmp_path: Path) -> None:
    leave_behind(tmp_path, range(20))
    with collecting() as collector:
        collector.pause_s = 0.02
        export = export_to(collector.url, spool=spool_in(tmp_path))
        until(lambda: collector.asked > 1)
        leave_behind(tmp_path, range(20, 30))
        until(lambda: numbers(collector) == list(range(30)))
        assert export.shutdown(5)
    assert not files(tmp_path)


def test_what_another_process_does_not_send_after_all_is_sent_when_it_lets_go(tmp_path: Path) -> None:
    leave_behind(tmp_path, range(10))
    with collecting() as collector:
        others = turn_of(spool_in(tmp_path))
        export = export_to(collector.url, spool=spool_in(tmp_path))
        add(export, 10)
        assert export.flush(5)
        assert numbers(collector) == [10]
        others.end()
        until(lambda: numbers(collector) == list(range(11)))
        assert export.shutdown(5)


def test_what_a_process_leaves_behind_is_sent_by_another_that_had_found_nothing(tmp_path: Path) -> None:
    with collecting() as collector:
        export = export_to(collector.url, spool=spool_in(tmp_path))
        add(export, 0)
        assert export.flush(5)
        leave_behind(tmp_path, range(1, 10))
        until(lambda: numbers(collector) == list(range(10)))
        assert export.shutdown(5)


def test_a_spool_that_cannot_be_written_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    with pytest.raises(ConfigurationError, match=f"PAVANE_TRACE_SPOOL.*{UNWRITABLE} cannot be used"):
        make_tracing("service", keep=False, options=TracingOptions(spool=UNWRITABLE))


def test_a_spool_that_can_no_longer_be_written_is_named_where_spans_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "spool"
    export = export_to(NOWHERE, batching=SOON, spool=spool_in(directory))
    shutil.rmtree(directory)
    with caplog.at_level(logging.WARNING):
        add(export, 0)
        assert not export.shutdown(0.2)
    assert f"the spool {directory} cannot be written" in caplog.text


@pytest.mark.parametrize("spooled", [True, False])
def test_what_comes_while_a_collector_does_not_answer_finds_room(tmp_path: Path, spooled: bool) -> None:
    """It takes connections, and never says a word: the one request under way holds up no other span."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        batching = Batching(most_waiting=100, per_request=10, delay_s=0.02)
        export = export_to(url, batching=batching, spool=spool_in(tmp_path) if spooled else None, timeout_s=60)
        for number in range(1_000):
            if number % 50 == 0:
                until(lambda: export.waiting == 0)
            add(export, number)
        until(lambda: export.waiting == 0)
        assert not export.shutdown(0.1) or spooled
    if spooled:
        with collecting() as collector:
            export = export_to(collector.url, spool=spool_in(tmp_path))
            until(lambda: numbers(collector) == list(range(1_000)))
            assert export.shutdown(5)
