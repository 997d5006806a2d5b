"""Locks: one lane's queues, and who is told what. The same orders in the same order lead to the same queues."""

import random

import pytest

from pavane_events.envelope import Envelope
from pavane_events.errors import UndecodableRecord
from pavane_saga.facts import Blocked, Fact, Locked, LockRefused
from pavane_saga.locks import LockBook, LockOrder, read_order, told


class Book:
    """A book on a dict."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.book = LockBook(self.rows.get, self._write)

    def _write(self, key: bytes, row: bytes | None) -> None:
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row

    def order(self, verb: str, key: str, saga: str, **more: object) -> list[tuple[str, Fact]]:
        return list(self.book.follow(LockOrder(verb, key, saga, **more)))  # type: ignore[arg-type]


def test_the_first_holds_it_and_the_others_wait_in_order() -> None:
    book = Book()
    assert book.order("acquire", "k", "a") == [("a", Locked("k"))]
    assert book.order("acquire", "k", "b") == [("a", Blocked((("b", "k"),)))]
    assert book.order("acquire", "k", "c") == [("a", Blocked((("c", "k"),)))]
    assert book.book.queue("k") == ["a", "b", "c"]
    assert book.order("release", "k", "a") == [("b", Locked("k"))]
    assert book.order("release", "k", "c") == []
    assert book.order("release", "k", "b") == []
    assert book.rows == {}, "nothing is left of a key that nobody wants"


def test_who_does_not_wait_is_told_who_has_it() -> None:
    book = Book()
    book.order("acquire", "k", "a")
    assert book.order("acquire", "k", "b", refuse=True) == [("b", LockRefused("k", "a"))]
    assert book.book.queue("k") == ["a"]


def test_asking_twice_and_giving_back_what_one_has_not_changes_nothing() -> None:
    book = Book()
    assert book.order("acquire", "k", "a") == book.order("acquire", "k", "a")
    book.order("acquire", "k", "b")
    book.order("acquire", "k", "b")
    assert book.order("release", "k", "nobody") == []
    assert book.book.queue("k") == ["a", "b"]


def test_a_circle_comes_back_to_one_of_it_whoever_is_probed_first() -> None:
    first, second = Book(), Book()
    first.order("acquire", "k", "a")
    second.order("acquire", "l", "b")
    ((holder, blocked),) = second.order("acquire", "l", "a")
    assert (holder, blocked) == ("b", Blocked((("a", "l"),)))
    first.order("acquire", "k", "b")
    assert first.order("probe", "k", "b", path=(("a", "l"), ("b", "k"))) == [("b", Blocked((("a", "l"), ("b", "k"))))]
    assert second.order("probe", "l", "a", path=(("b", "k"), ("a", "l"))) == [("b", Blocked((("b", "k"), ("a", "l"))))]
    assert told((("a", "l"), ("b", "k"))) == "a waits for 'l', held by b; b waits for 'k', held by a"


def test_a_probe_for_somebody_who_does_not_wait_any_more_goes_nowhere() -> None:
    book = Book()
    book.order("acquire", "k", "a")
    assert book.order("probe", "k", "b", path=(("b", "k"),)) == []
    assert book.order("probe", "k", "a", path=(("a", "k"),)) == []


def test_who_holds_a_key_and_waits_for_another_has_all_that_wait_for_him_looked_at() -> None:
    book = Book()
    for saga in "abc":
        book.order("acquire", "k", saga)
    assert book.order("check", "k", "a") == [("a", Blocked((("b", "k"),))), ("a", Blocked((("c", "k"),)))]
    assert book.order("check", "k", "b") == []


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_forgotten_and_nobody_shares(seed: int) -> None:
    chance = random.Random(seed)
    book, holder, waiting = Book(), "", list[str]()
    for number in range(60):
        if chance.random() < 0.6:
            saga = f"s{number}"
            told_ = book.order("acquire", "k", saga)
            if holder:
                waiting.append(saga)
            else:
                holder = saga
                assert told_ == [(saga, Locked("k"))]
        elif holder:
            told_ = book.order("release", "k", holder)
            holder = waiting.pop(0) if waiting else ""
            assert told_ == ([(holder, Locked("k"))] if holder else [])
    assert book.book.queue("k") == ([holder, *waiting] if holder else [])


def test_an_order_is_read_as_it_was_written_and_nothing_else_is() -> None:
    order = LockOrder("probe", "k/ü", "s", path=(("a", "l"), ("s", "k/ü")))
    assert read_order(order.envelope(1_700_000_000.0)) == order
    for data in (
        b"{}",
        b"[]",
        b'{"verb": "steal", "key": "k", "saga": "s"}',
        b'{"verb":"probe","key":"k","saga":"s","path":[1]}',
    ):
        with pytest.raises(UndecodableRecord):
            read_order(Envelope(id="1", source="/t", type="pavane.lock", data=data))
