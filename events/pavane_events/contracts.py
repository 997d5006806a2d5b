"""Contracts: the JSON Schema of every event type and version, as files, and where two of them contradict each other."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DecimalSchema

from pavane_events.event import Event
from pavane_events.schema import Schema, arms_of, members_of, strings_of, unfit, untaken

DIALECT = "https://json-schema.org/draft/2020-12/schema"


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


class _Compared(GenerateJsonSchema):
    """A decimal is written as a text; the text has the bounds of the number, which JSON Schema has no word for."""

    def decimal_schema(self, schema: DecimalSchema) -> JsonSchemaValue:
        text: JsonSchemaValue = {"type": "string", "format": "decimal"}
        number: JsonSchemaValue = {"type": "number"}
        for each in (text, number):
            self.update_with_validations(each, schema, self.ValidationsMapping.numeric)
        return text if self.mode == "serialization" else {"anyOf": [number, text]}


def said_by(event: type[Event]) -> Schema:
    """What a producer writes by that class, to be held against :func:`read_by` of a consumer's."""
    return event.model_json_schema(schema_generator=_Compared, mode="serialization")


def read_by(event: type[Event]) -> Schema:
    """What a consumer takes by that class, to be held against :func:`said_by` of a producer's."""
    return event.model_json_schema(schema_generator=_Compared, mode="validation")


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
    for name in strings_of(reads, "required"):
        if name not in given:
            yield name, "is required and is never said"
    for name, schema in wanted.items():
        if name in given:
            why = _clash(arms_of(given[name], producer), arms_of(schema, consumer))
            if why is not None:
                yield name, why
    for name in untaken(says, reads):
        yield name, "is said and not taken: the view forbids fields that it does not name"


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
