"""Units: the pieces of work of a lane, an input with a step or an undo, and how each ends."""

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from pavane.step import AnyStep
from pavane.tiers import Delayed
from pavane.waiting import place_of
from pavane_events.envelope import Envelope, Trace
from pavane_events.record import Message, Record
from pavane_saga.wire import GrantRead, UndoRequest
from pavane_tracing.propagation import is_continued


class Way:
    """By which way a span was come to: the event under the trace that it is a child of, what else it is linked to.

    ``begins``: it is the root of a new trace, linked to the event's, too.
    """

    __slots__ = ("begins", "envelope", "links")

    def __init__(self, envelope: Envelope, links: tuple[Trace, ...] = (), *, begins: bool = False) -> None:
        self.envelope = envelope
        self.links = links
        self.begins = begins


Interruption = Literal["ended", "stopping", "given up"]
"""The saga has ended; the lane stops, and what runs may finish; the lane has stopped, or is lost: nothing of it counts."""

UNDO_UNIT: Final = "undo"
CONTROL_UNIT: Final = "control"


class Pausing:
    """Work that pauses between attempts, and what may end the pause early.

    ``record`` is the input, as it came; ``delayed`` is there where it waited in a delay tier since, and comes from there.
    """

    __slots__ = ("delayed", "envelope", "interrupted", "pause", "record")

    def __init__(self, record: Record, envelope: Envelope, *, delayed: Delayed | None = None) -> None:
        self.record = record
        self.envelope = envelope
        self.delayed = delayed
        self.pause: asyncio.Future[Interruption | None] | None = None
        self.interrupted: Interruption | None = None

    @property
    def settles(self) -> Record:
        """The record that is done when this is finished: the input, or where it waited."""
        return self.record if self.delayed is None else self.delayed.record

    @property
    def attempts(self) -> int:
        """How many attempts were made before."""
        return 0 if self.delayed is None else self.delayed.attempts

    @property
    def came_from(self) -> "Way":
        """What its span goes on from. A delayed attempt's: as the one before it stamped; one without a stamp is older."""
        delayed = self.delayed
        if delayed is None:
            return Way(self.envelope)
        if is_continued(delayed.trace):
            return Way(self.envelope.with_trace(delayed.trace), (self.envelope.trace,))
        return Way(self.envelope, (delayed.trace,), begins=True)

    def interrupt(self, why: Interruption) -> None:
        """End a pause, now or as soon as one begins. What is given up stays so."""
        if self.interrupted != "given up":
            self.interrupted = why
        if self.pause is not None and not self.pause.done():
            self.pause.set_result(why)


class Unit(Pausing):
    """One input for one step. ``may_have_begun``: an earlier holder of the lane may have called the step on it.

    ``otherwise``: that holder may have been of another version, and have taken what this one refuses; ``begun_on``: or have
    begun on other inputs, these; ``under``: that version, where the step owed an undo under it and owes none now: the answer
    is that version's. ``granted``: the coordinator lets the step begin; then ``record`` is its command, and ``envelope`` the
    last input that it names.
    """

    __slots__ = ("_place", "begun_on", "granted", "key", "may_have_begun", "otherwise", "step", "under")

    def __init__(
        self,
        record: Record,
        envelope: Envelope,
        step: AnyStep,
        may_have_begun: bool,
        *,
        otherwise: bool = False,
        begun_on: Sequence[str] = (),
        under: str | None = None,
        granted: GrantRead | None = None,
        delayed: Delayed | None = None,
    ) -> None:
        super().__init__(record, envelope, delayed=delayed)
        self.step = step
        self.may_have_begun = may_have_begun
        self.otherwise = otherwise
        self.begun_on = begun_on
        self.under = under
        self.granted = granted
        saga = envelope.saga
        observer = step.wire_name if step.options.observer else None
        self.key: tuple[str | bytes | None, str | None] = (saga if saga is not None else record.key, observer)
        """What it queues behind: the saga (else the record's key); an observer's queue is its own, it holds up nobody."""

        self._place: bytes | None = None

    @property
    def name(self) -> str:
        """The name under which progress counts it."""
        return self.step.wire_name

    @property
    def owes_undo(self) -> bool:
        """Whether an undo is owed for what was begun on it."""
        return self.step.owes_undo or self.under is not None

    @property
    def retry(self) -> int:
        """The how manyth time that an operator asked for it; 0: nobody did."""
        return self.granted.retry if self.granted is not None else 0

    @property
    def place(self) -> bytes | None:
        """Its row in the index of what waits; None where it can have none."""
        if self._place is None:
            self._place = place_of(self.record, self.envelope, self.step.wire_name)
        return self._place


class UndoUnit(Pausing):
    """One undo that the coordinator asks for. It never queues behind events."""

    __slots__ = ("request",)

    def __init__(self, record: Record, envelope: Envelope, request: UndoRequest, *, delayed: Delayed | None = None) -> None:
        super().__init__(record, envelope, delayed=delayed)
        self.request = request

    @property
    def name(self) -> str:
        """The name under which progress counts it."""
        return UNDO_UNIT

    @property
    def key(self) -> None:
        """Nothing to queue behind."""
        return


_NO_CHANGES: Final[Mapping[bytes, bytes | None]] = MappingProxyType({})


class Done:
    """A unit is finished: what is published and what changes in the lane's state, in one commit with its input."""

    __slots__ = ("messages", "state")

    def __init__(self, messages: Sequence[Message] = (), state: Mapping[bytes, bytes | None] = _NO_CHANGES) -> None:
        self.messages = messages
        self.state = state


class Abandoned(Exception):
    """A unit was given up unfinished, because the lane stops: its input stays, its next holder begins it again."""
