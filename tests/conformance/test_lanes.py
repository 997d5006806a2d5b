"""A lane receives what its group has not done yet, in order, from where it is to begin; and says how far it is."""

import asyncio

import pytest

from conformance.deployments import (
    A_MOMENT_S,
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
from pavane_events.bus import Start
from pavane_events.record import Message


@scenario
async def test_a_lane_is_its_partition_of_every_topic_of_the_group(deployment: Deployment) -> None:
    async with bus_with(deployment, "one", "two", "unread") as bus:
        for topic in ("one", "two", "unread"):
            await bus.publish([Message(topic, b"%d" % number, partition=number % 4) for number in range(8)])
        lanes = await lanes_of(await bus.lanes("group", ["one", "two"]))
        for partition, lane in lanes.items():
            assert (lane.group, lane.partition) == ("group", partition)
            records = await receive(lane, 4)
            assert {record.partition for record in records} == {partition}
            for topic in ("one", "two"):
                mine = [record.value for record in records if record.topic == topic]
                assert mine == [b"%d" % partition, b"%d" % (partition + 4)]
            assert not await lane.receive(1, 0)


@scenario
async def test_receive_returns_at_most_what_was_asked_for_in_order_of_offset(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        await bus.publish(numbered("in", 10))
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        batches = [values(await lane.receive(4, 5)) for _ in range(3)]
        assert all(len(batch) <= 4 for batch in batches)
        assert [value for batch in batches for value in batch] == [b"%d" % number for number in range(10)]


@scenario
async def test_receive_returns_nothing_when_the_time_runs_out(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        assert list(await lane.receive(10, 0)) == []
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert list(await lane.receive(10, A_MOMENT_S)) == []
        assert loop.time() - begun >= A_MOMENT_S * 0.9


@scenario
async def test_a_waiting_receive_returns_as_soon_as_there_is_a_record(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        for publisher in (bus, other):
            waiting = asyncio.create_task(lane.receive(10, 30))
            await asyncio.sleep(0)
            await publisher.publish([*numbered("in", 1, partition=1), *numbered("in", 1)])
            assert values(await waiting) == [b"0"]


@scenario
async def test_cancelling_a_receive_loses_nothing(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        received: list[bytes | None] = []
        for number in range(30):
            waiting = asyncio.create_task(lane.receive(10, 30))
            await asyncio.sleep(0)
            publishing = asyncio.create_task(bus.publish(numbered("in", 1, first=number)))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting, publishing])
            if not waiting.cancelled():
                received += values(waiting.result())
        while len(received) < 30:
            received += values(await receive(lane, 1))
        assert received == [b"%d" % number for number in range(30)]


@scenario
async def test_positions_follow_what_was_received_and_reach_the_high_watermark(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "empty") as bus:
        lane = await lane_of(await bus.lanes("group", ["in", "empty"]), 0)
        assert lane.positions == lane.committed == {"in": 0, "empty": 0}
        assert await lane.high_watermarks() == {"in": 0, "empty": 0}
        await bus.publish([*numbered("in", 3), *numbered("in", 3, partition=1)])
        marks = await lane.high_watermarks()
        assert marks["in"] > lane.positions["in"]
        (first,) = await receive(lane, 1)
        assert first.offset < lane.positions["in"] < marks["in"]
        await receive(lane, 2)
        assert lane.positions["in"] >= marks["in"]
        assert lane.positions["empty"] >= marks["empty"]
        assert lane.committed == {"in": 0, "empty": 0}


@scenario
async def test_a_high_watermark_is_above_what_any_bus_published_before_the_call(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        for number in range(5):
            await other.publish(numbered("in", 1, first=number))
            marks = await lane.high_watermarks()
            (record,) = [record for record in await content(other, "in") if record.value == b"%d" % number]
            assert marks["in"] > record.offset


@scenario
async def test_an_earliest_start_reads_what_is_there_already(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        await bus.publish(numbered("in", 2))
        lane = await lane_of(await bus.lanes("group", ["in"], start="earliest"), 0)
        assert values(await receive(lane, 2)) == [b"0", b"1"]


@scenario
async def test_a_latest_start_reads_what_comes_after_the_grant(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        await bus.publish(numbered("in", 2))
        await other.publish(numbered("in", 1, first=2))
        lane = await lane_of(await bus.lanes("group", ["in"], start="latest"), 0)
        assert lane.positions["in"] >= (await lane.high_watermarks())["in"]
        assert lane.committed == lane.positions
        assert not await lane.receive(1, 0)
        await other.publish(numbered("in", 1, first=3))
        assert values(await receive(lane, 1)) == [b"3"]


@pytest.mark.parametrize("again", ["latest", "earliest"])
@scenario
async def test_a_latest_start_holds_for_later_owners_even_if_nothing_was_committed(
    deployment: Deployment, again: Start
) -> None:
    async with bus_with(deployment, "in") as bus:
        await bus.publish(numbered("in", 2))
        members = await bus.lanes("group", ["in"], start="latest")
        begin = dict((await lane_of(members, 0)).committed)
        await members.close()
        await bus.publish(numbered("in", 2, first=2))
        lane = await lane_of(await bus.lanes("group", ["in"], start=again), 0)
        assert lane.committed == begin
        assert values(await receive(lane, 2)) == [b"2", b"3"]


@scenario
async def test_a_start_does_not_matter_where_the_group_has_committed(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        await bus.publish(numbered("in", 4))
        members = await bus.lanes("group", ["in"])
        lane = await lane_of(members, 0)
        await lane.commit(after(await receive(lane, 2)))
        await members.close()
        lane = await lane_of(await bus.lanes("group", ["in"], start="latest"), 0)
        assert values(await receive(lane, 2)) == [b"2", b"3"]


@scenario
async def test_further_topics_join_lanes_that_go_on(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "more") as bus:
        await bus.publish([*numbered("in", 4), *numbered("more", 3)])
        members = await bus.lanes("group", ["in"])
        lane = await lane_of(members, 0)
        records = await receive(lane, 2)
        await lane.commit(after(records), (), {b"a": b"1"})
        await members.subscribe(["more", "in"])
        await members.subscribe(["more"])
        assert not lane.lost
        assert lane.committed == {**after(records), "more": 0}
        rest = await receive(lane, 5)
        assert values([record for record in rest if record.topic == "in"]) == [b"2", b"3"]
        assert values([record for record in rest if record.topic == "more"]) == [b"0", b"1", b"2"]
        await bus.publish([*numbered("in", 1, first=4), *numbered("more", 1, first=3)])
        assert {(record.topic, record.value) for record in await receive(lane, 2)} == {("in", b"4"), ("more", b"3")}
        assert set(await lane.high_watermarks()) == {"in", "more"}


@scenario
async def test_a_further_topic_begins_at_its_end_with_a_latest_start(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "more") as bus:
        await bus.publish(numbered("more", 3))
        members = await bus.lanes("group", ["in"], start="latest")
        lane = await lane_of(members, 0)
        await members.subscribe(["more"])
        begin = lane.committed["more"]
        await members.close()
        await bus.publish(numbered("more", 1, first=3))
        lane = await lane_of(await bus.lanes("group", ["in", "more"]), 0)
        assert lane.committed["more"] == begin
        assert values(await receive(lane, 1)) == [b"3"]


@scenario
async def test_a_topic_is_read_from_its_first_record_where_that_is_asked_for(
    deployment: Deployment,
) -> None:
    async with bus_with(deployment, "in", "whole", "later") as bus:
        for topic in ("in", "whole", "later"):
            await bus.publish(numbered(topic, 2))
        members = await bus.lanes("group", ["in", "whole"], start="latest", earliest=["whole", "later", "another"])
        lane = await lane_of(members, 0)
        assert lane.committed["in"] > lane.committed["whole"] == 0
        records = await receive(lane, 2)
        assert [(record.topic, record.value) for record in records] == [("whole", b"0"), ("whole", b"1")]
        await members.subscribe(["later"])
        assert [(record.topic, record.value) for record in await receive(lane, 2)] == [("later", b"0"), ("later", b"1")]
        await lane.commit({"whole": records[0].offset + 1})
        await members.close()
        again = await bus.lanes("group", ["in", "whole", "later"], start="latest", earliest=["whole", "later"])
        lane = await lane_of(again, 0)
        found = [(record.topic, record.value) for record in await receive(lane, 3)]
        assert sorted(found) == [("later", b"0"), ("later", b"1"), ("whole", b"1")], "each from where the lane stands in it"


@scenario
async def test_a_backlog_of_ten_thousand_records_comes_whole_and_in_order(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "more") as bus:
        for first in range(0, 5000, 1000):
            await bus.publish([*numbered("in", 1000, first=first), *numbered("more", 1000, first=first)])
        lane = await lane_of(await bus.lanes("group", ["in", "more"]), 0)
        records = await receive(lane, 10_000, maximum=300)
        for topic in ("in", "more"):
            assert [int(record.value or b"") for record in records if record.topic == topic] == list(range(5000))


@scenario
async def test_a_lane_that_falls_far_behind_while_others_write_misses_nothing(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        await bus.publish(numbered("in", 1))
        records = await receive(lane, 1)
        for first in range(1, 10_000, 1000):
            publisher = bus if first % 2000 == 1 else other
            await publisher.publish(numbered("in", 1000, first=first))
        records += await receive(lane, 5000)
        await bus.publish(numbered("in", 100, first=10_001))
        records += await receive(lane, 5100)
        assert [int(record.value or b"") for record in records] == list(range(10_101))
