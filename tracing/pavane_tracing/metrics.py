"""Saga metrics: what somebody should be woken for, and how sagas fare. Without a meter provider they cost nothing.

Recorded when the coordinator decides, before its commit: after a crash a decision may count twice, never not at all.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from weakref import WeakSet

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation, get_meter

from pavane_tracing.conventions import MESSAGING, SAGA_NAME, SAGA_STEP

_DURATIONS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)
"""A saga takes milliseconds, or days where it waits for a person."""

_METER = get_meter("pavane")
_PARKED = _METER.create_counter(
    "pavane.saga.parked", unit="{undo}", description="Undos that failed for good: their effects stand until somebody decides."
)
_ENDED = _METER.create_counter("pavane.saga.ended", unit="{saga}", description="Sagas that ended, by verdict.")
_OVERDUE = _METER.create_counter(
    "pavane.saga.overdue", unit="{saga}", description="Sagas that passed their deadline, whether or not they turn back."
)
_DURATION = _METER.create_histogram(
    "pavane.saga.duration",
    unit="s",
    description="From a saga's start event to its end, by verdict.",
    explicit_bucket_boundaries_advisory=_DURATIONS_S,
)


def count_parked(saga: str, step: str, code: str) -> None:
    """An undo of that step failed for good, and its saga is parked."""
    _PARKED.add(1, {SAGA_NAME: saga, SAGA_STEP: step, MESSAGING.error_type: code})


def count_ended(saga: str, verdict: str, duration_s: float, context: Context | None = None) -> None:
    """A saga ended, so long after its start event was appended."""
    attributes = {SAGA_NAME: saga, "saga.verdict": verdict}
    _ENDED.add(1, attributes, context)
    _DURATION.record(max(0.0, duration_s), attributes, context)


def count_overdue(saga: str) -> None:
    """A saga passed its deadline."""
    _OVERDUE.add(1, {SAGA_NAME: saga})


_EXPORTED = _METER.create_counter("otel.sdk.exporter.span.exported", unit="{span}", description="Spans that a collector took.")
_DROPPED = _METER.create_counter("pavane.span.dropped", unit="{span}", description="Spans that were lost on their way.")


def count_exported(spans: int) -> None:
    """A collector took so many spans."""
    _EXPORTED.add(spans)


def count_dropped(spans: int) -> None:
    """So many spans are lost: too many waited, or the collector refused them for good."""
    _DROPPED.add(spans)


class OpenSagas:
    """How many sagas are open in one lane, by name: observed as ``pavane.saga.open`` until it is closed or forgotten.

    Counted by the lane's one task, read by whatever thread exports.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        with _LOCK:
            _LANES.add(self)

    @property
    def counts(self) -> Mapping[str, int]:
        """By name; 0 where all have ended."""
        return dict(self._counts)

    def begin(self, saga: str) -> None:
        """One more is open."""
        self._counts[saga] += 1

    def end(self, saga: str) -> None:
        """One is no longer open."""
        self._counts[saga] -= 1

    def close(self) -> None:
        """The lane is somebody else's: what is open there is theirs to tell. Idempotent."""
        with _LOCK:
            _LANES.discard(self)


_LOCK = threading.Lock()
_LANES: "WeakSet[OpenSagas]" = WeakSet()


def _open_sagas(options: CallbackOptions) -> Iterable[Observation]:
    with _LOCK:
        lanes = tuple(_LANES)
    total: Counter[str] = Counter()
    for lane in lanes:
        total.update(lane.counts)
    return [Observation(count, {SAGA_NAME: saga}) for saga, count in total.items()]


_METER.create_observable_up_down_counter(
    "pavane.saga.open",
    callbacks=[_open_sagas],
    unit="{saga}",
    description="Sagas that have begun and not ended, in the lanes that this process holds.",
)
