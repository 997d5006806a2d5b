"""Naming: what a platform's span is, which record it is about, and what its hop is called."""

from pavane_tracing.conventions import EVENT_ID, EVENT_TYPE, MESSAGING, SAGA_STEP, SAGA_UNDO
from pavane_tracing.sent import Key
from pavane_tracing.span import SpanRow

Record = tuple[str, str]
"""Topic and event id."""


def is_work(row: SpanRow) -> bool:
    """Whether a span is the platform's ``process``: the work of a step, or of the coordinator."""
    return row.kind == "CONSUMER" and EVENT_TYPE in row.attributes


def is_send(row: SpanRow) -> bool:
    """Whether a span is the platform's ``send``."""
    return row.kind == "PRODUCER" and EVENT_TYPE in row.attributes


def name_of(row: SpanRow) -> str:
    """The hop that a span is part of, by name: who sent or worked on which event."""
    who = row.text(SAGA_STEP) or row.service
    what = row.text(EVENT_TYPE)
    if what is None:
        return f"{who}, {row.name}"
    if row.kind == "PRODUCER":
        return f"{who} -> {what}"
    return f"{what} -> {'undo of ' if SAGA_UNDO in row.attributes else ''}{who}"


def record_of(row: SpanRow) -> Record:
    """The record that a platform's span is about."""
    return row.text(MESSAGING.destination) or "", row.text(EVENT_ID) or ""


def worker(row: SpanRow) -> str:
    """Who works: the step, or the service where it is none's."""
    return row.text(SAGA_STEP) or row.service


def links_of(row: SpanRow) -> set[Key]:
    """The spans that a span is linked to."""
    return {(link.trace_id, link.span_id) for link in row.links}


def is_linked(row: SpanRow, sends: set[Key]) -> bool:
    """Whether a span is a child of one of these, or linked to it."""
    return not sends.isdisjoint({(row.trace_id, row.parent_span_id or ""), *links_of(row)})


def counted(number: int, noun: str) -> str:
    """So many of them, in words: 1 saga, 2 sagas."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
