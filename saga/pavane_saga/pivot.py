"""Pivot: the one step that asks, and the way forward once it is done. Rules of the engine, each under its name."""

from collections.abc import Iterator
from typing import Literal

from pavane_saga.commands import Acquire, Command, End, Grant, Park
from pavane_saga.facts import Settled
from pavane_saga.history import History, Plan, Unit
from pavane_saga.view import View

Point = Literal["before", "asked", "taken", "refused"]


def point_of(plan: Plan, history: History) -> Point:
    """Where the saga stands to its point of no return. *Pivot*: "its done is the point of no return"; a ``fails`` event or
    a failure of it means *not taken*.

    ``asked``: it was granted and has not answered, so nobody knows; no deadline fires and nothing is undone meanwhile.
    """
    point: Point = "before"
    for unit in history.granted:
        if plan.is_pivot(unit[0]) or (plan.was_pivot(unit[0]) and unit not in history.requests):
            answer = _answer(plan, history, unit)
            if answer == "taken":
                return answer
            point = answer if point != "asked" else point
    return point


def _answer(plan: Plan, history: History, unit: Unit) -> Point:
    if history.has_all_parts(unit):
        failed = any(event.type in plan.fails for event in history.outputs[unit])
        return "refused" if failed else "taken"
    settled = history.settled.get(unit)
    if settled is None:
        return "asked"
    return "taken" if settled.how == "done" else "refused"


def pivot_grants(view: View) -> Iterator[Grant]:
    """*Pivot*: "it requests, and begins on the coordinator's grant, given when its own is the only open debt (observers
    and unfillable arms aside)". Its inputs are its request: one event for each of its arms.

    Only asked where nothing failed and nothing that somebody named is unseen. An arm that waits at that moment waits for
    what the pivot leads to, or for somebody outside, or in vain.
    """
    running = [debt for debt in view.debts if not debt.waiting]
    steps = {debt.step for debt in running}
    step = view.plan.steps[steps.pop()] if len(steps) == 1 else None
    if step is None or not any(view.plan.begins_on_grant(step.name, view.history.events[debt.event]) for debt in running):
        return
    arms = [[debt.event for debt in running if debt.type in kinds] for kinds in step.consumes]
    unit = (step.name, tuple(sorted(events[0] for events in arms if len(events) == 1)))
    if len(unit[1]) == len(arms) and unit not in view.history.granted:
        yield Grant(*unit)


def stuck_forward(plan: Plan, history: History) -> tuple[Settled, ...]:
    """The steps that failed after the pivot, and about which nobody has decided since, in a fixed order."""
    return tuple(
        failed
        for failed in _failed(plan, history)
        if not _is_resolved(history, failed) and failed.retry >= history.retry_of((failed.step, failed.causes))
    )


def forward(view: View, *, all_seen: bool) -> Iterator[Command]:
    """*Pivot*: after its done "the saga only goes forward, deadlines only report, and any failure parks it".

    What an operator asks for again is granted again, once the saga has its lock: who asks for it waits for that. A step
    that was skipped, or done by hand, holds up nothing. Where
    nothing runs any more and ``completes`` cannot come, because no event came of that step, the saga ends *abandoned*.
    """
    history = view.history
    failed = _failed(view.plan, history)
    for each in failed:
        yield Park(each.step, each.causes, retry=each.retry, forward=True, code=each.code, reason=each.reason)
    for unit, decided in sorted(history.retries.items(), key=lambda each: each[0]):
        request = history.requests.get(unit)
        if request is not None and request.lock not in history.locks:
            yield Acquire(request.lock)
        elif all(cause in history.events for cause in unit[1]):
            yield Grant(*unit, retry=decided.number)
    nothing_runs = all_seen and all(debt.waiting for debt in view.debts)
    never_completes = failed and view.plan.completes not in history.types and not is_held_up(view.plan, history)
    if history.abandoned is not None or (never_completes and nothing_runs):
        yield End("abandoned", view.let_go)


def is_held_up(plan: Plan, history: History) -> bool:
    """Whether a step that failed after the pivot keeps the saga from completing."""
    return history.abandoned is not None or not all(_is_resolved(history, each) for each in _failed(plan, history))


def _failed(plan: Plan, history: History) -> list[Settled]:
    """Failed for good, observers aside; "done > failed", so not what another try got done. To answer with a ``fails`` event
    is to fail, too."""
    found = [
        settled
        for unit, settled in history.settled.items()
        if settled.how == "failed" and not history.has_all_parts(unit) and not plan.is_observer(settled.step)
    ]
    for event in history.events.values():
        if event.type in plan.fails and event.step is not None:
            reason = f"{event.type} came after the point of no return"
            retry = history.retry_of((event.step, event.causes))
            found.append(Settled(event.step, event.causes, "failed", code=event.type, reason=reason, retry=retry))
    return sorted(found, key=lambda each: (each.step, each.causes))


def _is_resolved(history: History, failed: Settled) -> bool:
    """Somebody did it by hand (the fact is the same as of an undo), or skipped it."""
    unit = (failed.step, failed.causes)
    return unit in history.undone or unit in history.skipped
