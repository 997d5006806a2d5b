"""Overdue: what has not come in time in the sagas that are open: which event is missing, who owes it, since when."""

from collections.abc import Iterator
from dataclasses import dataclass

from pavane_events.bus import Bus
from pavane_saga.awaited import awaited_in
from pavane_saga.commands import Undo
from pavane_saga.engine import State, due
from pavane_saga.manifest import SagaPlan
from pavane_saga.story import Story, Summary, open_stories

UNDO_PATIENCE_S = 60.0
"""An undo has no deadline; past this it counts as overdue."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """An answer that has not come in time. ``step`` owes it to an event of type ``event``, there since ``since_ms``; or, where
    it is to come from ``outside``, waits for it.

    ``missing``: the types of which the step says one, or ``done``; ``undone`` for an undo. ``due_ms``: when it was to be
    there, by the step's deadline or the saga's, whichever is earlier.
    """

    saga: str
    name: str | None
    subject: str | None
    state: State
    step: str
    missing: tuple[str, ...]
    event: str
    since_ms: int
    due_ms: int
    outside: bool = False

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def list_overdue(bus: Bus, now_ms: int) -> list[Overdue]:
    """What is overdue at that time, the longest first; read from the topics alone. Raises :class:`BusError`.

    What waits because another answer has not come is not listed: that other one is, also where it is to come from
    outside. Nor are undos that failed for good: somebody has to decide about those.
    """
    found = [
        each
        for story, saga in await open_stories(bus)
        for each in (*_answers(story, saga), *_from_outside(story, saga), *_undos(story))
        if each.due_ms < now_ms
    ]
    return sorted(found, key=lambda each: (each.due_ms, each.saga, each.step))


def _answers(story: Story, saga: SagaPlan) -> Iterator[Overdue]:
    summary = story.summary
    started_ms = summary.started_ms or 0
    for debt in story.owed:
        step = story.plan.steps.get(debt.step)
        if step is None or debt.waiting:
            continue
        since_ms = story.times.get(debt.event, started_ms)
        due_ms = _saga_due_ms(summary, saga)
        if step.within_s is not None:
            due_ms = min(due_ms, since_ms + int(step.within_s * 1000))
        missing = step.produces or ("done",)
        yield Overdue(
            summary.saga, summary.name, summary.subject, summary.state, debt.step, missing, debt.type, since_ms, due_ms
        )


def _from_outside(story: Story, saga: SagaPlan) -> Iterator[Overdue]:
    summary = story.summary
    for each in awaited_in(story, saga):
        due_ms = _saga_due_ms(summary, saga)
        if each.due_ms is not None:
            due_ms = min(due_ms, each.due_ms)
        yield Overdue(
            summary.saga,
            summary.name,
            summary.subject,
            summary.state,
            each.step,
            each.types,
            " and ".join(each.inputs),
            each.since_ms,
            due_ms,
            outside=True,
        )


def _saga_due_ms(summary: Summary, saga: SagaPlan) -> int:
    return (summary.started_ms or 0) + int(saga.deadline_s * 1000)


def _undos(story: Story) -> Iterator[Overdue]:
    summary, history = story.summary, story.history
    over = history.undone | history.skipped | {(failed.step, failed.causes) for failed in story.stuck}
    for command in due(story.plan, history):
        if isinstance(command, Undo) and (unit := (command.step, command.causes)) not in over and unit in story.times:
            since_ms = story.times[unit]
            due_ms = since_ms + int(UNDO_PATIENCE_S * 1000)
            yield Overdue(
                summary.saga,
                summary.name,
                summary.subject,
                summary.state,
                command.step,
                ("undone",),
                "pavane.undo",
                since_ms,
                due_ms,
            )
