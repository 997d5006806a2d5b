"""Owed: what open sagas may still ask of a step: whether it may go. Read from the topics alone."""

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from pavane_events.bus import Bus
from pavane_events.errors import ConfigurationError, Problem
from pavane_saga.engine import undo_owed
from pavane_saga.facts import StepPlan
from pavane_saga.manifest import read_directory
from pavane_saga.story import Story, declarations, open_stories


@dataclass(frozen=True, slots=True)
class Owed:
    """A step owes an open saga an ``answer`` to an event, or would owe it the ``undo`` of what it did."""

    saga: str
    subject: str | None
    step: str
    what: Literal["answer", "undo"]
    event: str

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def list_owed(bus: Bus, whose: str) -> list[Owed]:
    """What is owed by an agent, or by one step (``agent/step``, by its name on the wire or the one that it has now).

    Nothing means that it may go, so nobody may be mistaken for somebody else: raises :class:`ConfigurationError` where no
    manifest has that agent or step, no lane has declared it before, and no saga knows of it. Raises :class:`BusError`.
    """
    steps = await _declared(bus)
    meant = {step.name for step in steps if _is(step.name, whose) or whose == (step.title or step.name)}
    everything = [each for story, _ in await open_stories(bus) for each in _owed_in(story)]
    found = [each for each in everything if each.step in meant or _is(each.step, whose)]
    if not meant and not found:
        raise _unknown(whose, steps)
    return sorted(found, key=lambda each: (each.step, each.saga, each.what, each.event))


async def _declared(bus: Bus) -> set[StepPlan]:
    """Every step of the manifests, and every other that a lane has ever declared: it retires, or is gone."""
    found = set((await read_directory(bus)).steps())
    async for fact in declarations(bus):
        found.update(fact.steps)
    return found


def _unknown(whose: str, steps: Collection[StepPlan]) -> ConfigurationError:
    names = {step.name for step in steps} | {step.title for step in steps if step.title}
    known = sorted(names | {_agent(name) for name in names})
    near = [name for name in known if name.endswith(f"/{whose}")] or difflib.get_close_matches(whose, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    there = f"there are {', '.join(known)}" if known else "no agent has started on this bus"
    message = f"nobody has declared it; {hint}{there}"
    return ConfigurationError("no such agent or step", [Problem(whose or "''", "step.unknown", message)])


def _is(step: str, whose: str) -> bool:
    return whose in (step, _agent(step))


def _agent(step: str) -> str:
    return step.partition("/")[0]


def _owed_in(story: Story) -> Iterator[Owed]:
    summary = story.summary
    for debt in story.owed:
        yield Owed(summary.saga, summary.subject, debt.step, "answer", debt.type)
    for step, causes in undo_owed(story.plan, story.history):
        for cause in causes:
            event = story.history.events.get(cause)
            yield Owed(summary.saga, summary.subject, step, "undo", event.type if event is not None else cause)
