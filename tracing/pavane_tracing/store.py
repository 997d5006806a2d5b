"""The local span store: spans as rows on the bus's own topic, so that a saga's trace is read back without any server.

The spans of one unit of work are one message, published in the very commit of that unit: a span is kept exactly if
what it tells of happened.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from pydantic_core import to_json

from pavane_events.bus import Bus
from pavane_events.compact import read_json
from pavane_events.errors import UnknownTopic
from pavane_events.record import Message, Record
from pavane_tracing.conventions import SPANS_DROPPED
from pavane_tracing.span import SpanRow, Value, row_from_json

SPANS_TOPIC = "pavane.spans"
MAX_SPANS_BYTES = 256_000
"""The most that the spans of one unit of work may take: far below a record's limit, so they never fail a commit."""


def encode(rows: Sequence[SpanRow], saga: str | None, *, partition: int | None = None) -> Message:
    """The spans of one unit of work as one message for :data:`SPANS_TOPIC`, keyed by saga.

    What belongs to no saga yet is keyed by its trace, so that :func:`spans_of` finds how a saga came to be. Where the
    spans are too large together, the platform's own stay and the user's go first; the first row kept says how many
    were dropped.
    """
    value = _dump(rows)
    if len(value) > MAX_SPANS_BYTES:
        value = _dump(_within(rows, MAX_SPANS_BYTES - 100))
    key = saga or (rows[0].trace_id if rows else None)
    return Message(topic=SPANS_TOPIC, value=value, key=key.encode() if key else None, partition=partition)


def decode(record: Record) -> list[SpanRow]:
    """The rows of one record; none where it is no list of spans (the topic is diagnostics: junk is passed over)."""
    try:
        document = read_json(record.value or b"[]")
        return [row_from_json(entry) for entry in cast("list[object]", document)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


async def spans_of(bus: Bus, saga: str) -> list[SpanRow]:
    """Every span kept of one saga and of what led to it, by start time. Raises :class:`BusError`."""
    rows = await _read(bus, saga)
    known = {row.span_id for row in rows}
    lost = {row.trace_id for row in rows if row.parent_span_id is not None and row.parent_span_id not in known}
    for trace_id in sorted(lost):
        rows += await _read(bus, trace_id)
    return sorted(rows, key=lambda row: row.start_ns)


async def all_spans(bus: Bus) -> list[SpanRow]:
    """Every span kept, by start time. Raises :class:`BusError`."""
    return sorted(await _read(bus, None), key=lambda row: row.start_ns)


async def _read(bus: Bus, key: str | None) -> list[SpanRow]:
    rows: list[SpanRow] = []
    try:
        async for record in bus.read(SPANS_TOPIC, key=key.encode() if key is not None else None):
            rows += decode(record)
    except UnknownTopic:
        return []
    return rows


def _dump(rows: Iterable[SpanRow]) -> bytes:
    documents = [row.to_json() for row in rows]
    try:
        return to_json(documents, inf_nan_mode="constants", bytes_mode="base64", fallback=str)
    except ValueError:  # a lone surrogate, say
        return _ENCODER.encode(documents).encode()


def _plain(value: object) -> str:
    return base64.urlsafe_b64encode(value).decode() if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)


def _within(rows: Sequence[SpanRow], limit: int) -> list[SpanRow]:
    kept: list[SpanRow] = []
    for row in sorted(rows, key=lambda row: row.kind not in ("CONSUMER", "PRODUCER")):
        for candidate in (row, replace(row, events=()), replace(row, events=(), attributes=_short(row.attributes))):
            size = len(_dump([candidate]))
            if size <= limit:
                kept.append(candidate)
                limit -= size
                break
    dropped = len(rows) - len(kept)
    if dropped and kept:
        kept[0] = replace(kept[0], attributes={**kept[0].attributes, SPANS_DROPPED: dropped})
    return kept


def _short(attributes: Mapping[str, Value]) -> Mapping[str, Value]:
    return {key: value for key, value in attributes.items() if not isinstance(value, str) or len(value) <= 200}
