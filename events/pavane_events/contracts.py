"""Contracts: the JSON Schema of every event type and version, as files, and where two of them contradict each other."""

import json
from collections.abc import Iterable, Iterator, Mapping
from math import inf, nextafter
from pathlib import Path
from typing import Literal, NamedTuple, cast

from pavane_events.event import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = Mapping[str, object]

_NUMBERS = frozenset({"integer", "number"})


class Stale(NamedTuple):
    """A contract whose file is missing, or says something else than the class does."""

    path: Path
    event: type[Event]
    how: Literal["missing", "different"]


def defining(event: type[Event]) -> type[Event]:
    """The class that defines the contract: the one that says ``type=`` (or ``version=``), not a consumer's narrower view."""
    for each in event.__mro__:
        if issubclass(each, Event) and ("event_type" in vars(each) or "event_version" in vars(each)):
            return each
    return event


def schema_of(event: type[Event]) -> dict[str, object]:
    """The contract of an event's type and version as JSON Schema 2020-12; ``$id`` is what ``ce_dataschema`` names."""
    contract = defining(event)
    return {"$schema": DIALECT, "$id": contract.dataschema(), **contract.model_json_schema()}


def contracts_of(events: Iterable[type[Event]]) -> Mapping[tuple[str, int], type[Event]]:
    """By type and version the class that defines it; where several do, the first: name producers before consumers."""
    found: dict[tuple[str, int], type[Event]] = {}
    for event in events:
        contract = defining(event)
        found.setdefault((contract.event_type, contract.event_version), contract)
    return dict(sorted(found.items()))


def stale_schemas(events: Iterable[type[Event]], directory: Path) -> list[Stale]:
    """The contracts whose files are not current. Files of versions that no class has any more are left to stand."""
    stale: list[Stale] = []
    for event in contracts_of(events).values():
        path = _path(event, directory)
        if not path.exists():
            stale.append(Stale(path, event, "missing"))
        elif _read(path) != schema_of(event):
            stale.append(Stale(path, event, "different"))
    return stale


def write_schemas(events: Iterable[type[Event]], directory: Path) -> list[Path]:
    """Write what is stale, making the directory where it is not there; the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    stale = stale_schemas(events, directory)
    for path, event, _ in stale:
        path.write_text(_text(event), encoding="utf-8")
    return [path for path, _, _ in stale]


def contradictions(producer: Schema, consumer: Schema) -> Iterator[tuple[str, str]]:
    """Field by field, why no event of the producer can ever fit the consumer's view.

    A view that is merely narrower contradicts nothing. What is not understood is taken to fit.
    """
    says, reads = arms_of(producer, producer)[0], arms_of(consumer, consumer)[0]
    given, wanted = members_of(says, "properties"), members_of(reads, "properties")
    for name in cast("list[str]", reads.get("required", [])):
        if name not in given:
            yield name, "is required and is never said"
    for name, schema in wanted.items():
        if name in given:
            why = _clash(arms_of(given[name], producer), arms_of(schema, consumer))
            if why is not None:
                yield name, why


def _path(event: type[Event], directory: Path) -> Path:
    return directory / f"{event.event_type}.v{event.event_version}.json"


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _text(event: type[Event]) -> str:
    return json.dumps(schema_of(event), indent=2, ensure_ascii=False) + "\n"


def _clash(given: list[Schema], wanted: list[Schema]) -> str | None:
    """Why none of the arms of one fits any of the other; None where some pair may."""
    reasons = [unfit(mine, its) for mine in given for its in wanted]
    if not reasons or any(reason is None for reason in reasons):
        return None
    return reasons[0]


def unfit(given: Schema, wanted: Schema) -> str | None:
    """Why nothing that fits the one fits the other; None where something may."""
    mine, its = values_of(given), values_of(wanted)
    if mine is not None and its is not None and not any(value in its for value in mine):
        return f"is one of {mine}, wanted is one of {its}"
    kinds = given.get("type"), wanted.get("type")
    if isinstance(kinds[0], str) and isinstance(kinds[1], str) and kinds[0] != kinds[1] and not _NUMBERS.issuperset(kinds):
        return f"is of type {kinds[0]}, wanted is {kinds[1]}"
    if max(lowest(given), lowest(wanted)) > min(highest(given), highest(wanted)):
        return f"lies from {lowest(given):g} to {highest(given):g}, wanted is {lowest(wanted):g} to {highest(wanted):g}"
    return None


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
    return max(bounds, default=-inf)


def highest(schema: Schema) -> float:
    """The greatest number that fits."""
    exclusive, inclusive = schema.get("exclusiveMaximum"), schema.get("maximum")
    bounds = [float(inclusive)] if isinstance(inclusive, int | float) else []
    if isinstance(exclusive, int | float):
        bounds.append(nextafter(exclusive, -inf))
    return min(bounds, default=inf)


def arms_of(schema: object, root: Schema) -> list[Schema]:
    """What a schema may be: itself, behind its ``$ref``, or the arms of its ``anyOf``."""
    found: Schema = cast("Schema", schema) if isinstance(schema, Mapping) else {}
    reference = found.get("$ref")
    if isinstance(reference, str):
        return arms_of(members_of(root, "$defs").get(reference.removeprefix("#/$defs/")), root)
    arms = found.get("anyOf")
    if isinstance(arms, list):
        return [each for arm in cast("list[object]", arms) for each in arms_of(arm, root)]
    return [found]


def members_of(schema: Schema, name: str) -> Mapping[str, object]:
    """The members of one of a schema's own objects, as ``properties``; none where it has none."""
    found = schema.get(name)
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {}
