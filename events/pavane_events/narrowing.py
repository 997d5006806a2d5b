"""Narrowing: where a consumer's view of an event takes less than its producer may say, field by field."""

from collections.abc import Iterable, Iterator
from math import inf

from pavane_events.schema import (
    Schema,
    arms_of,
    fits,
    highest,
    in_words,
    is_anything,
    is_multiple,
    is_schema,
    lowest,
    members_of,
    number_of,
    schemas_of,
    span,
    strings_of,
    unfit,
    untaken,
    values_of,
)

_LEAST = {"minLength": "has at least {} characters", "minItems": "has at least {} items"}
_MOST = {"maxLength": "has at most {} characters", "maxItems": "has at most {} items"}
_EXACT = {"pattern": "matches {!r}", "format": "is a {}"}

Reason = tuple[str, str]
"""Where in a field, and why an event may not fit there."""


def narrowings(producer: Schema, consumer: Schema) -> Iterator[Reason]:
    """Every field in which some event that fits the producer's contract does not fit the consumer's, and why not.

    Where none can fit at all, :func:`~pavane_events.contracts.contradictions` says so, and this says nothing. Fields that
    the consumer does not name are its own business. What is not understood is taken to fit.
    """
    pair = _Pair(producer, consumer)
    for given in arms_of(producer, producer):
        for wanted in arms_of(consumer, consumer):
            yield from pair.of_event(given, wanted)


class _Pair:
    """Two schemas that are held against each other. ``known``: what was found between two parts of them, which lead back to
    themselves where a model holds others of its kind; what is met again while it is looked at counts as covered."""

    def __init__(self, given: Schema, wanted: Schema) -> None:
        self.given = given
        self.wanted = wanted
        self.known: dict[tuple[int, int], tuple[Schema, Schema, list[Reason]]] = {}

    def of_event(self, given: Schema, wanted: Schema) -> Iterator[Reason]:
        self.known[id(given), id(wanted)] = given, wanted, []
        for name, (said, view) in _shared(given, wanted).items():
            arms, views = arms_of(said, self.given), arms_of(view, self.wanted)
            if any(unfit(arm, each) is None for arm in arms for each in views):
                yield from _below(name, self._of_field(arms, views))

    def _of(self, said: object, view: object) -> Iterator[Reason]:
        return self._of_field(arms_of(said, self.given), arms_of(view, self.wanted))

    def _of_field(self, given: list[Schema], wanted: list[Schema]) -> Iterator[Reason]:
        """Every arm of the producer's must be covered by one of the consumer's, each of the values that it lists by any."""
        for arm in given:
            values = values_of(arm)
            if values is not None:
                left = [value for value in values if not any(fits(value, view) for view in wanted)]
                if left:
                    yield "", f"may be {left}, wanted is {' or '.join(in_words(view) for view in wanted)}"
                continue
            reasons = [self._uncovered(arm, view) for view in wanted]
            if all(reasons):
                likely = [found for found, view in zip(reasons, wanted, strict=True) if unfit(arm, view) is None]
                yield from likely[0] if len(likely) == 1 else min(likely or reasons, key=len)[:1]

    def _uncovered(self, given: Schema, wanted: Schema) -> list[Reason]:
        """Why an arm of one is not covered by an arm of the other, and where in it; nothing where it is."""
        pair = id(given), id(wanted)
        if pair not in self.known:
            self.known[pair] = given, wanted, []
            self.known[pair] = given, wanted, list(self._reasons(given, wanted))
        return self.known[pair][2]

    def _reasons(self, given: Schema, wanted: Schema) -> Iterator[Reason]:
        clash = unfit(given, wanted)
        values = values_of(wanted)
        if clash is not None:
            yield "", "may be null" if given.get("type") == "null" else clash.replace("is ", "may be ", 1)
        elif values is not None:
            yield "", f"may be anything, wanted is one of {values}"
        elif is_anything(given):
            if not is_anything(wanted):
                yield "", f"may be anything, wanted is {in_words(wanted)}"
        else:
            yield from _bounds(given, wanted)
            yield from self._of_items(given, wanted)
            yield from self._of_object(given, wanted)

    def _of_items(self, given: Schema, wanted: Schema) -> Iterator[Reason]:
        """The items of a list, or of a tuple, which says each by its place."""
        mine, its = schemas_of(given, "prefixItems"), schemas_of(wanted, "prefixItems")
        rest, views = given.get("items"), wanted.get("items")
        for place, view in enumerate(its):
            if place < len(mine) or is_schema(rest):
                yield from _below(f"[{place}]", self._of(mine[place] if place < len(mine) else rest, view))
        if is_schema(views):
            for place, said in enumerate(mine[len(its) :], len(its)):
                yield from _below(f"[{place}]", self._of(said, views))
            if is_schema(rest):
                yield from _below("[]", self._of(rest, views))

    def _of_object(self, given: Schema, wanted: Schema) -> Iterator[Reason]:
        """The fields of a model, or the values of a dict, by any name."""
        mine, its = members_of(given, "properties"), members_of(wanted, "properties")
        rest, views = given.get("additionalProperties"), wanted.get("additionalProperties")
        for name in strings_of(wanted, "required"):
            if name not in mine:
                yield f".{name}", f"is required and {'need not be' if 'properties' not in given else 'is never'} said"
        for name, (said, view) in _shared(given, wanted).items():
            yield from _below(f".{name}", self._of(said, view))
        if is_schema(views):
            for name in (each for each in mine if each not in its):
                yield from _below(f".{name}", self._of(mine[name], views))
            if "properties" not in given:
                yield from _below(".*", self._of(rest, views))
        if "propertyNames" in wanted and "properties" not in given:
            for _, why in self._of(given.get("propertyNames", {"type": "string"}), wanted["propertyNames"]):
                yield "", f"names a member that {why}"
        for name in untaken(given, wanted):
            yield f".{name}", "is said and not taken: the view forbids fields that it does not name"


def _shared(given: Schema, wanted: Schema) -> dict[str, tuple[object, object]]:
    """The fields that both of them name."""
    mine = members_of(given, "properties")
    return {name: (mine[name], view) for name, view in members_of(wanted, "properties").items() if name in mine}


def _below(place: str, found: Iterable[Reason]) -> Iterator[Reason]:
    for path, why in found:
        yield f"{place}{path}", why


def _bounds(given: Schema, wanted: Schema) -> Iterator[Reason]:
    if given.get("type") == "number" and wanted.get("type") == "integer":
        yield "", "may be any number, wanted is an integer"
    if lowest(given) < lowest(wanted) or highest(given) > highest(wanted):
        yield "", f"may be {span(lowest(given), highest(given))}, wanted is {span(lowest(wanted), highest(wanted))}"
    step = number_of(wanted, "multipleOf", 0)
    steps = number_of(given, "multipleOf", 1 if given.get("type") == "integer" else 0)
    if step and not (steps and is_multiple(steps, step)):
        yield "", f"may be any {f'multiple of {steps}' if steps not in (0, 1) else 'number'}, wanted is a multiple of {step}"
    for name, words in _LEAST.items():
        least = number_of(wanted, name, 0)
        if least > number_of(given, name, 0):
            yield "", f"may be shorter: wanted {words.format(least)}"
    for name, words in _MOST.items():
        most = number_of(wanted, name, inf)
        if most < number_of(given, name, inf):
            yield "", f"may be longer: wanted {words.format(most)}"
    for name, words in _EXACT.items():
        if name in wanted and given.get(name) != wanted[name]:
            yield "", f"may be any text: wanted {words.format(wanted[name])}"
