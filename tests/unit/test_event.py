"""Events: named, versioned, frozen; strict where they are made, open where they are read, and never telling their data."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from pavane import Event
from pavane_events.errors import ContractViolation, DeclarationError


class Scored(Event, type="e.scored", version=2):
    score: int = Field(ge=300, le=850)
    confidence: float = Field(default=1, ge=0, le=1)


class Confident(Scored):
    confidence: float = Field(ge=0.7, le=1)


class Amount(Event, type="e.amount"):
    value: float


class Listed(Event, type="e.listed"):
    numbers: list[int] = Field(default_factory=list[int])


class Broken(Event, type="e.broken"):
    n: int

    @field_validator("n")
    @classmethod
    def look_up(cls, n: int) -> int:
        return {1: 1}[n]


def problems_of(kind: type[Event], data: bytes) -> list[tuple[str, str]]:
    with pytest.raises(ContractViolation) as raised:
        kind.from_json(data)
    return [(problem.where, problem.code) for problem in raised.value.problems]


def test_an_event_names_its_type_version_and_contract() -> None:
    assert (Scored.event_type, Scored.event_version) == ("e.scored", 2)
    assert Scored.dataschema() == "urn:pavane:e.scored:2"


def test_a_narrower_view_is_the_same_event_and_refuses_more() -> None:
    assert Confident.dataschema() == Scored.dataschema()
    data = Scored(score=500, confidence=0.5).to_json()
    assert Scored.from_json(data).confidence == 0.5
    assert problems_of(Confident, data) == [("data.confidence", "greater_than_equal")]


def test_two_classes_of_one_type_live_side_by_side() -> None:
    class AnotherScored(Event, type="e.scored", version=2):
        score: str = "any"

    assert AnotherScored.event_type == Scored.event_type


def test_an_event_is_frozen() -> None:
    event = Scored(score=500)
    with pytest.raises(ValidationError):
        event.score = 600  # type: ignore[misc]


def test_consumers_ignore_what_they_do_not_know_and_producers_may_not_say_it() -> None:
    data = b'{"score": 400, "colour": "red"}'
    assert Scored.from_json(data) == Scored(score=400)
    with pytest.raises(ContractViolation) as raised:
        Scored.from_json_strictly(data)
    assert [(problem.where, problem.code) for problem in raised.value.problems] == [("data.colour", "extra_forbidden")]


def test_every_problem_is_listed_by_path_and_code_and_none_shows_the_data() -> None:
    with pytest.raises(ContractViolation) as raised:
        Scored.from_json(b'{"score": 12345, "confidence": "secret"}')
    assert [(problem.where, problem.code) for problem in raised.value.problems] == [
        ("data.score", "less_than_equal"),
        ("data.confidence", "float_parsing"),
    ]
    assert "12345" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_of_very_many_problems_the_first_are_listed_and_the_others_counted() -> None:
    with pytest.raises(ContractViolation) as raised:
        Listed.from_json(json.dumps({"numbers": ["x"] * 100_000}).encode())
    assert len(raised.value.problems) == 50
    assert raised.value.problems[-1].message == "and 99951 problems more"


def test_a_path_as_long_as_a_book_is_cut() -> None:
    with pytest.raises(ContractViolation) as raised:
        Scored.from_json_strictly(json.dumps({"score": 500, "k" * 100_000: 1}).encode())
    assert len(raised.value.problems[0].where) == 200


def test_a_validator_that_raises_something_else_breaks_the_contract_and_nothing_more() -> None:
    assert Broken.from_json(b'{"n": 1}') == Broken(n=1)
    with pytest.raises(ContractViolation, match="raised KeyError") as raised:
        Broken.from_json(b'{"n": 2}')
    assert raised.value.problems[0].code == "contract.validator"
    with pytest.raises(ContractViolation):
        Broken.from_json_strictly(b'{"n": 2}')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite_because_json_has_no_others(value: float) -> None:
    with pytest.raises(ValidationError):
        Amount(value=value)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_whatever_the_bytes_reading_gives_an_event_or_a_contract_violation(data: bytes) -> None:
    try:
        assert isinstance(Scored.from_json(data), Scored)
    except ContractViolation as violation:
        assert violation.problems


@given(st.integers(300, 850), st.floats(0, 1))
def test_what_was_written_is_read_back(score: int, confidence: float) -> None:
    event = Scored(score=score, confidence=confidence)
    assert Scored.from_json(event.to_json()) == event
    assert Scored.from_json_strictly(event.to_json()) == event


@pytest.mark.parametrize(
    ("keywords", "code"),
    [
        ({}, "event.type-missing"),
        ({"type": "Credit.Scored"}, "event.type-malformed"),
        ({"type": "credit/scored"}, "event.type-malformed"),
        ({"type": "c" * 201}, "event.type-malformed"),
        ({"type": "pavane.fact"}, "event.type-reserved"),
        ({"type": "e.fine", "version": 0}, "event.version"),
    ],
)
def test_a_declaration_that_cannot_work_says_how_it_would(keywords: dict[str, Any], code: str) -> None:
    with pytest.raises(DeclarationError, match="event Wrong cannot be declared so") as raised:
        type("Wrong", (Event,), {"__module__": __name__}, **keywords)
    assert [problem.code for problem in raised.value.problems] == [code]


def test_all_that_is_wrong_with_a_declaration_is_said_at_once() -> None:
    with pytest.raises(DeclarationError) as raised:
        type("Wrong", (Event,), {}, type="No Such", version=-1)
    assert [problem.code for problem in raised.value.problems] == ["event.type-malformed", "event.version"]
