"""Points: where in a history something can go wrong, what can, and how a history is written down and read again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pavane_events.errors import ConfigurationError, Problem

ACTIONS: Mapping[str, Sequence[str]] = {
    "commit": ("crash-before", "crash-after"),
    "turn": ("taken", "zombie"),
    "again": ("twice",),
    "late": ("late",),
    "do": ("crash-before", "crash-after", "zombie", "fail-once", "fail", "fail-after", "reject", "hang"),
    "ask": ("crash-before", "crash-after", "fail-once", "fail", "hang"),
    "answer": ("twice", "too-late", "never"),
    "intake": ("twice", "twice-late"),
    "parked": ("done", "skip", "abandon"),
    "undo": ("crash-before", "crash-after", "zombie", "twice", "fail-once", "fail", "fail-after", "hang"),
}
"""What can be done to a history at a point, by the kind of point.

``commit``: a lane commits, its holder dies before or after. ``turn``: a lane reads or commits, and is taken from its
holder, who is told or (a *zombie*) not. ``again``: what was handed out and is not committed is handed out twice.
``late``: new records of a topic come only when all else has happened (:data:`FINER`: otherwise). ``intake``: a
record from outside is there twice, by the same source and id: the second at once, or when the saga is over. ``do`` and
``undo``: a step or its undo is called: its process dies before or after; the lane goes elsewhere, and the old holder does it
when all else is over (*zombie*); it fails once, or at every attempt, before or (*after*) having had its effect; it says no;
it does not answer in time; an undo is done twice. ``ask``: a reconciliation is called; it and an undo hang only where
something ends that (:class:`Possible`). ``parked``: something has failed for good, and a person does not ask for it again,
but has done it by hand, leaves it, or abandons the saga. ``answer``: somebody outside is asked, and answers twice, or when
the saga is over, or never.
"""

PAST = "late-past"

FINER: Mapping[str, Sequence[str]] = {"late": ("late-1", "late-2", PAST)}
"""What is tried alone and by lot, and not in pairs, for there it would be half as many again: new records of a topic come one
receive later, or two, or (*past*) only when a saga's deadline has come."""

UPGRADE = "upgrade"
"""At a ``turn`` of an agent of which a next version is given: that one takes over."""

NEUTRAL = frozenset(
    {"crash-before", "crash-after", "taken", "zombie", "twice", "twice-late", "late", "late-1", "late-2", UPGRADE}
)
"""What may happen to any saga without changing how it ends."""

_FAULT = re.compile(r"(?P<what>[a-z]+):(?P<where>[^#=,;]+)#(?P<number>\d+)=(?P<action>[a-z0-9-]+)")


class Point(NamedTuple):
    """The ``number``-th time, from 1, that this happened there: ``commit`` of a lane, ``do`` of a step."""

    what: str
    where: str
    number: int

    def __str__(self) -> str:
        return f"{self.what}:{self.where}#{self.number}"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What goes wrong at a point."""

    point: Point
    action: str

    def __str__(self) -> str:
        return f"{self.point}={self.action}"


Faults = tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Possible:
    """What can go wrong in one choreography. ``upgrades``: the groups of which there is a next version. ``unbounded``: the
    undos and reconciliations, each as ``what`` and ``where``, that have no ``within``: one that hung would hang for ever."""

    upgrades: frozenset[str] = frozenset()
    unbounded: frozenset[tuple[str, str]] = frozenset()

    def at(self, point: Point) -> Sequence[str]:
        """What can go wrong at a point."""
        found = ACTIONS[point.what]
        if point.what == "turn" and point.where in self.upgrades:
            return (*found, UPGRADE)
        if point[:2] in self.unbounded:
            return [each for each in found if each != "hang"]
        return found

    def finely(self, point: Point) -> Sequence[str]:
        """The same, and what is tried alone and by lot only."""
        return (*self.at(point), *FINER.get(point.what, ()))


def write_faults(faults: Sequence[Fault]) -> str:
    """Faults as one word of a command line."""
    return ",".join(map(str, faults))


def read_faults(text: str) -> Faults:
    """What :func:`write_faults` wrote. Raises :class:`ConfigurationError`."""
    faults: list[Fault] = []
    problems: list[Problem] = []
    for part in filter(None, text.split(",")):
        match = _FAULT.fullmatch(part)
        if match is None or match["action"] not in (
            *ACTIONS.get(match["what"], ()),
            *FINER.get(match["what"], ()),
            UPGRADE,
        ):
            example = "do:credit-score/compute_score#1=crash-after"
            problems.append(Problem(part, "replay.form", f"that is no fault, as {example} is one"))
        else:
            faults.append(Fault(Point(match["what"], match["where"], int(match["number"])), match["action"]))
    if problems:
        raise ConfigurationError("that history cannot be read", problems)
    return tuple(faults)
