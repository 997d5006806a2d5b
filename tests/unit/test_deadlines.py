"""Deadlines: by the clock, and only once everything that was there when the time came has been read."""

import tracemalloc
from collections.abc import Mapping

import pytest

from pavane_saga.deadlines import Deadlines


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.deadlines = Deadlines(lambda: self.now_s, {"intake"})

    def fired(self, marks: Mapping[str, int], positions: Mapping[str, int]) -> list[str]:
        """What a turn of the coordinator would fire."""
        if self.deadlines.must_ask():
            self.deadlines.asked(marks)
        return self.deadlines.take(positions)


def test_nothing_fires_before_its_time() -> None:
    world = World()
    world.deadlines.set("s", 100_001)
    assert world.fired({}, {}) == []
    world.now_s = 100.002
    assert world.fired({}, {}) == ["s"]
    assert world.fired({}, {}) == []


def test_what_was_in_the_log_when_the_time_came_is_read_first() -> None:
    world = World()
    world.deadlines.set("s", 90_000)
    assert world.fired({"t": 5, "u": 3}, {"t": 4, "u": 3}) == []
    assert world.fired({"t": 9, "u": 9}, {"t": 4, "u": 7}) == [], "the marks are asked for once"
    assert world.fired({"t": 99}, {"t": 5, "u": 7}) == ["s"]


def test_a_time_that_comes_meanwhile_waits_for_marks_of_its_own() -> None:
    world = World()
    world.deadlines.set("early", 90_000)
    world.deadlines.set("late", 101_000)
    assert world.fired({"t": 5}, {"t": 0}) == []
    world.now_s = 102
    assert world.fired({"t": 8}, {"t": 5}) == ["early"]
    assert world.fired({"t": 8}, {"t": 5}) == []
    assert world.fired({"t": 8}, {"t": 8}) == ["late"]


def test_what_may_come_from_outside_is_read_first_where_it_answers() -> None:
    world = World()
    world.deadlines.set("answered", 90_000, answered=True)
    world.deadlines.set("not", 90_000)
    marks = {"t": 5, "intake": 7}
    assert world.fired(marks, {"t": 4, "intake": 6}) == []
    assert world.fired(marks, {"t": 5, "intake": 6}) == ["not"]
    world.deadlines.set("not", 91_000)
    assert world.fired(marks, {"t": 5, "intake": 6}) == ["not"], "however long others wait"
    assert world.fired(marks, {"t": 5, "intake": 7}) == ["answered"]


def test_who_turns_out_to_take_answers_from_outside_waits_for_them() -> None:
    world = World()
    world.deadlines.set("s", 90_000)
    assert world.fired({"t": 5, "intake": 7}, {"t": 4, "intake": 6}) == []
    world.deadlines.set("s", 90_000, answered=True)
    assert world.fired({"t": 5, "intake": 7}, {"t": 5, "intake": 6}) == []
    assert world.fired({}, {"t": 5, "intake": 7}) == ["s"]


def test_a_time_that_comes_while_the_marks_are_on_their_way_waits_for_others() -> None:
    world = World()
    world.deadlines.set("answered", 90_000, answered=True)
    world.deadlines.set("not", 100_500)
    assert world.deadlines.must_ask()
    world.now_s = 101
    world.deadlines.asked({"t": 5})
    assert world.deadlines.take({"t": 5}) == ["answered"]
    assert world.fired({"t": 6}, {"t": 5}) == []
    assert world.fired({}, {"t": 6}) == ["not"]


def test_patience_ends_when_the_next_time_comes_and_is_short_while_marks_are_waited_for() -> None:
    world = World()
    assert world.deadlines.patience_s(1.0) == 1.0
    world.deadlines.set("s", 100_250)
    assert world.deadlines.patience_s(1.0) == 0.25
    world.now_s = 200
    assert world.deadlines.patience_s(1.0) == 0.001
    world.fired({"t": 5}, {"t": 0})
    assert world.deadlines.patience_s(1.0) == 0.01


def test_who_waits_for_marks_and_hears_nothing_looks_less_and_less_often() -> None:
    """A coordinator whose topic lagged behind a deadline looked a hundred times a second, for as long as that lasted."""
    world = World()
    world.deadlines.set("s", 90_000)
    pauses: list[float] = []
    for _ in range(10):
        assert world.fired({"t": 5}, {"t": 0}) == []
        pauses.append(world.deadlines.patience_s(1.0))
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert pauses[-1] == 1.0
    assert world.fired({}, {"t": 4}) == []
    assert world.deadlines.patience_s(1.0) == 0.01, "something came"
    assert world.fired({}, {"t": 5}) == ["s"]
    world.deadlines.set("s", 95_000)
    assert world.fired({"t": 9}, {"t": 5}) == []
    assert world.deadlines.patience_s(1.0) == 0.01


def test_a_saga_that_is_over_wakes_nobody() -> None:
    world = World()
    world.deadlines.forget("never heard of")
    world.deadlines.set("over", 100_100)
    world.deadlines.set("open", 100_500)
    world.deadlines.forget("over")
    assert world.deadlines.patience_s(1.0) == 0.5
    world.deadlines.set("over", 100_250)
    assert world.deadlines.patience_s(1.0) == 0.25, "what was forgotten was forgotten once"


def test_the_last_time_that_was_set_counts() -> None:
    """A saga of which nothing was known had half a minute; when its start is known, nobody needs to look at it so soon."""
    world = World()
    world.deadlines.set("s", 100_100)
    world.deadlines.set("s", 100_900)
    assert world.deadlines.patience_s(1.0) == pytest.approx(0.9)
    world.now_s = 100.5
    assert world.fired({}, {}) == []
    world.deadlines.set("s", 100_400)
    assert world.fired({}, {}) == ["s"]
    world.now_s = 101
    assert world.fired({}, {}) == [], "each saga once"
    world.deadlines.set("s", 100_900)
    assert world.fired({}, {}) == ["s"], "unless it is set again"


def test_sagas_that_ended_before_their_time_take_no_memory() -> None:
    """A deadline of a month is no reason to remember for a month a saga that took a second."""
    deadlines = Deadlines(lambda: 100.0)
    deadlines.set("open", 5_000_000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            deadlines.set(f"saga-{number}", 2_000_000 + number)
            deadlines.forget(f"saga-{number}")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 50_000
    assert deadlines.patience_s(10_000) == 4_900
