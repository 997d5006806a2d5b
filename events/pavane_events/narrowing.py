"""Narrowing: where a consumer's view of an event takes less than its producer may say, field by field."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import cast

from pavane_events.contracts import Schema, arms_of, highest, lowest, members_of, unfit, values_of

_LEAST = {"minLength": "has at least {} characters", "minItems": "has at least {} items"}
_MOST = {"maxLength": "has at most {} characters", "maxItems": "has at most {} items"}
_EXACT = {"pattern": "matches {!r}", "format": "is a {}"}


def narrowings(producer: Schema, consumer: Schema) -> Iterator[tuple[str, str]]:
    """Every field in which some event that fits the producer's contract does not fit the consumer's, and why not.

    Where none can fit at all, :func:`~pavane_events.contracts.contradictions` says so, and this says nothing. Fields that
    the consumer does not name are its own business. What is not understood is taken to fit.
    """
    pair = _Pair(producer, consumer)
    for given in arms_of(producer, producer):
        for wanted in arms_of(consumer, consumer):
            pair.known[id(given), id(wanted)] = given, wanted, []
            yield from pair.of_object(given, wanted)


class _Pair:
    """Two schemas that are held against each other. ``known``: what was found between two parts of them, which lead back to
    themselves where a model holds others of its kind; what is met again while it is looked at counts as covered."""

    def __init__(self, given: Schema, wanted: Schema) -> None:
        self.given = given
        self.wanted = wanted
        self.known: dict[tuple[int, int], tuple[Schema, Schema, list[tuple[str, str]]]] = {}

    def of_object(self, given: Schema, wanted: Schema) -> Iterator[tuple[str, str]]:
        mine = members_of(given, "properties")
        for name, schema in members_of(wanted, "properties").items():
            if name in mine:
                arms = arms_of(mine[name], self.given)
                views = arms_of(schema, self.wanted)
                if any(unfit(arm, view) is None for arm in arms for view in views):
                    yield from _below(name, self._of_field(arms, views))

    def _of_field(self, given: list[Schema], wanted: list[Schema]) -> Iterator[tuple[str, str]]:
        """Every arm of the producer's must be covered by one of the consumer's."""
        for arm in given:
            reasons = [self._uncovered(arm, view) for view in wanted]
            if reasons and all(reasons):
                yield min(reasons, key=len)[0]

    def _uncovered(self, given: Schema, wanted: Schema) -> list[tuple[str, str]]:
        """Why an arm of one is not covered by an arm of the other, and where in it; nothing where it is."""
        pair = id(given), id(wanted)
        if pair not in self.known:
            self.known[pair] = given, wanted, []
            self.known[pair] = given, wanted, list(self._reasons(given, wanted))
        return self.known[pair][2]

    def _reasons(self, given: Schema, wanted: Schema) -> Iterator[tuple[str, str]]:
        clash = unfit(given, wanted)
        if clash is not None:
            kind = given.get("type")
            yield "", "may be null" if kind == "null" else clash.replace("is ", "may be ", 1)
            return
        if given.get("type") == "number" and wanted.get("type") == "integer":
            yield "", "may be any number, wanted is an integer"
        values = values_of(wanted)
        if values is not None:
            said = values_of(given)
            more = [value for value in said if value not in values] if said is not None else None
            if more is None or more:
                yield "", f"may be {'anything' if more is None else more}, wanted is one of {values}"
            return
        if lowest(given) < lowest(wanted) or highest(given) > highest(wanted):
            yield "", f"may be {_span(lowest(given), highest(given))}, wanted is {_span(lowest(wanted), highest(wanted))}"
        yield from _bounds(given, wanted)
        items = wanted.get("items"), given.get("items")
        if all(isinstance(each, Mapping) for each in items):
            yield from _below("[]", self._of_field(arms_of(items[1], self.given), arms_of(items[0], self.wanted)))
        yield from _below(".", self.of_object(given, wanted))


def _below(place: str, found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for path, why in found:
        yield f"{place}{path}", why


def _bounds(given: Schema, wanted: Schema) -> Iterator[tuple[str, str]]:
    for name, words in _LEAST.items():
        least = _number(wanted, name, 0)
        if least > _number(given, name, 0):
            yield "", f"may be shorter: wanted {words.format(least)}"
    for name, words in _MOST.items():
        most = _number(wanted, name, inf)
        if most < _number(given, name, inf):
            yield "", f"may be longer: wanted {words.format(most)}"
    for name, words in _EXACT.items():
        if name in wanted and given.get(name) != wanted[name] and values_of(given) is None:
            yield "", f"may be any text: wanted {words.format(wanted[name])}"


def _number(schema: Schema, name: str, default: float) -> float:
    found = schema.get(name)
    return cast("float", found) if isinstance(found, int | float) else default


def _span(low: float, high: float) -> str:
    if low == -inf and high == inf:
        return "any number"
    if high == inf:
        return f"{low:g} or more"
    return f"{high:g} or less" if low == -inf else f"{low:g} to {high:g}"
