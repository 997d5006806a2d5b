"""The fault plan: pure, seeded, in the shares that it says; and the seam, which does nothing without one."""

from pathlib import Path

import pytest

from pavane import Context
from pavane_credit.faults import BUREAU_ATTEMPTS, SHARES, FaultPlan
from pavane_credit.ledger import Books
from pavane_credit.seam import Seam

IDS = [f"DE-{number:04}" for number in range(1, 20_001)]


def test_the_same_seed_and_application_meet_the_same_fault() -> None:
    forwards, backwards = FaultPlan("1"), FaultPlan("1")
    assert [forwards.fault_of(each) for each in IDS] == [backwards.fault_of(each) for each in reversed(IDS)][::-1]


def test_another_seed_is_another_bad_day() -> None:
    one, other = FaultPlan("1"), FaultPlan("2")
    assert [one.fault_of(each) for each in IDS] != [other.fault_of(each) for each in IDS]


def test_faults_come_in_their_shares() -> None:
    found = FaultPlan("1").summary(IDS)
    for fault, share, _ in SHARES:
        assert found[fault] == pytest.approx(len(IDS) * share / 1000, rel=0.3)


def test_the_summary_lists_what_is_played_in_the_order_of_the_plan() -> None:
    plan = FaultPlan("1")
    met = [each for each in IDS if plan.fault_of(each)][:40]
    summary = plan.summary([*met, *(each for each in IDS if not plan.fault_of(each))])
    assert sum(summary.values()) == 40
    assert list(summary) == [fault for fault, _, _ in SHARES if fault in summary]
    assert plan.summary([]) == {}


def test_every_question_has_its_fault() -> None:
    plan = FaultPlan("1")
    of = {fault: next(each for each in IDS if plan.fault_of(each) == fault) for fault, _, _ in SHARES}
    none = next(each for each in IDS if plan.fault_of(each) is None)
    attempts = range(1, BUREAU_ATTEMPTS + 1)
    assert [plan.times_out(of["bureau-slow"], each) for each in attempts] == [True, False, False]
    assert [plan.times_out(of["bureau-down"], each) for each in attempts] == [True, True, True]
    assert plan.times_out(of["crash"], BUREAU_ATTEMPTS), "a crash shows only in a saga that fails elsewhere"
    assert {fault for fault, each in of.items() if plan.lowers_confidence(each)} == {
        "confidence-low",
        "comes-back",
        "undo-fails",
    }, "what is wrong with an undo shows only in a saga that fails"
    assert {fault for fault, each in of.items() if plan.crashes(each)} == {"crash"}
    assert {fault for fault, each in of.items() if plan.arrives_twice(each)} == {"twice"}
    assert {fault for fault, each in of.items() if plan.comes_back(each)} == {"comes-back"}
    assert {fault for fault, each in of.items() if plan.undo_fails(each)} == {"undo-fails"}
    asked = (plan.lowers_confidence, plan.crashes, plan.arrives_twice, plan.comes_back, plan.undo_fails)
    assert not any(question(none) for question in asked)
    assert not plan.times_out(none, 1)


def test_without_a_plan_the_seam_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_LEDGERS", str(tmp_path))
    books = Books("income-verification")
    books.open()
    seam = Seam(books)
    for each in IDS[:500]:
        seam.call_bureau(each, Context.fake())
        seam.after_effect(each)
        seam.before_undo(each, Context.fake())
        seam.after_undo(each, Context.fake(), "consent")
        assert seam.confidence(each, 0.8) == 0.8
    assert books.ledger.effects() == []
    assert books.ledger.notes("crashed") == books.ledger.notes("refused") == 0
    books.close()
