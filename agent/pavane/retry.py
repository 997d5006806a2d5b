"""Retry: how often and how patiently a step is tried again, and how it says that trying again is pointless."""

from dataclasses import dataclass
from typing import ClassVar

from pavane_events.errors import PavaneError


class Rejected(PavaneError):
    """A business "no": raised by a step, it fails the step at once, without retry and without a dead letter.

    The reason is recorded as a fact and shown by ``pavane sagas show``: keep personal data out of it.
    """

    code: ClassVar[str] = "rejected"
    reason: str = ""

    def __init__(self, reason: str) -> None:
        self.reason = str(reason)  # whatever it is given
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy: at most ``attempts`` calls in all, with pauses that grow by ``factor`` from ``first_s`` to ``most_s``.

    Each pause is spread by up to ``jitter`` (0.2: plus or minus 20 %), so that a crowd does not come back at once.
    If in doubt, keep the defaults: four attempts within about two seconds.
    """

    attempts: int = 4
    first_s: float = 0.2
    factor: float = 2.0
    most_s: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_s, self.most_s) < 0 or self.factor < 1 or not 0 <= self.jitter < 1:
            raise ValueError("Retry needs attempts >= 1, first_s >= 0, most_s >= 0, factor >= 1 and 0 <= jitter < 1")

    def pause_s(self, attempt: int, chance: float) -> float:
        """The pause after attempt number ``attempt`` (from 1) failed; ``chance`` in [0, 1) spreads it."""
        try:
            steady = min(self.most_s, self.first_s * self.factor ** (attempt - 1))
        except OverflowError:
            steady = self.most_s
        return steady * (1 + self.jitter * (2 * chance - 1))


ONCE = Retry(attempts=1)
ASK = Retry(attempts=3, most_s=0.8)
"""The default policy of a reconciliation: what it cannot find out soon, nobody knows."""
UNDO = Retry(attempts=8, first_s=0.1)
"""The default policy of an undo: patient, because an undo that fails parks its saga."""
