"""Lane state on a real Kafka is restored soon enough, also where there is much of it."""

import time

import pytest

from conformance.deployments import lanes_of, scenario
from pavane_events.bus import TopicSpec
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions
from support.kafka import Kafka

KEYS = 100_000
AT_ONCE = 5_000
MOST_S = 10.0

pytestmark = pytest.mark.slow


@scenario
async def test_a_hundred_thousand_keys_are_restored_in_less_than_ten_seconds(kafka: Kafka) -> None:
    options = KafkaOptions(prefix=kafka.prefix(), session_ms=6_000, heartbeat_ms=300)
    value = b"x" * 100
    async with await KafkaBus.open(kafka.servers, 1, options) as bus:
        await bus.create_topics([TopicSpec("in")])
        lane = (await lanes_of(await bus.lanes("group", ["in"]), 1))[0]
        for first in range(0, KEYS, AT_ONCE):
            await lane.commit({}, [], {b"key:%d" % number: value for number in range(first, first + AT_ONCE)})
    async with await KafkaBus.open(kafka.servers, 1, options) as bus:
        began = time.monotonic()
        lane = (await lanes_of(await bus.lanes("group", ["in"]), 1))[0]
        took = time.monotonic() - began
        print(f"{KEYS} keys of {len(value)} bytes are there {took:.1f} s after joining")
        assert sum(found == value for _, found in lane.state.scan(b"key:")) == KEYS
        assert took < MOST_S
