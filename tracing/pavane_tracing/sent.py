"""Sent: what the event log proves of a saga, in the words of traces: which record was sent, and who worked on what."""

from dataclasses import dataclass
from typing import Literal

from pavane_events.envelope import Envelope
from pavane_tracing.propagation import span_context

Key = tuple[str, str]
"""A span: its trace's id and its own, as hex."""

Kind = Literal["event", "answer", "requested", "grant", "undo", "undone", "other"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A committed record of a saga. ``id`` is what the ``process`` span of whoever works on it says as ``event.id``.

    ``send``: the span that the record names as its sender's, None where it names none; ``sampled``: whether spans were
    made at all. What a record proves: an ``event`` of a step, and the ``answer`` (done, failed, skipped) of one without
    an event, that the step worked on each of ``causes``; ``requested``, that it held them and asked; ``grant`` and ``undo``
    are commands to a step about ``causes``, ``undone`` the answer to an undo, ``retry`` the how manyth. ``links``: of an
    undo, what the step had sent. ``again``: its receiver may work on it more than once.
    """

    topic: str
    id: str
    type: str
    saga: str
    send: Key | None
    sampled: bool = True
    kind: Kind = "other"
    step: str = ""
    causes: tuple[str, ...] = ()
    links: tuple[Key, ...] = ()
    again: bool = False


def span_of(envelope: Envelope) -> tuple[Key | None, bool]:
    """The span that a record names as its sender's, and whether it was sampled."""
    context = span_context(envelope.trace)
    if context is None:
        return None, True
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}"), bool(context.trace_flags.sampled)
