"""Saga: where it starts, what completes it, what fails it, and by when."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from pavane_events.errors import DeclarationError, Problem
from pavane_events.event import Event
from pavane_events.place import calling_place

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class SagaEnded(Event, type="pavane.saga-ended", version=1):
    """The coordinator's verdict on a saga, for observers. ``completed``, ``compensated`` or ``abandoned``."""

    saga: str
    verdict: Literal["completed", "compensated", "abandoned"]


class Saga:
    """A saga: a start, an end, and the events that turn it back. Its plan is not written, it is learned from the events.

    ``starts`` is published for every valid record on the ``intake`` topic; ``completes`` ends it well once nothing is
    owed any more; an event of ``fails``, a failed step or the ``deadline`` (from the start event's append) has every
    effect undone in reverse causal order. ``overdue="report"``: past its deadline the saga is reported, once, in the log and
    as a fact, and runs on. ``answers``: events that people, or others outside, give while a saga waits for them in a
    step that says ``external=True``; they enter by the intake, too, one of each type for each saga.
    """

    def __init__(
        self,
        name: str,
        *,
        starts: type[Event],
        completes: type[Event],
        fails: type[Event] | Sequence[type[Event]] = (),
        deadline: timedelta = timedelta(hours=1),
        overdue: Literal["fail", "report"] = "fail",
        intake: str,
        answers: type[Event] | Sequence[type[Event]] = (),
    ) -> None:
        self.name = name
        self.declared_at = calling_place()
        self.starts = starts
        self.completes = completes
        self.fails = (fails,) if isinstance(fails, type) else tuple(fails)
        self.deadline = deadline
        self.overdue = overdue
        self.intake = intake
        self.answers = (answers,) if isinstance(answers, type) else tuple(answers)
        problems = self._problems()
        if problems:
            raise DeclarationError(f"saga {name!r} cannot work as it is declared", problems)

    def __repr__(self) -> str:
        return f"<Saga {self.name}>"

    def _problems(self) -> list[Problem]:
        problems: list[Problem] = []
        if not _NAME.fullmatch(self.name):
            problems.append(Problem("name", "saga.name", "lower-case words joined by '-'"))
        ends = [self.completes.event_type, *(each.event_type for each in self.fails)]
        if self.starts.event_type in ends:
            problems.append(Problem("starts", "saga.start-is-end", "the start event cannot be an end, too"))
        if len(set(ends)) != len(ends):
            problems.append(Problem("fails", "saga.end-doubled", "each end is one event type: completes, or one of fails"))
        problems += [
            Problem("answers", "saga.answer-is-end", f"{kind} starts or ends the saga: it is no answer")
            for kind in sorted({each.event_type for each in self.answers} & {self.starts.event_type, *ends})
        ]
        if self.deadline <= timedelta(0):
            problems.append(Problem("deadline", "saga.deadline", "a deadline is a positive time"))
        if self.overdue not in ("fail", "report"):
            problems.append(
                Problem("overdue", "saga.overdue", 'past its deadline a saga fails or is reported: "fail", "report"')
            )
        if not self.intake or self.intake == self.starts.event_type or self.intake.startswith("pavane."):
            problems.append(Problem("intake", "saga.intake", "the intake is a topic of its own, as in credit.applications"))
        return problems
