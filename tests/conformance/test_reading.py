"""A topic can be looked at without a group: by partition, by range, by key, or as a table."""

import pytest

from conformance.deployments import (
    PARTITIONS,
    Deployment,
    after,
    bus_with,
    content,
    lane_of,
    lanes_of,
    numbered,
    receive,
    scenario,
    values,
)
from pavane_events.errors import UnknownTopic
from pavane_events.partition import partition_of
from pavane_events.record import Message


@scenario
async def test_reading_a_partition_shows_that_partition_only(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish([Message("orders", b"%d" % number, partition=number % 2) for number in range(10)])
        assert values(await content(bus, "orders", partition=1)) == [b"1", b"3", b"5", b"7", b"9"]
        assert await content(bus, "orders", partition=2) == []


@scenario
async def test_reading_a_range_begins_at_start_and_ends_before_end(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders", "noise") as bus:
        for number in range(6):
            await bus.publish([*numbered("orders", 1, first=number), *numbered("noise", 2)])
        offsets = [record.offset for record in await content(bus, "orders", partition=0)]
        ranged = [record async for record in bus.read("orders", partition=0, start=offsets[1], end=offsets[4])]
        from_a_gap = [record async for record in bus.read("orders", partition=0, start=offsets[4] + 1)]
        empty = [record async for record in bus.read("orders", partition=0, start=offsets[2], end=offsets[2])]
    assert values(ranged) == [b"1", b"2", b"3"]
    assert values(from_a_gap) == [b"5"]
    assert empty == []


@scenario
async def test_reading_a_key_shows_that_key_only_in_every_partition_it_is_in(deployment: Deployment) -> None:
    elsewhere = (partition_of(b"mine", PARTITIONS) + 1) % PARTITIONS
    async with bus_with(deployment, "orders", "others") as bus:
        await bus.publish([Message("orders", b"%d" % number, [b"mine", b"other"][number % 2]) for number in range(10)])
        await bus.publish([Message("orders", b"misplaced", b"mine", partition=elsewhere)])
        await bus.publish([Message("others", b"no", b"mine"), Message("orders", b"no", None)])
        mine = [record async for record in bus.read("orders", key=b"mine")]
        misplaced = [record async for record in bus.read("orders", key=b"mine", partition=elsewhere)]
        (sixth,) = [record for record in mine if record.value == b"6"]
        later = [record async for record in bus.read("orders", key=b"mine", start=sixth.offset, partition=sixth.partition)]
    assert sorted(values(mine), key=str) == [b"0", b"2", b"4", b"6", b"8", b"misplaced"]
    assert values(misplaced) == [b"misplaced"]
    assert values(later) == [b"6", b"8"]


@scenario
async def test_reading_ends_with_what_is_there_when_it_begins(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish(numbered("orders", 700))
        seen = 0
        async for _ in bus.read("orders"):
            seen += 1
            if seen % 100 == 0:
                await bus.publish(numbered("orders", 1))
    assert seen == 700


@scenario
async def test_reading_takes_nothing_from_a_group(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        await bus.publish(numbered("orders", 3))
        before = await content(bus, "orders")
        lane = await lane_of(await bus.lanes("group", ["orders"]), 0)
        received = await receive(lane, 3)
        await lane.commit(after(received))
        assert received == before == await content(bus, "orders")


@scenario
async def test_a_table_has_the_latest_record_of_each_key_that_is_not_deleted(deployment: Deployment) -> None:
    async with bus_with(deployment, "settings", "other") as bus:
        await bus.publish([Message("settings", b"%d" % number, b"key-%d" % (number % 7)) for number in range(70)])
        await bus.publish([Message("settings", None, b"key-3"), Message("settings", b"", b"key-4")])
        await bus.publish([Message("settings", b"no key"), Message("other", b"no", b"key-1")])
        table = await bus.table("settings")
    assert {key: record.value for key, record in table.items()} == {
        b"key-0": b"63",
        b"key-1": b"64",
        b"key-2": b"65",
        b"key-4": b"",
        b"key-5": b"68",
        b"key-6": b"69",
    }


@scenario
async def test_a_key_that_was_deleted_may_come_back(deployment: Deployment) -> None:
    async with bus_with(deployment, "settings") as bus:
        await bus.publish([Message("settings", value, b"k") for value in (b"1", None, b"2")])
        assert (await bus.table("settings"))[b"k"].value == b"2"


@scenario
async def test_an_unknown_topic_can_be_neither_read_nor_subscribed(deployment: Deployment) -> None:
    async with bus_with(deployment, "orders") as bus:
        with pytest.raises(UnknownTopic):
            await content(bus, "oders")
        with pytest.raises(UnknownTopic, match="partition"):
            await content(bus, "orders", partition=PARTITIONS)
        with pytest.raises(UnknownTopic):
            await bus.table("oders")
        with pytest.raises(UnknownTopic):
            await bus.lanes("group", ["orders", "oders"])
        members = await bus.lanes("group", ["orders"])
        with pytest.raises(UnknownTopic):
            await members.subscribe(["oders"])
        assert set((await lanes_of(members))[0].positions) == {"orders"}
