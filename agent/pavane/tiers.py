"""Tiers: a long pause between attempts is spent on a topic of the agent's own, not in memory.

Every record of a tier waits equally long from its append, by the bus's clock: so they lie in order of the time at which
they are due, and a lane needs to look at the first of them only. A pause that fits no tier is made of several.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.envelope import LONGEST_ATTRIBUTE, NO_TRACE, TRACE_HEADERS, Envelope, Trace
from pavane_events.errors import Problem, UndecodableRecord
from pavane_events.record import Message, Record

HEADER: Final = "pavane_retry"
"""The one header that a record in a tier has more than it had before: JSON, and always the last."""

ROOM: Final = MAX_RECORD_BYTES - 32_768
"""What a record may have and still take that header, trace context and all."""

SPARE: Final = 1.25
"""A pause may grow by a quarter where that saves it further tiers: retries are spread by about as much anyhow."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A topic on which every record waits that long from its append."""

    name: str
    delay_s: float

    def topic(self, agent: str) -> str:
        """Where that agent's inputs wait."""
        return f"{agent}.retry-{self.name}"


TIERS: Final = (Tier("1s", 1.0), Tier("5s", 5.0), Tier("30s", 30.0), Tier("5m", 300.0))
"""In order of delay. They are on the wire: one that were removed would keep what waits in it for ever."""


def tier_topics(agent: str) -> Mapping[str, Tier]:
    """An agent's tiers by topic."""
    return {tier.topic(agent): tier for tier in TIERS}


def is_long(pause_s: float, in_lane_s: float) -> bool:
    """Whether a pause is worth a tier, where pauses up to ``in_lane_s`` are spent in memory."""
    return pause_s > max(in_lane_s, TIERS[0].delay_s)


def tier_for(pause_s: float, *, exact: bool) -> Tier:
    """The tier that such a pause begins in; what is left after it is a pause of its own.

    The shortest that is long enough, if it is not more than a quarter too long (and nothing has to be ``exact``: a step
    with a deadline); else the longest that is not too long.
    """
    above = next((tier for tier in TIERS if tier.delay_s >= pause_s), None)
    if above is not None and above.delay_s <= pause_s * (1 if exact else SPARE):
        return above
    return next((tier for tier in reversed(TIERS) if tier.delay_s <= pause_s), TIERS[0])


@dataclass(frozen=True, slots=True)
class Delay:
    """A unit that is to be tried again after a pause too long for memory. ``attempts``: how many were made so far."""

    attempts: int
    pause_s: float
    reason: str
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Delayed:
    """What a record in a tier says. ``left_s``: what is left of the pause after this tier; ``trace``: the attempt before."""

    record: Record
    original: Record
    step: str
    attempts: int
    left_s: float
    reason: str
    exact: bool
    trace: Trace

    def again(self, pause_s: float) -> Delay:
        """The same, to wait that much longer."""
        return Delay(self.attempts, pause_s, self.reason, self.exact)


def fits(record: Record) -> bool:
    """Whether a record can take the header that a tier needs. One that cannot spends its pauses in memory."""
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers <= ROOM


def to_tier(original: Record, agent: str, step: str, delay: Delay, trace: Trace) -> Message:
    """The record as it came, key, value and headers untouched, as a message for the tier that its pause begins in."""
    tier = tier_for(delay.pause_s, exact=delay.exact)
    said: dict[str, object] = {
        "topic": original.topic,
        "offset": original.offset,
        "appended_ms": original.timestamp_ms,
        "step": step,
        "attempts": delay.attempts,
        "left_ms": max(0, round((delay.pause_s - tier.delay_s) * 1000)),
        "reason": delay.reason[:200],
    }
    if delay.exact:
        said["exact"] = True
    said.update(trace.said())
    header = (HEADER, json.dumps(said, separators=(",", ":")).encode())
    parsed = original.parsed if isinstance(original.parsed, Envelope) else None
    return Message(
        tier.topic(agent), original.value, original.key, (*original.headers, header), original.partition, parsed=parsed
    )


def from_tier(record: Record) -> Delayed:
    """What :func:`to_tier` wrote. Raises :class:`UndecodableRecord` for anything else."""
    try:
        name, value = record.headers[-1]
        said = cast("dict[str, object]", json.loads(value)) if name == HEADER else {}
        carried = {field: str(said[field]) for field in TRACE_HEADERS if field in said}
        original = Record(
            _text(said["topic"]),
            record.partition,
            _number(said["offset"]),
            record.key,
            record.value,
            record.headers[:-1],
            _number(said["appended_ms"]),
            record.parsed if isinstance(record.parsed, Envelope) else None,
        )
        return Delayed(
            record=record,
            original=original,
            step=_text(said["step"]),
            attempts=_number(said["attempts"]),
            left_s=_number(said["left_ms"]) / 1000,
            reason=_text(said["reason"]),
            exact=said.get("exact") is True,
            trace=Trace(**carried) if carried else NO_TRACE,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        problem = Problem(HEADER, "retry.unreadable", "the last header must be the one that this agent writes")
        raise UndecodableRecord("no delayed input", [problem]) from None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_ATTRIBUTE:
        raise ValueError("no text")
    value.encode()  # what is no Unicode text cannot be a key of state
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("no number")
    return value
