"""Faults: which application meets which bad day, by seed. Pure: the same seed and id, the same fault."""

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Literal

Fault = Literal["bureau-slow", "bureau-down", "confidence-low", "crash", "twice", "comes-back", "undo-fails"]

SHARES: tuple[tuple[Fault, int, str], ...] = (
    ("bureau-slow", 25, "the bureau times out once, then answers"),
    ("bureau-down", 8, "the bureau times out until the step gives up"),
    ("confidence-low", 10, "the score is too uncertain for risk's contract"),
    ("crash", 6, "an agent crashes between effect and commit, and its saga fails elsewhere: undone"),
    ("twice", 20, "the application arrives twice and is admitted once"),
    ("comes-back", 8, "a zombie does a step again after its undo: the fence refuses it"),
    ("undo-fails", 8, "an undo fails twice before it works"),
)
"""Each fault's share in a thousand, and what it is."""

BUREAU_ATTEMPTS = 3


class FaultPlan:
    """The faults of one seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self._known: dict[str, Fault | None] = {}

    def fault_of(self, application_id: str) -> Fault | None:
        """The fault that an application meets, if any."""
        if application_id not in self._known:
            self._known[application_id] = self._draw(application_id)
        return self._known[application_id]

    def times_out(self, application_id: str, attempt: int) -> bool:
        """Whether the bureau times out for it. A crash and a fault of its undo only show in a saga that fails."""
        fault = self.fault_of(application_id)
        return fault in ("bureau-down", "crash") or (fault == "bureau-slow" and attempt == 1)

    def lowers_confidence(self, application_id: str) -> bool:
        """Whether its score comes out too uncertain."""
        return self.fault_of(application_id) in ("confidence-low", "comes-back", "undo-fails")

    def crashes(self, application_id: str) -> bool:
        """Whether the agent crashes on it."""
        return self.fault_of(application_id) == "crash"

    def arrives_twice(self, application_id: str) -> bool:
        """Whether it is published twice."""
        return self.fault_of(application_id) == "twice"

    def comes_back(self, application_id: str) -> bool:
        """Whether a step is run again after its undo."""
        return self.fault_of(application_id) == "comes-back"

    def undo_fails(self, application_id: str) -> bool:
        """Whether an undo fails twice."""
        return self.fault_of(application_id) == "undo-fails"

    def summary(self, application_ids: Iterable[str]) -> dict[Fault, int]:
        """How many of these applications meet which fault."""
        found = Counter(self.fault_of(each) for each in application_ids)
        return {fault: found[fault] for fault, _, _ in SHARES if found[fault]}

    def _draw(self, application_id: str) -> Fault | None:
        place = int.from_bytes(sha256(f"{self.seed}:{application_id}".encode()).digest()[:4], "big") % 1000
        for fault, share, _ in SHARES:
            if place < share:
                return fault
            place -= share
        return None
