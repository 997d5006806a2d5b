"""The outbox of the export: requests in memory that the collector has not taken yet."""

from collections import deque
from collections.abc import Generator
from typing import NamedTuple


class Request(NamedTuple):
    """An export request, encoded. ``spans``: how many are in it."""

    body: bytes
    spans: int


class Outbox:
    """Requests, the oldest first. Of the thread that sends them; whoever ends it takes what is left."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self._bytes = 0
        self.awaited = 0
        """How many of them, the oldest, a flush waits for."""

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """One more that is to be sent."""
        self._requests.append(request)
        self._bytes += len(request.body)

    def await_all(self) -> None:
        """A flush waits for what is here now."""
        self.awaited = len(self._requests)

    def first(self) -> Request | None:
        """The oldest."""
        return self._requests[0] if self._requests else None

    def settle(self, request: Request) -> None:
        """The oldest is over, unless somebody has taken it meanwhile."""
        if self.first() is request:
            self._requests.popleft()
            self._bytes -= len(request.body)
            self.awaited = max(0, self.awaited - 1)

    def beyond(self, most_bytes: int) -> Generator[Request]:
        """Take out the latest, until no more than so many bytes are left, or one request."""
        while self._bytes > most_bytes and len(self._requests) > 1:
            request = self._requests.pop()
            self._bytes -= len(request.body)
            self.awaited = min(self.awaited, len(self._requests))
            yield request

    def take(self) -> list[Request]:
        """Take everything out."""
        left = list(self._requests)
        self._requests.clear()
        self._bytes = self.awaited = 0
        return left
