"""Begun marks: durable before any step begins beyond them, so that what lies beyond provably never began."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from pavane.marks import KEY, Marks
from pavane_events.bus import Lane, Lanes, TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.record import Record


def record(offset: int, topic: str = "t") -> Record:
    return Record(topic, 0, offset, None, b"", (), 0)


def test_who_leaves_draws_the_mark_in_and_what_a_step_is_to_retire_from_lies_there() -> None:
    rows: dict[bytes, bytes] = {}
    marks = Marks(Stored(rows, {"t": 0}), "v1", ["t"], 100)  # type: ignore[arg-type]
    marks.cover([record(7)])
    write(rows, marks.advance())
    marks.committed()
    write(rows, marks.close_in())
    marks = Marks(Stored(rows, {"t": 8}), "v2", ["t"], 100, {"a/old": ["t"]})  # type: ignore[arg-type]
    assert marks.until == {"a/old": {"t": 8}}
    assert (marks.takes("a/old", record(7)), marks.takes("a/old", record(8))) == (True, False)
    assert marks.takes("a/new", record(8))
    write(rows, marks.advance())
    later = Marks(Stored(rows, {"t": 50}), "v3", ["t"], 100, {"a/old": ["t"]})  # type: ignore[arg-type]
    assert later.until == {"a/old": {"t": 8}}, "a later version does not take more"


def test_a_step_that_retires_takes_what_a_version_before_the_last_may_have_begun_too() -> None:
    """The first version had an effect there and was killed, the second had none."""
    rows: dict[bytes, bytes] = {}
    first = Marks(Stored(rows, {"t": 0}), "v1", ["t"], 100)  # type: ignore[arg-type]
    first.cover([record(7)])
    write(rows, first.advance())
    second = Marks(Stored(rows, {"t": 3}), "v2", [], 100)  # type: ignore[arg-type]
    write(rows, second.advance())
    third = Marks(Stored(rows, {"t": 3}), "v3", ["t"], 100, {"a/old": ["t"]})  # type: ignore[arg-type]
    assert third.takes("a/old", record(7))


async def lanes_of(bus: MemoryBus) -> Lanes:
    await bus.create_topics([TopicSpec("t"), TopicSpec("u")])
    return await bus.lanes("g", ["t", "u"])


def test_a_lane_begins_without_a_mark_and_under_a_new_version() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        lane = await anext(await lanes_of(bus))
        marks = Marks(lane, "v1", ["t"], 10)
        assert marks.new_version
        assert not marks.may_have_begun(record(0))
        assert not marks.cover([record(0)])
        await lane.commit({}, (), marks.advance())
        marks.committed()
        assert marks.cover([record(0), record(9)])
        assert not marks.cover([record(10)])
        assert marks.cover([record(1_000_000, "u")]), "topics without effects need no mark"
        await bus.close()

    asyncio.run(scenario())


def test_the_next_holder_finds_the_mark_and_whatever_lies_before_it_may_have_begun() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        lanes = await lanes_of(bus)
        lane = await anext(lanes)
        first = Marks(lane, "v1", ["t"], 10)
        first.cover([record(5)])
        await lane.commit({}, (), first.advance())
        bus.take_away("g", 0)
        again = Marks(await anext(lanes), "v1", ["t"], 10)
        assert not again.new_version
        assert again.may_have_begun(record(14))
        assert not again.may_have_begun(record(15))
        assert again.cover([record(14)]), "the mark that was found holds for the next holder, too"
        await bus.close()

    asyncio.run(scenario())


def test_a_commit_that_is_due_anyhow_carries_the_mark_on_where_half_of_the_window_is_used() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        lane = await anext(await lanes_of(bus))
        marks = Marks(lane, "v1", ["t"], 10)
        marks.advance()
        marks.committed()
        marks.cover([record(5)])
        assert marks.refresh() == {}
        marks.cover([record(6)])
        assert marks.refresh() == {KEY: b'{"version":"v1","mark":{"t":16},"number":1}'}
        marks.committed()
        assert marks.refresh() == {}
        await bus.close()

    asyncio.run(scenario())


def test_a_lane_remembers_under_which_version_a_step_last_owed_an_undo_and_how_far_that_may_have_come() -> None:
    rows: dict[bytes, bytes] = {}

    def lane() -> Lane:
        return cast("Lane", Stored(rows, {"t": 5, "u": 0}))

    write(rows, Marks(lane(), "v1", ["t"], 10, owing=["a/old", "a/kept"]).advance())
    second = Marks(lane(), "v2", [], 10, owing=["a/kept"])
    write(rows, second.advance())
    for marks in (second, Marks(lane(), "v2", [], 10, owing=["a/kept"])):
        assert marks.owed_under("a/old") == "v1"
        assert marks.owed_under("a/new") is None
        assert marks.may_have_begun_otherwise(record(14))
        assert not marks.may_have_begun_otherwise(record(15))
    third = Marks(lane(), "v3", ["u"], 10)
    assert (third.owed_under("a/old"), third.owed_under("a/kept")) == ("v1", "v2")
    assert third.may_have_begun_otherwise(record(14)), "an input that nobody has finished since may be of any of them"


def test_a_holder_that_has_not_come_so_far_does_not_draw_the_mark_back() -> None:
    rows: dict[bytes, bytes] = {}

    def marks_of(version: str = "v1") -> Marks:
        return Marks(cast("Lane", Stored(rows, {"t": 0, "u": 0})), version, ["t", "u"], 10)

    first = marks_of()
    first.cover([record(14)])  # of fewer inputs than that: offsets have gaps
    write(rows, first.advance())
    second = marks_of()
    second.cover([record(30, "u")])
    write(rows, second.advance())
    assert marks_of().may_have_begun(record(14))
    second.committed()
    second.cover([record(40, "u")])
    write(rows, second.refresh())
    assert marks_of().may_have_begun(record(14))
    write(rows, marks_of("v2").advance())
    assert marks_of("v2").may_have_begun(record(14))


def test_what_a_version_may_have_begun_is_not_forgotten_where_the_next_one_has_not_come_so_far() -> None:
    rows: dict[bytes, bytes] = {}

    def marks_of(version: str, topics: Collection[str]) -> Marks:
        return Marks(cast("Lane", Stored(rows, {"t": 0, "u": 0})), version, topics, 10)

    first = marks_of("v1", ["t"])
    first.cover([record(14)])
    write(rows, first.advance())
    write(rows, marks_of("v2", ["u"]).advance())
    write(rows, marks_of("v3", ["t"]).advance())
    assert marks_of("v4", ["t"]).may_have_begun_otherwise(record(14))


def test_a_lane_counts_its_versions_and_knows_since_which_a_step_answers_to_a_topic() -> None:
    rows: dict[bytes, bytes] = {}

    def marks_of(version: str, answering: Mapping[str, Collection[str]]) -> Marks:
        lane = cast("Lane", Stored(rows, {"t": 0}))
        found = Marks(lane, version, ["t"], 10, answering=answering)
        write(rows, found.advance())
        return found

    assert marks_of("v1", {"t": ["a/one"]}).number == 1
    second = marks_of("v2", {"t": ["a/one", "a/two"], "u": ["a/one"]})
    assert (second.number, marks_of("v2", {"t": ["a/one", "a/two"], "u": ["a/one"]}).number) == (2, 2)
    assert [second.answers_since(*each) for each in (("a/one", "t"), ("a/two", "t"), ("a/one", "u"))] == [1, 2, 2]
    assert marks_of("v3", {"u": ["a/two"]}).answers_since("a/two", "t") == 2, "also where it answers no more"
    write(rows, {KEY: b'{"version":"v0","mark":{"t":5}}'})
    after = marks_of("v1", {"t": ["a/one"]})
    assert (after.number, after.answers_since("a/one", "t")) == (1, 0), "a row of before does not say"


class Stored:
    """Just so much of a lane as marks look at."""

    def __init__(self, rows: dict[bytes, bytes], committed: Mapping[str, int]) -> None:
        self.rows = rows
        self.committed = committed
        self.state = self

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


EndOfHolder = st.sampled_from(["works on", "dies", "leaves", "is gone before it begins"])


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans(), EndOfHolder), max_size=30), st.integers(2, 20))
def test_no_input_is_worked_on_that_a_later_holder_would_take_for_never_begun(
    history: list[tuple[int, bool, str]], window: int
) -> None:
    rows: dict[bytes, bytes] = {}
    begun: set[int] = set()
    offset = 0
    marks = Marks(Stored(rows, {"t": 0}), "v1", ["t"], window)  # type: ignore[arg-type]
    for step, commits, end in history:
        if end == "is gone before it begins":
            marks = Marks(Stored(rows, {"t": 0}), "v1", ["t"], window)  # type: ignore[arg-type]
            write(rows, marks.close_in())
            marks = Marks(Stored(rows, {"t": 0}), "v1", ["t"], window)  # type: ignore[arg-type]
        offset += step
        if not marks.cover([record(offset)]):
            write(rows, marks.advance())
            marks.committed()
        begun.add(offset)
        if commits:
            write(rows, marks.refresh())
            marks.committed()
        if end == "leaves":
            write(rows, marks.close_in())
            assert not Marks(Stored(rows, {"t": 0}), "v1", ["t"], window).may_have_begun(record(offset + 30 * window)), (  # type: ignore[arg-type]
                "no more than a window ahead"
            )
        if end != "works on":
            marks = Marks(Stored(rows, {"t": 0}), "v1", ["t"], window)  # type: ignore[arg-type]
            assert all(marks.may_have_begun(record(each)) for each in begun)


def write(rows: dict[bytes, bytes], changes: Mapping[bytes, bytes | None]) -> None:
    rows.update({key: value for key, value in changes.items() if value is not None})
