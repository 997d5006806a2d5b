"""What the publisher says where something is wrong that nobody foresaw: that, and not that the bus was closed."""

import asyncio

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.publisher import Publisher
from pavane_events.errors import BusUnavailable
from pavane_events.record import Message


async def wrong(_: str) -> AIOKafkaClient:
    raise ZeroDivisionError("seven by nought")


async def nothing() -> None: ...


def test_a_failure_that_nobody_foresaw_is_named() -> None:
    async def publish() -> None:
        publisher = Publisher(wrong, nothing, KafkaOptions())
        with pytest.raises(BusUnavailable, match="seven by nought"):
            await publisher.publish([(TopicPartition("t", 0), Message("t", b""))])
        await publisher.close()

    asyncio.run(publish())
