"""Contracts: the JSON Schema of every event type and version, as files that anybody can read without our code."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pavane_events.event import Event

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
        elif path.read_text(encoding="utf-8") != _text(event):
            stale.append(Stale(path, event, "different"))
    return stale


def write_schemas(events: Iterable[type[Event]], directory: Path) -> list[Path]:
    """Write what is stale, making the directory where it is not there; the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    stale = stale_schemas(events, directory)
    for path, event, _ in stale:
        path.write_text(_text(event), encoding="utf-8")
    return [path for path, _, _ in stale]


def _path(event: type[Event], directory: Path) -> Path:
    return directory / f"{event.event_type}.v{event.event_version}.json"


def _text(event: type[Event]) -> str:
    return json.dumps(schema_of(event), indent=2, ensure_ascii=False) + "\n"
