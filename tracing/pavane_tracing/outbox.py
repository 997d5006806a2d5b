"""The outbox of the export: requests in memory that the collector has not taken yet."""

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

from pavane_tracing.patience import Patience


@dataclass(slots=True, eq=False)
class Request:
    """An export request, encoded. ``spans``: how many are in it."""

    body: bytes
    spans: int
    patience: Patience = field(default_factory=Patience)


class Outbox:
    """Requests, the oldest first; one that was put off goes behind the others. Of the thread that sends them; whoever ends it
    takes what is left."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self._awaited: set[Request] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def bytes(self) -> int:
        """How much is in it."""
        return self._bytes

    @property
    def awaited(self) -> int:
        """How many of them a flush waits for."""
        return len(self._awaited)

    @property
    def due(self) -> float:
        """When the next one may be sent; never where there is none."""
        return min((request.patience.due for request in self._requests), default=math.inf)

    def add(self, request: Request) -> None:
        """One more that is to be sent."""
        self._requests.append(request)
        self._bytes += len(request.body)

    def await_all(self) -> None:
        """A flush waits for what is here now."""
        self._awaited = set(self._requests)

    def first(self, now: float) -> Request | None:
        """The oldest that may be sent now."""
        return next((request for request in self._requests if request.patience.due <= now), None)

    def put_off(self, request: Request) -> None:
        """It was not taken: the others have their turn before it, unless somebody has taken it out meanwhile."""
        if request in self._requests:
            self._requests.remove(request)
            self._requests.append(request)

    def settle(self, request: Request) -> None:
        """It is over, unless somebody has taken it out meanwhile."""
        if request in self._requests:
            self._requests.remove(request)
            self._forget(request)

    def divide(self, request: Request, parts: list[Request]) -> None:
        """It is over; its parts have their turn in its place."""
        awaited = request in self._awaited
        self.settle(request)
        self._requests.extendleft(reversed(parts))
        self._bytes += sum(len(part.body) for part in parts)
        if awaited:
            self._awaited.update(parts)

    def beyond(self, most_bytes: int) -> Generator[Request]:
        """Take out the latest, until no more than so many bytes are left, or one request."""
        while self._bytes > most_bytes and len(self._requests) > 1:
            request = self._requests.pop()
            self._forget(request)
            yield request

    def take(self) -> list[Request]:
        """Take everything out."""
        left = list(self._requests)
        self._requests.clear()
        self._awaited.clear()
        self._bytes = 0
        return left

    def _forget(self, request: Request) -> None:
        self._bytes -= len(request.body)
        self._awaited.discard(request)
