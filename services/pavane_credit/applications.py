"""Applications: the thousand real ones, or a file of yours with the same header."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from pavane_credit.events import ApplicationSubmitted
from pavane_events.errors import ConfigurationError, ContractViolation, Problem
from pavane_events.event import violation

_OUTCOME = "repaid"
_OUTCOMES = {"yes": True, "no": False, "": None}
_MOST_LISTED = 50


@dataclass(frozen=True, slots=True)
class Application:
    """An application as it is published, and apart from it the known outcome, which no agent sees."""

    event: ApplicationSubmitted
    repaid: bool | None

    @property
    def id(self) -> str:
        """The application's id."""
        return self.event.application_id


def read_applications(path: Path | None = None) -> list[Application]:
    """Read the packaged applications, or a CSV file with the same header (``repaid`` may be missing or empty).

    Raises :class:`ConfigurationError` with the problems, by line.
    """
    try:
        source = path if path is not None else files("pavane_credit") / "data" / "german-credit.csv"
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(str(path), "applications.unreadable", str(error))
        raise ConfigurationError("the applications cannot be read", [problem]) from None
    try:
        return _read_lines(lines)
    except csv.Error as error:
        problem = Problem(str(path), "applications.unreadable", f"no CSV: {error}")
        raise ConfigurationError("the applications cannot be read", [problem]) from None


def _read_lines(lines: list[str]) -> list[Application]:
    reader = csv.DictReader(lines)
    wanted = set(ApplicationSubmitted.model_fields)
    required = {name for name, field in ApplicationSubmitted.model_fields.items() if field.is_required()}
    names = list(reader.fieldnames or ())
    header = set(names)
    problems = [Problem("line 1", "applications.column-missing", f"no column {name}") for name in sorted(required - header)]
    problems += [
        Problem("line 1", "applications.column-unknown", f"{name!r} is no column")
        for name in sorted(header - wanted - {_OUTCOME})
    ]
    problems += [
        Problem("line 1", "applications.column-doubled", f"column {name} is there more than once")
        for name in sorted(header)
        if names.count(name) > 1
    ]
    found: list[Application] = []
    seen: set[str] = set()
    for row in reader if not problems else ():
        where = f"line {reader.line_num}"
        if None in row or None in row.values():
            problems.append(Problem(where, "applications.columns", "it has another number of columns than the header"))
            continue
        outcome = row.get(_OUTCOME, "")
        if outcome not in _OUTCOMES:
            problems.append(Problem(f"{where}, {_OUTCOME}", "applications.outcome", "it is yes, no or empty"))
            continue
        values: dict[str, object] = {name: value for name, value in row.items() if name != _OUTCOME}
        for name in wanted - required:
            if values.get(name) == "":
                del values[name]  # nothing is known of it
        values["telephone"] = {"yes": True, "no": False}.get(str(row["telephone"]), row["telephone"])
        try:
            event = _event_of(values)
        except ContractViolation as error:
            problems += [Problem(f"{where}, {each.where}", each.code, each.message) for each in error.problems]
            continue
        if event.application_id in seen:
            problems.append(Problem(where, "applications.doubled", f"{event.application_id} is there more than once"))
        seen.add(event.application_id)
        found.append(Application(event, _OUTCOMES[outcome]))
    if problems:
        more = len(problems) - _MOST_LISTED
        rest = [Problem("further lines", "applications.more", f"{more} more problems")] if more > 0 else []
        raise ConfigurationError("the applications cannot be used", problems[:_MOST_LISTED] + rest)
    return found


def _event_of(values: dict[str, object]) -> ApplicationSubmitted:
    try:
        return ApplicationSubmitted.model_validate(values, strict=False)  # a CSV file has nothing but text
    except ValidationError as error:
        raise violation(ApplicationSubmitted, error) from None
