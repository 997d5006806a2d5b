"""Operator: what a person may decide about a saga that is turned back, and what would come of it. Pure, but for the story.

A decision is a fact like any other: stated on the topic of facts, folded by the engine, told again by ``sagas show``.
"""

from collections.abc import Collection
from typing import Protocol

from pavane_events.errors import ConfigurationError, Problem
from pavane_saga.engine import Command, Failure, decide
from pavane_saga.facts import Corrected, Decided, UndoFailed, Verb
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

    ``step`` names the undo that failed, with its agent (``payment/charge``) or without; None where there is only one. A
    step that failed to be undone for several inputs is meant with all of them. Raises :class:`ConfigurationError` where
    there is nothing to decide, or the question is not clear.
    """
    history = saga.history
    if history.ended is not None:
        raise _nothing("saga.ended", f"it has ended ({history.ended.verdict}): what is written stays so")
    if saga.failure is None:
        raise _nothing("saga.running", "nothing has failed: it runs, and there is nothing to decide")
    if verb == "abandon":
        return () if history.abandoned is not None else (Decided(verb, "", (), 1, who, why, at_ms),)
    stuck = [failed for failed in history.stuck() if step is None or _is(failed.step, step)]
    if not stuck:
        if any(step is None or _is(unit[0], step) for unit in _decided(history, verb)):
            return ()
        raise _none_stuck(history.stuck(), step)
    if step is None and len({failed.step for failed in stuck}) > 1:
        problems = [Problem(each.step, "undo.ambiguous", each.code or "its undo failed") for each in stuck]
        raise ConfigurationError("several undos have failed: name the step", problems)
    _check_types(history, stuck, corrected)
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
        for failed in stuck
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


def _check_types(history: History, stuck: Collection[UndoFailed], corrected: Corrected) -> None:
    """A corrected event must be one that travels with the undo."""
    for failed in stuck:
        unit = (failed.step, failed.causes)
        events = [*(history.events[each] for each in failed.causes if each in history.events), *history.outputs.get(unit, ())]
        types = {event.type for event in events}
        for kind, _ in corrected:
            if kind not in types:
                message = f"the undo of {failed.step} is given {', '.join(sorted(types)) or 'no event'}, nothing else"
                raise ConfigurationError("nothing was decided", [Problem(kind, "corrected.unknown", message)])


def _nothing(code: str, message: str) -> ConfigurationError:
    return ConfigurationError("there is nothing to decide", [Problem("saga", code, message)])


def _none_stuck(stuck: Collection[UndoFailed], step: str | None) -> ConfigurationError:
    named = ", ".join(sorted({failed.step for failed in stuck}))
    message = f"the undos that failed are of {named}" if named else "no undo has failed, or all are being tried again"
    return ConfigurationError("there is nothing to decide", [Problem(step or "saga", "undo.not-failed", message)])
