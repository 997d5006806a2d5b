"""The queue of the export: nothing lost, nothing doubled, whoever fills it, and requests of bounded size."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from pavane_tracing.span import FinishedSpan
from pavane_tracing.span_queue import Gathered, SpanQueue


def span(number: int) -> bytes:
    """An encoded one, known by its name; of any length."""
    return bytes(ScopeSpans(spans=[Span(name="x" * (number % 300) + f"-{number}")]).SerializeToString())


@dataclass(frozen=True)
class Other:
    """Stands for one of the SDK's: nobody looks into it but for texts."""

    number: int
    attributes: Mapping[str, object] | None = None
    events: Sequence[object] = ()
    links: Sequence[object] = ()


def others(number: int, text: str = "") -> FinishedSpan:
    """With its text in an attribute, and again in an event."""
    event = Other(number, {"texts": [text]})
    return cast("FinishedSpan", Other(number, {"text": text, "number": number}, [event]) if text else Other(number))


def found(requests: list[Gathered]) -> list[tuple[str, int]]:
    """Service and number of all spans of ours, in order."""
    read: list[tuple[str, int]] = []
    for request in requests:
        numbers: list[tuple[str, int]] = []
        for service, spans in request.ours:
            scoped = ScopeSpans.FromString(b"".join(spans))
            numbers += [(service, int(each.name.rpartition("-")[2])) for each in scoped.spans]
        assert len(numbers) == request.count
        read += numbers
    return read


@given(
    st.lists(st.sampled_from(["a", "b", "c", "sdk", "gather", "gather full"]), max_size=200),
    st.integers(1, 12),
    st.integers(0, 30),
)
def test_what_goes_in_comes_out_once_by_requests_of_bounded_size(what: list[str], per_request: int, more: int) -> None:
    """In the order of each service; what finds no room is counted. Where only full ones are asked for, all are."""
    queue = SpanQueue(per_request + more, per_request)
    given_in, came_out = list[tuple[str, int]](), list[tuple[str, int]]()
    waiting = dropped = 0
    for number, each in enumerate([*what, "gather"]):
        if each.startswith("gather"):
            requests = queue.gather(full=each == "gather full")
            sizes = [request.count + len(request.others) for request in requests]
            assert all(size == per_request for size in sizes[:-1])
            assert sum(sizes) == (waiting - waiting % per_request if each == "gather full" else waiting)
            assert all(0 < size <= per_request for size in sizes[-1:])
            came_out += found(requests)
            came_out += [("sdk", cast("Other", other).number) for request in requests for other in request.others]
            waiting -= sum(sizes)
            queue.wake.clear()
        elif waiting == queue.most:
            (queue.add(others(number)) if each == "sdk" else queue.lot(each).take(span(number)))
            dropped += 1
        else:
            (queue.add(others(number)) if each == "sdk" else queue.lot(each).take(span(number)))
            given_in.append((each, number))
            waiting += 1
        assert queue.waiting == waiting
        assert queue.wake.is_set() == (waiting >= per_request)
    assert sorted(came_out) == sorted(given_in)
    for service in ("a", "b", "c", "sdk"):
        assert [each for each in came_out if each[0] == service] == [each for each in given_in if each[0] == service]
    assert queue.take_overflow() == dropped
    assert queue.take_overflow() == 0


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "sdk"]), st.integers(0, 299)), max_size=60), st.integers(1, 5_000))
def test_requests_are_bounded_in_bytes_and_full_ones_come_as_soon_as_there_is_one(
    what: list[tuple[str, int]], request_bytes: int
) -> None:
    queue = SpanQueue(1_000, 20, request_bytes=request_bytes)
    requests: list[Gathered] = []
    for service, number in what:
        (queue.add(others(number, "x" * number)) if service == "sdk" else queue.lot(service).take(span(number)))
        if queue.wake.is_set():
            queue.wake.clear()
            requests += (some := queue.gather(full=True))
            assert some
            assert queue.waiting < 20
            assert queue.size < request_bytes
    requests += queue.gather()
    assert (queue.waiting, queue.size) == (0, 0)
    assert all(request.size <= request_bytes or request.spans == 1 for request in requests)
    assert all(0 < request.spans <= 20 for request in requests)
    came_out = found(requests) + [("sdk", cast("Other", other).number) for request in requests for other in request.others]
    assert sorted(came_out) == sorted(what)


TEXT = "x" * 1_000
LARGE: dict[str, Other] = {
    "an attribute": Other(0, {"text": TEXT}),
    "bytes": Other(0, {"text": TEXT.encode()}),
    "a sequence": Other(0, {"texts": (1, TEXT, None)}),
    "a chat": Other(0, {"messages": ({"role": "user", "parts": [{"content": TEXT}]},)}),
    "a key of a mapping": Other(0, {"mapping": {TEXT: 1}}),
    "an event": Other(0, events=[Other(1, {"texts": [TEXT]})]),
    "a link": Other(0, links=[Other(1, {"text": TEXT})]),
}


@pytest.mark.parametrize("where", LARGE)
def test_a_text_is_counted_wherever_it_is(where: str) -> None:
    queue = SpanQueue(1_000, 20, request_bytes=2_500)
    for _ in range(8):
        queue.add(cast("FinishedSpan", LARGE[where]))
    assert [request.spans for request in queue.gather()] == [1] * 8
    assert queue.take_overflow() == 0


def test_more_bytes_than_may_wait_are_dropped_and_counted_whoever_made_them() -> None:
    queue = SpanQueue(1_000, 20, most_bytes=10_000)
    for number in range(0, 6_000, 300):
        queue.lot("a").take(span(number + 299))
        queue.add(others(number, "x" * 1_000))
    assert 5 <= queue.waiting <= 15
    assert queue.size <= 10_000
    assert queue.take_overflow() == 40 - queue.waiting
    queue.gather()
    queue.lot("a").take(span(299))
    assert queue.waiting == 1


def test_no_more_is_gathered_than_there_is_room_for() -> None:
    queue = SpanQueue(1_000, 2)
    encoded = [span(number) for number in range(290, 300)]
    for each in encoded:
        queue.lot("a").take(each)
    requests = queue.gather(most_bytes=len(encoded[0]) * 3)
    assert found(requests) == [("a", number) for number in range(290, 294)]
    assert found(queue.gather()) == [("a", number) for number in range(294, 300)]


def test_threads_lose_nothing_and_double_nothing() -> None:
    """While it is emptied all the time."""
    queue = SpanQueue(1_000_000, 64)
    encoded = [span(number) for number in range(4_000)]

    def fill(service: str) -> None:
        take = queue.lot(service).take
        for each in encoded:
            take(each)

    threads = [threading.Thread(target=fill, args=(service,)) for service in "abab"]
    requests: list[Gathered] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        requests += queue.gather(full=True)
    requests += queue.gather()
    assert sorted(found(requests)) == sorted((service, number) for service in "abab" for number in range(4_000))


def test_a_forked_child_begins_with_nothing_also_where_the_lock_was_held() -> None:
    """And what takes spans, which it got before, goes on working in it."""
    queue = SpanQueue(100, 10)
    take = queue.lot("service").take
    take(span(1))
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with queue.lock:
            held.set()
            go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        queue.begin()
        take(span(2))
        os._exit(0 if found(queue.gather()) == [("service", 2)] else 1)
    go.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found(queue.gather()) == [("service", 1)]


def test_a_span_that_ends_while_another_is_taken_waits_for_nobody() -> None:
    """In a signal's handler, or where garbage is collected: the lock is the thread's own already."""
    queue = SpanQueue(100, 10)
    with queue.lock:
        queue.lot("service").take(span(7))
    assert found(queue.gather()) == [("service", 7)]
