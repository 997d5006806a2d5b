"""Contracts: one JSON Schema per event type and version, as files that are current."""

import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from pavane.plan import event_classes
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_events.contracts import (
    contracts_of,
    contradictions,
    defining,
    schema_of,
    stale_schemas,
    write_schemas,
)
from pavane_events.event import Event

PUBLISHED = Path(__file__).parents[2] / "events" / "schemas"


Rating = Literal["A", "B", "C"]


class Rated(Event, type="rating.given", version=2):
    """Somebody was rated."""

    rating: Rating
    share: float = Field(ge=0, le=1)


class WellRated(Rated):
    """A consumer's own, narrower view."""

    share: float = Field(ge=0.9, le=1)


class RatedLater(Rated, version=3):
    """The next version says more."""

    reason: str


def test_the_published_contracts_of_the_credit_application_are_current() -> None:
    events = [kind for agent in AGENTS for kind in event_classes(agent)]
    events += [kind for saga in SAGAS for kind in (saga.starts, saga.completes, *saga.fails)]
    named = {f"{kind.event_type}.v{kind.event_version}.json" for kind in events}
    assert stale_schemas(events, PUBLISHED) == []
    assert {path.name for path in PUBLISHED.glob("credit.*.json")} == named


def test_a_schema_is_named_as_the_wire_names_its_contract() -> None:
    schema = schema_of(Rated)
    assert schema["$id"] == Rated.dataschema() == "urn:pavane:rating.given:2"
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_narrower_view_does_not_define_the_contract() -> None:
    assert defining(WellRated) is Rated
    assert schema_of(WellRated) == schema_of(Rated)


def test_another_version_is_another_contract() -> None:
    assert defining(RatedLater) is RatedLater
    assert contracts_of([WellRated, RatedLater]) == {("rating.given", 2): Rated, ("rating.given", 3): RatedLater}


def test_of_two_classes_of_one_contract_the_first_named_defines_it() -> None:
    class Copied(Event, type="rating.given", version=2):
        rating: str

    assert contracts_of([Rated, Copied]) == {("rating.given", 2): Rated}
    assert contracts_of([Copied, Rated]) == {("rating.given", 2): Copied}


def test_what_is_missing_or_different_is_stale_until_it_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "schemas"
    assert [each.how for each in stale_schemas([Rated], directory)] == ["missing"]
    written = write_schemas([Rated], directory)
    assert written == [directory / "rating.given.v2.json"]
    assert stale_schemas([Rated, WellRated], directory) == []
    assert write_schemas([Rated], directory) == []
    written[0].write_text(json.dumps({**schema_of(Rated), "title": "Something else"}))
    assert [each.how for each in stale_schemas([Rated], directory)] == ["different"]


def test_a_file_that_is_no_json_is_different(tmp_path: Path) -> None:
    (tmp_path / "rating.given.v2.json").write_text("{")
    assert [each.how for each in stale_schemas([Rated], tmp_path)] == ["different"]


def test_only_the_layout_of_a_file_may_differ(tmp_path: Path) -> None:
    (tmp_path / "rating.given.v2.json").write_text(json.dumps(schema_of(Rated)))
    assert stale_schemas([Rated], tmp_path) == []


def test_files_of_versions_that_no_class_has_any_more_are_left_to_stand(tmp_path: Path) -> None:
    write_schemas([Rated], tmp_path)
    write_schemas([RatedLater], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rating.given.v2.json", "rating.given.v3.json"]


class Number(Event, type="said.number"):
    value: int = Field(ge=0, le=10)
    name: str


class Narrower(Number):
    value: int = Field(ge=5)


class Higher(Number):
    value: int = Field(gt=10)


class Wordy(Event, type="said.number"):
    value: str


class Optional(Event, type="said.number"):
    value: str | int


class Asking(Event, type="said.number"):
    never_said: bool


class AskingKindly(Event, type="said.number"):
    never_said: bool = False


@pytest.mark.parametrize("view", [Number, Narrower, Optional, AskingKindly])
def test_a_view_that_may_fit_contradicts_nothing(view: type[Event]) -> None:
    assert list(contradictions(Number.model_json_schema(), view.model_json_schema())) == []


@pytest.mark.parametrize(
    ("view", "field", "why"),
    [
        (Higher, "value", "lies from 0 to 10, wanted is"),
        (Wordy, "value", "is of type integer, wanted is string"),
        (Asking, "never_said", "is required and is never said"),
    ],
)
def test_a_view_that_can_never_fit_says_by_which_field(view: type[Event], field: str, why: str) -> None:
    found = list(contradictions(Number.model_json_schema(), view.model_json_schema()))
    assert [each for each, _ in found] == [field]
    assert why in found[0][1]


def test_values_that_are_never_said_contradict() -> None:
    class Wanted(Event, type="rating.given", version=2):
        rating: Literal["D"]

    assert [field for field, _ in contradictions(Rated.model_json_schema(), Wanted.model_json_schema())] == ["rating"]
    assert list(contradictions(Rated.model_json_schema(), WellRated.model_json_schema())) == []
