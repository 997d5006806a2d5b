"""History: the set of a saga's facts, with the indexes that the rules read. And the plan they are read against."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pavane_saga.facts import (
    Answered,
    Decided,
    Declared,
    Ended,
    Fact,
    Fired,
    Granted,
    Happened,
    Locked,
    LockRefused,
    Requested,
    Settled,
    StepPlan,
    UndoFailed,
    Undone,
)

if TYPE_CHECKING:
    from pavane_saga.commands import Command

Unit = tuple[str, tuple[str, ...]]
"""A unit of work: a step's wire name and the sorted ids of the events it was called with."""

_STRENGTH: Final[Mapping[Literal["done", "failed", "skipped"], int]] = {"done": 3, "failed": 2, "skipped": 1}


Owing = tuple[StepPlan, int, int]
"""A step that listens to a type, and the offsets between which it owes an answer: from, and up to but not including."""

_EVER: Final = 1 << 63


def declared_after(known: tuple[Declared, ...], new: Declared) -> tuple[Declared, ...]:
    """An agent's declarations of a lane with one more, oldest first. Where its steps are as before, it follows the last."""
    if known and known[-1].steps == new.steps:
        return (*known[:-1], replace(new, since=known[-1].since, until=known[-1].until))
    return (*known, new)


@dataclass(frozen=True)
class Plan:
    """What a lane of the coordinator knows of one saga: where it starts and ends, and what was declared so far.

    ``declared``: by agent, what it declared last; ``earlier``: what it had declared before that, oldest first. An event
    owes the steps of the version in force at its offset: also long after, where it waits to be tried again. ``former``: every
    version that ever declared, with the steps that owe no undo under it; None where that was not noted. Of two versions
    with the same steps the others know only the later one.
    """

    saga: str
    starts: str
    completes: str
    fails: frozenset[str]
    declared: Mapping[str, Declared]
    former: Mapping[str, frozenset[str] | None] = field(default_factory=dict[str, "frozenset[str] | None"])
    earlier: Mapping[str, tuple[Declared, ...]] = field(default_factory=dict[str, tuple[Declared, ...]])
    steps: Mapping[str, StepPlan] = field(init=False, repr=False, compare=False)
    versions: frozenset[str] = field(init=False, repr=False, compare=False)
    asking: frozenset[str] = field(init=False, repr=False, compare=False)
    """The types that pivots take, also those of earlier declarations."""

    externals: frozenset[str] = field(init=False, repr=False, compare=False)
    """The types that steps take which wait for something from outside."""

    changed: frozenset[str] = field(init=False, repr=False, compare=False)
    """The steps that owe an undo under one version and none under another."""

    lasting: frozenset[str] = field(init=False, repr=False, compare=False)
    """The steps that change something which nothing undoes, also those of earlier declarations."""

    _pivots: frozenset[str] = field(init=False, repr=False, compare=False)
    _free: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)
    _owed: Mapping[str, tuple[Owing, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owed: dict[str, list[Owing]] = {}
        steps: dict[str, StepPlan] = {}
        free = {version: names for version, names in self.former.items() if names is not None}
        bound: set[str] = set()
        lasting: set[str] = set()
        pivots: list[StepPlan] = []
        for agent, last in self.declared.items():
            sequence = (*self.earlier.get(agent, ()), last)
            for place, declared in enumerate(sequence):
                steps.update((step.name, step) for step in declared.steps)
                free[declared.version] = declared.free
                bound.update(step.name for step in declared.steps if step.effects)
                lasting.update(step.name for step in declared.steps if step.retriable)
                pivots.extend(step for step in declared.steps if step.pivot)
                for event_type, found in _owed_by(declared, sequence[place + 1 :]):
                    owed.setdefault(event_type, []).append(found)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "versions", frozenset({*self.former, *(each.version for each in self.declared.values())}))
        object.__setattr__(self, "changed", frozenset(bound.intersection(set[str]().union(*free.values()))))
        object.__setattr__(self, "lasting", frozenset(lasting))
        object.__setattr__(self, "_free", free)
        object.__setattr__(self, "_pivots", frozenset(step.name for step in pivots))
        object.__setattr__(self, "asking", frozenset(kind for step in pivots for kinds in step.consumes for kind in kinds))
        externals = [step.consumes for step in steps.values() if step.external]
        object.__setattr__(self, "externals", frozenset(kind for arms in externals for kinds in arms for kind in kinds))
        object.__setattr__(self, "_owed", {name: tuple(found) for name, found in owed.items()})

    def steps_for(self, event_type: str) -> Collection[Owing]:
        """The steps that listen to a type, or did, observers aside, each with the offsets for which it owes an answer."""
        return self._owed.get(event_type, ())

    def owing(self, event: Happened) -> Iterator[StepPlan]:
        """The steps that owe an answer to an event."""
        for step, since, until in self.steps_for(event.type):
            if since <= event.offset < until:
                yield step

    def has_effects(self, step: str) -> bool:
        """Whether a step's effect must be undone. Of a step that nobody declared nothing is known: then it may have to."""
        found = self.steps.get(step)
        return found is None or found.effects

    def had_effects(self, step: str, version: str | None) -> bool:
        """The same of a step as that version of its agent had it; of one of which that was not noted, it may have to. Whoever
        says no version had it as it is declared now."""
        if version is None:
            return self.has_effects(step)
        free = self._free.get(version)
        return free is None or step not in free

    def is_join(self, step: str) -> bool:
        """Whether a step takes more than one event."""
        found = self.steps.get(step)
        return found is not None and len(found.consumes) > 1

    def is_pivot(self, step: str) -> bool:
        """Whether a step begins on a grant, and is the point of no return."""
        found = self.steps.get(step)
        return found is not None and found.pivot

    def was_pivot(self, step: str) -> bool:
        """Whether a step is a pivot, or was one by an earlier declaration."""
        return step in self._pivots

    def begins_on_grant(self, step: str, event: Happened) -> bool:
        """Whether a step waits with that event for its grant: as a pivot by the declaration under which it owes an answer.
        By one under which it was none it was called at once."""
        return any(each.pivot for each in self.owing(event) if each.name == step)

    def is_observer(self, step: str) -> bool:
        """Whether a step is outside the bookkeeping."""
        found = self.steps.get(step)
        return found is not None and found.observer


def _owed_by(declared: Declared, later: tuple[Declared, ...]) -> Iterator[tuple[str, Owing]]:
    """What the steps of one declaration owe: from its own offsets on, up to those of the next one that reads the topic.

    A topic that no later one reads is not owed for any more: nobody is there who would answer.
    """
    since = dict(declared.since)
    retired = {step: dict(topics) for step, topics in declared.until}
    for step in declared.steps:
        for event_type in {each for alternatives in step.consumes for each in alternatives}:
            if not step.observer:
                first = since.get(event_type, 0)
                ends = [dict(each.since)[event_type] for each in later if event_type in dict(each.since)]
                until = (ends[0] if ends else first) if later else _EVER
                if step.retiring:
                    until = min(until, retired.get(step.name, {}).get(event_type, 0))
                yield event_type, (step, first, until)


_NOTHING: Final[dict[Any, Any]] = {}
_NOBODY: Final[frozenset[Any]] = frozenset()
"""What histories have of most kinds; they share it, for nothing of theirs is ever changed in place."""


class History:
    """An immutable set of facts of one saga, indexed. Extending it copies small dicts: a saga has some twenty facts.

    ``events`` by id; ``outputs``: the events that answered a unit; ``settled``: a unit's strongest settlement without an
    event (done > failed > skipped); ``answered``: what was admitted from outside, by type; ``granted``: the units that the
    coordinator let begin, with the last retry; ``requests`` for locks, the ``locks`` that it holds, and those ``refused``,
    with who holds them; ``undone``, by an agent or by hand, beats ``undo_failed``, of which the last retry counts; what
    operators decided: ``retries``, ``skipped``, ``abandoned``; ``types`` seen; ``fired`` and ``failing`` turn the saga
    back, as ``fails`` events do, ``overdue`` does not; ``declarations``: the versions that answers name. Where two facts
    compete for one place, which one gets it does not depend on which came first. ``due`` is the engine's note: what it
    found due, and under which plan.
    """

    __slots__ = (
        "_known",
        "abandoned",
        "answered",
        "declarations",
        "due",
        "ended",
        "events",
        "failing",
        "fired",
        "granted",
        "locks",
        "outputs",
        "overdue",
        "refused",
        "requests",
        "retries",
        "settled",
        "skipped",
        "types",
        "undo_failed",
        "undone",
    )

    _known: dict[str, Fact]
    events: Mapping[str, Happened]
    outputs: Mapping[Unit, tuple[Happened, ...]]
    settled: Mapping[Unit, Settled]
    failing: Mapping[str, Settled]
    fired: Mapping[str, Fired]
    answered: Mapping[str, str]
    granted: Mapping[Unit, int]
    requests: Mapping[Unit, Requested]
    locks: frozenset[str]
    refused: Mapping[str, str]
    overdue: Fired | None
    undone: frozenset[Unit]
    undo_failed: Mapping[Unit, UndoFailed]
    retries: Mapping[Unit, Decided]
    skipped: frozenset[Unit]
    abandoned: Decided | None
    types: frozenset[str]
    declarations: frozenset[str]
    ended: Ended | None
    due: "tuple[Plan, tuple[Command, ...]] | None"

    def __init__(self) -> None:
        self._known = {}
        self.events = _NOTHING
        self.outputs = _NOTHING
        self.settled = _NOTHING
        self.failing = _NOTHING
        self.fired = _NOTHING
        self.answered = _NOTHING
        self.granted = _NOTHING
        self.requests = _NOTHING
        self.locks = _NOBODY
        self.refused = _NOTHING
        self.overdue = None
        self.undone = _NOBODY
        self.undo_failed = _NOTHING
        self.retries = _NOTHING
        self.skipped = _NOBODY
        self.abandoned = None
        self.types = _NOBODY
        self.declarations = _NOBODY
        self.ended = None
        self.due = None

    @property
    def facts(self) -> Collection[Fact]:
        """All of them."""
        return self._known.values()

    def knows(self, identity: str) -> bool:
        """Whether a fact of that identity is among them."""
        return identity in self._known

    def with_facts(self, facts: Iterable[Fact]) -> "History":
        """The set with these facts, too; the same history where all are known. A declaration is a lane's: ignored here."""
        new: dict[str, Fact] = {}
        for fact in facts:
            identity = fact.identity
            if identity not in self._known and not isinstance(fact, Declared):
                new.setdefault(identity, fact)
        if not new:
            return self
        grown = self._copy()
        grown._known = {**self._known, **new}
        happened = [fact for fact in new.values() if isinstance(fact, Happened)]
        if happened:
            grown._add_events(happened)
        if len(happened) < len(new):
            for identity, fact in new.items():
                grown._add(identity, fact)
        return grown

    def answers(self) -> frozenset[Unit]:
        """Every unit that has answered, in whichever way, if only in part."""
        return frozenset((*self.outputs, *self.settled))

    def has_all_parts(self, unit: Unit) -> bool:
        """Whether a unit answered with events, and every part of its answer is there."""
        outputs = self.outputs.get(unit)
        if outputs is None:
            return False
        if len(outputs) == 1:
            return outputs[0].parts == outputs[0].part == 1
        parts = {event.part for event in outputs}
        return all(part in parts for part in range(1, 1 + max(event.parts for event in outputs)))

    def is_done(self, unit: Unit) -> bool:
        """Whether a unit is done: all its parts are there, or a fact says so."""
        if self.has_all_parts(unit):
            return True
        settled = self.settled.get(unit)
        return settled is not None and settled.how == "done"

    def is_settled(self, unit: Unit) -> bool:
        """Whether a unit has answered, one way or another; an answer with a part missing is none yet."""
        return unit in self.settled or self.has_all_parts(unit)

    def _copy(self) -> "History":
        copy = History.__new__(History)
        copy.events = self.events
        copy.outputs = self.outputs
        copy.settled = self.settled
        copy.failing = self.failing
        copy.fired = self.fired
        copy.answered = self.answered
        copy.granted = self.granted
        copy.requests = self.requests
        copy.locks = self.locks
        copy.refused = self.refused
        copy.overdue = self.overdue
        copy.undone = self.undone
        copy.undo_failed = self.undo_failed
        copy.retries = self.retries
        copy.skipped = self.skipped
        copy.abandoned = self.abandoned
        copy.types = self.types
        copy.declarations = self.declarations
        copy.ended = self.ended
        copy.due = None
        return copy

    def _add_events(self, happened: Collection[Happened]) -> None:
        self.events = {**self.events, **{event.id: event for event in happened}}
        self.types = self.types.union([event.type for event in happened])
        outputs = dict(self.outputs)
        for event in happened:
            if event.declaration is not None and event.declaration not in self.declarations:
                self.declarations |= {event.declaration}
            if event.step is not None:
                unit = (event.step, event.causes)
                outputs[unit] = (*outputs.get(unit, ()), event)
        self.outputs = outputs

    def _add(self, identity: str, fact: Fact) -> None:
        if isinstance(fact, Settled):
            self._settle(identity, fact)
        elif isinstance(fact, Answered):
            self.answered = {**self.answered, fact.type: fact.event}
        elif isinstance(fact, Requested | Locked | LockRefused | Granted):
            self._let_begin(fact)
        elif isinstance(fact, Undone):
            self.undone |= {(fact.step, fact.causes)}
        elif isinstance(fact, UndoFailed):
            unit = (fact.step, fact.causes)
            known = self.undo_failed.get(unit)
            if known is None or (-fact.retry, identity) < (-known.retry, known.identity):
                self.undo_failed = {**self.undo_failed, unit: fact}
        elif isinstance(fact, Decided):
            self._decide(fact)
        elif isinstance(fact, Fired) and fact.rule == "overdue":
            self.overdue = fact
        elif isinstance(fact, Fired):
            self.fired = {**self.fired, fact.rule: fact}
        elif isinstance(fact, Ended):
            self.ended = fact

    def _let_begin(self, fact: Requested | Locked | LockRefused | Granted) -> None:
        if isinstance(fact, Requested):
            self.requests = {**self.requests, (fact.step, fact.causes): fact}
        elif isinstance(fact, Locked):
            self.locks |= {fact.lock}
        elif isinstance(fact, LockRefused):
            self.refused = {**self.refused, fact.lock: fact.holder}
        else:
            unit = (fact.step, fact.causes)
            self.granted = {**self.granted, unit: max(fact.retry, self.granted.get(unit, 0))}

    def _decide(self, fact: Decided) -> None:
        unit = (fact.step, fact.causes)
        if fact.verb == "retry":
            known = self.retries.get(unit)
            if known is None or fact.number > known.number:
                self.retries = {**self.retries, unit: fact}
        elif fact.verb == "done":
            self.undone |= {unit}
        elif fact.verb == "skip":
            self.skipped |= {unit}
        else:
            self.abandoned = fact

    def wanted(self) -> Iterator[Requested]:
        """The requests for locks whose units have not answered and were not let begin, in a fixed order."""
        for unit, request in sorted(self.requests.items(), key=lambda each: each[0]):
            if unit not in self.granted and unit not in self.settled and unit not in self.outputs:
                yield request

    def awaited_locks(self) -> list[str]:
        """The locks that it waits for: before a step begins, or before one begins again that an operator asked for."""
        again = [request for unit, request in self.requests.items() if unit in self.retries]
        return sorted({each.lock for each in (*self.wanted(), *again)} - self.locks)

    def retry_of(self, unit: Unit) -> int:
        """How often operators asked for that undo, or that step, again."""
        found = self.retries.get(unit)
        return found.number if found is not None else 0

    def versions_of(self, unit: Unit) -> set[str | None]:
        """The versions of its agent that answered for a unit, and may have done what it does."""
        found = {event.declaration for event in self.outputs.get(unit, ())}
        settled = self.settled.get(unit)
        if settled is not None:
            found.add(settled.declaration)
        found.update(each.declaration for each in self.failing.values() if each.began and (each.step, each.causes) == unit)
        return found

    def stuck(self) -> tuple[UndoFailed, ...]:
        """The undos that failed and about which nobody has decided since, in a fixed order."""
        return tuple(
            failed
            for unit, failed in sorted(self.undo_failed.items(), key=lambda each: each[0])
            if unit not in self.undone and unit not in self.skipped and failed.retry >= self.retry_of(unit)
        )

    def _settle(self, identity: str, fact: Settled) -> None:
        unit = (fact.step, fact.causes)
        known = self.settled.get(unit)
        if known is None or _strength(fact) > _strength(known):
            self.settled = {**self.settled, unit: fact}
        if fact.how == "failed":
            self.failing = {**self.failing, identity: fact}
        if fact.declaration is not None:
            self.declarations |= {fact.declaration}


def _strength(settled: Settled) -> tuple[int, int, bool, str]:
    """done > failed > skipped; of two failures the later try, then the one that may have begun; then any order, but always
    the same."""
    return _STRENGTH[settled.how], settled.retry, settled.began, settled.identity
