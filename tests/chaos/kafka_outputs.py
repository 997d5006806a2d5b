"""What came out, read with a foreign client that sees committed records only: each output once, in order, counted right."""

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from chaos.kafka_order import Order

_POLL_S = 0.1
_MOST = 1000
_LOOK_S = 0.02
_MOST_PROBLEMS = 20


@dataclass(slots=True)
class Outputs:
    """Outputs as they come, each held against those before it. ``arrivals``: when each partition's came."""

    count: int = 0
    by_key: Counter[bytes] = field(default_factory=Counter[bytes])
    problems: list[str] = field(default_factory=list[str])
    arrivals: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    numbers: Counter[int] = field(default_factory=Counter[int])
    _offsets: dict[int, int] = field(default_factory=dict[int, int])

    def since(self, moment: float) -> set[int]:
        """The partitions whose latest output came after that moment; from any thread."""
        return {partition for partition, times in tuple(self.arrivals.items()) if times and times[-1] > moment}

    def take(self, partition: int, key: bytes, value: bytes) -> None:
        """The next output of a partition: of its key the next one, counted as such, made of an input further on."""
        output: Mapping[str, int] = json.loads(value)
        self.count += 1
        self.by_key[key] += 1
        self.numbers[output["n"]] += 1
        self.arrivals[partition].append(time.monotonic())
        expected = self.by_key[key]
        before, self._offsets[partition] = self._offsets.get(partition, -1), output["offset"]
        if not (output["nth"] == output["count"] == expected and output["offset"] > before):
            self._note(f"{key!r} in {partition}: {value.decode()} where its {expected}. was due, after offset {before}")

    @property
    def doubled(self) -> int:
        """How many came more than once."""
        return self.count - len(self.numbers)

    def _note(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


class Reader:
    """Reads a topic through a whole test, in a thread of its own, as anybody would with librdkafka."""

    def __init__(self, order: Order) -> None:
        self.outputs = Outputs()
        self.failure: BaseException | None = None
        self._order = order
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    @contextmanager
    def reading(self) -> Generator["Reader"]:
        """Until the block is left."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(30.0)

    @property
    def count(self) -> int:
        """How many outputs have come so far."""
        return self.outputs.count

    async def until(self, count: int, patience_s: float) -> None:
        """Wait for so many outputs. AssertionError where they do not come, or one of them is wrong."""
        give_up = time.monotonic() + patience_s
        while self.count < count:
            self.check()
            assert time.monotonic() < give_up, f"{self.count} outputs came, {count} were due within {patience_s:.0f} s"
            await asyncio.sleep(_LOOK_S)
        self.check()

    def check(self) -> None:
        """AssertionError where something is wrong by now."""
        assert self.failure is None, f"the reader failed: {self.failure!r}"
        assert self.outputs.problems == []

    def _run(self) -> None:
        try:
            consumer = committed_reader(self._order)
            try:
                consumer.assign(
                    [TopicPartition(self._topic, each, OFFSET_BEGINNING) for each in range(self._order.partitions)]
                )
                while not self._stop.is_set():
                    self._take(consumer.consume(_MOST, _POLL_S))
            finally:
                consumer.close()
        except BaseException as error:
            self.failure = error

    @property
    def _topic(self) -> str:
        return self._order.prefix + self._order.target

    def _take(self, messages: list[Message]) -> None:
        for each in messages:
            if each.error() is None:  # else a broker is away: it comes back by itself
                _take(self.outputs, each)


def read_all(order: Order, *, patience_s: float = 60.0) -> Outputs:
    """Everything that a reader who comes now finds, up to where each partition ends now."""
    outputs = Outputs()
    consumer = committed_reader(order)
    try:
        places = [TopicPartition(order.prefix + order.target, each, OFFSET_BEGINNING) for each in range(order.partitions)]
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=patience_s)[1] for place in places}
        consumer.assign(places)
        give_up = time.monotonic() + patience_s
        while any(each.offset < ends[each.partition] for each in consumer.position(places) if ends[each.partition]):
            assert time.monotonic() < give_up, f"a fresh reader does not reach {ends}: {consumer.position(places)}"
            for message in consumer.consume(_MOST, _POLL_S):
                if message.error() is None:
                    _take(outputs, message)
        return outputs
    finally:
        consumer.close()


def committed_reader(order: Order) -> Consumer:
    """A client that sees committed records only; no topic is assigned to it yet."""
    return Consumer(
        {
            "bootstrap.servers": order.servers,
            "group.id": f"{order.prefix}reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "socket.timeout.ms": 5_000,  # a broker that has frozen is left for its successor
            "topic.metadata.refresh.interval.ms": 1_000,
            "log_level": 0,
        }
    )


def _take(outputs: Outputs, message: Message) -> None:
    partition, key, value = message.partition(), message.key(), message.value()
    assert partition is not None
    assert isinstance(key, bytes)
    assert isinstance(value, bytes)
    outputs.take(partition, key, value)
