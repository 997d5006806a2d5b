"""The queue of the export: spans of ours, encoded as fields of a request where they end, and the SDK's as they are."""

import threading
from dataclasses import dataclass, field
from typing import TypeVar

from pavane_tracing.span import FinishedSpan

T = TypeVar("T")


@dataclass(slots=True)
class Gathered:
    """The spans of one request: ours by service, and the SDK's."""

    ours: list[tuple[str, list[bytes]]] = field(default_factory=list[tuple[str, list[bytes]]])
    others: list[FinishedSpan] = field(default_factory=list[FinishedSpan])
    count: int = 0
    """Of ours."""


class SpanQueue:
    """Spans that are in no request yet, ``most`` of them at most. From any thread, and from within itself: a span may end
    where garbage is collected, or in a signal's handler. Whoever adds one takes no lock: it is appended to a list, of which
    :meth:`gather` removes no more than it has read.

    ``wake`` is set when a request's worth waits.
    """

    def __init__(self, most: int, per_request: int) -> None:
        self.most = most
        self.per_request = per_request
        self.lots: dict[str, Lot] = {}
        self.others: list[FinishedSpan] = []
        self.waiting = 0
        self.overflow = 0
        self.lock = threading.RLock()
        """Of whoever gathers, and of new lots."""
        self.wake = threading.Event()

    def begin(self) -> None:
        """Empty, with a lock of its own: a process that was forked may have got the other one locked."""
        self.lock = threading.RLock()
        self.wake = threading.Event()
        self.others = []
        self.waiting = self.overflow = 0
        for lot in self.lots.values():
            lot.spans = []

    def lot(self, service: str) -> "Lot":
        """Where the spans of a service go."""
        with self.lock:
            return self.lots.setdefault(service, Lot(self))

    def add(self, span: FinishedSpan) -> None:
        """A span of the SDK's has ended."""
        if self.admit():
            self.others.append(span)
            self.look()

    def admit(self) -> bool:
        """Let one more span wait, where there is room; where there is none, it is counted as lost, and False."""
        if self.waiting >= self.most:
            self.overflow += 1
            return False
        self.waiting += 1
        return True

    def look(self) -> None:
        """Wake whoever sends, where a request's worth waits."""
        if self.waiting >= self.per_request and not self.wake.is_set():
            self.wake.set()

    def gather(self, *, full: bool = False) -> list[Gathered]:
        """Everything that waits, by requests; from now on it waits no more. ``full``: in full requests only, and what is left
        goes on waiting: with what comes next it makes a full one."""
        with self.lock:
            left = sum([len(lot.spans) for lot in self.lots.values()]) + len(self.others)
            if full:
                left -= left % self.per_request
            lots: list[tuple[str, list[bytes]]] = []
            for service, lot in self.lots.items():
                taken = _taken(lot.spans, left)
                lots.append((service, taken))
                left -= len(taken)
            others = _taken(self.others, left)
            self.waiting = len(self.others) + sum([len(lot.spans) for lot in self.lots.values()])
        requests: list[Gathered] = []
        room = 0
        for service, spans in lots:
            first = 0
            while first < len(spans):
                if room == 0:
                    requests.append(Gathered())
                    room = self.per_request
                portion = spans[first : first + room]
                requests[-1].ours.append((service, portion))
                requests[-1].count += len(portion)
                room -= len(portion)
                first += len(portion)
        if room:
            requests[-1].others = others[:room]
        portions = range(room, len(others), self.per_request)
        return requests + [Gathered(others=others[first : first + self.per_request]) for first in portions]

    def take_overflow(self) -> int:
        """How many spans found no room since this was asked last."""
        overflow = self.overflow
        self.overflow -= overflow
        return overflow


class Lot:
    """The spans of one service that wait."""

    def __init__(self, queue: SpanQueue) -> None:
        self.spans: list[bytes] = []
        self._queue = queue

    def take(self, encoded: bytes, /) -> None:
        """A span has ended; where too many wait it is dropped, and counted."""
        queue = self._queue
        if queue.admit():
            self.spans.append(encoded)
            queue.look()


def _taken(spans: list[T], most: int) -> list[T]:
    """What is in a list, so many at most, which is taken out of it; what others append meanwhile stays in it."""
    taken = spans[:most]
    del spans[: len(taken)]
    return taken
