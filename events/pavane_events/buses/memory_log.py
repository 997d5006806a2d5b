"""What lies in memory: topics with their partitions, and the keyed state of lanes."""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter

from pavane_events.bus import TopicSpec
from pavane_events.buses.placing import Placing, unknown_topic
from pavane_events.record import Message, Record

Placed = tuple[Message, int]
"""A message that passed every check, and its partition."""

Written = Mapping[int, Set[str]]
"""By partition, the topics that were written."""


@dataclass(slots=True)
class Log:
    """One partition of one topic. ``arrivals`` gives every record its place in time among all topics."""

    records: list[Record] = field(default_factory=list[Record])
    arrivals: list[int] = field(default_factory=list[int])
    end: int = 0

    def index(self, offset: int) -> int:
        """The place in ``records`` of the first record at or above an offset."""
        return bisect_left(self.records, offset, key=attrgetter("offset"))

    def index_since(self, arrivals: int) -> int:
        """The place in ``records`` of the first record that arrived when so many had."""
        return bisect_left(self.arrivals, arrivals)

    @property
    def high_watermark(self) -> int:
        """The offset just above the last record."""
        return self.records[-1].offset + 1 if self.records else 0


class Logs:
    """Every topic of the bus."""

    def __init__(self, partitions: int, max_record_bytes: int, clock: Callable[[], float]) -> None:
        self.partitions = partitions
        self.specs: dict[str, TopicSpec] = {}
        self._placing = Placing(partitions, max_record_bytes)
        self._clock = clock
        self._logs: dict[tuple[str, int], Log] = {}
        self.everything: list[Record] = []
        """In the order of its arrival."""

    @property
    def arrivals(self) -> int:
        """How many records were written."""
        return len(self.everything)

    def create(self, specs: Collection[TopicSpec]) -> None:
        """Create the topics that do not exist."""
        for spec in specs:
            if spec.name not in self.specs:
                self.specs[spec.name] = spec
                self._logs.update(((spec.name, partition), Log()) for partition in range(self.partitions))

    def check_topics(self, names: Collection[str]) -> None:
        """Raise UnknownTopic for the first name that is no topic."""
        for name in names:
            if name not in self.specs:
                raise unknown_topic(name)

    def log(self, topic: str, partition: int) -> Log:
        """One partition of a topic that exists."""
        return self._logs[topic, partition]

    def place(self, messages: Sequence[Message]) -> list[Placed]:
        """Check messages and find their partitions; nothing is written."""
        self.check_topics({message.topic for message in messages})
        for message in messages:
            self._placing.check_size(message)
        return [(message, self._placing.partition(message)) for message in messages]

    def append(self, placed: Sequence[Placed]) -> Written:
        """Append all of them, and say which partitions of which topics were written.

        Each partition written loses one offset at the end, as Kafka spends one on the marker of a transaction: nobody
        may rely on offsets without gaps.
        """
        now_ms = int(self._clock() * 1000)
        written: dict[int, Log] = {}
        for message, partition in placed:
            log = self._logs[message.topic, partition]
            record = Record(
                message.topic, partition, log.end, message.key, message.value, tuple(message.headers), now_ms, message.parsed
            )
            log.records.append(record)
            log.arrivals.append(len(self.everything))
            self.everything.append(record)
            log.end += 1
            written[id(log)] = log
        for log in written.values():
            log.end += 1
        topics: dict[int, set[str]] = {}
        for message, partition in placed:
            topics.setdefault(partition, set()).add(message.topic)
        return topics


class KeyedState:
    """Keys in order, with their values."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        return self._values.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order, as of this call."""
        pairs: list[tuple[bytes, bytes]] = []
        for place in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[place]
            if not key.startswith(prefix):
                break
            pairs.append((key, self._values[key]))
        return iter(pairs)

    def apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Set every key to its value; a key whose value is None goes."""
        for key, value in changes.items():
            if value is not None:
                if key not in self._values:
                    insort(self._keys, key)
                self._values[key] = value
            elif self._values.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
