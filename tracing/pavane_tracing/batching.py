"""Batching: how many spans are gathered, and for how long, before they are sent."""

from collections.abc import Mapping
from dataclasses import dataclass

from pavane_events.errors import ConfigurationError, Problem

_SHORTEST_DELAY_MS = 10
_LONGEST_DELAY_MS = 3_600_000
_MOST_SPANS = 100_000_000
_MOST_DIGITS = 50


@dataclass(frozen=True, slots=True)
class Batching:
    """How much is gathered before it is sent. ``most_waiting``: spans that are in no request yet, before more are dropped."""

    most_waiting: int = 16_384
    per_request: int = 2_048
    delay_s: float = 5.0


def batching_of(variables: Mapping[str, str], usual: Batching | None = None) -> Batching:
    """What the ``OTEL_BSP_*`` variables say; ``usual`` where they say nothing. A delay of 0 means: as soon as it is of use.

    Raises :class:`ConfigurationError` with every one that cannot be followed.
    """
    problems: list[Problem] = []

    def whole(name: str, default: int, least: int, most: int) -> int:
        text = variables.get(name, "").strip()
        if not text:
            return default
        if not text.isdecimal() or len(text) > _MOST_DIGITS or not least <= int(text) <= most:
            message = f"{text[:_MOST_DIGITS]!r}: use a whole number, at least {least}, and {most} at most"
            problems.append(Problem(name, "tracing.batching", message))
            return default
        return int(text)

    usual = usual or Batching()
    waiting = whole("OTEL_BSP_MAX_QUEUE_SIZE", usual.most_waiting, 1, _MOST_SPANS)
    per_request = whole("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(usual.per_request, waiting), 1, _MOST_SPANS)
    delay_ms = whole("OTEL_BSP_SCHEDULE_DELAY", round(usual.delay_s * 1000), 0, _LONGEST_DELAY_MS)
    if per_request > waiting:
        message = "must not be more than OTEL_BSP_MAX_QUEUE_SIZE"
        problems.append(Problem("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "tracing.batching", message))
    if problems:
        raise ConfigurationError("tracing cannot be set up", problems)
    return Batching(waiting, per_request, max(delay_ms, _SHORTEST_DELAY_MS) / 1000)
