"""Narrowing: what a producer may say in a field is held against what a consumer takes there."""

from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from pavane_events.contracts import contradictions, read_by, said_by
from pavane_events.event import Event
from pavane_events.narrowing import narrowings


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class ShortCard(Card):
    number: str = Field(max_length=4)
    kind: Literal["card"]


class Cash(BaseModel):
    kind: Literal["cash"]
    amount: int


class Sum(BaseModel):
    amount: int


class Cheque(BaseModel):
    kind: Literal["cheque"]


class Strict(BaseModel, extra="forbid"):
    kind: Literal["cash"]


class Named(Cash):
    by: str


Any2 = Annotated[Card | Cash, Field(discriminator="kind")]
Any3 = Annotated[Card | Cash | Cheque, Field(discriminator="kind")]
NotNegative = Annotated[int, Field(ge=0)]


def holding(kind: Any) -> type[Event]:
    """An event with one field of that type."""
    return create_model("Holder", __base__=Event, __cls_kwargs__={"type": "held", "version": 1}, f=(kind, ...))


def between(said: object, read: object) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What can never fit, and what may not."""
    producer, consumer = said_by(holding(said)), read_by(holding(read))
    return list(contradictions(producer, consumer)), list(narrowings(producer, consumer))


@pytest.mark.parametrize(
    ("said", "read", "where", "why"),
    [
        (Cash, Named, "f.by", "is required and is never said"),
        (Cash, Strict, "f.amount", "is said and not taken"),
        (dict[str, Any], Sum, "f.amount", "is required and need not be said"),
        (dict[str, int], dict[str, NotNegative], "f.*", "may be any number, wanted is 0 or more"),
        (dict[str, Any], dict[str, int], "f.*", "may be anything, wanted is of type integer"),
        (dict[str, int], dict[Literal["a", "b"], int], "f", "names a member that may be anything"),
        (Cash, dict[str, int], "f.kind", "may be ['cash'], wanted is of type integer"),
        (tuple[int, int], tuple[int, NotNegative], "f[1]", "may be any number, wanted is 0 or more"),
        (tuple[str, int], tuple[str, ...], "f[1]", "may be of type integer, wanted is string"),
        (tuple[int, ...], Annotated[tuple[NotNegative, ...], Field()], "f[]", "may be any number, wanted is 0 or more"),
        (Any3, Any2, "f", "may be an object whose kind is one of ['cheque'], wanted is one of ['card']"),
        (Any2, Annotated[ShortCard | Cash, Field(discriminator="kind")], "f.number", "may be longer"),
        (Card | None, ShortCard | None, "f.number", "may be longer"),
        (Annotated[int, Field(multiple_of=2)], Annotated[int, Field(multiple_of=4)], "f", "may be any multiple of 2"),
        (int, Annotated[int, Field(multiple_of=4)], "f", "may be any number, wanted is a multiple of 4"),
        (Literal[3, 4], Annotated[int, Field(multiple_of=4)], "f", "may be [3], wanted is of type integer with multipleOf 4"),
        (Any, int, "f", "may be anything, wanted is of type integer"),
        (Literal["abcd", "abcde"], Annotated[str, Field(max_length=4)], "f", "may be ['abcde']"),
        (Literal["a", "b"], Annotated[str, Field(pattern="^a")], "f", "may be ['b'], wanted is"),
        (Literal["a", 2], str | None, "f", "may be [2], wanted is of type string or of type null"),
        (Decimal, Annotated[Decimal, Field(ge=1)], "f", "may be any number, wanted is 1 or more"),
        (str, Decimal, "f", "may be any text: wanted is a decimal"),
    ],
)
def test_what_a_field_may_hold_is_held_against_what_the_view_takes(said: object, read: object, where: str, why: str) -> None:
    never, (found,) = between(said, read)
    assert (never, found[0]) == ([], where)
    assert found[1].startswith(why)


@pytest.mark.parametrize(
    ("said", "read", "why"),
    [
        (Literal[1], Annotated[int, Field(ge=2)], "is one of [1], wanted is 2 or more"),
        (Annotated[int, Field(ge=2)], Literal[1], "is 2 or more, wanted is one of [1]"),
        (Literal["ab"], Annotated[str, Field(max_length=1)], "is one of ['ab'], wanted is of type string with maxLength 1"),
        (Literal[True], Literal[1], "is one of [True], wanted is one of [1]"),
        (Cheque, Any2, "is an object whose kind is one of ['cheque'], wanted is one of ['card']"),
        (Decimal, int, "is of type string, wanted is integer"),
    ],
)
def test_what_a_field_can_never_hold_contradicts(said: object, read: object, why: str) -> None:
    assert between(said, read) == ([("f", why)], [])


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (Named, Cash),
        (dict[str, NotNegative], dict[str, int]),
        (dict[str, Any], dict[str, Any]),
        (dict[Literal["a"], int], dict[Literal["a", "b"], int]),
        (tuple[int, int], tuple[int, ...]),
        (Any2, Any3),
        (Annotated[int, Field(multiple_of=4)], Annotated[int, Field(multiple_of=2)]),
        (int, Annotated[float, Field(multiple_of=0.5)]),
        (int, Any),
        (Annotated[int, Field(gt=0)], Annotated[int, Field(ge=1)]),
        (Literal["abcd"], Annotated[str, Field(max_length=4, pattern="^a")]),
        (Literal["a"], Annotated[str, Field(pattern=r"^\p{Ll}$")]),  # not one of Python's expressions
        (Literal["a", 2, None], str | float | None),
        (Literal[4, 8], Annotated[int, Field(multiple_of=4)]),
        (Decimal, str),
        (Decimal, Decimal),
    ],
)
def test_what_every_event_fits_is_no_finding(said: object, read: object) -> None:
    assert between(said, read) == ([], [])
