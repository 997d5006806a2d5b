"""Asking: did a step take effect? Its reconciliation is called before the step is undone, or done again."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from pavane.attempts import Failure, Policy, attempt, bounded
from pavane.context import Context
from pavane.kit import Kit
from pavane.retry import ASK
from pavane.step import AnyStep, Found
from pavane.units import UndoUnit, Unit
from pavane_events.event import Event
from pavane_tracing.work import Work

log = logging.getLogger("pavane.undo")


async def ask(
    step: AnyStep,
    inputs: Mapping[str, Event],
    context: Callable[[int], Context],
    unit: Unit | UndoUnit,
    kit: Kit,
    work: Work,
    aside: Callable[[bool], None],
) -> Found:
    """What the step's reconciliation says; *unknown* where it has none, or keeps failing. ``context``: by attempt.

    Pauses between its attempts are spent here, however long it wants them. Raises :class:`pavane.units.Abandoned` where
    the lane stops meanwhile.
    """
    if step.reconciliation is None:
        return Found("unknown")
    retry, within = step.reconciliation.retry, step.reconciliation.within

    async def once(number: int) -> Found:
        return await bounded(step.perform_reconciliation(inputs, context(number)), within)

    short = replace(retry, first_s=min(retry.first_s, ASK.most_s), most_s=min(retry.most_s, ASK.most_s))
    answer = await attempt(once, Policy(short), unit, kit, work, aside)
    found = answer if isinstance(answer, Found) else Found("unknown")
    if isinstance(answer, Failure):
        log.warning("nobody knows whether %s took effect: %s", step.wire_name, answer.reason)
    work.event("reconciled", {"pavane.outcome": found.outcome})
    return found
