"""What lies on a topic: a message on its way in, a record once it has its place."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

Headers = tuple[tuple[str, bytes], ...]


@dataclass(slots=True, init=False)
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

    def __init__(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        parsed: object | None = None,
    ) -> None:
        self.topic = topic
        self.value = value
        self.key = key
        self.headers = headers
        self.partition = partition
        self.parsed = parsed
        self._size = -1

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


Columns = tuple[tuple[str, ...], tuple[bytes, ...]]
"""Headers as their names, and as many values."""


class Record:
    """A message that has its place in a partition. Treat as immutable: one record serves every lane of a process.

    Offsets of a partition rise, but not by one: buses leave gaps. ``timestamp_ms`` is the time of append by the bus's
    clock, milliseconds since the epoch. ``parsed`` belongs to :mod:`pavane_events.envelope`, which parses a record
    once however many lanes of the process read it. Two are equal where everything but that is.
    """

    __slots__ = ("_columns", "_headers", "key", "offset", "parsed", "partition", "timestamp_ms", "topic", "value")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp_ms: int,
        parsed: object | None = None,
        columns: Columns | None = None,
    ) -> None:
        """``columns`` stand for ``headers``: a bus that has many records at a time keeps the names once."""
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.key = key
        self.value = value
        self.timestamp_ms = timestamp_ms
        self.parsed = parsed
        self._headers = headers
        self._columns = columns

    @property
    def headers(self) -> Headers:
        """Names and values, as they came."""
        headers = self._headers
        if headers is None:
            headers = self._headers = () if self._columns is None else tuple(zip(*self._columns, strict=True))
        return headers

    @property
    def columns(self) -> Columns:
        """The same as their names, and as many values."""
        if self._columns is not None:
            return self._columns
        headers = self._headers
        return cast("Columns", tuple(zip(*headers, strict=True))) if headers else ((), ())

    def __eq__(self, other: object) -> bool:
        return self._all() == other._all() if isinstance(other, Record) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        place = f"topic={self.topic!r}, partition={self.partition}, offset={self.offset}"
        return f"Record({place}, key={self.key!r}, value={self.value!r}, headers={self.headers!r})"

    def _all(self) -> tuple[object, ...]:
        return (self.topic, self.partition, self.offset, self.key, self.value, self.headers, self.timestamp_ms)
