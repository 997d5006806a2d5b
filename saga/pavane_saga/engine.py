"""The engine: what is due for a saga, read off the set of its facts. Pure and total; each rule under its name.

``due`` depends on the set of facts alone, so any interleaving and duplication of the same facts ends in the same state
and has issued the same commands. A rule of the design is one function here, and quotes it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pavane_saga.facts import Fact, Happened, Verdict
from pavane_saga.history import History, Plan, Unit

State = Literal["running", "completed", "compensating", "parked", "compensated", "abandoned"]


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
class Park:
    """An undo failed for good: somebody has to decide."""

    step: str
    causes: tuple[str, ...]
    retry: int = field(default=0, kw_only=True)
    code: str = field(compare=False)
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class End:
    """The verdict. ``let_go``: arms of joins that can no longer be filled, by event id and step."""

    verdict: Verdict
    let_go: tuple[tuple[str, str], ...] = field(default=(), compare=False)


Command = Halt | Undo | Park | End
"""Equal commands are one command: what a later fact adds to it (outputs, a code) does not make another."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What turned a saga back."""

    code: str
    reason: str
    step: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Debt:
    """An answer that a step owes to an event. ``waiting``: an arm of a join that is not filled."""

    event: str
    type: str
    step: str
    waiting: bool


def decide(plan: Plan, history: History, facts: Iterable[Fact]) -> tuple[History, tuple[Command, ...]]:
    """The history with these facts, and the commands that have become due with them. Each command is issued once.

    Facts that are known already, in any order and number, change nothing. Where the *plan* changes, by a declaration,
    what that makes due is :func:`due` under the new plan without :func:`due` under the old one.
    """
    grown = history.with_facts(facts)
    if grown is history or nothing_to_decide(plan, grown):
        return grown, ()
    before = set(due(plan, history))
    return grown, tuple(command for command in due(plan, grown) if command not in before)


def due(plan: Plan, history: History) -> tuple[Command, ...]:
    """Every command that these facts call for, issued or not. After the end nothing is. Derived once per plan."""
    known = history.due
    if known is not None and known[0] is plan:
        return known[1]
    found = _derived(plan, history)
    history.due = plan, found
    return found


def _derived(plan: Plan, history: History) -> tuple[Command, ...]:
    if history.ended is not None or nothing_to_decide(plan, history):
        return ()
    view = _View(plan, history)
    failed = failure(plan, history)
    if failed is None:
        return tuple(_completed(view))
    halt = Halt(failed.code, failed.reason)
    if history.abandoned is not None:
        return (halt, End("abandoned"))
    return (halt, *_undo_order(view), *_failed_undos(view), *_compensated(view))


def status(plan: Plan, history: History) -> State:
    """The state of the saga."""
    if history.ended is not None:
        return history.ended.verdict
    if failure(plan, history) is None:
        return "running"
    return "parked" if history.stuck() else "compensating"


def open_debts(plan: Plan, history: History) -> tuple[Debt, ...]:
    """The answers that are owed and have not come, in a fixed order."""
    return _View(plan, history).debts


def standing(plan: Plan, history: History) -> tuple[Unit, ...]:
    """The units whose effect may stand: done, or failed after they may have begun, and not undone."""
    view = _View(plan, history)
    return tuple(unit for unit in view.units if unit in view.owing and unit not in history.undone)


def failure(plan: Plan, history: History) -> Failure | None:
    """*Failure*: "a ``fails`` event, a failed step, a fired deadline turns the saga to compensating; until a saga is
    completed, failure wins". Of several the first counts, by depth, then by identity.

    A failed step stays a failure where a stronger settlement of it came, too: agents may have been told already.
    """
    found: list[tuple[int, str, Failure]] = []
    if not plan.fails.isdisjoint(history.types):
        found.extend(
            (event.depth, event.identity, Failure(event.type, f"{event.type} happened", event.step))
            for event in history.events.values()
            if event.type in plan.fails
        )
    for identity, settled in history.failing.items():
        if not plan.is_observer(settled.step):
            depth = 1 + max((history.events[each].depth for each in settled.causes if each in history.events), default=0)
            found.append((depth, identity, Failure(settled.code, settled.reason, settled.step)))
    if found:
        return min(found, key=lambda each: each[:2])[2]
    fired = min(history.fired.items(), default=None)
    return Failure(fired[0], fired[1].detail) if fired is not None else None


def unseen(plan: Plan, history: History) -> tuple[str, ...]:
    """*All causes named by anybody have been seen*: "the start event, all parts of each emission, declarations".

    What is named and not there yet, readably; empty where everything is.
    """
    missing = {f"event {cause}" for cause in _unseen_events(plan, history)}
    if plan.starts not in history.types and "unknown" not in history.fired:
        missing.add(f"event of type {plan.starts}")
    for unit in history.outputs:
        if not history.has_all_parts(unit):
            missing.add(f"a part of the answer of {unit[0]}")
    for unit in history.answers():
        if unit[0] not in plan.steps:
            missing.add(f"declaration of {unit[0]}")
    missing.update(f"declaration {version}" for version in history.declarations - plan.versions)
    return tuple(sorted(missing))


class _View:
    """The facts as the rules look at them: units, who used which event, which debts are open. Kept for one derivation."""

    def __init__(self, plan: Plan, history: History) -> None:
        self.plan = plan
        self.history = history
        self.units = sorted(history.answers())
        self.whole = {unit for unit in history.outputs if history.has_all_parts(unit)}
        self.finished = {unit for unit in self.units if unit in self.whole or history.is_done(unit)}
        self.owing = {unit for unit in self.units if self.owes_undo(unit)}
        self.users: dict[str, list[Unit]] = {}
        taken = {(cause, unit[0]) for unit in self.finished for cause in unit[1]}
        for unit in self.units:
            is_refusal = unit not in self.finished and unit not in self.owing
            for cause in unit[1]:
                if not (is_refusal and (cause, unit[0]) in taken):  # it names the arm that another call had filled
                    self.users.setdefault(cause, []).append(unit)
        self.debts = tuple(sorted(_owed_answers(self)))
        self.indebted = {debt.event for debt in self.debts}

    @cached_property
    def unseen_events(self) -> frozenset[str]:
        """The causes that somebody named and nobody saw."""
        return _unseen_events(self.plan, self.history)

    @cached_property
    def awake(self) -> frozenset[str]:
        """The steps that may still be called: those that owe an answer, and all that their answers may lead to."""
        found: set[str] = set()
        todo = [debt.step for debt in self.debts]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                produces = self.plan.steps[name].produces
                todo.extend(step.name for event_type in produces for step, *_ in self.plan.steps_for(event_type))
        return frozenset(found)

    @cached_property
    def done(self) -> frozenset[str]:
        """The steps that are done with some causes."""
        return frozenset(unit[0] for unit in self.finished)

    def is_settled(self, unit: Unit) -> bool:
        """Whether a unit has answered, with all parts."""
        return unit in self.whole or unit in self.history.settled

    def owes_undo(self, unit: Unit) -> bool:
        """ "Every done or failed step with effects"; not one that provably was never called."""
        if not self.plan.has_effects(unit[0]):
            return False
        settled = self.history.settled.get(unit)
        if settled is None or unit in self.history.outputs:
            return True
        return settled.how == "done" or (settled.how == "failed" and settled.began)

    def outputs(self, unit: Unit) -> list[Happened]:
        """The events that a unit answered with, by part."""
        outputs = self.history.outputs.get(unit, ())
        return sorted(outputs, key=lambda event: (event.part, event.id)) if len(outputs) > 1 else [*outputs]

    def users_of(self, unit: Unit) -> set[Unit]:
        """The units that used an output of this one."""
        return {user for event in self.history.outputs.get(unit, ()) for user in self.users.get(event.id, ())}

    def is_free(self, unit: Unit) -> bool:
        """Whether no answer is owed to what a unit put out."""
        return not self.indebted or all(event.id not in self.indebted for event in self.history.outputs.get(unit, ()))

    def is_gone(self, unit: Unit) -> bool:
        """Whether nothing is left of a unit: settled for good, and undone where it owes that, or given up."""
        history = self.history
        return _is_over(self, unit) and (unit in history.undone or unit in history.skipped or unit not in self.owing)


def nothing_to_decide(plan: Plan, history: History) -> bool:
    """While nothing failed and ``completes`` was not seen, nothing is due, whatever is declared."""
    return not (
        plan.completes in history.types or history.failing or history.fired or not plan.fails.isdisjoint(history.types)
    )


def _unseen_events(plan: Plan, history: History) -> frozenset[str]:
    """The causes that somebody named and nobody saw. In a saga whose start event never came, one is: that is the start."""
    named = {cause for _, causes in (*history.answers(), *history.undone, *history.undo_failed) for cause in causes}
    missing = named.difference(history.events)
    if len(missing) == 1 and "unknown" in history.fired and plan.starts not in history.types:
        return frozenset()
    return frozenset(missing)


def _owed_answers(view: _View) -> Iterator[Debt]:
    """*Owed answers*: "every event of a saga opens one debt per step that consumes it (observers aside), settled by done,
    failed or skipped".

    An arm waits while its join is not filled, by events answered or not. A second event of one arm does not wait: it is
    refused.
    """
    answered = {(cause, unit[0]) for unit in view.units if view.is_settled(unit) for cause in unit[1]}
    unanswered: dict[str, list[Happened]] = {}
    for event in view.history.events.values():
        for step in view.plan.owing(event):
            if (event.id, step.name) not in answered:
                unanswered.setdefault(step.name, []).append(event)
    for name, events in unanswered.items():
        alone = _waiting_arms(view, name) if view.plan.is_join(name) else frozenset[str]()
        for event in events:
            yield Debt(event.id, event.type, name, event.id in alone)


def _waiting_arms(view: _View, name: str) -> frozenset[str]:
    """The events that are alone in their arm of a join, while another arm of it is empty."""
    arrived = [event for event in view.history.events.values() if any(name == step.name for step in view.plan.owing(event))]
    arms = [[event.id for event in arrived if event.type in types] for types in view.plan.steps[name].consumes]
    return frozenset[str]() if all(arms) else frozenset(arm[0] for arm in arms if len(arm) == 1)


def _undo_order(view: _View) -> Iterator[Undo]:
    """*Undo order*: "a step's undo waits until every step that used its output, directly or not, is settled and, where
    it owes an undo, undone; independent branches run in parallel".

    It waits for its inputs and for all parts of its own answer, too: they travel with the command; and for its
    declaration, without which nobody knows that it owes an undo.
    """
    history = view.history
    clear = _clear(view)
    for unit in view.units:
        if (
            unit not in clear
            or unit[0] not in view.plan.steps
            or unit not in view.owing
            or not view.unseen_events.isdisjoint(unit[1])
        ):
            continue
        if unit in history.outputs and unit not in view.whole:
            continue
        outputs = tuple([event.id for event in view.outputs(unit)])
        yield Undo(unit[0], unit[1], outputs, "done" if unit in view.finished else "unknown", retry=history.retry_of(unit))


def _clear(view: _View) -> set[Unit]:
    """The units whose answers nothing stands on any more. From the last users back to the first steps, each looked at
    once; except where causes go round in a circle, which only a forger can bring about."""
    users = {unit: view.users_of(unit) for unit in view.history.outputs}
    makers: dict[Unit, list[Unit]] = {}
    left: dict[Unit, int] = {}
    for unit, found in users.items():
        makers_too = [user for user in found if user in users]
        left[unit] = len(makers_too)
        for user in makers_too:
            makers.setdefault(user, []).append(unit)
    todo = [unit for unit, count in left.items() if not count]
    clear = {unit for unit in view.units if unit not in users}  # nothing came of them
    while todo:
        unit = todo.pop()
        del left[unit]
        if view.is_free(unit) and all(user in clear and view.is_gone(user) for user in users[unit]):
            clear.add(unit)
        for maker in makers.get(unit, ()):
            left[maker] -= 1
            if not left[maker]:
                todo.append(maker)
    return clear.union(unit for unit in left if _is_clear_but_for_its_circle(view, unit, users))


def _is_clear_but_for_its_circle(view: _View, unit: Unit, users: Mapping[Unit, set[Unit]]) -> bool:
    """Units in one circle of causes do not wait for each other; for all else they do."""
    below = _below(unit, users)
    return all(view.is_free(each) for each in {unit, *below}) and all(
        view.is_gone(user) or unit in _below(user, users) for user in below
    )


def _below(unit: Unit, users: Mapping[Unit, set[Unit]]) -> set[Unit]:
    found: set[Unit] = set()
    todo = [unit]
    while todo:
        new = users.get(todo.pop(), set[Unit]()) - found
        found |= new
        todo.extend(new)
    return found


def _is_over(view: _View, unit: Unit) -> bool:
    """Whether a unit is settled, and its step cannot be called with the same causes in another set any more.

    "An arm at or below the mark that would have filled the join settles the whole set" as failed, after the arm that was
    held is skipped, and of two events for one arm each may have filled it. So what a join that is not done has used is
    known when it cannot be called any more. An arm that was not seen yet descends from an open debt; only before the
    start event is seen there may be none to tell.
    """
    name = unit[0]
    if not view.is_settled(unit) or not view.plan.is_join(name) or name in view.done:
        return view.is_settled(unit)
    return name not in view.awake and (view.plan.starts in view.history.types or "unknown" in view.history.fired)


def _failed_undos(view: _View) -> Iterator[Park]:
    """*A failed undo* parks the saga: "the undos of its causal ancestors wait, others go on"; they wait by *undo order*.

    Said once of each, also where a later try succeeds: "undone beats undo-failed" is for the saga's state.
    """
    for unit, failed in sorted(view.history.undo_failed.items(), key=lambda each: each[0]):
        yield Park(unit[0], unit[1], failed.code, failed.reason, retry=failed.retry)


def _compensated(view: _View) -> Iterator[End]:
    """*Compensated*: "all causes named by anybody have been seen (the start event, all parts of each emission,
    declarations), no debt is open, every done or failed step with effects has a confirmed undo. An operator's `skip` ends
    *abandoned*, not compensated"."""
    history = view.history
    if view.owing <= history.undone | history.skipped and not view.debts and not unseen(view.plan, history):
        yield End("compensated" if view.owing <= history.undone else "abandoned")


def _completed(view: _View) -> Iterator[End]:
    """*Completed*: "``completes`` seen, all causes seen, and the only open debts are arms of joins whose missing types
    nothing running can still produce (least fixpoint from the running debts)".

    An open debt that is no arm of an unfilled join is running. If there is one, the saga runs on, whatever it produces.
    If there is none, the fixpoint starts from the empty set and stays there: a waiting join produces only when all that
    it misses can be produced, so none ever does, and every arm waits in vain. They are let go.
    """
    if view.plan.completes not in view.history.types or unseen(view.plan, view.history):
        return
    if all(debt.waiting for debt in view.debts):
        yield End("completed", tuple((debt.event, debt.step) for debt in view.debts))
