"""Deadlines: by the clock, and only once everything that was there when the time came has been read."""

from collections.abc import Mapping

from pavane_saga.deadlines import Deadlines


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.deadlines = Deadlines(lambda: self.now_s)

    def fired(self, marks: Mapping[str, int], positions: Mapping[str, int]) -> list[str]:
        """What a turn of the coordinator would fire."""
        if self.deadlines.must_ask():
            self.deadlines.asked(marks)
        return self.deadlines.take(positions)


def test_nothing_fires_before_its_time() -> None:
    world = World()
    world.deadlines.add("s", 100_001)
    assert world.fired({}, {}) == []
    world.now_s = 100.002
    assert world.fired({}, {}) == ["s"]
    assert world.fired({}, {}) == []


def test_what_was_in_the_log_when_the_time_came_is_read_first() -> None:
    world = World()
    world.deadlines.add("s", 90_000)
    assert world.fired({"t": 5, "u": 3}, {"t": 4, "u": 3}) == []
    assert world.fired({"t": 9, "u": 9}, {"t": 4, "u": 7}) == [], "the marks are asked for once"
    assert world.fired({"t": 99}, {"t": 5, "u": 7}) == ["s"]


def test_a_time_that_comes_meanwhile_waits_for_marks_of_its_own() -> None:
    world = World()
    world.deadlines.add("early", 90_000)
    world.deadlines.add("late", 101_000)
    assert world.fired({"t": 5}, {"t": 0}) == []
    world.now_s = 102
    assert world.fired({"t": 8}, {"t": 5}) == ["early"]
    assert world.fired({"t": 8}, {"t": 5}) == []
    assert world.fired({"t": 8}, {"t": 8}) == ["late"]


def test_patience_ends_when_the_next_time_comes_and_is_short_while_marks_are_waited_for() -> None:
    world = World()
    assert world.deadlines.patience_s(1.0) == 1.0
    world.deadlines.add("s", 100_250)
    assert world.deadlines.patience_s(1.0) == 0.25
    world.now_s = 200
    assert world.deadlines.patience_s(1.0) == 0.001
    world.fired({"t": 5}, {"t": 0})
    assert world.deadlines.patience_s(1.0) == 0.01


def test_a_saga_that_is_over_wakes_nobody() -> None:
    world = World()
    world.deadlines.forget("never heard of")
    world.deadlines.add("over", 100_100)
    world.deadlines.add("over", 100_200)
    world.deadlines.add("open", 100_500)
    world.deadlines.forget("over")
    assert world.deadlines.patience_s(1.0) == 0.5
    world.deadlines.add("over", 100_250)
    assert world.deadlines.patience_s(1.0) == 0.25, "what was forgotten was forgotten once"
