"""Arms: what a join holds while it waits, and what a tombstone remembers of those it let go. Rows of lane state."""

from collections.abc import Iterator
from typing import Final, cast

from pavane.overlay import Overlay
from pavane_events.compact import read_json, write_json
from pavane_events.envelope import Envelope, parse_structured

Held = dict[str, Envelope]

LetGo = dict[str, dict[str, str]]
"""By step, the arms that were let go: parameter name to event id."""

_FILLED: Final = b"!"
_BEGUN: Final = "?"
"""In place of an arm's name, where the whole may have been begun. It stands first."""


def arms_key(saga: str, step: str) -> bytes:
    """The row of one saga's waiting join. Step names contain one slash, saga ids none."""
    return f"a/{saga}/{step}".encode()


def encode_arms(arms: Held, *, may_have_begun: bool = False) -> bytes:
    """Arms by parameter name, each a structured-mode event with the trace it came under. ``may_have_begun``: they are all
    there, and wait for a grant without which an earlier holder of the lane may have begun on them."""
    row = {_BEGUN: ""} if may_have_begun else dict[str, str]()
    row.update({name: envelope.to_structured().decode() for name, envelope in arms.items()})
    return write_json(row)


def decode_arms(row: bytes | None) -> Held:
    """The arms that wait in a row; none where there is no row, or the join was called."""
    if row is None or row.startswith(_FILLED):
        return {}
    stored = cast("dict[str, str]", read_json(row))
    return {name: parse_structured(text.encode()) for name, text in stored.items() if name != _BEGUN}


def may_have_begun(row: bytes | None) -> bool:
    """Whether what waits in a row may have been begun by an earlier holder of the lane."""
    return row is not None and row.startswith(b'{"?":')


def encode_filled(arms: Held, at_s: float) -> bytes:
    """The row of a join that was called: which event filled which arm, so that a second one is known for what it is."""
    return _FILLED + write_json([int(at_s * 1000), {name: envelope.id for name, envelope in arms.items()}])


def filled_arms(row: bytes | None) -> dict[str, str]:
    """By parameter, the events that a join was called with; nothing where it still waits."""
    return cast("dict[str, str]", _timed(row[1:])[1]) if row is not None and row.startswith(_FILLED) else {}


def filled_ms(row: bytes) -> int | None:
    """When a join was called, in milliseconds since the epoch; None where it waits."""
    return _timed(row[1:])[0] if row.startswith(_FILLED) else None


def arms_of_saga(state: Overlay, saga: str) -> Iterator[tuple[str, bytes, bytes]]:
    """Every waiting join of a saga, and every one that was called: its step, its row's key, and the row."""
    prefix = f"a/{saga}/".encode()
    for key, row in state.scan(prefix):
        yield key[len(prefix) :].decode(), key, row


def tombstone_key(saga: str) -> bytes:
    """The row that says a saga has ended for this lane."""
    return f"t/{saga}".encode()


def encode_tombstone(let_go: LetGo, at_s: float) -> bytes:
    """By step, the arms let go."""
    return write_json([int(at_s * 1000), let_go])


def decode_tombstone(row: bytes) -> LetGo:
    """What :func:`encode_tombstone` wrote."""
    return cast("LetGo", _timed(row)[1])


def tombstone_ms(row: bytes) -> int | None:
    """When it was written, in milliseconds since the epoch."""
    return _timed(row)[0]


def _timed(row: bytes) -> tuple[int | None, object]:
    """A row with the time at which it was written, which earlier versions left out."""
    found = read_json(row)
    if isinstance(found, list):
        at_ms, said = cast("list[object]", found)
        return cast("int", at_ms), said
    return None, found
