"""Release: records of delay tiers, held until they are due and begun again then. Of each tier only the head is looked at."""

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from pavane.commits import Commits
from pavane.kit import Kit
from pavane.reception import Reception
from pavane.tiers import Delayed, Tier, is_long, to_tier
from pavane.units import Done, UndoUnit, Unit
from pavane.workers import Workers
from pavane_events.bus import Lane
from pavane_events.record import Message, Record

LOOK_AGAIN_S: Final = 0.25
"""How soon a clock that was set forward is noticed."""


@dataclass(slots=True)
class _Head:
    """What was received of one tier and is not due yet: at most one batch, for its topic pauses meanwhile."""

    tier: Tier
    records: deque[tuple[Record, float]] = field(default_factory=deque[tuple[Record, float]])
    taken: int = -1
    paused: bool = False


class Releases:
    """A lane's delay tiers. Held in memory are one batch per tier at most, however many wait, and what is due.

    A record is due when its tier's delay has passed since its append, by the clock; or since it was received, by the
    event loop's, so that a clock that was set back holds up nothing for longer than its tier does.
    """

    def __init__(
        self, kit: Kit, lane: Lane, reception: Reception, commits: Commits, workers: Workers[Unit | UndoUnit]
    ) -> None:
        self._kit = kit
        self._lane = lane
        self._reception = reception
        self._commits = commits
        self._workers = workers
        self._heads: Mapping[str, _Head] = {topic: _Head(tier) for topic, tier in kit.plan.tiers.items()}
        self._look_s = LOOK_AGAIN_S if kit.look_s is None else kit.look_s
        self._held = 0
        self._soon: list[tuple[float, int, Unit | UndoUnit]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, record: Record) -> bool:
        """Take a record of a tier; False where it is of no tier. Nothing begins before :meth:`release`."""
        head = self._heads.get(record.topic)
        if head is None:
            return False
        if record.offset > head.taken:  # a bus that delivers one twice to the same holder does no harm
            head.taken = record.offset
            head.records.append((record, asyncio.get_running_loop().time()))
            self._held += 1
        return True

    def release(self) -> None:
        """Begin what is due; pause the tiers whose head is not, and receive those again of which nothing is held."""
        if not self._held:
            return
        for topic, head in self._heads.items():
            while head.records and self._wait_s(head) <= 0:
                record, _ = head.records.popleft()
                self._held -= 1
                self._begin(record, head.tier)
            if head.paused != bool(head.records):
                head.paused = bool(head.records)
                (self._lane.pause if head.paused else self._lane.resume)([topic])
        self._workers.wake()

    def wait_s(self, most_s: float) -> float:
        """How long a lane may receive before it has to look here again."""
        if not self._held:
            return most_s
        first_s = min(self._wait_s(head) for head in self._heads.values() if head.records)
        return max(0.0, min(most_s, first_s, self._look_s))

    def close(self) -> None:
        """Begin nothing more."""
        self._soon.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wait_s(self, head: _Head) -> float:
        record, received_s = head.records[0]
        by_clock = record.timestamp_ms / 1000 + head.tier.delay_s - self._kit.clock()
        return min(by_clock, received_s + head.tier.delay_s - asyncio.get_running_loop().time())

    def _begin(self, record: Record, tier: Tier) -> None:
        unit = self._reception.take_delayed(record)
        if unit is None or unit.delayed is None:
            return
        delayed = unit.delayed
        overdue_s = self._kit.clock() - record.timestamp_ms / 1000 - tier.delay_s
        left_s = delayed.left_s - max(0.0, overdue_s)
        if left_s <= 0:
            self._workers.submit(unit)
        elif is_long(left_s, self._kit.limits.in_lane_s):
            self._commits.settle(record, unit.name, Done([self._further(delayed, left_s)]))
        else:
            due_s = asyncio.get_running_loop().time() + left_s
            heapq.heappush(self._soon, (due_s, next(self._numbers), unit))
            self._arm()

    def _further(self, delayed: Delayed, left_s: float) -> Message:
        return to_tier(delayed.original, self._kit.plan.agent.name, delayed.step, delayed.again(left_s), delayed.trace)

    def _arm(self) -> None:
        """One timer for all that is due in a moment."""
        if self._timer is not None:
            self._timer.cancel()
        if self._soon:
            self._timer = asyncio.get_running_loop().call_at(self._soon[0][0], self._submit)

    def _submit(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._soon and self._soon[0][0] <= now:
            self._workers.submit(heapq.heappop(self._soon)[2])
        self._arm()
        self._workers.wake()
