"""What goes in: events of some keys, sent with a foreign client, numbered over all and within their key."""

import random
from collections import Counter

from confluent_kafka import KafkaError, Message, Producer

from chaos.kafka_order import Order, input_value

_FLUSH_S = 120.0


class Feed:
    """Sends events to the source of an order. Which key comes when is drawn by a seed."""

    def __init__(self, order: Order, *, seed: int, keys: int = 300) -> None:
        self.by_key: Counter[bytes] = Counter()
        self.count = 0
        self._topic = order.prefix + order.source
        self._chance = random.Random(seed)
        self._keys = [b"key-%d" % number for number in range(keys)]
        self._failures: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": order.servers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "socket.timeout.ms": 5_000,  # a broker that has frozen is left for its successor
                "request.timeout.ms": 4_000,
                "topic.metadata.refresh.interval.ms": 1_000,
                "log_level": 0,
            }
        )

    def send(self, count: int, *, wait: bool = True) -> None:
        """So many more; ``wait`` until all have arrived."""
        for _ in range(count):
            key = self._chance.choice(self._keys)
            self.by_key[key] += 1
            self._producer.produce(self._topic, input_value(self.count, self.by_key[key]), key, on_delivery=self._delivered)
            self.count += 1
            if self.count % 500 == 0:
                self._producer.poll(0)
        if wait:
            self.flush()

    def flush(self) -> None:
        """Wait until all have arrived. AssertionError where one has not."""
        assert self._producer.flush(_FLUSH_S) == 0, "the brokers do not take the test's own events"
        assert not self._failures, f"{len(self._failures)} of the test's own events failed, the first: {self._failures[0]}"

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)
