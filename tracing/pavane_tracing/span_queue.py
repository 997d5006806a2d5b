"""The queue of the export: spans of ours, encoded as fields of a request where they end, and the SDK's as they are."""

import threading
from dataclasses import dataclass, field
from typing import Final

from pavane_tracing.span import FinishedSpan, said_in

MOST_BYTES: Final = 64 * 1024 * 1024
REQUEST_BYTES: Final = 4 * 1024 * 1024
"""Jaeger and the Collector take 20 MiB unless told otherwise; gateways before them often less."""
_LEAST_REQUEST_BYTES: Final = 64 * 1024
"""Whoever takes no more than that refuses other things than the size, too."""
_LEAST_OF_OTHERS: Final = 512
"""What one of the SDK's spans is counted as that has no text."""


@dataclass(slots=True)
class Gathered:
    """The spans of one request: ours by service, and the SDK's."""

    ours: list[tuple[str, list[bytes]]] = field(default_factory=list[tuple[str, list[bytes]]])
    others: list[FinishedSpan] = field(default_factory=list[FinishedSpan])
    count: int = 0
    """Of ours."""
    size: int = 0
    """In bytes, of all, as far as it is known before the SDK's are encoded."""

    @property
    def spans(self) -> int:
        """How many are in it."""
        return self.count + len(self.others)


class SpanQueue:
    """Spans that are in no request yet, ``most`` of them and ``most_bytes`` at most; a request has ``per_request`` spans and
    ``request_bytes`` at most, or one span. What one of the SDK's takes is estimated, from its texts.

    From any thread, and from within itself: a span may end where garbage is collected, or in a signal's handler. Whoever adds
    one takes no lock: it is appended to a list, of which :meth:`gather` removes no more than it has read.

    ``wake`` is set when a request's worth waits.
    """

    def __init__(self, most: int, per_request: int, most_bytes: int = MOST_BYTES, request_bytes: int = REQUEST_BYTES) -> None:
        self.most = most
        self.per_request = per_request
        self.most_bytes = most_bytes
        self.request_bytes = request_bytes
        self.lots: dict[str, Lot] = {}
        self.others: list[tuple[int, FinishedSpan]] = []
        self.waiting = 0
        self.size = 0
        self.overflow = 0
        self.lock = threading.RLock()
        """Of whoever gathers, and of new lots."""
        self.wake = threading.Event()

    def begin(self) -> None:
        """Empty, with a lock of its own: a process that was forked may have got the other one locked."""
        self.lock = threading.RLock()
        self.wake = threading.Event()
        self.others = []
        self.waiting = self.size = self.overflow = 0
        for lot in self.lots.values():
            lot.spans = []

    def lot(self, service: str) -> "Lot":
        """Where the spans of a service go."""
        with self.lock:
            return self.lots.setdefault(service, Lot(self))

    def add(self, span: FinishedSpan) -> None:
        """A span of the SDK's has ended."""
        size = _estimated(span)
        if self.admit(size):
            self.others.append((size, span))
            self.look()

    def admit(self, size: int) -> bool:
        """Let one more span wait, where there is room; where there is none, it is counted as lost, and False."""
        if self.waiting >= self.most or self.size + size > self.most_bytes:
            self.overflow += 1
            return False
        self.waiting += 1
        self.size += size
        return True

    def look(self) -> None:
        """Wake whoever sends, where a request's worth waits."""
        if (self.waiting >= self.per_request or self.size >= self.request_bytes) and not self.wake.is_set():
            self.wake.set()

    def bound(self, request_bytes: int) -> None:
        """Requests are smaller from now on: the endpoint takes no larger ones."""
        self.request_bytes = min(self.request_bytes, max(request_bytes, _LEAST_REQUEST_BYTES))

    def gather(self, *, full: bool = False, most_bytes: int | None = None) -> list[Gathered]:
        """Everything that waits, by requests; from now on it waits no more. ``full``: in full requests only, and what is left
        goes on waiting: with what comes next it makes a full one. ``most_bytes``: no further request once there is so much."""
        with self.lock:
            requests = self._requests()
            if full and requests and not self._is_full(requests[-1]):
                requests.pop()
            if most_bytes is not None:
                requests = _beginning(requests, most_bytes)
            for request in requests:
                for service, portion in request.ours:
                    del self.lots[service].spans[: len(portion)]
                del self.others[: len(request.others)]
            self.waiting = len(self.others) + sum([len(lot.spans) for lot in self.lots.values()])
            self.size = sum([size for size, _ in self.others]) + sum([_bytes(lot.spans) for lot in self.lots.values()])
        return requests

    def _requests(self) -> list[Gathered]:
        """What waits now, by requests; it is only read, for others append meanwhile."""
        requests: list[Gathered] = []
        for service, lot in self.lots.items():
            spans = lot.spans[:]
            sizes = list(map(len, spans))
            first = 0
            while first < len(spans):
                request, fitting = self._fit(requests, sizes, first)
                portion = spans[first : first + fitting]
                request.ours.append((service, portion))
                request.count += fitting
                first += fitting
        others = self.others[:]
        sizes = [size for size, _ in others]
        first = 0
        while first < len(others):
            request, fitting = self._fit(requests, sizes, first)
            request.others += [span for _, span in others[first : first + fitting]]
            first += fitting
        return requests

    def _fit(self, requests: list[Gathered], sizes: list[int], first: int) -> tuple[Gathered, int]:
        """The last request, or a new one where nothing more fits, and how many of these spans do."""
        if requests:
            request = requests[-1]
            fitting, size = self._fitting(request, sizes, first)
            if fitting > 0:
                request.size += size
                return request, fitting
        request = Gathered()
        requests.append(request)
        fitting, size = self._fitting(request, sizes, first)
        if fitting == 0:  # too large for any: it goes alone
            fitting, size = 1, sizes[first]
        request.size += size
        return request, fitting

    def _fitting(self, request: Gathered, sizes: list[int], first: int) -> tuple[int, int]:
        """How many spans from the first on a request has room for, and their size."""
        portion = sizes[first : first + self.per_request - request.spans]
        room = self.request_bytes - request.size
        size = sum(portion)
        if size <= room:
            return len(portion), size
        fitting = taken = 0
        while taken + portion[fitting] <= room:
            taken += portion[fitting]
            fitting += 1
        return fitting, taken

    def _is_full(self, request: Gathered) -> bool:
        return request.spans >= self.per_request or request.size >= self.request_bytes

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
        if queue.admit(len(encoded)):
            self.spans.append(encoded)
            queue.look()


def _beginning(requests: list[Gathered], most_bytes: int) -> list[Gathered]:
    """The first of them, until there is so much."""
    size = 0
    for number, request in enumerate(requests):
        if size >= most_bytes:
            return requests[:number]
        size += request.size
    return requests


def _bytes(spans: list[bytes]) -> int:
    return sum(map(len, spans))


def _estimated(span: FinishedSpan) -> int:
    """About what a span of the SDK's will be when it is encoded: its texts are what may be large."""
    return _LEAST_OF_OTHERS + sum([len(value) for value, _ in said_in(span) if isinstance(value, str | bytes)])
