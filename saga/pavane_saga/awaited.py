"""Awaited: which sagas wait for somebody outside, for what, and since when. Read from the topics alone."""

from collections.abc import Collection
from dataclasses import dataclass

from pavane_events.bus import Bus
from pavane_saga.engine import awaited_outside
from pavane_saga.manifest import SagaPlan
from pavane_saga.story import Story, open_stories


@dataclass(frozen=True, slots=True)
class Awaited:
    """A step that waits for nothing any more but an event from outside: one of ``types``, to be sent to ``intake``.

    ``inputs``: the types of what it has. ``due_ms``: when it gives up, None where it never does.
    """

    saga: str
    name: str | None
    subject: str | None
    step: str
    types: tuple[str, ...]
    inputs: tuple[str, ...]
    intake: str
    since_ms: int
    due_ms: int | None

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def list_awaited(bus: Bus) -> list[Awaited]:
    """Everything that open sagas wait for from outside, the longest first. Raises :class:`BusError`."""
    found = [each for story, saga in await open_stories(bus) for each in awaited_in(story, saga)]
    return sorted(found, key=lambda each: (each.since_ms, each.saga, each.step))


def awaited_in(story: Story, saga: SagaPlan) -> list[Awaited]:
    """What one saga waits for from outside; nothing where it is turned back or over."""
    if story.failure is not None or story.summary.ended_ms is not None:
        return []
    summary = story.summary
    found: list[Awaited] = []
    for name, types in awaited_outside(story.plan, story.history, saga.answers).items():
        step = story.plan.steps[name]
        held = [debt for debt in story.owed if debt.step == name]
        since_ms = max(story.times.get(debt.event, 0) for debt in held)
        within_ms = int(step.within_s * 1000) if step.within_s is not None and step.external else None
        inputs = tuple(sorted({debt.type for debt in held}))
        due_ms = since_ms + within_ms if within_ms is not None else None
        found.append(Awaited(summary.saga, summary.name, summary.subject, name, types, inputs, saga.intake, since_ms, due_ms))
    return found


def choose(awaited: Collection[Awaited], kind: str | None) -> list[tuple[Awaited, str]]:
    """What an answer may be meant for, with its type; ``kind``: only that type."""
    return [(each, name) for each in awaited for name in each.types if kind is None or kind == name]
