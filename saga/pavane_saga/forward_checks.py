"""Forward checks: what is wrong with points of no return, with steps that are never undone, and with answers from outside."""

from collections.abc import Iterator, Sequence

from pavane_saga.facts import StepPlan
from pavane_saga.finding import Finding
from pavane_saga.manifest import SagaPlan
from pavane_saga.ways import can_run, heard_by, reached


def check_forward(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    """Every finding about pivots, retriable steps and external ones."""
    for saga in sagas:
        known = reached(steps, (saga.starts, *saga.answers))
        mine = [step for step in steps if not step.observer and can_run(step, known)]
        yield from _pivots(mine, saga)
        yield from _answers(steps, mine, saga)
    yield from _externals(steps, sagas)


def _pivots(steps: Sequence[StepPlan], saga: SagaPlan) -> Iterator[Finding]:
    pivots = [step for step in steps if step.pivot]
    if len(pivots) > 1:
        names = ", ".join(step.name for step in pivots)
        message = f"{saga.name} has more than one pivot ({names}): each waits until the other is done; leave one"
        yield Finding("pivot.doubled", "error", pivots[1].name, message)
    after = _after(steps, pivots)
    for step in steps:
        if step.name in after and not step.pivot:
            for kind in sorted(set(step.produces) & set(saga.fails)):
                message = f"it comes after the pivot and says {kind}, which nothing can undo any more: say it before the pivot"
                yield Finding("fails.after-pivot", "error", step.name, message)
            if step.locks:
                message = "it comes after the pivot, so a circle of locks could not be broken: take the lock before the pivot"
                yield Finding("lock.after-pivot", "warning", step.name, message)
            if step.effects:
                message = "it comes after the pivot, so its undo is never called: say retriable=True and leave the undo out"
                yield Finding("undo.after-pivot", "warning", step.name, message)
        elif step.retriable and not step.pivot:
            message = (
                f"it changes something that nothing undoes, and {saga.name} may still turn back when it is done: give it an"
                " undo, or have it follow a pivot"
            )
            yield Finding("retriable.before-pivot", "warning", step.name, message)


def _after(steps: Sequence[StepPlan], pivots: Sequence[StepPlan]) -> set[str]:
    """The steps that can only be called once a pivot is done: without what it leads to they wait for ever."""
    names = {step.name for step in pivots}
    if not names:
        return set()
    said = {kind for step in steps for kind in step.produces}
    others = [step for step in steps if step.name not in names]
    before = reached(others, {kind for step in steps for kind in heard_by(step)} - said)
    return {step.name for step in others if not can_run(step, before)}


def _answers(steps: Sequence[StepPlan], mine: Sequence[StepPlan], saga: SagaPlan) -> Iterator[Finding]:
    for kind in saga.answers:
        heard = [step for step in mine if kind in heard_by(step)]
        if not heard:
            message = f"{saga.name} takes it in from outside, and none of its steps waits for it: leave it out of answers="
            yield Finding("answer.unheard", "warning", kind, message)
        for waits in heard:
            if not waits.external:
                message = f"{waits.name} waits for it, and it comes from outside: say external=True, with within= a deadline"
                yield Finding("answer.not-external", "warning", kind, message)
        for step in steps:
            if kind in step.produces:
                message = f"it says {kind}, which {saga.name} takes in from outside: it is one or the other"
                yield Finding("answer.produced", "error", step.name, message)
    for step in mine:
        if step.external and step.within_s is not None and step.within_s > saga.deadline_s:
            message = f"it waits {step.within_s:g} s for an answer, and {saga.name} ends after {saga.deadline_s:g} s"
            yield Finding("external.deadline", "warning", step.name, message)


def _externals(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    answers = {kind for saga in sagas for kind in saga.answers}
    for step in steps:
        if step.external and sagas and heard_by(step).isdisjoint(answers):
            message = "it says external=True, and no saga takes in any of its events: name it in the saga's answers="
            yield Finding("external.unanswered", "error", step.name, message)
