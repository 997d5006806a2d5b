"""The credit agents' steps as plain functions: what they answer, what they leave in the books, and how it is undone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pavane import Context, EffectUndone, Rejected
from pavane_credit import approval, fraud, income, points, risk, score
from pavane_credit.applications import read_applications
from pavane_credit.choreography import AGENTS, EFFECTS
from pavane_credit.events import (
    ApplicationSubmitted,
    ConfidentScore,
    CreditApproved,
    CreditDeclined,
    FraudCleared,
    FraudSuspected,
    IncomeVerified,
    RiskReady,
)
from pavane_credit.faults import FaultPlan
from pavane_credit.ledger import Books
from pavane_credit.seam import BureauTimeout, SimulatedCrash

ALL_BOOKS = (score.books, income.books, fraud.books, risk.books, approval.books)
APPLICATIONS = [each.event for each in read_applications()]
PLAIN = APPLICATIONS[0].model_copy(
    update={
        "amount_dm": 1200,
        "duration_months": 12,
        "job": "skilled",
        "employed_years": "1_to_4",
        "housing": "own",
        "property": "real_estate",
        "savings": "under_100",
        "existing_credits": 1,
    }
)
CONFIDENT = ConfidentScore(application_id=PLAIN.application_id, score=700, confidence=0.9)
INCOME = IncomeVerified(
    application_id=PLAIN.application_id, amount_dm=1200, duration_months=12, instalment_dm=100, income_class="middle"
)
CLEARED = FraudCleared(application_id=PLAIN.application_id, identity="key")
FAULTS = FaultPlan("steps")


@pytest.fixture(autouse=True)
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every agent's books, open on new ledgers."""
    monkeypatch.setenv("CREDIT_LEDGERS", str(tmp_path))
    monkeypatch.setenv("CREDIT_LINE_DM", "10000")
    for each in ALL_BOOKS:
        each.open()
    yield
    for each in ALL_BOOKS:
        each.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with faults."""
    monkeypatch.setenv("CREDIT_FAULTS", FAULTS.seed)
    for each in ALL_BOOKS:
        each.close()
        each.open()


def with_fault(fault: str | None) -> ApplicationSubmitted:
    """A plain application that meets this fault."""
    names = (f"F-{number}" for number in range(10_000))
    return PLAIN.model_copy(update={"application_id": next(each for each in names if FAULTS.fault_of(each) == fault)})


def standing(books: Books) -> list[str]:
    return [each.kind for each in books.ledger.effects() if each.standing]


def rated(rating: str) -> RiskReady:
    return RiskReady.model_validate(
        {"application_id": PLAIN.application_id, "score": 600, "rating": rating, "exposure_dm": 1200}
    )


# credit-score


def test_a_score_is_the_points_tables_and_leaves_an_inquiry() -> None:
    for application in APPLICATIONS[:50]:
        computed = asyncio.run(score.compute_score(application, Context.fake()))
        assert (computed.score, computed.confidence, computed.reasons) == points.score(application)
    assert standing(score.books) == ["inquiry"] * 50


def test_scoring_twice_files_one_inquiry() -> None:
    first, second = (asyncio.run(score.compute_score(PLAIN, Context.fake(key="k"))) for _ in range(2))
    assert first == second
    assert standing(score.books) == ["inquiry"]


@pytest.mark.usefixtures("faulty")
def test_a_slow_bureau_answers_the_second_time_and_one_that_is_down_never() -> None:
    slow, down = with_fault("bureau-slow"), with_fault("bureau-down")
    with pytest.raises(BureauTimeout):
        asyncio.run(score.compute_score(slow, Context.fake(attempt=1, key="slow")))
    asyncio.run(score.compute_score(slow, Context.fake(attempt=2, key="slow")))
    for attempt in range(1, 5):
        with pytest.raises(BureauTimeout):
            asyncio.run(score.compute_score(down, Context.fake(attempt=attempt, key="down")))
    assert standing(score.books) == ["inquiry"] * 2


@pytest.mark.usefixtures("faulty")
def test_a_score_may_come_out_too_uncertain_for_risk() -> None:
    assert asyncio.run(score.compute_score(with_fault("confidence-low"), Context.fake())).confidence < 0.7


# income-verification


def test_an_instalment_that_the_income_carries_is_verified_with_consent() -> None:
    assert asyncio.run(income.verify_income(PLAIN, Context.fake())) == INCOME
    assert standing(income.books) == ["consent"]


def test_an_instalment_is_rounded_up_to_whole_marks() -> None:
    application = PLAIN.model_copy(update={"amount_dm": 1201})
    assert asyncio.run(income.verify_income(application, Context.fake())).instalment_dm == 101


@pytest.mark.parametrize(("amount", "verified"), [(700 * 12, True), (700 * 12 + 1, False)])
def test_the_most_that_an_income_carries_is_a_limit(amount: int, verified: bool) -> None:
    application = PLAIN.model_copy(update={"amount_dm": amount})
    if verified:
        asyncio.run(income.verify_income(application, Context.fake()))
    else:
        with pytest.raises(Rejected, match="more than a middle income carries"):
            asyncio.run(income.verify_income(application, Context.fake()))
    assert standing(income.books) == ["consent"], "also a rejected one was asked: the saga undoes it"


@pytest.mark.parametrize(
    ("job", "employed", "expected"),
    [
        ("management_or_self_employed", "over_7", "high"),
        ("management_or_self_employed", "unemployed", "middle"),
        ("skilled", "1_to_4", "middle"),
        ("skilled", "unemployed", "low"),
        ("unskilled", "1_to_4", "low"),
        ("unemployed_or_unskilled", "unemployed", "low"),
    ],
)
def test_the_income_class_follows_the_job(job: str, employed: str, expected: str) -> None:
    assert income.income_class(PLAIN.model_copy(update={"job": job, "employed_years": employed})) == expected


@pytest.mark.usefixtures("faulty")
def test_a_crash_comes_after_the_effect_and_once() -> None:
    application = with_fault("crash")
    with pytest.raises(SimulatedCrash):
        asyncio.run(income.verify_income(application, Context.fake(key="k")))
    assert standing(income.books) == ["consent"]
    asyncio.run(income.verify_income(application, Context.fake(key="k")))
    assert standing(income.books) == ["consent"]
    assert income.books.ledger.notes("crashed") == 1


@pytest.mark.usefixtures("faulty")
def test_a_zombie_that_comes_back_after_the_undo_is_refused() -> None:
    application = with_fault("comes-back")
    asyncio.run(income.verify_income(application, Context.fake(key="k")))
    asyncio.run(income.return_consent(application, None, Context.fake(key="k")))
    assert standing(income.books) == []
    assert income.books.ledger.notes("refused") == 1


# fraud-detection


def test_a_consistent_application_is_cleared_and_its_identity_held() -> None:
    cleared = asyncio.run(fraud.check_identity(PLAIN, Context.fake(key="k")))
    assert cleared == FraudCleared(application_id=PLAIN.application_id, identity="k")
    assert standing(fraud.books) == ["identity"]


CONTRADICTIONS: dict[str, dict[str, object]] = {
    "well-paid job, nobody employs them": {"job": "management_or_self_employed", "employed_years": "unemployed"},
    "several credits, no credit history": {"existing_credits": 2, "credit_history": "none_or_all_paid"},
    "seven years employed before the age of twenty-three": {"employed_years": "over_7", "age_years": 22},
    "owns a home, has no property": {"housing": "own", "property": "unknown_or_none"},
    "savings unknown, large amount": {"savings": "unknown_or_none", "amount_dm": 12_001},
}


def test_every_rule_has_an_example_here() -> None:
    assert CONTRADICTIONS.keys() == fraud.RULES.keys()


@pytest.mark.parametrize("rule", CONTRADICTIONS)
def test_one_contradiction_may_be_an_oversight(rule: str) -> None:
    application = PLAIN.model_copy(update=CONTRADICTIONS[rule])
    assert [name for name, breaks in fraud.RULES.items() if breaks(application)] == [rule]
    assert isinstance(asyncio.run(fraud.check_identity(application, Context.fake())), FraudCleared)


def test_two_contradictions_are_suspicious() -> None:
    rules = ("owns a home, has no property", "savings unknown, large amount")
    application = PLAIN.model_copy(update=CONTRADICTIONS[rules[0]] | CONTRADICTIONS[rules[1]])
    suspected = asyncio.run(fraud.check_identity(application, Context.fake()))
    assert suspected == FraudSuspected(application_id=PLAIN.application_id, rules=rules)
    assert standing(fraud.books) == ["identity"], "the saga fails, and undoes it"


@pytest.mark.usefixtures("faulty")
def test_an_undo_fails_twice_before_it_works() -> None:
    application = with_fault("undo-fails")
    asyncio.run(fraud.check_identity(application, Context.fake(key="k")))
    for attempt in (1, 2):
        with pytest.raises(ConnectionError):
            asyncio.run(fraud.release_identity(application, None, Context.fake(key="k", attempt=attempt)))
        assert standing(fraud.books) == ["identity"]
    asyncio.run(fraud.release_identity(application, None, Context.fake(key="k", attempt=3)))
    assert standing(fraud.books) == []


# risk-assessment


def test_risk_rates_by_what_the_events_say_and_reserves_the_amount() -> None:
    ready = asyncio.run(risk.assess(CONFIDENT, INCOME, Context.fake()))
    assert ready == RiskReady(application_id=PLAIN.application_id, score=700, rating="A", exposure_dm=1200)
    assert standing(risk.books) == ["exposure"]
    assert risk.books.ledger.booked_dm() == 1200


@pytest.mark.parametrize(
    ("points", "rating"), [(300, "D"), (579, "D"), (580, "C"), (639, "C"), (640, "B"), (699, "B"), (700, "A"), (850, "A")]
)
def test_ratings_have_exact_borders(points: int, rating: str) -> None:
    assert risk.rate(points) == rating


def test_past_the_credit_line_there_is_no() -> None:
    large = INCOME.model_copy(update={"amount_dm": 9000})
    asyncio.run(risk.assess(CONFIDENT, large, Context.fake()))
    with pytest.raises(Rejected, match="credit line"):
        asyncio.run(risk.assess(CONFIDENT, INCOME, Context.fake()))
    assert risk.books.ledger.booked_dm() == 9000


def test_released_exposure_is_free_for_others() -> None:
    large = INCOME.model_copy(update={"amount_dm": 9000})
    ready = asyncio.run(risk.assess(CONFIDENT, large, Context.fake(key="k")))
    asyncio.run(risk.release_exposure(CONFIDENT, large, ready, Context.fake(key="k")))
    asyncio.run(risk.assess(CONFIDENT, large, Context.fake()))
    assert risk.books.ledger.booked_dm() == 9000


# approval


@pytest.mark.parametrize("rating", ["A", "B", "C"])
def test_every_rating_but_d_is_an_offer(rating: str) -> None:
    approved = asyncio.run(approval.decide(rated(rating), CLEARED, Context.fake()))
    assert approved == CreditApproved.model_validate(
        {"application_id": PLAIN.application_id, "amount_dm": 1200, "rating": rating}
    )
    assert standing(approval.books) == ["offer"]


def test_a_d_is_declined_and_leaves_nothing() -> None:
    declined = asyncio.run(approval.decide(rated("D"), CLEARED, Context.fake()))
    assert isinstance(declined, CreditDeclined)
    assert approval.books.ledger.effects() == []


# all of them


def undo_all(key: str) -> None:
    """Every undo, as it comes where nobody knows whether the step took effect."""
    asyncio.run(score.withdraw_inquiry(PLAIN, None, Context.fake(key=key, outcome="unknown")))
    asyncio.run(income.return_consent(PLAIN, None, Context.fake(key=key, outcome="unknown")))
    asyncio.run(fraud.release_identity(PLAIN, None, Context.fake(key=key, outcome="unknown")))
    asyncio.run(risk.release_exposure(CONFIDENT, INCOME, None, Context.fake(key=key, outcome="unknown")))
    asyncio.run(approval.withdraw_offer(rated("A"), CLEARED, None, Context.fake(key=key, outcome="unknown")))


def do_all(key: str) -> None:
    asyncio.run(score.compute_score(PLAIN, Context.fake(key=key)))
    asyncio.run(income.verify_income(PLAIN, Context.fake(key=key)))
    asyncio.run(fraud.check_identity(PLAIN, Context.fake(key=key)))
    asyncio.run(risk.assess(CONFIDENT, INCOME, Context.fake(key=key)))
    asyncio.run(approval.decide(rated("A"), CLEARED, Context.fake(key=key)))


def test_each_agent_leaves_the_effect_that_the_choreography_names() -> None:
    do_all("k")
    assert {each.name: standing(each) for each in ALL_BOOKS} == {name: [kind] for name, kind in EFFECTS.items()}
    assert [each.name for each in AGENTS] == [each.name for each in ALL_BOOKS]


def test_every_undo_takes_its_effect_back_and_may_come_again() -> None:
    do_all("k")
    undo_all("k")
    undo_all("k")
    assert [standing(each) for each in ALL_BOOKS] == [[]] * 5
    assert risk.books.ledger.booked_dm() == 0


def test_an_undo_may_come_before_its_step_which_is_then_refused() -> None:
    undo_all("k")
    with pytest.raises(EffectUndone):
        asyncio.run(score.compute_score(PLAIN, Context.fake(key="k")))
    with pytest.raises(EffectUndone):
        asyncio.run(approval.decide(rated("A"), CLEARED, Context.fake(key="k")))
    assert [each.ledger.effects() for each in ALL_BOOKS] == [[]] * 5
