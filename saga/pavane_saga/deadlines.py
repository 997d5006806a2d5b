"""Deadlines: by the coordinator's clock, once its lane has read everything that was there when the time came.

So lag and outages never fail a saga whose answers are already in the log.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping


class Deadlines:
    """The timers of a lane, kept in memory and rebuilt from the open sagas after a restart."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[int, str]] = []
        self._timers: Counter[str] = Counter()
        self._over: set[str] = set()
        self._due: list[str] = []
        self._marks: Mapping[str, int] | None = None

    def add(self, saga: str, due_ms: int) -> None:
        """A saga's time will come. Several times for one saga are fine: whoever fires looks at the saga."""
        heapq.heappush(self._heap, (due_ms, saga))
        self._timers[saga] += 1

    def forget(self, saga: str) -> None:
        """A saga is over: nobody needs to look at it when its time comes."""
        if saga in self._timers:
            self._over.add(saga)

    def patience_s(self, most_s: float) -> float:
        """How long one may wait for records before a timer needs a look."""
        if self._due:
            return 0.01
        while self._heap and self._heap[0][1] in self._over:
            self._pop()
        if not self._heap:
            return most_s
        return min(most_s, max(0.001, self._heap[0][0] / 1000 - self._clock()))

    def must_ask(self) -> bool:
        """Whether a time has come: then the high watermarks are to be asked for, from now."""
        if self._marks is not None:
            return False
        now_ms = self._clock() * 1000
        while self._heap and self._heap[0][0] <= now_ms:
            self._due.append(self._pop())
        return bool(self._due)

    def asked(self, marks: Mapping[str, int]) -> None:
        """The high watermarks, asked for after the time came."""
        self._marks = marks

    def take(self, positions: Mapping[str, int]) -> list[str]:
        """The sagas whose time has come, once the lane has read up to those watermarks; until then none."""
        if self._marks is None or any(positions.get(topic, mark) < mark for topic, mark in self._marks.items()):
            return []
        due, self._due, self._marks = self._due, [], None
        return due

    def _pop(self) -> str:
        _, saga = heapq.heappop(self._heap)
        self._timers[saga] -= 1
        if not self._timers[saga]:
            del self._timers[saga]
            self._over.discard(saga)
        return saga
