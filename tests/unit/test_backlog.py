"""Backlog: what waits for its lane to open is bounded, what lies behind it goes on, and the next holder does nothing twice."""

import pytest

from pavane_events.buses.memory_log import KeyedState
from pavane_events.record import Record
from pavane_saga import backlog
from pavane_saga.backlog import Backlog
from support.compiled import sources_only


def record(offset: int, topic: str = "in") -> Record:
    return Record(topic, 0, offset, b"k", b"{}", (), 0)


class World:
    """A lane's state and committed offsets, and the backlogs of its holders one after the other."""

    def __init__(self) -> None:
        self.state = KeyedState()
        self.offsets: dict[str, int] = {}
        self.backlog = Backlog(self.state, ["in", "more"])

    def commit(self) -> None:
        self.offsets.update(self.backlog.offsets())
        self.state.apply(self.backlog.rows())

    def next_holder(self) -> None:
        self.backlog = Backlog(self.state, ["in", "more"])

    def new(self, end: int) -> list[int]:
        """The offsets that a holder has to do, of all that is delivered to him again."""
        delivered = range(self.offsets.get("in", 0), end)
        return [offset for offset in delivered if self.backlog.is_new(record(offset))]


def test_an_offset_is_told_when_all_below_it_is_done() -> None:
    world = World()
    world.backlog.done(record(3))
    assert world.backlog.offsets() == {"in": 4}
    world.backlog.hold(record(5), "s")
    world.backlog.done(record(6))
    assert world.backlog.offsets() == {"in": 5}
    assert world.backlog.offsets() == {}
    for each in world.backlog.release():
        world.backlog.done(each)
    assert world.backlog.offsets() == {"in": 7}


def test_what_only_waits_leaves_no_row() -> None:
    world = World()
    world.backlog.hold(record(0), "s")
    world.backlog.hold(record(1), "t")
    world.commit()
    assert (world.offsets, list(world.state.scan(b""))) == ({}, [])


@pytest.mark.parametrize("again", [1, 2])
def test_the_next_holder_does_what_was_held_back_and_nothing_twice(again: int) -> None:
    world = World()
    for offset in (0, 2, 3, 6):
        world.backlog.done(record(offset)) if offset != 2 else world.backlog.hold(record(offset), "s")
    world.commit()
    world.backlog.hold(record(7), "t")
    world.commit()
    for _ in range(again):
        world.next_holder()
        assert world.new(9) == [2, 7, 8]
        world.backlog.hold(record(2), "s")
        assert world.new(9) == [7, 8], "nor what it holds itself"
        world.commit()
    world.backlog.done(record(7))
    world.commit()
    world.next_holder()
    assert world.new(9) == [2, 8]
    world.backlog.done(record(2))
    world.commit()
    assert world.offsets["in"] == 8
    assert list(world.state.scan(b"")) == []


def test_half_of_what_an_earlier_holder_held_back_is_done_and_the_next_one_is_told() -> None:
    world = World()
    world.backlog.hold(record(2), "s")
    world.backlog.done(record(3))
    world.backlog.hold(record(4), "t")
    world.backlog.done(record(5))
    world.commit()
    world.next_holder()
    world.backlog.done(record(2))
    world.commit()
    assert world.offsets["in"] == 4
    world.next_holder()
    assert world.new(7) == [4, 6]


def test_it_knows_whose_records_it_holds() -> None:
    world = World()
    world.backlog.hold(record(0), "s")
    assert (world.backlog.holds("s"), world.backlog.holds("t")) == (True, False)
    assert [each.offset for each in world.backlog.release()] == [0]
    assert not world.backlog.holds("s")


@sources_only
def test_it_is_full_by_number_or_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_HELD", 3)
    world = World()
    for offset in range(3):
        assert not world.backlog.is_full
        world.backlog.hold(record(offset), "s")
    assert world.backlog.is_full
    world.backlog.release()
    assert not world.backlog.is_full
    monkeypatch.setattr(backlog, "MOST_HELD_BYTES", 3)
    world.backlog.hold(record(3), "s")
    assert world.backlog.is_full
