"""History: the set of a saga's facts, with the indexes that the rules read. And the plan they are read against."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from pavane_saga.facts import Declared, Ended, Fact, Fired, Happened, Settled, StepPlan, UndoFailed, Undone

Causes = tuple[str, ...]
Unit = tuple[str, Causes]
"""A unit of work: a step's wire name and the sorted ids of the events it was called with."""

_STRENGTH = {"done": 3, "failed": 2, "skipped": 1}


@dataclass(frozen=True)
class Plan:
    """What a lane of the coordinator knows of one saga: where it starts and ends, and what was declared so far."""

    saga: str
    starts: str
    completes: str
    fails: frozenset[str]
    declared: Mapping[str, Declared]
    steps: Mapping[str, StepPlan] = field(init=False, repr=False, compare=False)
    versions: frozenset[str] = field(init=False, repr=False, compare=False)
    _owed: Mapping[str, tuple[tuple[StepPlan, int], ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owed: dict[str, list[tuple[StepPlan, int]]] = {}
        for declared in self.declared.values():
            since = dict(declared.since)
            for step in declared.steps:
                for event_type in {each for alternatives in step.consumes for each in alternatives}:
                    if not step.observer:
                        owed.setdefault(event_type, []).append((step, since.get(event_type, 0)))
        steps = {step.name: step for declared in self.declared.values() for step in declared.steps}
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "versions", frozenset(each.version for each in self.declared.values()))
        object.__setattr__(self, "_owed", {name: tuple(found) for name, found in owed.items()})

    def steps_for(self, event_type: str) -> Collection[tuple[StepPlan, int]]:
        """The steps that listen to a type, observers aside, each with the offset from which on it owes an answer."""
        return self._owed.get(event_type, ())

    def owes_undo(self, step: str) -> bool:
        """Whether a step's effect must be undone. Of a step that nobody declared nothing is known: then it must."""
        found = self.steps.get(step)
        return found is None or found.effects


class History:
    """An immutable set of facts of one saga, indexed. Extending it copies a few small dicts: a saga has some twenty facts.

    ``events`` by id; ``outputs``: the events that answered a unit, by part; ``settled``: a unit's strongest settlement
    (done > failed > skipped); ``undone`` beats ``undo_failed``; ``types`` seen; ``fired`` and ``failing``: what turns
    the saga back, ``fails`` events aside.
    """

    __slots__ = (
        "_known",
        "ended",
        "events",
        "failing",
        "fired",
        "outputs",
        "settled",
        "types",
        "undo_failed",
        "undone",
    )

    def __init__(self) -> None:
        self._known: dict[str, Fact] = {}
        self.events: dict[str, Happened] = {}
        self.outputs: dict[Unit, dict[int, Happened]] = {}
        self.settled: dict[Unit, Settled] = {}
        self.failing: dict[str, Settled] = {}
        self.fired: dict[str, Fired] = {}
        self.undone: frozenset[Unit] = frozenset()
        self.undo_failed: dict[Unit, UndoFailed] = {}
        self.types: frozenset[str] = frozenset()
        self.ended: Ended | None = None

    @property
    def facts(self) -> Collection[Fact]:
        """All of them."""
        return self._known.values()

    def with_facts(self, facts: Iterable[Fact]) -> "History":
        """The set with these facts, too; the same history where all of them are known."""
        new = [fact for fact in facts if fact.identity not in self._known]
        if not new:
            return self
        grown = History()
        for name in self.__slots__:
            value: object = getattr(self, name)
            setattr(grown, name, dict(value) if isinstance(value, dict) else value)
        grown.outputs = {unit: dict(parts) for unit, parts in self.outputs.items()}
        for fact in new:
            grown._add(fact)
        return grown

    def _add(self, fact: Fact) -> None:
        if fact.identity in self._known:
            return
        self._known[fact.identity] = fact
        if isinstance(fact, Happened):
            self.events[fact.id] = fact
            self.types |= {fact.type}
            if fact.step is not None:
                parts = self.outputs.setdefault((fact.step, fact.causes), {})
                known = parts.get(fact.part)
                if known is None or fact.id < known.id:
                    parts[fact.part] = fact
        elif isinstance(fact, Settled):
            self._settle(fact)
        elif isinstance(fact, Undone):
            self.undone |= {(fact.step, fact.causes)}
        elif isinstance(fact, UndoFailed):
            self.undo_failed.setdefault((fact.step, fact.causes), fact)
        elif isinstance(fact, Fired):
            self.fired[fact.rule] = fact
        elif isinstance(fact, Ended):
            self.ended = fact

    def _settle(self, fact: Settled) -> None:
        unit = (fact.step, fact.causes)
        known = self.settled.get(unit)
        if known is None or _strength(fact) > _strength(known):
            self.settled[unit] = fact
        if fact.how == "failed":
            self.failing[fact.identity] = fact


def _strength(settled: Settled) -> tuple[int, bool, str]:
    """done > failed > skipped; of two failures the one that may have begun; then any order, but always the same."""
    return _STRENGTH[settled.how], settled.began, settled.identity
