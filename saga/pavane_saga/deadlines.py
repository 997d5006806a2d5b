"""Deadlines: by the coordinator's clock, once its lane has read everything that was there when the time came.

So lag and outages never fail a saga whose answers are already in the log. A saga that takes answers from outside waits for
the topics by which these come, too; for others those do not count, for they may be paused.
"""

import heapq
from collections.abc import Callable, Collection, Mapping
from typing import Final

_FEW: Final = 100
"""Times that are not worth clearing away."""

_LOOK_S: Final = 0.01
"""While a lane is short of its watermarks it is looked at again, for not all that is there is a record; and each time that
nothing has come, after twice as long."""


class Deadlines:
    """The timers of a lane, one for each open saga, kept in memory and rebuilt from the open sagas after a restart.

    Memory is bound by the number of open sagas, however many have ended before their time.
    """

    def __init__(self, clock: Callable[[], float], outside: Collection[str] = ()) -> None:
        """``outside``: the topics by which answers from outside come."""
        self._others = _Timers(clock, outside)
        self._answered = _Timers(clock, ())

    def set(self, saga: str, due_ms: int, *, answered: bool = False) -> None:
        """A saga's time will come then, and not when it was to come before. ``answered``: it takes answers from outside."""
        now, before = (self._answered, self._others) if answered else (self._others, self._answered)
        before.forget(saga)
        now.set(saga, due_ms)

    def forget(self, saga: str) -> None:
        """A saga is over: nobody needs to look at it when its time comes."""
        self._others.forget(saga)
        self._answered.forget(saga)

    def patience_s(self, most_s: float) -> float:
        """How long one may wait for records before a timer needs a look."""
        return self._others.patience_s(self._answered.patience_s(most_s))

    def must_ask(self) -> bool:
        """Whether a time has come: then the high watermarks are to be asked for, from now."""
        must = [timers.must_ask() for timers in (self._others, self._answered)]
        return any(must)

    def asked(self, marks: Mapping[str, int]) -> None:
        """The high watermarks, asked for after the time came."""
        self._others.asked(marks)
        self._answered.asked(marks)

    @property
    def waits(self) -> bool:
        """Whether a saga that takes answers from outside has to wait until the lane has read up to some watermarks."""
        return self._answered.waits

    def take(self, positions: Mapping[str, int]) -> list[str]:
        """The sagas whose time has come, once the lane has read up to those watermarks; until then none."""
        return [*self._others.take(positions), *self._answered.take(positions)]


class _Timers:
    """Those of sagas that wait for the same topics: for all but those that are put ``aside``."""

    def __init__(self, clock: Callable[[], float], aside: Collection[str]) -> None:
        self._clock = clock
        self._aside = aside
        self._times: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        """Has the times of sagas that are over, and earlier times of others, too, but never more of those than half."""
        self._due: dict[str, None] = {}
        self._marks: Mapping[str, int] | None = None
        self._missing = 0
        """By how much the lane was short of them when it was looked at last."""
        self._look_s = _LOOK_S

    def set(self, saga: str, due_ms: int) -> None:
        if self._times.get(saga) != due_ms:
            self._times[saga] = due_ms
            heapq.heappush(self._heap, (due_ms, saga))
            self._clear()

    def forget(self, saga: str) -> None:
        self._due.pop(saga, None)
        if self._times.pop(saga, None) is not None:
            self._clear()

    def patience_s(self, most_s: float) -> float:
        if self._due:
            return min(most_s, self._look_s)
        first_ms = self._first_ms()
        if first_ms is None:
            return most_s
        return min(most_s, max(0.001, first_ms / 1000 - self._clock()))

    def must_ask(self) -> bool:
        if self._marks is not None:
            return False
        now_ms = self._clock() * 1000
        while (first_ms := self._first_ms()) is not None and first_ms <= now_ms:
            _, saga = heapq.heappop(self._heap)
            del self._times[saga]
            self._due[saga] = None
        return bool(self._due)

    def asked(self, marks: Mapping[str, int]) -> None:
        if self._due and self._marks is None:
            self._marks = {topic: mark for topic, mark in marks.items() if topic not in self._aside}

    @property
    def waits(self) -> bool:
        return self._marks is not None

    def take(self, positions: Mapping[str, int]) -> list[str]:
        marks = self._marks
        if marks is None:
            return []
        missing = sum([max(0, mark - positions.get(topic, mark)) for topic, mark in marks.items()])
        if missing:
            self._look_s = _LOOK_S if missing != self._missing else 2 * self._look_s
            self._missing = missing
            return []
        due, self._due, self._marks, self._missing, self._look_s = list(self._due), {}, None, 0, _LOOK_S
        return due

    def _clear(self) -> None:
        if len(self._heap) > 2 * len(self._times) + _FEW:
            self._heap = [(due_ms, saga) for saga, due_ms in self._times.items()]
            heapq.heapify(self._heap)

    def _first_ms(self) -> int | None:
        """The next time that comes, if any does."""
        while self._heap:
            due_ms, saga = self._heap[0]
            if self._times.get(saga) == due_ms:
                return due_ms
            heapq.heappop(self._heap)
        return None
