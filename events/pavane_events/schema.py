"""Schema: what a JSON Schema allows, as far as pydantic writes it. What is not understood is taken to allow everything."""

import re
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor, inf, isfinite, nextafter
from typing import TypeGuard, cast

Schema = Mapping[str, object]

_NUMBERS = frozenset({"integer", "number"})
_RULES = ("minLength", "maxLength", "pattern", "multipleOf")
_REMARKS = frozenset({"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
"""What a schema says that allows and forbids nothing."""


def values_of(schema: Schema) -> list[object] | None:
    """The values that a schema lists; None where it lists none."""
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return cast("list[object]", found) if isinstance(found, list) else None


def lowest(schema: Schema) -> float:
    """The least number that fits."""
    exclusive, inclusive = schema.get("exclusiveMinimum"), schema.get("minimum")
    bounds = [float(inclusive)] if isinstance(inclusive, int | float) else []
    if isinstance(exclusive, int | float):
        bounds.append(nextafter(exclusive, inf))
    found = max(bounds, default=-inf)
    return ceil(found) if schema.get("type") == "integer" and isfinite(found) else found


def highest(schema: Schema) -> float:
    """The greatest number that fits."""
    exclusive, inclusive = schema.get("exclusiveMaximum"), schema.get("maximum")
    bounds = [float(inclusive)] if isinstance(inclusive, int | float) else []
    if isinstance(exclusive, int | float):
        bounds.append(nextafter(exclusive, -inf))
    found = min(bounds, default=inf)
    return floor(found) if schema.get("type") == "integer" and isfinite(found) else found


def span(low: float, high: float) -> str:
    """The numbers between two bounds, in words."""
    if low == -inf and high == inf:
        return "any number"
    if high == inf:
        return f"{low:g} or more"
    return f"{high:g} or less" if low == -inf else f"{low:g} to {high:g}"


def arms_of(schema: object, root: Schema) -> list[Schema]:
    """What a schema may be: itself, behind its ``$ref``, or the arms of its ``anyOf`` or ``oneOf``."""
    found: Schema = cast("Schema", schema) if isinstance(schema, Mapping) else {}
    reference = found.get("$ref")
    if isinstance(reference, str):
        return arms_of(members_of(root, "$defs").get(reference.removeprefix("#/$defs/")), root)
    arms = found.get("anyOf", found.get("oneOf"))
    if isinstance(arms, list):
        return [each for arm in cast("list[object]", arms) for each in arms_of(arm, root)]
    return [found]


def members_of(schema: Schema, name: str) -> Mapping[str, object]:
    """The members of one of a schema's own objects, as ``properties``; none where it has none."""
    found = schema.get(name)
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {}


def strings_of(schema: Schema, name: str) -> list[str]:
    """One of a schema's own lists of names, as ``required``; empty where it has none."""
    found = schema.get(name)
    return [each for each in cast("list[object]", found) if isinstance(each, str)] if isinstance(found, list) else []


def schemas_of(schema: Schema, name: str) -> list[object]:
    """One of a schema's own lists of schemas, as ``prefixItems``; empty where it has none."""
    found = schema.get(name)
    return cast("list[object]", found) if isinstance(found, list) else []


def untaken(given: Schema, wanted: Schema) -> list[str]:
    """The fields of the one that the other forbids: it takes none that it does not name."""
    if wanted.get("additionalProperties") is not False:
        return []
    return [name for name in members_of(given, "properties") if name not in members_of(wanted, "properties")]


def is_anything(schema: Schema) -> bool:
    """Whether it forbids nothing."""
    return _REMARKS.issuperset(schema)


def unfit(given: Schema, wanted: Schema) -> str | None:
    """Why nothing that fits the one fits the other; None where something may."""
    mine, its = values_of(given), values_of(wanted)
    if mine is not None and not any(fits(value, wanted) for value in mine):
        return f"is one of {mine}, wanted is {in_words(wanted)}"
    if its is not None and not any(fits(value, given) for value in its):
        return f"is {in_words(given)}, wanted is one of {its}"
    kinds = given.get("type"), wanted.get("type")
    if isinstance(kinds[0], str) and isinstance(kinds[1], str) and kinds[0] != kinds[1] and not _NUMBERS.issuperset(kinds):
        return f"is of type {kinds[0]}, wanted is {kinds[1]}"
    if max(lowest(given), lowest(wanted)) > min(highest(given), highest(wanted)):
        return f"lies from {lowest(given):g} to {highest(given):g}, wanted is {lowest(wanted):g} to {highest(wanted):g}"
    return _of_another_kind(given, wanted)


def _of_another_kind(given: Schema, wanted: Schema) -> str | None:
    """Two models of a union that a field of theirs tells apart, which is a constant in each."""
    views = members_of(wanted, "properties")
    for name, schema in members_of(given, "properties").items():
        view = views.get(name)
        if is_schema(schema) and is_schema(view):
            mine, its = values_of(schema), values_of(view)
            if mine is not None and its is not None and not any(value in its for value in mine):
                return f"is an object whose {name} is one of {mine}, wanted is one of {its}"
    return None


def is_schema(found: object) -> TypeGuard[Schema]:
    """Whether it is one that says something: ``true`` and ``false`` are schemas, too."""
    return isinstance(found, Mapping)


def in_words(schema: Schema) -> str:
    """What fits, as far as a few words tell it."""
    values = values_of(schema)
    if values is not None:
        return f"one of {values}"
    low, high = lowest(schema), highest(schema)
    if (low, high) != (-inf, inf):
        return span(low, high)
    rules = ", ".join(f"{name} {schema[name]}" for name in _RULES if name in schema)
    return f"of type {schema.get('type', 'any')}" + (f" with {rules}" if rules else "")


def fits(value: object, schema: Schema) -> bool:
    """Whether a plain value (a text, a number, true, false, null) fits a schema."""
    return all(holds(value, schema) for holds in (_is_of_its_type, _is_listed, _is_in_range, _is_as_long, _matches, _divides))


def _is_of_its_type(value: object, schema: Schema) -> bool:
    kind = schema.get("type")
    if not isinstance(kind, str):
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and float(value).is_integer())
    if isinstance(value, str):
        return kind == "string"
    return kind == "null" if value is None else kind in ("array", "object")


def _is_listed(value: object, schema: Schema) -> bool:
    values = values_of(schema)
    return values is None or any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


def _is_in_range(value: object, schema: Schema) -> bool:
    return not isinstance(value, int | float) or isinstance(value, bool) or lowest(schema) <= value <= highest(schema)


def _is_as_long(value: object, schema: Schema) -> bool:
    return not isinstance(value, str) or number_of(schema, "minLength", 0) <= len(value) <= number_of(schema, "maxLength", inf)


def _matches(value: object, schema: Schema) -> bool:
    pattern = schema.get("pattern")
    if not isinstance(value, str) or not isinstance(pattern, str):
        return True
    try:
        return re.search(pattern, value) is not None
    except re.error:  # pydantic's expressions are of another kind
        return True


def _divides(value: object, schema: Schema) -> bool:
    step = schema.get("multipleOf")
    if isinstance(value, bool) or not isinstance(value, int | float) or not isinstance(step, int | float):
        return True
    return is_multiple(value, step)


def is_multiple(number: float, step: float) -> bool:
    """Whether one is a multiple of the other, as they are written in decimals."""
    return (Fraction(str(number)) / Fraction(str(step))).denominator == 1


def number_of(schema: Schema, name: str, default: float) -> float:
    """A number that a schema says."""
    found = schema.get(name)
    return cast("float", found) if isinstance(found, int | float) else default
