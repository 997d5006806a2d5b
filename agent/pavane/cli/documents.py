"""Documents: what is to be published, read from a file, standard input or the command line."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from pavane_events.errors import ConfigurationError, Problem

_KINDS: dict[type[object], str] = {
    list: "an array",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON object, and where it stood: ``line 3``, ``item 2``, or nothing where it is alone."""

    where: str
    members: dict[str, object]

    def place(self, field: str = "") -> str:
        """Where a problem is: the document's place and a path in it."""
        return ", ".join(part for part in (self.where, field) if part)

    def to_json(self) -> bytes:
        """The object as UTF-8 JSON, compact."""
        return json.dumps(self.members, separators=(",", ":"), ensure_ascii=False).encode()


def validated_by(contract: str | None, options: str) -> str:
    """By which class documents are valid; where none was at hand, that nobody has looked, and ``options`` that name one."""
    return f"valid by {contract}" if contract is not None else f"not validated here (name {options})"


def read_documents(file: str | None, data: str | None) -> list[Document]:
    """The documents: one JSON object, a JSON array of them, or JSON lines. ``-`` is standard input.

    Raises :class:`ConfigurationError` with every line that is no JSON object.
    """
    if (file is None) == (data is None):
        _refuse("input", "input.which", "name a FILE (- is standard input) or give --data JSON, one of the two")
    text = data if data is not None else _read(file or "")
    if not text.strip():
        _refuse("input", "input.empty", "there is nothing in it to publish")
    problems: list[Problem] = []
    found = _whole(text, problems) or _lines(text, problems)
    if problems:
        raise ConfigurationError("nothing was published: the input cannot be read", problems)
    return found


def _read(file: str) -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig") if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        _refuse(file, "input.unreadable", error.strerror or str(error))
    except UnicodeDecodeError as error:
        _refuse(file, "input.encoding", f"it is not UTF-8 (byte {error.start})")


def _whole(text: str, problems: list[Problem]) -> list[Document]:
    """The text as one JSON value; nothing where it is not one."""
    try:
        value = _loads(text)
    except ValueError as error:
        if "\n" not in text.strip() or text.lstrip().startswith("["):
            problems.append(Problem("input", "input.json", f"not JSON: {error}"))
        return []
    if not isinstance(value, list):
        return _documents([("", value)], problems)
    items = cast("list[object]", value)
    if not items:
        problems.append(Problem("input", "input.empty", "the array is empty: there is nothing to publish"))
    return _documents([(f"item {index}", item) for index, item in enumerate(items, 1)], problems)


def _lines(text: str, problems: list[Problem]) -> list[Document]:
    if problems:
        return []
    values: list[tuple[str, object]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append((f"line {number}", _loads(line)))
            except ValueError as error:
                problems.append(Problem(f"line {number}", "input.json", f"not JSON: {error}"))
    return _documents(values, problems)


def _documents(values: list[tuple[str, object]], problems: list[Problem]) -> list[Document]:
    found: list[Document] = []
    for where, value in values:
        if isinstance(value, dict):
            document = Document(where, cast("dict[str, object]", value))
            try:
                document.to_json()
            except UnicodeEncodeError:
                problems.append(Problem(where or "input", "input.text", "an \\u escape in it is half a character: write both"))
            else:
                found.append(document)
        else:
            message = f"an event's data is a JSON object, this is {_KINDS.get(type(value), 'something else')}"
            problems.append(Problem(where or "input", "input.object", message))
    return found


def read_once(text: str | bytes) -> object:
    """A JSON value in which no object names a member twice: of two the last would count, and nobody would know. Raises
    :class:`ValueError`."""
    return _loads(text, _each_once)


def _loads(text: str | bytes, pairs: Callable[[list[tuple[str, object]]], object] | None = None) -> object:
    try:
        return cast("object", json.loads(text, parse_constant=_no_constant, object_pairs_hook=pairs))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    doubled = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    if doubled:
        raise ValueError(f"an object in it names {', '.join(map(repr, doubled))} more than once")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse(where: str, code: str, message: str) -> NoReturn:
    raise ConfigurationError("nothing was published", [Problem(where, code, message)])
