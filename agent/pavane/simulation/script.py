"""Script: which faults a history is to have, and which points it came by. The bus and the calls ask it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pavane.simulation.points import PAST, UPGRADE, Fault, Faults, Point
from pavane_events.buses.faults import UNTIL_RELEASED, Crash, Loss

_HELD_BACK: Final = ("late", PAST)
"""What holds a topic back until the world hands it out."""

Choice = Callable[[Point], str | None]
"""What goes wrong at a point, if anything."""


def as_written(faults: Faults) -> Choice:
    """Those faults, each at its point."""
    wanted = {fault.point: fault.action for fault in faults}
    return wanted.get


def nothing(point: Point) -> str | None:
    """No fault anywhere."""
    return None


@dataclass
class Script:
    """One history after another. It is a :class:`~pavane_events.buses.faults.BadDay`, too.

    ``struck``: what went wrong so far, in order. ``look``: called at each point that comes by, with it.
    ``upgrade``: called where a lane's group is to be taken over by its next version. ``open``: what has struck and does
    not show in what is said, read and called: a topic that is held back, one that is handed out twice, until the lane's next
    turn, a version that is gone, an answer that is not given.
    """

    choice: Choice = nothing
    look: Callable[[Point], None] | None = None
    upgrade: Callable[[str], None] | None = None
    struck: list[Fault] = field(default_factory=list[Fault])
    open: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])
    _counts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def begin(self, choice: Choice, look: Callable[[Point], None] | None = None) -> None:
        """Another history begins."""
        self.choice, self.look = choice, look
        self.struck = []
        self.open = set()
        self._counts.clear()

    def at(self, what: str, where: str) -> str | None:
        """A point comes by. What goes wrong at it, if anything."""
        number = self._counts[what, where] = self._counts.get((what, where), 0) + 1
        point = Point(what, where, number)
        if self.look is not None:
            self.look(point)
        action = self.choice(point)
        if action is not None:
            self.struck.append(Fault(point, action))
        return action

    # --- as the bus asks ------------------------------------------------------------------------------------------

    def crash(self, lane: str) -> Crash | None:
        """At a commit."""
        action = self.at("commit", _where(lane))
        if action is None:
            return None
        return "before" if action == "crash-before" else "after"

    def loss(self, lane: str) -> Loss | None:
        """At a receive or commit."""
        where = _where(lane)
        if self.open:
            self.open -= {each for each in self.open if each[0] == "again" and each[1].partition(" ")[0] == where}
        action = self.at("turn", where)
        if action == UPGRADE and self.upgrade is not None:
            self.open.add((UPGRADE, where))
            self.upgrade(where)
            return None
        if action is None:
            return None
        return "told" if action == "taken" else "untold"

    def rewind(self, lane: str, topic: str) -> int:
        """Where something was handed out and is not committed."""
        where = f"{_where(lane)} {topic}"
        if self.at("again", where) is None:
            return 0
        self.open.add(("again", where))
        return 1

    def hold(self, lane: str, topic: str) -> int:
        """Where a topic has something new."""
        where = f"{_where(lane)} {topic}"
        action = self.at("late", where)
        if action is None:
            return 0
        if action not in _HELD_BACK:
            return int(action.removeprefix("late-"))
        self.open.add((action, where))
        return UNTIL_RELEASED

    @property
    def holds_past(self) -> bool:
        """Whether something is held back until a saga's deadline has come."""
        return any(each[0] == PAST for each in self.open)

    def released(self) -> None:
        """What was held back is handed out."""
        self.open = {each for each in self.open if each[0] not in _HELD_BACK}

    def choose(self, choices: int) -> int | None:
        """In the order in which they were written: another order is what ``late`` is for."""
        return None


def _where(lane: str) -> str:
    """A lane as a history names it: the first lane of a group by that group."""
    return lane.removesuffix("/0")
