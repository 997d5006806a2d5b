"""What is published lies on the bus as it was given, in its partition, in order; or not at all."""

from dataclasses import replace

import pytest

from conformance.deployments import (
    MAX_RECORD_BYTES,
    PARTITIONS,
    Deployment,
    bus_with,
    content,
    lane_of,
    numbered,
    receive,
    scenario,
    values,
)
from pavane_events.bus import TopicSpec
from pavane_events.errors import BusUnavailable, RecordTooLarge, UnknownTopic
from pavane_events.partition import partition_of
from pavane_events.record import Message


@scenario
async def test_a_partition_keeps_the_order_of_publication(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish(numbered("orders", 150))
        await bus.publish(numbered("orders", 3, first=150))
        records = await content(bus, "orders", partition=0)
    assert values(records) == [b"%d" % number for number in range(153)]
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))


@scenario
async def test_a_key_goes_to_the_partition_that_murmur2_says(deployment: Deployment) -> None:
    keys = [b"key-%d" % number for number in range(40)]
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([Message("orders", b"", key) for key in keys])
        records = await content(bus, "orders")
    assert {record.key: record.partition for record in records} == {key: partition_of(key, PARTITIONS) for key in keys}


@scenario
async def test_a_partition_that_is_given_overrides_the_key(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([Message("orders", b"", b"same", partition=number) for number in range(PARTITIONS)])
        assert [record.partition for record in await content(bus, "orders")] == list(range(PARTITIONS))


@scenario
async def test_messages_without_a_key_are_spread_over_the_partitions(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish(numbered("orders", 40, partition=None))
        assert {record.partition for record in await content(bus, "orders")} == set(range(PARTITIONS))


@scenario
async def test_an_empty_key_is_a_key(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([Message("orders", b"1", b""), Message("orders", b"2", b"")])
        records = await content(bus, "orders", partition=partition_of(b"", PARTITIONS))
    assert [(record.key, record.value) for record in records] == [(b"", b"1"), (b"", b"2")]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("one", b"1"),),
        (("twice", b"first"), ("twice", b"second"), ("other", b""), ("twice", b"first")),
        (("zero", b"a\0b"), ("", b""), ("high", bytes(range(256)))),
        (("naïve", b"\xff\xfe"), ("日本", "日本".encode())),
        (("[", b"["), ("x", b"[")),
    ],
)
@scenario
async def test_bytes_and_headers_come_back_as_they_were_given(
    deployment: Deployment, headers: tuple[tuple[str, bytes], ...]
) -> None:
    undecodable = b"\xc3\x28\x00\xff{not json"
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([Message("orders", undecodable, b"\x00\xff key", headers)])
        (record,) = await content(bus, "orders")
        lane = await lane_of(await bus.lanes("group", ["orders"]), record.partition)
        received = await receive(lane, 1)
    assert (record.value, record.key, record.headers) == (undecodable, b"\x00\xff key", headers)
    assert received == [record]


@scenario
async def test_a_null_value_is_not_an_empty_one(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([Message("orders", None, partition=0), Message("orders", b"", partition=0)])
        assert values(await content(bus, "orders")) == [None, b""]


@scenario
async def test_a_message_of_the_greatest_size_is_taken_and_one_byte_more_is_not(deployment: Deployment) -> None:
    headers = (("four", b"12"), ("four", b"34"))
    async with bus_with(deployment, "orders") as bus:
        fits = Message("orders", b"x" * (MAX_RECORD_BYTES - 15), b"key", headers)
        await bus.publish([fits])
        with pytest.raises(RecordTooLarge, match="orders"):
            await bus.publish([Message("orders", b"small"), Message("orders", b"x" * MAX_RECORD_BYTES, b"k")])
        with pytest.raises(RecordTooLarge):
            await bus.publish([replace(fits, value=b"x" * (MAX_RECORD_BYTES - 14))])
        assert len(await content(bus, "orders")) == 1


@scenario
async def test_an_unknown_topic_or_partition_leaves_nothing_of_the_batch(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        with pytest.raises(UnknownTopic, match="'oders'"):
            await bus.publish([Message("orders", b"1"), Message("oders", b"2")])
        for partition in (-1, PARTITIONS):
            with pytest.raises(UnknownTopic, match="partition"):
                await bus.publish([Message("orders", b"1"), Message("orders", b"2", partition=partition)])
        assert await content(bus, "orders") == []


@scenario
async def test_publishing_nothing_is_allowed(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([])
        assert await content(bus, "orders") == []


@scenario
async def test_topics_are_created_once_and_seen_by_every_bus(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus, await deployment.open() as other:
        await bus.publish([Message("orders", b"1")])
        await other.create_topics([TopicSpec("orders"), TopicSpec("table", compacted=True)])
        assert sorted(await bus.topics()) == sorted(await other.topics()) == ["orders", "table"]
        await bus.publish([Message("table", b"1", b"k")])
        assert len(await content(other, "orders")) == len(await content(other, "table")) == 1


@scenario
async def test_every_bus_of_a_deployment_has_its_partition_count(deployment: Deployment) -> None:
    async with await deployment.open() as bus, await deployment.open() as other:
        assert bus.partitions == other.partitions == PARTITIONS
        assert bus.embedded is other.embedded


@scenario
async def test_what_was_published_outlives_the_bus_object(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish(numbered("orders", 3))
    async with await deployment.open() as bus:
        assert values(await content(bus, "orders")) == [b"0", b"1", b"2"]


@scenario
async def test_a_closed_bus_says_so_and_closing_twice_is_fine(deployment: Deployment) -> None:
    bus = await deployment.open()
    await bus.create_topics([TopicSpec("orders")])
    await bus.close()
    await bus.close()
    with pytest.raises(BusUnavailable, match="closed"):
        await bus.publish([Message("orders", b"1")])
    with pytest.raises(BusUnavailable, match="closed"):
        await bus.lanes("group", ["orders"])
    with pytest.raises(BusUnavailable, match="closed"):
        await content(bus, "orders")
