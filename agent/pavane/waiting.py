"""Waiting: the index of inputs that wait in a delay tier, by saga. Rows of lane state, beside the record in the tier.

The row is the truth: it is written by the commit that sends an input to a tier, and deleted by the commit that settles it.
A record that comes out of a tier and finds no row was settled meanwhile, by the end of its saga: it is dropped.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from pavane.arms import Held
from pavane.overlay import Overlay
from pavane_events.envelope import Envelope, parse_structured
from pavane_events.record import Record

_PREFIX: Final = b"r/"
_COUNT: Final = b"r"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One input that waits. ``causes``: of the call to come; ``arms``: of a join, the inputs that are not in the tier."""

    step: str
    causes: tuple[str, ...]
    attempts: int
    due_ms: int
    arms: Held

    def encode(self) -> bytes:
        """The row."""
        row: dict[str, object] = {
            "step": self.step,
            "causes": self.causes,
            "attempts": self.attempts,
            "due_ms": self.due_ms,
        }
        if self.arms:
            row["arms"] = {name: envelope.to_structured().decode() for name, envelope in self.arms.items()}
        return json.dumps(row, separators=(",", ":")).encode()


def _decode(row: bytes) -> Waiting:
    fields = cast("dict[str, object]", json.loads(row))
    arms = cast("dict[str, str]", fields.get("arms", {}))
    return Waiting(
        step=str(fields["step"]),
        causes=tuple(cast("list[str]", fields["causes"])),
        attempts=int(cast("int", fields["attempts"])),
        due_ms=int(cast("int", fields["due_ms"])),
        arms={name: parse_structured(text.encode()) for name, text in arms.items()},
    )


def place_of(record: Record, envelope: Envelope, step: str) -> bytes | None:
    """The row of an input with a step: by saga, else by the record's key; None where it has neither, and no order."""
    owner = envelope.saga
    if owner is None:
        if record.key is None:
            return None
        owner = "=" + hashlib.sha256(record.key).hexdigest()[:32]
    return b"%s%s/%s/%s/%020d" % (_PREFIX, owner.encode(), step.encode(), record.topic.encode(), record.offset)


class Index:
    """A lane's rows. How many there are is a row, too: where nothing waits nothing is looked for."""

    def __init__(self, state: Overlay) -> None:
        self._state = state
        self.count = int(state.get(_COUNT) or 0)

    def get(self, place: bytes) -> Waiting | None:
        """What waits there; None where nothing does, or no longer."""
        row = self._state.get(place)
        return _decode(row) if row is not None else None

    def before(self, place: bytes) -> Waiting | None:
        """The first input of that saga, step and topic that waits, if it came before that one: then it goes first."""
        if not self.count:
            return None
        first = next(self._state.scan(place[: place.rindex(b"/") + 1]), None)
        return _decode(first[1]) if first is not None and first[0] < place else None

    def of_saga(self, saga: str) -> Iterator[tuple[bytes, Waiting]]:
        """Everything of a saga that waits."""
        if self.count:
            for place, row in self._state.scan(b"%s%s/" % (_PREFIX, saga.encode())):
                yield place, _decode(row)

    def drop(self, saga: str, step: str, causes: tuple[str, ...]) -> None:
        """That call is being undone: should it still wait, it is never made. The next commit says so, whichever it is."""
        for place, waiting in [*self.of_saga(saga)]:
            if waiting.step == step and sorted(waiting.causes) == sorted(causes):
                self.change({place: None})

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Apply the changes of finished work to the lane's state, and keep count of the rows among them."""
        before = self.count
        for key, value in changes.items():
            if key.startswith(_PREFIX):
                self.count += (value is not None) - (self._state.get(key) is not None)
        self._state.change(changes)
        if self.count != before:
            self._state.change({_COUNT: str(self.count).encode() if self.count else None})
