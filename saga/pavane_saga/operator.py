"""Operator: what a person may decide about a saga that is parked or turned back, and what would come of it. Pure.

A decision is a fact like any other: stated on the topic of facts, folded by the engine, told again by ``sagas show``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from pavane_events.errors import ConfigurationError, Problem
from pavane_saga.commands import Command, End, Undo
from pavane_saga.engine import Failure, decide, due, open_debts, standing, stuck
from pavane_saga.facts import Corrected, Decided, Settled, UndoFailed, Undone, Verb, Verdict
from pavane_saga.history import History, Plan, Unit


class Judged(Protocol):
    """A saga as it was read: see :class:`~pavane_saga.story.Story`."""

    @property
    def failure(self) -> Failure | None: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def history(self) -> History: ...


def decisions(
    saga: Judged, verb: Verb, step: str | None, *, who: str, why: str, at_ms: int, corrected: Corrected = ()
) -> tuple[Decided, ...]:
    """The facts that say so; none where it was said before and nothing failed since, also where the saga has ended: saying
    it twice does no harm. :func:`said_before` has who said it.

    ``step`` names the step whose undo failed, or that failed after the pivot, with its agent (``payment/charge``) or
    without; None where there is only one. A step that failed for several inputs is meant with all of them. Raises
    :class:`ConfigurationError` where there is nothing to decide, or the question is not clear.
    """
    history = saga.history
    said = said_before(saga, verb, step)
    if history.ended is not None:
        if said:
            return ()
        raise _nothing("saga.ended", f"it has ended ({history.ended.verdict}): what is written stays so")
    waiting = stuck(saga.plan, history)
    if saga.failure is None and not waiting and not said:
        raise _nothing("saga.running", "nothing has failed: it runs, and there is nothing to decide")
    if verb == "abandon":
        return () if history.abandoned is not None else (Decided(verb, "", (), 1, who, why, at_ms),)
    meant = [failed for failed in waiting if step is None or _is(failed.step, step)]
    if not meant:
        undone = verb == "done" and any(step is None or _is(unit[0], step) for unit in history.undone)
        if said or undone:
            return ()
        raise _none_stuck(waiting, step)
    if step is None and len({failed.step for failed in meant}) > 1:
        problems = [Problem(each.step, "step.ambiguous", each.code or "it failed") for each in meant]
        raise ConfigurationError("several have failed: name the step", problems)
    _check_types(history, meant, corrected)
    return tuple(
        Decided(
            verb,
            failed.step,
            failed.causes,
            history.retry_of((failed.step, failed.causes)) + 1 if verb == "retry" else 1,
            who,
            why,
            at_ms,
            corrected,
        )
        for failed in meant
    )


def said_before(saga: Judged, verb: Verb, step: str | None) -> tuple[Decided, ...]:
    """What somebody has said in these words, of each unit the last, in a fixed order."""
    found: dict[Unit, Decided] = {}
    for fact in saga.history.facts:
        if isinstance(fact, Decided) and fact.verb == verb and (verb == "abandon" or step is None or _is(fact.step, step)):
            known = found.get((fact.step, fact.causes))
            if known is None or fact.number > known.number:
                found[fact.step, fact.causes] = fact
    return tuple(found[unit] for unit in sorted(found))


@dataclass(frozen=True, slots=True)
class Prospect:
    """What comes of a decision. ``next``: what the coordinator does at once when it reads it; ``later``: the undos that
    follow, or are under way, where each succeeds; ``end``: the verdict then, None where the saga goes on;
    ``standing``: effects that may stand then; ``waits_for``: the steps that somebody has to decide about, or that owe an
    answer, before it can end.
    """

    next: tuple[Command, ...]
    later: tuple[Undo, ...]
    end: Verdict | None
    standing: tuple[Unit, ...]
    waits_for: tuple[str, ...]


def prospect(saga: Judged, decided: Collection[Decided]) -> Prospect:
    """What would come of these, or of what was decided before, by the coordinator's own rules."""
    plan = saga.plan
    history, first = decide(plan, saga.history, decided)
    later: list[Undo] = []
    while True:
        waiting = {(each.step, each.causes) for each in stuck(plan, history)}
        asked = [each for each in due(plan, history) if isinstance(each, Undo)]
        settled = waiting | history.undone | history.skipped
        undos = [each for each in asked if (each.step, each.causes) not in settled]
        if not undos:
            break
        later += [each for each in undos if each not in first]
        history = history.with_facts(Undone(each.step, each.causes) for each in undos)
    ends: list[Verdict] = [each.verdict for each in due(plan, history) if isinstance(each, End)]
    if history.ended is not None:
        ends = [history.ended.verdict]
    end = ends[0] if ends else None
    owing = [debt.step for debt in open_debts(plan, history) if not debt.waiting]
    waits_for = sorted({*(step for step, _ in waiting), *owing}) if end is None else []
    return Prospect(first, tuple(later), end, standing(plan, history), tuple(waits_for))


def _is(name: str, wanted: str) -> bool:
    return wanted in (name, name.partition("/")[2])


def _check_types(history: History, meant: Collection[UndoFailed | Settled], corrected: Corrected) -> None:
    """A corrected event must be one that travels with the command."""
    for failed in meant:
        unit = (failed.step, failed.causes)
        events = [*(history.events[each] for each in failed.causes if each in history.events), *history.outputs.get(unit, ())]
        types = {event.type for event in events}
        for kind, _ in corrected:
            if kind not in types:
                what = "the undo of " if isinstance(failed, UndoFailed) else ""
                message = f"{what}{failed.step} is given {', '.join(sorted(types)) or 'no event'}, nothing else"
                raise ConfigurationError("nothing was decided", [Problem(kind, "corrected.unknown", message)])


def _nothing(code: str, message: str) -> ConfigurationError:
    return ConfigurationError("there is nothing to decide", [Problem("saga", code, message)])


def _none_stuck(waiting: Collection[UndoFailed | Settled], step: str | None) -> ConfigurationError:
    named = ", ".join(sorted({failed.step for failed in waiting}))
    message = f"what failed is {named}" if named else "nothing has failed for good, or all of it is being tried again"
    return ConfigurationError("there is nothing to decide", [Problem(step or "saga", "undo.not-failed", message)])
