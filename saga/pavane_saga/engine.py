"""The engine: what is due for a saga, read off the set of its facts. Pure and total; each rule under its name.

``due`` depends on the set of facts alone, so any interleaving and duplication of the same facts ends in the same state
and has issued the same commands. A rule of the design is one function here, and quotes it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pavane_saga.facts import Fact, Happened, Settled, StepPlan, Verdict
from pavane_saga.history import Causes, History, Plan, Unit

State = Literal["running", "completed", "compensating", "parked", "compensated", "abandoned"]


@dataclass(frozen=True, slots=True)
class Halt:
    """The saga turned back: every agent is told, once."""

    code: str = field(compare=False)
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Undo:
    """A step is to be undone, with its outputs where it is known to be done."""

    step: str
    causes: Causes
    outputs: Causes = field(compare=False)
    outcome: Literal["done", "unknown"] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Park:
    """An undo failed for good: somebody has to decide."""

    step: str
    causes: Causes
    code: str = field(compare=False)
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class End:
    """The verdict. ``let_go``: arms of joins that can no longer be filled, by event id and step."""

    verdict: Verdict
    let_go: tuple[tuple[str, str], ...] = field(default=(), compare=False)


Command = Halt | Undo | Park | End


@dataclass(frozen=True, slots=True)
class Failure:
    """What turned a saga back."""

    code: str
    reason: str
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Debt:
    """An answer that a step owes to an event. ``waiting``: an arm of a join that is not filled."""

    event: str
    type: str
    step: str
    waiting: bool


def decide(plan: Plan, history: History, facts: Iterable[Fact]) -> tuple[History, tuple[Command, ...]]:
    """The history with these facts, and the commands that have become due with them. Each command is issued once."""
    grown = history.with_facts(facts)
    if grown is history or _nothing_to_decide(plan, grown):
        return grown, ()
    before = set(due(plan, history))
    return grown, tuple(command for command in due(plan, grown) if command not in before)


def due(plan: Plan, history: History) -> tuple[Command, ...]:
    """Every command that these facts call for, issued or not."""
    if history.ended is not None or _nothing_to_decide(plan, history):
        return ()
    view = _View(plan, history)
    failed = failure(plan, history)
    if failed is not None:
        return (Halt(failed.code, failed.reason), *_undos_due(view), *_parked(view), *_compensated(view))
    return tuple(_completed(view))


def status(plan: Plan, history: History) -> State:
    """The state of the saga."""
    if history.ended is not None:
        return history.ended.verdict
    if failure(plan, history) is None:
        return "running"
    return "parked" if any(True for _ in _parked(_View(plan, history))) else "compensating"


def failure(plan: Plan, history: History) -> Failure | None:
    """*Failure*: "a ``fails`` event, a failed step, a fired deadline". The first by depth, then by identity."""
    found: list[tuple[int, str, Failure]] = []
    if plan.fails & history.types:
        found.extend(
            (event.depth, event.identity, Failure(event.type, f"{event.type} happened", event.step))
            for event in history.events.values()
            if event.type in plan.fails
        )
    for settled in history.failing.values():
        depth = 1 + max((history.events[each].depth for each in settled.causes if each in history.events), default=0)
        found.append((depth, settled.identity, Failure(settled.code, settled.reason, settled.step)))
    found.extend((1 << 30, fired.identity, Failure(fired.rule, fired.detail)) for fired in history.fired.values())
    return min(found, key=lambda each: each[:2])[2] if found else None


def unseen(plan: Plan, history: History) -> tuple[str, ...]:
    """*All causes named by anybody have been seen*: "the start event, all parts of each emission, declarations".

    What is named and not there yet, readably; empty where everything is.
    """
    missing: set[str] = set()
    if not history.fired.get("unknown") and plan.starts not in history.types:
        missing.add(f"event of type {plan.starts}")
    for unit in _units(history):
        step, causes = unit
        missing.update(f"event {cause}" for cause in causes if cause not in history.events)
        if unit in history.outputs and not _all_parts(history, unit):
            missing.add(f"a part of the answer of {step}")
        if step not in plan.steps:
            missing.add(f"declaration of {step}")
    answers: list[Happened | Settled] = [*history.events.values(), *history.settled.values()]
    for fact in answers:
        if fact.declaration is not None and fact.declaration not in plan.versions:
            missing.add(f"declaration {fact.declaration}")
    return tuple(sorted(missing))


def open_debts(plan: Plan, history: History) -> tuple[Debt, ...]:
    """*Owed answers*: "every event of a saga opens one debt per step that consumes it (observers aside)"."""
    return tuple(_View(plan, history).debts())


def standing(plan: Plan, history: History) -> tuple[Unit, ...]:
    """The units whose effect may stand: done, or failed after they may have begun, and not undone."""
    view = _View(plan, history)
    return tuple(sorted(unit for unit in view.units if view.owes_undo(unit) and unit not in history.undone))


class _View:
    """The facts as the rules look at them: units, who used which event, which debts are open."""

    def __init__(self, plan: Plan, history: History) -> None:
        self.plan = plan
        self.history = history
        self.units = sorted(_units(history))
        self.users: dict[str, list[Unit]] = {}
        self._answered: set[tuple[str, str]] = set()
        for unit in self.units:
            for cause in unit[1]:
                self.users.setdefault(cause, []).append(unit)
            if self.is_settled(unit):
                self._answered.update((cause, unit[0]) for cause in unit[1])

    def is_done(self, unit: Unit) -> bool:
        """Whether a unit is done: all its parts are there, or a fact says so."""
        settled = self.history.settled.get(unit)
        return _all_parts(self.history, unit) or (settled is not None and settled.how == "done")

    def is_settled(self, unit: Unit) -> bool:
        """Whether a unit has answered, one way or another; an answer with a part missing is none yet."""
        return self.is_done(unit) or (unit in self.history.settled and unit not in self.history.outputs)

    def owes_undo(self, unit: Unit) -> bool:
        """*Failure*: "every done or failed step with effects"; not one that provably was never called."""
        if not self.plan.owes_undo(unit[0]):
            return False
        if unit in self.history.outputs or self.is_done(unit):
            return True
        settled = self.history.settled[unit]
        return settled.how == "failed" and settled.began

    def owed(self, event: Happened) -> Iterator[StepPlan]:
        """The steps that owe an answer to an event."""
        for step, since in self.plan.steps_for(event.type):
            if event.offset >= since:
                yield step

    def is_answered(self, event: str, step: str) -> bool:
        """Whether a debt is settled."""
        return (event, step) in self._answered

    def debts(self) -> Iterator[Debt]:
        """The open ones."""
        open_by_step: dict[str, list[Happened]] = {}
        for event in self.history.events.values():
            for step in self.owed(event):
                if not self.is_answered(event.id, step.name):
                    open_by_step.setdefault(step.name, []).append(event)
        for name, events in open_by_step.items():
            types = {event.type for event in events}
            waiting = not all(types.intersection(alternatives) for alternatives in self.plan.steps[name].consumes)
            for event in events:
                yield Debt(event.id, event.type, name, waiting)

    def is_clear(self, outputs: Iterable[Happened], seen: set[Unit]) -> bool:
        """*Undo order*: whether all that built on these events, directly or not, is settled and undone where it owes it."""
        for event in outputs:
            if any(not self.is_answered(event.id, step.name) for step in self.owed(event)):
                return False
            for user in self.users.get(event.id, ()):
                if user in seen:
                    continue
                seen.add(user)
                if not self.is_settled(user) or (self.owes_undo(user) and user not in self.history.undone):
                    return False
                if not self.is_clear(self.history.outputs.get(user, {}).values(), seen):
                    return False
        return True


def _nothing_to_decide(plan: Plan, history: History) -> bool:
    """While nothing failed and ``completes`` was not seen, nothing is due."""
    return not (
        plan.completes in history.types or history.failing or history.fired or not plan.fails.isdisjoint(history.types)
    )


def _undos_due(view: _View) -> Iterator[Undo]:
    """*Undo order*: "a step's undo waits until every step that used its output, directly or not, is settled and, where
    it owes an undo, undone; independent branches run in parallel"."""
    history = view.history
    for unit in view.units:
        if not view.owes_undo(unit) or not view.is_settled(unit):
            continue
        if any(cause not in history.events for cause in unit[1]):
            continue
        outputs = history.outputs.get(unit, {})
        events = [outputs[part] for part in sorted(outputs)]
        if view.is_clear(events, {unit}):
            outcome: Literal["done", "unknown"] = "done" if view.is_done(unit) else "unknown"
            yield Undo(unit[0], unit[1], tuple(event.id for event in events), outcome)


def _parked(view: _View) -> Iterator[Park]:
    """*A failed undo* "parks the saga: the undos of its causal ancestors wait, others go on". "Undone beats undo-failed"."""
    for unit, failed in view.history.undo_failed.items():
        if unit not in view.history.undone:
            yield Park(unit[0], unit[1], failed.code, failed.reason)


def _compensated(view: _View) -> Iterator[End]:
    """*Compensated*: "all causes named by anybody have been seen, no debt is open, every done or failed step with
    effects has a confirmed undo"."""
    if unseen(view.plan, view.history) or any(True for _ in view.debts()):
        return
    if all(unit in view.history.undone for unit in view.units if view.owes_undo(unit)):
        yield End("compensated")


def _completed(view: _View) -> Iterator[End]:
    """*Completed*: "``completes`` seen, all causes seen, and the only open debts are arms of joins whose missing types
    nothing running can still produce (least fixpoint from the running debts)".

    An open debt that is no arm of an unfilled join is running, and the saga with it. Where there is none, the fixpoint
    starts from nothing, so nothing can be produced, and every join that waits waits in vain: they are let go.
    """
    if view.plan.completes not in view.history.types or unseen(view.plan, view.history):
        return
    debts = list(view.debts())
    if all(debt.waiting for debt in debts):
        yield End("completed", tuple(sorted((debt.event, debt.step) for debt in debts)))


def _units(history: History) -> set[Unit]:
    return {*history.outputs, *history.settled}


def _all_parts(history: History, unit: Unit) -> bool:
    parts = history.outputs.get(unit)
    if not parts:
        return False
    expected = max(event.parts for event in parts.values())
    return all(part in parts for part in range(1, expected + 1))
