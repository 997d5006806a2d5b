"""Faults for the memory bus: what a real bus does on a bad day, drawn from a seed so that a failure can be replayed."""

import random
from dataclasses import dataclass, field
from typing import Literal, Protocol

Crash = Literal["before", "after"]
Loss = Literal["told", "untold"]

UNTIL_RELEASED = -1
"""How long a topic stays silent: until :meth:`~pavane_events.buses.memory.MemoryBus.release`."""


class BadDay(Protocol):
    """What the memory bus asks at each point at which a real one may go wrong. ``lane`` is ``group/partition``.

    The answers are its own: drawn by lot (:class:`Faults`), or as a history that is to be played says.
    """

    def crash(self, lane: str) -> Crash | None:
        """Whether the lane dies at this commit, and on which side of it."""
        ...

    def loss(self, lane: str) -> Loss | None:
        """Whether the lane is taken away at this receive or commit, and whether its holder is told."""
        ...

    def rewind(self, lane: str, topic: str) -> int:
        """By how many records, handed out and not committed, a topic of the lane is wound back."""
        ...

    def hold(self, lane: str, topic: str) -> int:
        """For how many receives a topic with new records stays silent; :data:`UNTIL_RELEASED`: until then."""
        ...

    def choose(self, choices: int) -> int | None:
        """Which of so many topics comes next; None: the one that was written first."""
        ...


_LONGEST_DELAY = 6
_LONGEST_REWIND = 3


@dataclass(slots=True)
class Faults:
    """Which faults the memory bus injects, each as a probability between 0 and 1. One seed, one history.

    ``crash_before`` and ``crash_after``: per commit, the lane is lost before or after the commit took effect; its
    holder sees :class:`~pavane_events.errors.LaneLost` either way and cannot tell which.
    ``lost``: per receive or commit, the lane is taken away and granted again; in half of the cases its holder is not
    told, reads on, and learns of it at its next commit (a zombie).
    ``duplicate``: per receive, a topic of the lane is wound back by up to three records that are not committed yet.
    ``delay``: per topic and receive, its records stay invisible for up to six more receives.
    ``reorder``: per record, the next topic is drawn by lot and not by time of publication. Within one partition of a
    topic nothing ever changes places.

    ``history`` says what was injected, in order. Set ``active`` to False to let a scenario settle.
    """

    seed: int
    crash_before: float = 0.0
    crash_after: float = 0.0
    lost: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    active: bool = True
    history: list[str] = field(default_factory=list[str])
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def crash(self, lane: str) -> Crash | None:
        """Whether the lane dies at this commit, and on which side of it."""
        if self._strikes(self.crash_before):
            self.history.append(f"{lane}: crash before the commit")
            return "before"
        if self._strikes(self.crash_after):
            self.history.append(f"{lane}: crash after the commit")
            return "after"
        return None

    def loss(self, lane: str) -> Loss | None:
        """Whether the lane is taken away now, and whether its holder is told."""
        if not self._strikes(self.lost):
            return None
        loss: Loss = "told" if self._random.random() < 0.5 else "untold"
        self.history.append(f"{lane}: taken away, {loss}")
        return loss

    def rewind(self, lane: str, topic: str) -> int:
        """By how many records a topic of the lane is wound back now."""
        if not self._strikes(self.duplicate):
            return 0
        records = self._random.randint(1, _LONGEST_REWIND)
        self.history.append(f"{lane}: {topic} wound back by {records}")
        return records

    def hold(self, lane: str, topic: str) -> int:
        """For how many receives a topic of the lane stays silent from now on."""
        if not self._strikes(self.delay):
            return 0
        receives = self._random.randint(1, _LONGEST_DELAY)
        self.history.append(f"{lane}: {topic} held back for {receives}")
        return receives

    def choose(self, choices: int) -> int | None:
        """Which of so many topics comes next, where the lot decides; None where time does."""
        return self._random.randrange(choices) if self._strikes(self.reorder) else None

    def _strikes(self, probability: float) -> bool:
        return self.active and probability > 0 and self._random.random() < probability
