"""The queue of the export: spans of ours, framed as fields of a request where they end, and the SDK's as they are."""

import threading
from dataclasses import dataclass, field

from pavane_tracing.otlp import framed
from pavane_tracing.span import FinishedSpan


@dataclass(slots=True)
class Gathered:
    """The spans of one request: ours by service, framed, and the SDK's."""

    ours: list[tuple[str, bytearray]] = field(default_factory=list[tuple[str, bytearray]])
    others: list[FinishedSpan] = field(default_factory=list[FinishedSpan])
    count: int = 0
    """Of ours."""


class SpanQueue:
    """Spans that are in no request yet, ``most`` of them at most. From any thread, and from within itself: a span may end
    where garbage is collected, or in a signal's handler. Nothing blocks for longer than it takes to copy a span.

    ``wake`` is set when a request's worth waits.
    """

    def __init__(self, most: int, per_request: int) -> None:
        self.most = most
        self.per_request = per_request
        self.lots: dict[str, Lot] = {}
        self.full: list[tuple[str, bytearray, int]] = []
        self.others: list[FinishedSpan] = []
        self.waiting = 0
        self.overflow = 0
        self.lock = threading.RLock()
        self.wake = threading.Event()

    def begin(self) -> None:
        """Empty, with a lock of its own: a process that was forked may have got the other one locked."""
        self.lock = threading.RLock()
        self.wake = threading.Event()
        self.full, self.others = [], []
        self.waiting = self.overflow = 0
        for lot in self.lots.values():
            lot.cut()

    def lot(self, service: str) -> "Lot":
        """Where the spans of a service go."""
        with self.lock:
            return self.lots.setdefault(service, Lot(self, service))

    def add(self, span: FinishedSpan) -> None:
        """A span of the SDK's has ended."""
        with self.lock:
            if self.waiting >= self.most:
                self.overflow += 1
                return
            self.waiting += 1
            self.others.append(span)
        self.look()

    def look(self) -> None:
        """Wake whoever sends, where a request's worth waits."""
        if self.waiting >= self.per_request and not self.wake.is_set():
            self.wake.set()

    def gather(self) -> list[Gathered]:
        """Everything that waits, by requests; from now on it waits no more."""
        with self.lock:
            lots, self.full = self.full, []
            others, self.others = self.others, []
            lots += [(lot.service, *lot.cut()) for lot in self.lots.values() if lot.count]
            self.waiting = 0
        requests = [Gathered()]
        for service, spans, count in lots:
            if requests[-1].count + count > self.per_request:
                requests.append(Gathered())
            requests[-1].ours.append((service, spans))
            requests[-1].count += count
        room = self.per_request - requests[-1].count
        requests[-1].others = others[:room]
        portions = range(room, len(others), self.per_request)
        requests += [Gathered(others=others[first : first + self.per_request]) for first in portions]
        return requests if requests[0].count or requests[0].others else []

    def take_overflow(self) -> int:
        """How many spans found no room since this was asked last."""
        with self.lock:
            overflow, self.overflow = self.overflow, 0
        return overflow


class Lot:
    """The spans of one service that wait, one after the other as a request has them. At most a request's worth."""

    def __init__(self, queue: SpanQueue, service: str) -> None:
        self.service = service
        self.count = 0
        self._queue = queue
        self._spans = bytearray()

    def take(self, encoded: bytes, /) -> None:
        """A span has ended; where too many wait it is dropped, and counted."""
        queue = self._queue
        lock = queue.lock
        lock.acquire()
        try:
            if queue.waiting >= queue.most:
                queue.overflow += 1
                return
            queue.waiting += 1
            self._spans += framed(encoded)
            self.count += 1
            if self.count >= queue.per_request:
                queue.full.append((self.service, *self.cut()))
        finally:
            lock.release()
        if queue.waiting >= queue.per_request:
            queue.look()

    def cut(self) -> tuple[bytearray, int]:
        """What is in it, and how many spans; it is empty then."""
        spans, count = self._spans, self.count
        self._spans, self.count = bytearray(), 0
        return spans, count
