"""Dead letter: a record that could not be worked on, kept with its bytes untouched and the reason beside them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.errors import Problem
from pavane_events.record import Message, Record

PREFIX = "pavane_"

_MOST_PROBLEMS = 50
_LONGEST_WHERE = 200
_LONGEST_MESSAGE = 500


def dead_letters_topic(agent: str) -> str:
    """The topic of an agent's dead letters."""
    return f"{agent}.dead-letters"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record was given up: a stable code, who gave it up after how many attempts, and every problem found.

    ``traceparent``: of the span that gave it up, where there was one.
    """

    code: str
    step: str
    attempt: int = 0
    version: str = ""
    problems: tuple[Problem, ...] = ()
    traceparent: str | None = None


def dead_letter(record: Record, agent: str, reason: Reason) -> Message:
    """The record as a message for the agent's dead letters: key, value and headers untouched, the reason in headers.

    Reasons carry field paths, codes and rules, never values. A record too large to take the extra headers leaves its
    value where it is: ``pavane_truncated`` says so, and the source position finds it.
    """
    problems = [
        {"where": each.where[:_LONGEST_WHERE], "code": each.code, "message": each.message[:_LONGEST_MESSAGE]}
        for each in reason.problems[:_MOST_PROBLEMS]
    ]
    extra = {
        "error_code": reason.code,
        "error_step": reason.step,
        "error_attempt": str(reason.attempt),
        "error_version": reason.version,
        "error_problems": json.dumps(problems, ensure_ascii=False),
        **({"error_traceparent": reason.traceparent} if reason.traceparent is not None else {}),
        "source_topic": record.topic,
        "source_partition": str(record.partition),
        "source_offset": str(record.offset),
    }
    headers = (*record.headers, *((PREFIX + name, value.encode(errors="replace")) for name, value in extra.items()))
    message = Message(dead_letters_topic(agent), record.value, record.key, headers, partition=record.partition)
    if message.size() <= MAX_RECORD_BYTES:
        return message
    headers = (*headers[len(record.headers) :], (PREFIX + "truncated", b"true"))
    return Message(message.topic, None, (record.key or b"")[:1000] or None, headers, partition=record.partition)


def reason_headers(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """The reason of a dead letter as its headers say it, names without the prefix."""
    return {name.removeprefix(PREFIX): value.decode(errors="replace") for name, value in headers if name.startswith(PREFIX)}
