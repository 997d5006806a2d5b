"""What lies on a topic: a message on its way in, a record once it has its place."""

from collections.abc import Iterable
from dataclasses import dataclass, field

Headers = tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class Message:
    """Bytes to be published. Treat as immutable.

    ``partition`` overrides the partitioner; without it the key decides (murmur2, as Kafka's Java client does), and a
    message without a key goes to any partition. ``parsed`` is the envelope that the message was made of, if it was: a bus
    that hands records to lanes of the same process hands it on, so that nothing is parsed that was just written.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    parsed: object | None = field(default=None, compare=False, repr=False)
    _size: int = field(default=-1, init=False, compare=False, repr=False)

    def size(self) -> int:
        """Bytes of key, value and headers together: what the size limit of a bus is held against. Counted once."""
        size = self._size
        if size < 0:
            size = self._size = len(self.key or b"") + len(self.value or b"") + size_of(self.headers)
        return size

    def size_is(self, size: int) -> None:
        """Whoever made it has counted already."""
        self._size = size


def size_of(headers: Iterable[tuple[str, bytes]]) -> int:
    """Bytes of headers, names and values."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
    return size


@dataclass(slots=True)
class Record:
    """A message that has its place in a partition. Treat as immutable: one record serves every lane of a process.

    Offsets of a partition rise, but not by one: buses leave gaps. ``timestamp_ms`` is the time of append by the bus's
    clock, milliseconds since the epoch. ``parsed`` belongs to :mod:`pavane_events.envelope`, which parses a record
    once however many lanes of the process read it.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    parsed: object | None = field(default=None, compare=False, repr=False)
