"""What the credit agents say: contracts that hold producers to their word, and a consumer's own, narrower view."""

import json

import pytest
from pydantic import ValidationError

from pavane_credit.applications import read_applications
from pavane_credit.events import (
    ApplicationSubmitted,
    ConfidentScore,
    CreditApproved,
    CreditDeclined,
    FraudCleared,
    FraudSuspected,
    IncomeVerified,
    RiskReady,
    ScoreComputed,
)
from pavane_events.errors import ContractViolation
from pavane_events.event import Event

APPLICATION = read_applications()[0].event

EXAMPLES: list[Event] = [
    APPLICATION,
    ScoreComputed(application_id="a", score=750, confidence=0.9, reasons=("savings",)),
    IncomeVerified(application_id="a", amount_dm=1000, duration_months=10, instalment_dm=100, income_class="low"),
    FraudCleared(application_id="a", identity="key"),
    FraudSuspected(application_id="a", rules=("owns a home, has no property",)),
    RiskReady(application_id="a", score=750, rating="A", exposure_dm=1000),
    CreditApproved(application_id="a", amount_dm=1000, rating="A"),
    CreditDeclined(application_id="a", rating="D", reason="the score is too low"),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda each: each.event_type)
def test_an_event_reads_back_as_it_was_written(event: Event) -> None:
    assert type(event).from_json_strictly(event.to_json()) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda each: each.event_type)
def test_an_event_is_a_sealed_snapshot(event: Event) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        event.application_id = "another"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_every_event_has_a_topic_of_its_own_and_a_version() -> None:
    types = [type(each).event_type for each in EXAMPLES]
    assert len(set(types)) == len(types)
    assert all(each.startswith("credit.") for each in types)
    assert {type(each).event_version for each in EXAMPLES} == {1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("age_years", 17),
        ("amount_dm", 0),
        ("amount_dm", 1_000_001),
        ("application_id", ""),
        ("duration_months", 0),
        ("instalment_rate_percent", 5),
        ("purpose", "yacht"),
        ("telephone", "perhaps"),
        ("amount_dm", "1169"),
        ("amount_dm", 1169.0),
        ("telephone", "yes"),
        ("telephone", 1),
    ],
)
def test_an_application_outside_the_contract_is_refused_at_its_field(field: str, value: object) -> None:
    data = json.dumps({**APPLICATION.model_dump(), field: value})
    with pytest.raises(ContractViolation) as caught:
        ApplicationSubmitted.from_json(data)
    assert [problem.where for problem in caught.value.problems] == [f"data.{field}"]


def test_the_known_outcome_is_no_part_of_an_application() -> None:
    assert "repaid" not in ApplicationSubmitted.model_fields


def test_a_score_that_is_too_uncertain_fits_the_producers_contract_and_not_the_consumers() -> None:
    uncertain = ScoreComputed(application_id="a", score=750, confidence=0.69).to_json()
    assert ScoreComputed.from_json(uncertain).confidence == 0.69
    with pytest.raises(ContractViolation) as caught:
        ConfidentScore.from_json(uncertain)
    assert [problem.where for problem in caught.value.problems] == ["data.confidence"]


def test_the_narrower_view_is_the_same_event_to_the_bus() -> None:
    assert ConfidentScore.event_type == ScoreComputed.event_type
    assert ConfidentScore.dataschema() == ScoreComputed.dataschema()


def test_suspicion_names_at_least_one_rule() -> None:
    with pytest.raises(ValidationError, match="rules"):
        FraudSuspected(application_id="a", rules=())
