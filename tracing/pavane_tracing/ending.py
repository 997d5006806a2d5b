"""The end of a process: spans, and metrics after them, wait for their collectors within one time, not each for its own."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_FOR_METRICS: Final = 0.25
"""The share of the time that spans leave to metrics, where there are any."""

STOP_S: Final = 1.0
"""How long a process waits for its spans that ends before its agents have, or that is a forked child."""


class Ending:
    """Who may wait how long, out of the time that the end of a process may cost. Those who wait do so in turn."""

    def __init__(self) -> None:
        self._has_metrics = False
        self._spent_s = 0.0

    def expect_metrics(self) -> None:
        """Metrics are exported, too: spans will leave some of the time to them."""
        self._has_metrics = True

    @contextmanager
    def of_spans(self, timeout_s: float) -> Generator[float]:
        """How much of the time spans may take; what the block takes is gone."""
        begun = time.monotonic()
        try:
            yield timeout_s * (1 - _FOR_METRICS) if self._has_metrics else timeout_s
        finally:
            self._spent_s = time.monotonic() - begun

    def of_metrics_s(self, timeout_s: float) -> float:
        """How much of the time is left to metrics; they come last."""
        return max(timeout_s * _FOR_METRICS, timeout_s - self._spent_s)


ENDING = Ending()
"""The process's."""
