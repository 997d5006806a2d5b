"""A ledger: an effect once by its key, an undo that fences, and a credit line that adds up whatever is run again."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane import Context, EffectUndone, Rejected
from pavane_credit.ledger import Books, Effect, Ledger
from pavane_credit.where import Where

LINE_DM = 1000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open("risk-assessment", Where(ledgers=str(tmp_path)))
    yield ledger
    ledger.close()


def call(key: str, saga: str = "saga") -> Context:
    """One call of a step, or of its undo; every re-run has the same key."""
    return Context.fake(key=key, saga=saga)


def test_an_effect_stands_once_however_often_its_step_is_run(ledger: Ledger) -> None:
    assert [ledger.do(call("k"), "a", "exposure", 400, LINE_DM) for _ in range(3)] == [True, False, False]
    assert ledger.effects() == [Effect("saga", "a", "exposure", 400, standing=True)]
    assert ledger.booked_dm() == 400


def test_an_undo_takes_the_effect_back_once(ledger: Ledger) -> None:
    ledger.do(call("k"), "a", "exposure", 400, LINE_DM)
    assert [ledger.undo(call("k")) for _ in range(3)] == [True, False, False]
    assert ledger.effects() == [Effect("saga", "a", "exposure", 400, standing=False)]
    assert ledger.booked_dm() == 0


def test_a_late_do_after_the_undo_is_refused_for_ever(ledger: Ledger) -> None:
    ledger.do(call("k"), "a", "exposure", 400, LINE_DM)
    ledger.undo(call("k"))
    for _ in range(2):
        with pytest.raises(EffectUndone):
            ledger.do(call("k"), "a", "exposure", 400, LINE_DM)
    assert [each.standing for each in ledger.effects()] == [False]
    assert ledger.booked_dm() == 0


def test_an_undo_of_what_was_never_done_fences_it_all_the_same(ledger: Ledger) -> None:
    assert ledger.undo(call("k")) is False
    with pytest.raises(EffectUndone):
        ledger.do(call("k"), "a", "exposure", 400, LINE_DM)
    assert ledger.effects() == []
    assert ledger.booked_dm() == 0


def test_the_fence_is_of_one_key_only(ledger: Ledger) -> None:
    ledger.undo(call("k1"))
    assert ledger.do(call("k2"), "a", "exposure", 400, LINE_DM)


def test_the_line_is_a_limit_to_the_last_mark(ledger: Ledger) -> None:
    ledger.do(call("k1"), "a", "exposure", 600, LINE_DM)
    with pytest.raises(Rejected, match="line is exhausted"):
        ledger.do(call("k2"), "b", "exposure", 401, LINE_DM)
    assert [each.application_id for each in ledger.effects()] == ["a"]
    ledger.do(call("k3"), "c", "exposure", 400, LINE_DM)
    assert ledger.booked_dm() == LINE_DM


def test_who_was_past_the_line_may_try_again_when_there_is_room(ledger: Ledger) -> None:
    ledger.do(call("k1"), "a", "exposure", 600, LINE_DM)
    with pytest.raises(Rejected):
        ledger.do(call("k2"), "b", "exposure", 600, LINE_DM)
    ledger.undo(call("k1"))
    assert ledger.do(call("k2"), "b", "exposure", 600, LINE_DM)
    assert ledger.booked_dm() == 600


def test_a_rerun_of_what_stands_is_no_matter_of_the_line(ledger: Ledger) -> None:
    ledger.do(call("k"), "a", "exposure", LINE_DM, LINE_DM)
    assert ledger.do(call("k"), "a", "exposure", LINE_DM, LINE_DM) is False
    assert ledger.booked_dm() == LINE_DM


def test_only_what_was_booked_against_the_line_is_given_back_to_it(ledger: Ledger) -> None:
    ledger.do(call("k1"), "a", "exposure", 400, LINE_DM)
    ledger.do(call("k2"), "a", "offer", 400)
    ledger.undo(call("k2"))
    assert ledger.booked_dm() == 400


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40))
def test_what_is_booked_is_always_what_stands(calls: list[tuple[bool, int]]) -> None:
    ledger = Ledger(":memory:")
    undone: set[int] = set()
    for undo, number in calls:
        if undo:
            ledger.undo(call(f"k{number}"))
            undone.add(number)
        else:
            try:
                ledger.do(call(f"k{number}"), f"a{number}", "exposure", 300 + number, LINE_DM)
            except EffectUndone:
                assert number in undone
            except Rejected:
                assert ledger.booked_dm() + 300 + number > LINE_DM
        standing = [each for each in ledger.effects() if each.standing]
        assert ledger.booked_dm() == sum(each.amount_dm for each in standing) <= LINE_DM
        assert not {each.application_id for each in standing} & {f"a{each}" for each in undone}
    ledger.close()


def test_two_connections_share_keys_and_line(tmp_path: Path) -> None:
    where = Where(ledgers=str(tmp_path))
    one, other = Ledger.open("risk-assessment", where), Ledger.open("risk-assessment", where)
    assert one.do(call("k1"), "a", "exposure", 600, LINE_DM)
    assert not other.do(call("k1"), "a", "exposure", 600, LINE_DM)
    with pytest.raises(Rejected):
        other.do(call("k2"), "b", "exposure", 600, LINE_DM)
    assert other.undo(call("k1"))
    with pytest.raises(EffectUndone):
        one.do(call("k1"), "a", "exposure", 600, LINE_DM)
    assert one.effects() == other.effects()
    one.close()
    other.close()


def test_many_who_open_and_write_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    where = Where(ledgers=str(tmp_path))
    begin = threading.Barrier(8)
    done: list[bool] = []

    def work() -> None:
        begin.wait()
        ledger = Ledger.open("risk-assessment", where)
        done.extend(ledger.do(call(f"k{number}"), f"a{number}", "exposure", 1, LINE_DM) for number in range(20))
        ledger.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = Ledger.open("risk-assessment", where)
    assert len(done) == 8 * 20
    assert sum(done) == ledger.booked_dm() == len(ledger.effects()) == 20
    ledger.close()


def test_whoever_opens_a_new_file_waits_for_who_writes_to_it(tmp_path: Path) -> None:
    where = Where(ledgers=str(tmp_path))
    first = sqlite3.connect(tmp_path / "risk-assessment.db", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    first.execute("CREATE TABLE other (number INTEGER)")
    later = threading.Timer(0.2, lambda: first.execute("COMMIT"))
    later.start()
    ledger = Ledger.open("risk-assessment", where)
    assert not first.in_transaction
    assert ledger.effects() == []
    ledger.close()
    later.join()
    first.close()


def test_a_note_is_taken_once(ledger: Ledger) -> None:
    assert [ledger.note("crashed", "a"), ledger.note("crashed", "a"), ledger.note("crashed", "b")] == [True, False, True]
    assert ledger.notes("crashed") == 2
    assert ledger.notes("refused") == 0


def test_ledgers_in_memory_are_one_while_one_of_them_is_open() -> None:
    where = Where(ledgers=":memory:test-ledger")
    first, second = Ledger.open("approval", where), Ledger.open("approval", where)
    first.do(call("k"), "a", "offer", 1)
    assert len(second.effects()) == 1
    assert Ledger.open("credit-score", where).effects() == []
    first.close()
    second.close()
    again = Ledger.open("approval", where)
    assert again.effects() == []
    again.close()


def test_books_open_where_the_environment_says_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books("approval")
    monkeypatch.setenv("CREDIT_LEDGERS", str(tmp_path / "new" / "ledgers"))
    assert books.ledger is books.ledger
    assert (tmp_path / "new" / "ledgers" / "approval.db").exists()
    books.close()
    books.close()
