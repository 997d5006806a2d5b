"""Batch: what gathers at a desk until the next commit, and what that commit is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pavane_events.envelope import Envelope
from pavane_events.record import Message, Record
from pavane_saga.facts import Fact


@dataclass(frozen=True, slots=True)
class Decision:
    """One commit of the coordinator."""

    done: Mapping[str, int]
    outputs: Sequence[Message]
    state: Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class News:
    """A fact, with the event that brought it."""

    fact: Fact
    envelope: Envelope
    record: Record


@dataclass(slots=True)
class Batch:
    """What gathers until the next commit."""

    done: dict[str, int] = field(default_factory=dict[str, int])
    outputs: list[Message] = field(default_factory=list[Message])
    state: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    news: dict[str, list[News]] = field(default_factory=dict[str, list[News]])
    blocked: list[News] = field(default_factory=list[News])
