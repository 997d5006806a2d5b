"""The overlay: a lane's state as work sees it, whatever of it is committed; against a plain dictionary."""

from collections.abc import Iterator
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from pavane.overlay import Overlay

KEYS = st.sampled_from([b"a/1", b"a/2", b"a/3", b"b/1"])
CHANGES = st.dictionaries(KEYS, st.none() | st.sampled_from([b"", b"x", b"y"]), max_size=4)


class Committed:
    """Lane state as of its last commit."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(pair for pair in self.values.items() if pair[0].startswith(prefix)))


def write(values: dict[bytes, bytes], changes: dict[bytes, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value


@given(st.lists(CHANGES | st.sampled_from(["begin", "effect", "end"])))
def test_work_sees_all_that_finished_whether_its_commit_is_due_under_way_or_done(
    actions: list[dict[bytes, bytes | None] | Literal["begin", "effect", "end"]],
) -> None:
    state, truth = Committed(), dict[bytes, bytes]()
    overlay = Overlay(state)
    under_way: dict[bytes, bytes | None] | None = None
    for action in actions:
        if isinstance(action, dict):
            overlay.change(action)
            write(truth, action)
        elif action == "begin" and under_way is None:
            under_way = dict(overlay.begin_commit())
        elif action == "effect" and under_way is not None:
            write(state.values, under_way)
        elif action == "end" and under_way is not None:
            write(state.values, under_way)
            overlay.end_commit()
            under_way = None
        assert {key: overlay.get(key) for key in (b"a/1", b"a/2", b"a/3", b"b/1")} == {
            key: truth.get(key) for key in (b"a/1", b"a/2", b"a/3", b"b/1")
        }
        assert list(overlay.scan(b"a/")) == sorted(pair for pair in truth.items() if pair[0].startswith(b"a/"))


def test_a_commit_takes_what_finished_before_it_and_nothing_twice() -> None:
    overlay = Overlay(Committed())
    overlay.change({b"a": b"1"})
    assert overlay.begin_commit() == {b"a": b"1"}
    overlay.change({b"b": b"2"})
    overlay.end_commit()
    assert overlay.begin_commit() == {b"b": b"2"}
