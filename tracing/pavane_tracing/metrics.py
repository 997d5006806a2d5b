"""Metrics: what somebody should be woken for. Through OpenTelemetry's API: where nobody set a provider up they cost nothing.

Counted when the coordinator decides, before its commit: after a crash a decision may count twice, never not at all.
"""

from opentelemetry.metrics import get_meter

_METER = get_meter("pavane")
_PARKED = _METER.create_counter(
    "pavane.saga.parked", unit="{undo}", description="Undos that failed for good: their effects stand until somebody decides."
)
_ENDED = _METER.create_counter("pavane.saga.ended", unit="{saga}", description="Sagas that ended, by verdict.")
_OVERDUE = _METER.create_counter(
    "pavane.saga.overdue", unit="{saga}", description="Sagas that passed their deadline, whether or not they turn back."
)


def count_parked(saga: str, step: str, code: str) -> None:
    """An undo of that step failed for good, and its saga is parked."""
    _PARKED.add(1, {"saga.name": saga, "saga.step": step, "error.type": code})


def count_ended(saga: str, verdict: str) -> None:
    """A saga ended."""
    _ENDED.add(1, {"saga.name": saga, "saga.verdict": verdict})


def count_overdue(saga: str) -> None:
    """A saga passed its deadline."""
    _OVERDUE.add(1, {"saga.name": saga})


_EXPORTED = _METER.create_counter("otel.sdk.exporter.span.exported", unit="{span}", description="Spans that a collector took.")
_DROPPED = _METER.create_counter("pavane.span.dropped", unit="{span}", description="Spans that were lost on their way.")


def count_exported(spans: int) -> None:
    """A collector took so many spans."""
    _EXPORTED.add(spans)


def count_dropped(spans: int) -> None:
    """So many spans are lost: too many waited, or the collector refused them for good."""
    _DROPPED.add(spans)
