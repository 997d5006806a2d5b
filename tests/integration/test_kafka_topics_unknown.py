"""A topic that nobody can be asked about is not missing: agents would end for good over it, and need only wait."""

import asyncio

import pytest

from pavane_events.bus import TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.errors import BusUnavailable, UnknownTopic
from pavane_events.record import Message
from support.kafka import MakeKafka

pytestmark = pytest.mark.slow


def test_without_a_broker_a_topic_that_was_never_used_is_unavailable_and_not_unknown(make_kafka: MakeKafka) -> None:
    kafka = make_kafka()

    async def ask() -> None:
        async with await open_bus(kafka.url, partitions=1) as bus:
            await bus.create_topics([TopicSpec("used"), TopicSpec("unused")])
            await bus.publish([Message("used", b"{}", key=b"a")])
            with pytest.raises(UnknownTopic):
                await bus.publish([Message("missing", b"{}", key=b"a")])
            await asyncio.to_thread(kafka.kill)
            with pytest.raises(BusUnavailable):
                await bus.publish([Message("unused", b"{}", key=b"a")])
            with pytest.raises(BusUnavailable):
                _ = [record async for record in bus.read("missing")]

    asyncio.run(asyncio.wait_for(ask(), 120.0))
