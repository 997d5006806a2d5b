"""View: the facts of a saga as the rules look at them: units, who used which event, which debts are open."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pavane_saga.facts import Happened
from pavane_saga.history import History, Plan, Unit


@dataclass(frozen=True, slots=True, order=True)
class Debt:
    """An answer that a step owes to an event. ``waiting``: an arm of a join that is not filled."""

    event: str
    type: str
    step: str
    waiting: bool


class View:
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

    @property
    def let_go(self) -> tuple[tuple[str, str], ...]:
        """What waits when the saga ends, by event id and step."""
        return tuple((debt.event, debt.step) for debt in self.debts)

    @cached_property
    def unseen_events(self) -> frozenset[str]:
        """The causes that somebody named and nobody saw."""
        return unseen_events_of(self.plan, self.history)

    @cached_property
    def awake(self) -> frozenset[str]:
        """The steps that may still be called: those that owe an answer, those that take what was admitted from outside and is
        not seen yet, and all that their answers may lead to."""
        found: set[str] = set()
        todo = [debt.step for debt in self.debts]
        todo.extend(name for _, name in _on_their_way(self.plan, self.history))
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
        """ "Every done or failed step with effects"; not one that provably was never called. One that was let begin, and says
        that it was skipped, may have been begun by a process that died."""
        if not self._has_effects(unit):
            return False
        settled = self.history.settled.get(unit)
        if settled is None or unit in self.history.outputs:
            return True
        if settled.how == "skipped":
            return unit in self.history.granted
        return settled.how == "done" or settled.began

    def may_stand(self, unit: Unit) -> bool:
        """Whether an effect of it may be there to be told of: it owes an undo, or nothing undoes it. Of a step that nothing
        undoes no mark says that it began: that it was skipped proves nothing, unless an arm was missing."""
        if unit in self.owing:
            return True
        if unit[0] not in self.plan.lasting:
            return False
        settled = self.history.settled.get(unit)
        if settled is None or unit in self.history.outputs or settled.how == "done":
            return True
        return settled.began if settled.how == "failed" else len(unit[1]) == len(self.plan.steps[unit[0]].consumes)

    def _has_effects(self, unit: Unit) -> bool:
        """As the version that answered has declared it: what it did stays done, whatever a later one has its step do. One that
        was let begin under a version that nobody knows, and says that it was skipped, may have had any of them."""
        plan, step = self.plan, unit[0]
        if step not in plan.changed:
            return plan.has_effects(step)
        settled = self.history.settled.get(unit)
        if settled is not None and settled.how == "skipped":
            return True
        return any(plan.had_effects(step, version) for version in self.history.versions_of(unit))

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
        return is_over(self, unit) and (unit in history.undone or unit in history.skipped or unit not in self.owing)


def unseen_events_of(plan: Plan, history: History) -> frozenset[str]:
    """The causes that somebody named and nobody saw, and what was admitted from outside and is on its way to a step: that may
    have been called with it. In a saga whose start event never came, one is not seen: that is the start."""
    named = {cause for _, causes in (*history.answers(), *history.undone, *history.undo_failed) for cause in causes}
    missing = named.difference(history.events)
    if len(missing) == 1 and "unknown" in history.fired and plan.starts not in history.types:
        missing = set[str]()
    return frozenset(missing.union(event for event, _ in _on_their_way(plan, history)))


def _on_their_way(plan: Plan, history: History) -> Iterator[tuple[str, str]]:
    """What was admitted from outside and is not seen yet, each with a step that takes it."""
    for kind, event in history.answered.items():
        if event not in history.events:
            for step, since, until in plan.steps_for(kind):
                if since < until:
                    yield event, step.name


def is_over(view: View, unit: Unit) -> bool:
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


def _owed_answers(view: View) -> Iterator[Debt]:
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


def _waiting_arms(view: View, name: str) -> frozenset[str]:
    """The events that are alone in their arm of a join, while another arm of it is empty."""
    arrived = [event for event in view.history.events.values() if any(name == step.name for step in view.plan.owing(event))]
    arms = [[event.id for event in arrived if event.type in types] for types in view.plan.steps[name].consumes]
    return frozenset[str]() if all(arms) else frozenset(arm[0] for arm in arms if len(arm) == 1)
