"""Owed: what open sagas may still ask of a step: whether it may go. Read from the topics alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pavane_events.bus import Bus
from pavane_saga.story import Story, open_stories


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
    """What is owed by an agent, or by one step (``agent/step``). Raises :class:`BusError`."""
    found = [each for story, _ in await open_stories(bus) for each in _owed_in(story) if _is(each.step, whose)]
    return sorted(found, key=lambda each: (each.step, each.saga, each.what, each.event))


def _owed_in(story: Story) -> Iterator[Owed]:
    summary = story.summary
    for debt in story.owed:
        yield Owed(summary.saga, summary.subject, debt.step, "answer", debt.type)
    for step, causes in story.standing:
        for cause in causes:
            event = story.history.events.get(cause)
            yield Owed(summary.saga, summary.subject, step, "undo", event.type if event is not None else cause)


def _is(step: str, whose: str) -> bool:
    return whose in (step, step.partition("/")[0])
