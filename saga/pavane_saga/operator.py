"""Operator: what a person may decide about a saga that is parked or turned back, and what would come of it. Pure.

A decision is a fact like any other: stated on the topic of facts, folded by the engine, told again by ``sagas show``.
"""

from collections.abc import Collection
from typing import Protocol

from pavane_events.errors import ConfigurationError, Problem
from pavane_saga.commands import Command
from pavane_saga.engine import Failure, decide, stuck
from pavane_saga.facts import Corrected, Decided, Settled, UndoFailed, Verb
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
    """The facts that say so; none where it was said before and nothing failed since: saying it twice does no harm.

    ``step`` names the step whose undo failed, or that failed after the pivot, with its agent (``payment/charge``) or
    without; None where there is only one. A step that failed for several inputs is meant with all of them. Raises
    :class:`ConfigurationError` where there is nothing to decide, or the question is not clear.
    """
    history = saga.history
    if history.ended is not None:
        raise _nothing("saga.ended", f"it has ended ({history.ended.verdict}): what is written stays so")
    waiting = stuck(saga.plan, history)
    if saga.failure is None and not waiting and not (history.retries or history.abandoned):
        raise _nothing("saga.running", "nothing has failed: it runs, and there is nothing to decide")
    if verb == "abandon":
        return () if history.abandoned is not None else (Decided(verb, "", (), 1, who, why, at_ms),)
    meant = [failed for failed in waiting if step is None or _is(failed.step, step)]
    if not meant:
        if any(step is None or _is(unit[0], step) for unit in _decided(history, verb)):
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


def consequences(saga: Judged, decided: Collection[Decided]) -> tuple[Command, ...]:
    """What the coordinator does at once when it reads these: the undos it asks for next, and the end it may come to."""
    return decide(saga.plan, saga.history, decided)[1]


def _decided(history: History, verb: Verb) -> Collection[Unit]:
    """The units about which somebody has said that, or of which it is true."""
    if verb == "retry":
        return history.retries.keys()
    return history.undone if verb == "done" else history.skipped


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
