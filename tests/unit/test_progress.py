"""Progress against a naive model: offsets, units beyond the lowest unfinished input, and restarts."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pavane.progress import PREFIX, Progress

TOPICS = ("a", "b.c")
STEPS = ("x/one", "x/two")


class Model:
    """What is true: which units are finished and committed, and where the lane would begin again."""

    def __init__(self) -> None:
        self.committed: dict[str, int] = dict.fromkeys(TOPICS, 0)
        self.rows: dict[bytes, bytes] = {}
        self.performed: dict[tuple[str, int, str], int] = {}


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_nothing_committed_is_done_again_and_nothing_is_passed_over(seed: int, restarts: int) -> None:
    chance = random.Random(seed)
    offsets = {topic: sorted(chance.sample(range(100), 12)) for topic in TOPICS}
    model = Model()
    for last in [False] * restarts + [True]:
        progress = Progress(model.rows.items())
        waiting: list[tuple[str, int, str]] = []
        for topic in TOPICS:
            for offset in offsets[topic]:
                if offset >= model.committed[topic]:
                    steps = [step for step in STEPS if not progress.finished_before(topic, offset, step)]
                    assert progress.is_new(topic, offset)
                    progress.admit(topic, offset, len(steps), offset + 1)
                    waiting += [(topic, offset, step) for step in steps]
        chance.shuffle(waiting)
        uncommitted: list[tuple[str, int, str]] = []
        for unit in waiting if last else waiting[: chance.randrange(len(waiting) + 1)]:
            progress.finish(*unit)
            uncommitted.append(unit)
            if chance.random() < 0.3:
                commit(progress, model, uncommitted)
        if last:
            commit(progress, model, uncommitted)
            assert (progress.unsettled, progress.unsettled_bytes) == (0, 0)
    assert set(model.performed.values()) == {1}
    assert len(model.performed) == len(TOPICS) * 12 * len(STEPS)
    assert model.committed == {topic: offsets[topic][-1] + 1 for topic in TOPICS}
    assert model.rows == {}


def commit(progress: Progress, model: Model, uncommitted: list[tuple[str, int, str]]) -> None:
    done, changes = progress.take()
    model.committed.update(done)
    for key, value in changes.items():
        assert key.startswith(PREFIX)
        if value is None:
            model.rows.pop(key, None)
        else:
            model.rows[key] = value
    for unit in uncommitted:
        model.performed[unit] = model.performed.get(unit, 0) + 1
    uncommitted.clear()


def test_an_input_without_units_is_finished_at_once() -> None:
    progress = Progress()
    progress.admit("a", 5, 0)
    progress.admit("a", 9, 1)
    assert progress.take() == ({"a": 6}, {})
    assert progress.unsettled == 1


def test_a_unit_beyond_the_lowest_unfinished_input_is_remembered_until_the_offset_passes_it() -> None:
    progress = Progress()
    progress.admit("a", 1, 1)
    progress.admit("a", 2, 2)
    progress.finish("a", 2, "x/one")
    assert progress.take() == ({}, {b"f/a/2/x/one": b"0"})
    progress.finish("a", 1, "x/one")
    assert progress.take() == ({"a": 2}, {})
    progress.finish("a", 2, "x/two")
    assert progress.take() == ({"a": 3}, {b"f/a/2/x/one": None})


def test_an_input_that_was_finished_in_part_says_under_which_version_first() -> None:
    earlier = [(b"f/a/7/x/one", b"2"), (b"f/a/7/x/two", b"1"), (b"f/a/8/x/one", b"")]
    progress = Progress(earlier, 3)
    assert [progress.finished_under("a", offset) for offset in (6, 7, 8)] == [None, 1, 0]
    progress.admit("a", 6, 1)
    progress.admit("a", 9, 1)
    progress.finish("a", 9, "x/one")
    _, changes = progress.take()
    assert changes == {b"f/a/9/x/one": b"3"}
