"""Operator: what a person may decide about a saga that is parked or turned back, and what would come of it. Pure.

A decision is a fact like any other: stated on the topic of facts, folded by the engine, told again by ``sagas show``.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from pavane_events.errors import ConfigurationError, Problem
from pavane_saga.commands import Command, End, Undo
from pavane_saga.engine import Failure, decide, due, open_debts, standing, stuck
from pavane_saga.facts import Corrected, Decided, Settled, UndoFailed, Undone, Verb, Verdict
from pavane_saga.history import History, Plan, Unit
from pavane_saga.wire import timestamp


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
    """The facts that say so; none where the same was said before and nothing failed since, also where the saga has ended:
    saying it twice does no harm. :func:`said_before` has who said it. What was said otherwise is not unsaid: it may be under
    way, and would be done twice.

    ``step`` names the step whose undo failed, or that failed after the pivot, with its agent (``payment/charge``) or
    without; None where there is only one. A step that failed for several inputs is meant with all of them. Where anything was
    decided about another step that it may mean, it is not guessed which: who says a thing twice, or has not seen that it was
    undone meanwhile, would decide about a step that he never looked at. Raises :class:`ConfigurationError` where there is
    nothing to decide, something else was decided and nothing has failed since, or the question is not clear.
    """
    history = saga.history
    if history.ended is not None:
        if said_before(saga, verb, step, corrected):
            return ()
        raise _nothing("saga.ended", f"it has ended ({history.ended.verdict}): what is written stays so")
    waiting, said = stuck(saga.plan, history), _said_last(history, step)
    if saga.failure is None and not waiting and not said and history.abandoned is None:
        raise _nothing("saga.running", "nothing has failed: it runs, and there is nothing to decide")
    if verb == "abandon":
        return () if history.abandoned is not None else (Decided(verb, "", (), 1, who, why, at_ms),)
    if history.abandoned is not None:
        raise _said_otherwise([history.abandoned], history)
    meant = [failed for failed in waiting if step is None or _is(failed.step, step)]
    if not meant:
        if any(each.verb == verb and _same(each.corrected, corrected) for each in said):
            return ()
        done = any(step is None or _is(unit[0], step) for unit in history.undone)
        if verb == "done" and done and all((each.step, each.causes) in history.undone for each in said):
            return ()
        raise _said_otherwise(said, history) if said else _none_stuck(waiting, step)
    _check_clear(said, meant, verb, why, corrected)
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


def said_before(saga: Judged, verb: Verb, step: str | None, corrected: Corrected = ()) -> tuple[Decided, ...]:
    """What somebody has said in these words, with the same data, of each unit the last, in a fixed order."""
    found: dict[Unit, Decided] = {}
    for fact in saga.history.facts:
        if isinstance(fact, Decided) and fact.verb == verb and _same(fact.corrected, corrected):
            known = found.get((fact.step, fact.causes))
            if (verb == "abandon" or step is None or _is(fact.step, step)) and (known is None or fact.number > known.number):
                found[fact.step, fact.causes] = fact
    return tuple(found[unit] for unit in sorted(found))


def _said_last(history: History, step: str | None) -> list[Decided]:
    """Of each unit what holds of all that was decided about it: what settled it, else the last retry. In a fixed order."""
    found: dict[Unit, Decided] = {}
    for fact in history.facts:
        if isinstance(fact, Decided) and fact.verb != "abandon" and (step is None or _is(fact.step, step)):
            known = found.get((fact.step, fact.causes))
            if known is None or _weight(fact) > _weight(known):
                found[fact.step, fact.causes] = fact
    return [found[unit] for unit in sorted(found)]


def _weight(fact: Decided) -> tuple[bool, int, int]:
    return fact.verb != "retry", fact.number, fact.at_ms


def _same(one: Corrected, other: Corrected) -> bool:
    """Whether they say the same, in whichever order its members are written."""
    return _in_order(one) == _in_order(other)


def _in_order(corrected: Corrected) -> list[tuple[str, str]]:
    return sorted((kind, _members_in_order(data)) for kind, data in corrected)


def _members_in_order(data: str) -> str:
    try:
        return json.dumps(json.loads(data), sort_keys=True)
    except (ValueError, RecursionError):  # whoever stated it did not use this: it is what it is
        return data


def in_words(fact: Decided) -> str:
    """What was decided about what, and with which corrected events."""
    corrected = f", with corrected {', '.join(kind for kind, _ in fact.corrected)}" if fact.corrected else ""
    return f"{fact.verb} {fact.step}".rstrip() + corrected


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


def _check_clear(
    said: Collection[Decided], meant: Collection[UndoFailed | Settled], verb: Verb, why: str, corrected: Corrected
) -> None:
    """What is decided must be about one step, and no repetition of what was said of another, or of other inputs of it.

    To be tried again as it was does no harm: that may be said again of other inputs in the same words.
    """
    steps = {failed.step for failed in meant}
    if len(steps) > 1:
        problems = [Problem(each.step, "step.ambiguous", each.code or "it failed") for each in meant]
        raise ConfigurationError("several have failed: name the step", problems)
    elsewhere = [each for each in said if each.step not in steps]
    if elsewhere:
        raise _said_of_others(elsewhere, meant, "name the step")
    units = {(failed.step, failed.causes) for failed in meant}
    again = [
        each
        for each in said
        if (each.verb, each.why) == (verb, why) and _same(each.corrected, corrected) and (each.step, each.causes) not in units
    ]
    if again and (verb != "retry" or corrected):
        raise _said_of_others(again, meant, "say --why in other words where this one is meant, too")


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


def _said_otherwise(said: Collection[Decided], history: History) -> ConfigurationError:
    problems: list[Problem] = []
    for each in said:
        settled = each.verb == "abandon" or {(each.step, each.causes)} & (history.undone | history.skipped)
        then = "that stays so" if settled else "nothing has failed since: decide when it has failed again"
        problems.append(Problem(each.step or "saga", "decided.otherwise", f"it was said before: {_told(each)}; {then}"))
    return ConfigurationError("nothing was decided: something else was before", problems)


def _said_of_others(said: Collection[Decided], meant: Collection[UndoFailed | Settled], fix: str) -> ConfigurationError:
    problems = [Problem(each.step, "step.ambiguous", f"it was said before: {_told(each)}") for each in said]
    problems += [Problem(each.step, "step.ambiguous", f"waits now: {each.code or 'it failed'}") for each in meant]
    return ConfigurationError(f"nothing was decided: what waits now is another than was decided about; {fix}", problems)


def _told(fact: Decided) -> str:
    return f"{in_words(fact)}, by {fact.who}, {timestamp(fact.at_ms / 1000)} ({fact.why})"


def _none_stuck(waiting: Collection[UndoFailed | Settled], step: str | None) -> ConfigurationError:
    named = ", ".join(sorted({failed.step for failed in waiting}))
    message = f"what failed is {named}" if named else "nothing has failed for good, or all of it is being tried again"
    return ConfigurationError("there is nothing to decide", [Problem(step or "saga", "undo.not-failed", message)])
