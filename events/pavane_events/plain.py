"""Plain: the headers of an event as lanes write them, read without looking twice. Whatever else comes is read with care.

Nearly every record that a lane reads was written by another lane. Here it is taken apart by a few operations on all its
headers at once; where anything is unusual there is no answer, and :mod:`pavane_events.envelope` reads it and says
what is wrong. Both ways give the same (``tests/unit/test_envelope_plain.py``).
"""

from collections.abc import Mapping
from datetime import datetime

from pavane_events.record import Headers

USUAL = {
    "content-type": "content-type",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    **{
        f"ce_{name}": name
        for name in (
            "specversion",
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
            "part",
            "declaration",
        )
    },
}
"""The headers of an event as lanes write them, with the names of their attributes."""

_TOGETHER = 2048
"""Characters of all attributes together: then none is too long by itself."""

_NUMBERS = {str(number): number for number in range(100)}


def plain_attributes(headers: Headers) -> Mapping[str, str] | None:
    """The attributes of an event by name, ``traceparent`` and ``tracestate`` with them; None where anything is unusual.

    What is given is sure: known names, each once; ``id``, ``source`` and ``type``; text that can be printed, and not
    too much of it; a time with a zone; a saga id without a slash; ``depth`` a number, one part of one; at most one cause.
    """
    given = dict(headers)
    if len(given) != len(headers) or not given.keys() <= USUAL.keys():
        return None
    if given.get("content-type") != b"application/json" or given.get("ce_specversion") != b"1.0":
        return None
    try:
        together = b"\x00".join(given.values()).decode()
    except UnicodeDecodeError:
        return None
    texts = together.split("\x00")
    if len(texts) != len(given) or len(together) > _TOGETHER or not "".join(texts).isprintable():
        return None
    attributes = dict(zip([USUAL[name] for name in given], texts, strict=True))
    get = attributes.get
    if not (get("id") and get("source") and get("type")) or "/" in get("sagaid", ""):
        return None
    if get("part", "1/1") != "1/1" or get("depth", "0") not in _NUMBERS or not _is_time(get("time")):
        return None
    trace = get("traceparent", "") + get("tracestate", "")
    return attributes if trace.isascii() and _is_one_cause(get("causes")) else None


def number_of(attributes: Mapping[str, str]) -> int:
    """The depth of plain attributes."""
    return _NUMBERS[attributes.get("depth", "0")]


def causes_of(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """The causes of plain attributes: none or one."""
    causes = attributes.get("causes")
    return (causes[2:-2],) if causes else ()


def _is_time(time: str | None) -> bool:
    if time is None:
        return True
    try:
        return datetime.fromisoformat(time).tzinfo is not None
    except ValueError:
        return False


def _is_one_cause(causes: str | None) -> bool:
    """Whether it is a JSON array of one string in which nothing is escaped."""
    if causes is None:
        return True
    return len(causes) > 4 and causes[:2] == '["' and causes[-2:] == '"]' and causes.count('"') == 2 and "\\" not in causes
