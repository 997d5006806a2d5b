"""Plain: the headers of an event as lanes write them, read without looking twice. Whatever else comes is read with care.

Nearly every record that a lane reads was written by another lane. Here it is taken apart by a few operations on all its
headers at once; where anything is unusual there is no answer, and :mod:`pavane_events.envelope` reads it and says
what is wrong. Both ways give the same (``tests/unit/test_envelope_plain.py``).
"""

from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Final, cast

_ATTRIBUTES: Final = (
    "id",
    "source",
    "type",
    "time",
    "subject",
    "dataschema",
    "sagaid",
    "causationid",
    "causes",
    "step",
    "depth",
    "declaration",
)
_CHECKED: Final = ("specversion", "part")
USUAL: Final = ("content-type", *(f"ce_{name}" for name in _ATTRIBUTES + _CHECKED), "traceparent", "tracestate")
"""The headers of an event as lanes write them."""

Text = str | None
Plain = tuple[str, str, str, Text, Text, Text, Text, Text, tuple[str, ...], Text, int, Text, Text, Text]
"""An event's id, source, type, time, subject, dataschema, saga, causation, causes, step, depth and declaration, and its
``traceparent`` and ``tracestate``; None for what it does not have."""

_Texts = tuple[Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text, Text]
_Sort = Callable[[list[Text]], _Texts]
"""Puts the texts of headers, and None after them, into the order of :data:`_ORDER`, and None where there is none."""

_ORDER: Final = [
    *(f"ce_{name}" for name in _ATTRIBUTES),
    "traceparent",
    "tracestate",
    "content-type",
    "ce_specversion",
    "ce_part",
]
_MOST_SORTS: Final = 256
_SORTS: Final[dict[tuple[str, ...], _Sort]] = {}
"""By names of headers as they came: lanes write theirs in one order, so they are few."""

_TOGETHER: Final = 2048
"""Characters of all attributes together: then none is too long by itself."""

_NUMBERS: Final = {str(number): number for number in range(100)}


def plain(names: tuple[str, ...], values: tuple[bytes, ...]) -> Plain | None:
    """What the headers of an event say, by their names and as many values; None where anything is unusual.

    What is given is sure: known names, each once; ``id``, ``source`` and ``type``; text that can be printed, and not
    too much of it; a time with a zone; a saga id without a slash; ``depth`` a number, one part of one; at most one cause.
    """
    if not names:
        return None
    sort = _SORTS.get(names) or _sort_of(names)
    if sort is None:
        return None
    try:
        together = b"\x00".join(values).decode()
    except UnicodeDecodeError:
        return None
    texts: list[Text] = [*together.split("\x00")]
    if len(texts) != len(values) or len(together) > _TOGETHER or not together.replace("\x00", "").isprintable():
        return None
    texts.append(None)
    (
        identity,
        source,
        kind,
        time,
        subject,
        schema,
        saga,
        causation,
        causes,
        step,
        depth,
        declaration,
        parent,
        state,
        content,
        specification,
        part,
    ) = sort(texts)
    if content != "application/json" or specification != "1.0" or (part is not None and part != "1/1"):
        return None
    if not (identity and source and kind) or (saga is not None and "/" in saga):
        return None
    number = _NUMBERS.get(depth) if depth is not None else 0
    if number is None or (time is not None and not _is_time(time)):
        return None
    if not together.isascii() and not ((parent or "") + (state or "")).isascii():
        return None
    if causes is None:
        all_causes: tuple[str, ...] = ()
    elif _is_one_cause(causes):
        all_causes = (causes[2:-2],)
    else:
        return None
    return (
        identity,
        source,
        kind,
        time,
        subject or None,
        schema or None,
        saga or None,
        causation or None,
        all_causes,
        step or None,
        number,
        declaration or None,
        parent,
        state,
    )


def _sort_of(names: tuple[str, ...]) -> _Sort | None:
    """How texts of these headers are sorted; None where a header is unusual, or there twice."""
    if len(set(names)) != len(names) or not set(names) <= set(USUAL):
        return None
    places = {name: place for place, name in enumerate(names)}
    sort = cast("_Sort", itemgetter(*(places.get(name, -1) for name in _ORDER)))
    if len(_SORTS) < _MOST_SORTS:
        _SORTS[names] = sort
    return sort


def _is_time(time: str) -> bool:
    try:
        return datetime.fromisoformat(time).tzinfo is not None
    except ValueError:
        return False


def _is_one_cause(causes: str) -> bool:
    """Whether it is a JSON array of one string in which nothing is escaped."""
    return len(causes) > 4 and causes[:2] == '["' and causes[-2:] == '"]' and causes.count('"') == 2 and "\\" not in causes
