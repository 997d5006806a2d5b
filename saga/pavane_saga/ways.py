"""Ways: what leads where in a choreography. Pure."""

from collections.abc import Collection, Sequence

from pavane_saga.facts import StepPlan


def heard_by(step: StepPlan) -> set[str]:
    """The types that a step listens to."""
    return {kind for alternatives in step.consumes for kind in alternatives}


def can_run(step: StepPlan, known: Collection[str]) -> bool:
    """Whether every parameter of a step has a type that can come about."""
    return all(any(kind in known for kind in alternatives) for alternatives in step.consumes)


def missing(step: StepPlan, known: Collection[str]) -> str:
    """What a step waits for that cannot come about, readably."""
    return ", ".join(" or ".join(kinds) for kinds in step.consumes if not any(kind in known for kind in kinds))


def reached(steps: Sequence[StepPlan], starts: Collection[str]) -> set[str]:
    """The event types that can come about from these: a least fixpoint."""
    known = {*starts}
    while True:
        grown = known.union(*(step.produces for step in steps if not step.observer and can_run(step, known)))
        if grown == known:
            return known
        known = grown


def ancestors(steps: Sequence[StepPlan], kind: str) -> set[str]:
    """The steps whose events lead to an event, its producers included."""
    found: set[str] = set()
    todo = [kind]
    while todo:
        wanted = todo.pop()
        for step in steps:
            if wanted in step.produces and step.name not in found:
                found.add(step.name)
                todo.extend(heard_by(step))
    return found
