"""A witness: reads every topic of a deployment while it is under fire, with a foreign client, and sees what comes twice."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from chaos.kafka_order import Order
from chaos.kafka_outputs import committed_reader

_POLL_S = 0.1
_MOST = 1000
_CATCH_UP_S = 60.0


class Witness:
    """Counts event ids on each topic but those named, where what comes twice from outside lies twice."""

    def __init__(self, order: Order, outside: Collection[str]) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self._order = order
        self._outside = {order.prefix + topic for topic in outside}
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Until the block is left, and then up to where each topic ends by then."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(2 * _CATCH_UP_S)

    def check(self) -> None:
        """AssertionError where it did not see all, or saw an event id twice."""
        assert not self._thread.is_alive(), "the witness does not reach the ends of the topics"
        assert self._failure is None, f"the witness failed: {self._failure!r}"
        assert [each for each, count in self.seen.items() if count > 1] == [], "events came more than once"

    def _run(self) -> None:
        try:
            consumer = committed_reader(self._order)
            try:
                self._watch(consumer)
            finally:
                consumer.close()
        except BaseException as error:
            self._failure = error

    def _watch(self, consumer: Consumer) -> None:
        topics = consumer.list_topics(timeout=_CATCH_UP_S).topics
        ours = [name for name in topics if name.startswith(self._order.prefix) and name not in self._outside]
        places = [TopicPartition(name, number, OFFSET_BEGINNING) for name in ours for number in topics[name].partitions]
        consumer.assign(places)
        while not self._stop.is_set():
            self._take(consumer.consume(_MOST, _POLL_S))
        ends = [consumer.get_watermark_offsets(place, timeout=_CATCH_UP_S)[1] for place in places]
        give_up = time.monotonic() + _CATCH_UP_S
        while any(at.offset < end for at, end in zip(consumer.position(places), ends, strict=True) if end):
            assert time.monotonic() < give_up, "it does not reach the ends of the topics"
            self._take(consumer.consume(_MOST, _POLL_S))

    def _take(self, messages: list[Message]) -> None:
        for each in messages:
            topic = each.topic()
            if each.error() is not None or topic is None:
                continue  # a broker is away: it comes back by itself
            headers = dict(cast("list[tuple[str, bytes]]", each.headers() or []))
            if "ce_id" in headers:
                self.seen[topic, headers["ce_id"].decode()] += 1
