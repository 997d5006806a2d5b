"""Doubt: calls that an earlier holder of a lane may have begun under a version whose step began on other inputs, or at once.

What a step waits for is part of its agent's version. Where the next one has it wait for more (an input, a lock, a grant), an
input that it holds may have been begun before: it is held all the same, and that nothing began it is proved no more.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from pavane.step import AnyStep
from pavane_events.envelope import Envelope

_LOCK: Final = "lock:"


def begins_on(step: AnyStep) -> str:
    """On what a step begins, as one text: the types of each input, and whether it may need a lock; empty where that is a
    grant."""
    if step.options.pivot:
        return ""
    inputs = sorted("|".join(sorted(parameter.types)) for parameter in step.signature.parameters)
    return " ".join([_LOCK, *inputs] if step.options.lock is not None else inputs)


def calls_begun_by(
    envelope: Envelope, others: Mapping[str, Collection[str]], begun_on: Iterable[str]
) -> list[tuple[str, ...]]:
    """The causes, sorted, of the calls for which that event was the last input. ``others``: what else was there, by id, with
    the types that each may have; ``begun_on``: what :func:`begins_on` said of the step under other versions."""
    calls: list[tuple[str, ...]] = []
    for text in begun_on:
        inputs = [kinds.split("|") for kinds in text.split() if kinds != _LOCK]
        if any(envelope.type in kinds for kinds in inputs):
            causes = _filling(envelope, others, inputs)
            if causes is not None and causes not in calls:
                calls.append(causes)
    return calls


def _filling(envelope: Envelope, others: Mapping[str, Collection[str]], inputs: list[list[str]]) -> tuple[str, ...] | None:
    causes = [envelope.id]
    for kinds in inputs:
        if envelope.type not in kinds:
            found = next((each for each, types in others.items() if not set(types).isdisjoint(kinds)), None)
            if found is None:
                return None
            causes.append(found)
    return tuple(sorted(causes))
