"""Commands: what the engine calls for. Equal commands are one command: it is issued once."""

from dataclasses import dataclass, field
from typing import Literal

from pavane_saga.facts import Verdict


@dataclass(frozen=True, slots=True)
class Halt:
    """The saga turned back: every agent is told, once."""

    code: str = field(compare=False)
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Undo:
    """A step is to be undone, with its outputs where it is known to be done. ``retry``: see :class:`UndoFailed`."""

    step: str
    causes: tuple[str, ...]
    retry: int = field(default=0, kw_only=True)
    outputs: tuple[str, ...] = field(compare=False)
    outcome: Literal["done", "unknown"] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """A step may begin on those causes: the pivot, or one that failed after it and is asked for again (``retry``)."""

    step: str
    causes: tuple[str, ...]
    retry: int = 0


@dataclass(frozen=True, slots=True)
class Acquire:
    """The saga needs that lock before a step of it may begin. ``refuse``: the step does not wait for it; another may."""

    lock: str
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """A step's lock is another saga's, and it does not wait: it fails. ``begun_under``: it may have begun, all the same."""

    step: str
    causes: tuple[str, ...]
    lock: str = field(compare=False)
    holder: str = field(compare=False)
    begun_under: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Park:
    """An undo failed for good, or a step after the pivot did: somebody has to decide. ``forward``: it is a step."""

    step: str
    causes: tuple[str, ...]
    retry: int = field(default=0, kw_only=True)
    forward: bool = field(default=False, kw_only=True)
    code: str = field(compare=False)
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class End:
    """The verdict. ``let_go``: arms of joins that can no longer be filled, by event id and step."""

    verdict: Verdict
    let_go: tuple[tuple[str, str], ...] = field(default=(), compare=False)


Command = Halt | Undo | Grant | Acquire | Refuse | Park | End
"""Equal commands are one command: what a later fact adds to it (outputs, a code) does not make another."""
