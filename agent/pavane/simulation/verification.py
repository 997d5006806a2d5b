"""Verification: what a user wants proven of a choreography, and over which sagas."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

from pavane.agent import Agent
from pavane.simulation.points import Possible
from pavane.step import AnyStep
from pavane_events.envelope import Envelope
from pavane_events.errors import DeclarationError, Problem
from pavane_events.event import Event
from pavane_saga.saga import Saga
from pavane_saga.wire import COORDINATOR

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class SagaPlayed:
    """One saga of a history that is over. ``verdict``: as the coordinator said. ``events``: all that were said in it."""

    id: str
    start: Event
    verdict: str
    events: Sequence[Envelope]

    def said(self, kind: type[E]) -> list[E]:
        """The events of a class, read."""
        return [kind.from_json(each.data) for each in self.events if each.type == kind.event_type]


@dataclass(frozen=True, slots=True)
class HistoryPlayed:
    """A history that is over: all its sagas have ended."""

    sagas: Sequence[SagaPlayed]


Invariant = Callable[[HistoryPlayed], None]
"""Looks at the user's own stores; raises AssertionError, in words, where they are not as they should be."""


class Answer:
    """What somebody outside answers: ``Answer(ReviewAsked, lambda asked: Reviewed(ok=True))``. In some histories it comes
    twice, too late, or never."""

    def __init__(self, to: type[E], give: Callable[[E], Event]) -> None:
        self.to: type[Event] = to
        self.give = cast("Callable[[Event], Event]", give)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What is to be verified: agents and sagas, the events that start one, and what must hold when all is over.

    ``starts``: by a name of yours, an event that starts a saga, or several events that start as many side by side. Give
    one for each way that a saga can take: approved, declined, refused. A history is written down with the name: it is one
    line, without ``;`` and without a ``+`` that stands alone. ``invariant``: called after each history.
    ``reset``: called before each; empties your stores. ``around``: entered before the agents start and left when they
    have stopped, once for some hundred histories; opens your stores, or settles where they are. ``next_versions``: agents
    as they will be, each of the name of one of ``agents``, that take over from it in mid-saga. ``next_sagas``: sagas as they
    will be, each of the name of one of ``sagas``, by a coordinator that takes over in mid-saga. ``answers``: what somebody
    outside says to an event that asks.

    Steps run as they are, on virtual time: what they call outside must be a stand-in that is not asked over a network.
    """

    agents: Sequence[Agent]
    sagas: Sequence[Saga]
    starts: Mapping[str, Event | Sequence[Event]]
    invariant: Invariant | None = None
    reset: Callable[[], None] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    next_versions: Sequence[Agent] = ()
    next_sagas: Sequence[Saga] = ()
    answers: Sequence[Answer] = ()
    _scenarios: Mapping[str, Sequence[Event]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scenarios = {name: (each,) if isinstance(each, Event) else tuple(each) for name, each in self.starts.items()}
        object.__setattr__(self, "_scenarios", scenarios)
        problems = list(self._problems())
        if problems:
            raise DeclarationError("that cannot be verified", problems)

    @property
    def scenarios(self) -> Mapping[str, Sequence[Event]]:
        """By name, the start events of a history."""
        return self._scenarios

    @property
    def patience_s(self) -> float:
        """Longer than any saga may take, in virtual seconds."""
        bounds = [each.within for step in self._steps() for each in (step.undo, step.reconciliation) if each is not None]
        longest = max(
            [saga.deadline for saga in (*self.sagas, *self.next_sagas)] + [each for each in bounds if each is not None]
        )
        return (longest + timedelta(minutes=2)).total_seconds()

    @property
    def possible(self) -> Possible:
        """What can go wrong in it."""
        unbounded: set[tuple[str, str]] = set()
        for step in self._steps():
            if step.undo is not None and step.undo.within is None:
                unbounded.add(("undo", step.wire_name))
            if step.reconciliation is not None and step.reconciliation.within is None:
                unbounded.add(("ask", step.wire_name))
        upgrades = {each.name for each in self.next_versions}
        if self.next_sagas:
            upgrades.add(COORDINATOR)
        return Possible(frozenset(upgrades), frozenset(unbounded))

    @property
    def sagas_then(self) -> Sequence[Saga]:
        """The sagas once the coordinator has been upgraded."""
        changed = {saga.name: saga for saga in self.next_sagas}
        return [changed.get(saga.name, saga) for saga in self.sagas]

    def _steps(self) -> Iterator[AnyStep]:
        for agent in (*self.agents, *self.next_versions):
            yield from agent.steps.values()

    def saga_of(self, start: Event) -> Saga:
        """The saga that an event starts."""
        return next(saga for saga in self.sagas if saga.starts.event_type == start.event_type)

    def _problems(self) -> list[Problem]:
        problems: list[Problem] = []
        if not self.agents or not self.sagas:
            problems.append(Problem("agents, sagas", "verify.empty", "name at least one agent and one saga"))
        names = {agent.name for agent in self.agents}
        known = {saga.starts.event_type for saga in self.sagas}
        problems += [
            Problem(agent.name, "verify.version", "it is the next version of none of the agents")
            for agent in self.next_versions
            if agent.name not in names
        ]
        enter = {saga.name: (saga.starts.event_type, saga.intake) for saga in self.sagas}
        problems += [
            Problem(saga.name, "verify.version", "it is the next version of none of the sagas, or starts otherwise than that")
            for saga in self.next_sagas
            if enter.get(saga.name) != (saga.starts.event_type, saga.intake)
        ]
        if not self.scenarios:
            problems.append(Problem("starts", "verify.starts", "give at least one event that starts a saga"))
        problems += [
            Problem(f"starts[{name!r}]", "verify.name", f"a history is written down with it: {wrong}")
            for name in self.scenarios
            if (wrong := _unfit(name)) is not None
        ]
        for name, events in self.scenarios.items():
            if not events:
                problems.append(Problem(f"starts[{name!r}]", "verify.starts", "it holds no event"))
            for event in events:
                if event.event_type not in known:
                    message = f"{event.event_type} starts none of the sagas: {', '.join(sorted(known))} do"
                    problems.append(Problem(f"starts[{name!r}]", "verify.starts", message))
        return problems


def _unfit(name: str) -> str | None:
    """Why a scenario's name cannot stand in a history's line, beside others; None where it can."""
    if not name or name != name.strip():
        return "it must not be empty, nor begin or end with a space"
    if not name.isprintable():
        return "it must be one line of what can be printed"
    if ";" in name:
        return "it must not hold a semicolon"
    if "+" in name.split():
        return "a + must not stand alone in it"
    return None


def names_of(scenario: str) -> list[str]:
    """A scenario's name, or the names of several that are played side by side."""
    return scenario.split(" + ")
