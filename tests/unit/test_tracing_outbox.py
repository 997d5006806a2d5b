"""The outbox: what waits in memory, what a flush waits for of it, and what is too much."""

import math
import time

from pavane_tracing.outbox import Outbox, Request

REQUESTS = [Request(bytes(100), number) for number in range(5)]


def outbox() -> Outbox:
    """With five requests of 100 bytes."""
    made = Outbox()
    for each in REQUESTS:
        made.add(each)
    return made


def test_the_latest_are_what_is_too_much_and_one_stays() -> None:
    box = outbox()
    assert list(box.beyond(250)) == [REQUESTS[4], REQUESTS[3], REQUESTS[2]]
    assert list(box.beyond(0)) == [REQUESTS[1]]
    assert (len(box), box.first(0.0)) == (1, REQUESTS[0])


def test_a_flush_waits_for_what_was_here_then() -> None:
    box = outbox()
    box.await_all()
    box.add(Request(b"later", 6))
    box.settle(REQUESTS[0])
    assert box.awaited == 4
    assert len(list(box.beyond(200))) == 3
    assert box.awaited == 2, "what is in the spool is not awaited here"


def test_what_somebody_has_taken_is_not_settled_again() -> None:
    box = outbox()
    assert box.take() == REQUESTS
    box.settle(REQUESTS[0])
    assert (len(box), box.first(0.0), box.awaited) == (0, None, 0)
    box.add(REQUESTS[1])
    assert list(box.beyond(100)) == [], "nor is its size still counted"


def test_what_was_put_off_goes_behind_the_others_and_waits_longer_where_others_were_taken() -> None:
    box, late = Outbox(), Request(b"late", 1)
    box.add(late)
    box.add(REQUESTS[0])
    begun = time.monotonic()
    late.patience.put_off(0, 1.0)
    box.put_off(late)
    assert box.due == 0.0
    assert box.first(math.inf) is REQUESTS[0]
    box.settle(REQUESTS[0])
    assert box.first(begun) is None
    assert begun + 1 <= box.due <= begun + 10
    late.patience.put_off(1, 1.0)
    box.put_off(late)
    assert box.first(begun) is None
    assert begun + 2 <= box.due <= begun + 10
    assert box.first(box.due) is late
    box.take()
    box.put_off(late)
    assert (len(box), box.due) == (0, math.inf)
