"""The fence: an effect is done once, undone for good, and a late "do" is refused."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane import EffectUndone, Fence


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    Fence().create(made)
    yield made
    made.close()


def test_an_effect_is_new_once(connection: sqlite3.Connection) -> None:
    fence = Fence()
    assert [fence.do(connection, "k"), fence.do(connection, "k")] == [True, False]
    assert fence.do(connection, "other")


def test_an_undo_takes_back_what_stood_and_refuses_what_comes_late(connection: sqlite3.Connection) -> None:
    fence = Fence()
    fence.do(connection, "k")
    assert [fence.undo(connection, "k"), fence.undo(connection, "k")] == [True, False]
    with pytest.raises(EffectUndone):
        fence.do(connection, "k")


def test_an_undo_of_what_was_never_done_fences_it_all_the_same(connection: sqlite3.Connection) -> None:
    fence = Fence()
    assert not fence.undo(connection, "k")
    with pytest.raises(EffectUndone):
        fence.do(connection, "k")


def test_the_mark_is_part_of_the_callers_transaction(connection: sqlite3.Connection) -> None:
    fence = Fence()
    connection.commit()
    fence.do(connection, "k")
    connection.rollback()
    assert fence.do(connection, "k")


def test_a_table_name_is_plain() -> None:
    with pytest.raises(ValueError, match="plain"):
        Fence("effects; DROP TABLE x")


@given(st.lists(st.sampled_from(["do", "undo"]), max_size=8))
def test_whatever_the_order_it_stands_only_if_done_and_never_undone(calls: list[str]) -> None:
    connection = sqlite3.connect(":memory:")
    fence = Fence()
    fence.create(connection)
    stands = False
    for each in calls:
        if each == "undo":
            taken_back = fence.undo(connection, "k")
            assert taken_back == stands
            stands = False
        else:
            try:
                stands = fence.do(connection, "k") or stands
            except EffectUndone:
                assert not stands
    assert stands == (bool(calls) and "undo" not in calls)
    connection.close()
