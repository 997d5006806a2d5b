"""A lane may pause topics: nothing of them is received, nothing of them is lost, and the other topics go on."""

import asyncio

from conformance.deployments import (
    A_MOMENT_S,
    SOON_S,
    Deployment,
    after,
    bus_with,
    lane_of,
    numbered,
    receive,
    scenario,
    values,
)
from pavane_events.errors import LaneLost


@scenario
async def test_a_paused_topic_is_silent_while_the_others_go_on(deployment: Deployment) -> None:
    async with bus_with(deployment, "one", "two") as bus:
        lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
        lane.pause(["one"])
        await bus.publish([*numbered("one", 5), *numbered("two", 5)])
        records = await receive(lane, 5)
        assert {record.topic for record in records} == {"two"}
        assert values(records) == [b"0", b"1", b"2", b"3", b"4"]
        assert list(await lane.receive(10, A_MOMENT_S)) == []
        lane.resume(["one"])
        records = await receive(lane, 5)
        assert {record.topic for record in records} == {"one"}
        assert values(records) == [b"0", b"1", b"2", b"3", b"4"]


@scenario
async def test_records_that_were_fetched_and_not_returned_wait_out_the_pause_and_come_once_in_order(
    deployment: Deployment,
) -> None:
    async with bus_with(deployment, "one", "two") as bus:
        await bus.publish([message for number in range(20) for message in numbered("one", 1, first=number)])
        lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
        first = values(await receive(lane, 3, maximum=3))
        lane.pause(["one"])
        await bus.publish([*numbered("two", 2), *numbered("one", 5, first=20)])
        assert {record.topic for record in await receive(lane, 2)} == {"two"}
        assert list(await lane.receive(10, A_MOMENT_S)) == []
        lane.resume(["one"])
        assert first + values(await receive(lane, 22)) == [b"%d" % number for number in range(25)]
        assert list(await lane.receive(10, A_MOMENT_S)) == []


@scenario
async def test_positions_of_a_paused_topic_stand_still_and_its_high_watermark_does_not(deployment: Deployment) -> None:
    async with bus_with(deployment, "one") as bus:
        lane = await lane_of(await bus.lanes("group", ["one"]), 0)
        await bus.publish(numbered("one", 2))
        await receive(lane, 2)
        lane.pause(["one"])
        before = lane.positions["one"]
        await bus.publish(numbered("one", 3, first=2))
        assert list(await lane.receive(10, A_MOMENT_S)) == []
        assert lane.positions["one"] == before
        assert (await lane.high_watermarks())["one"] >= before + 3


@scenario
async def test_a_receive_that_waits_heeds_a_pause_and_wakes_at_the_end_of_it(deployment: Deployment) -> None:
    async with bus_with(deployment, "one", "two") as bus:
        lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
        waiting = asyncio.create_task(lane.receive(10, SOON_S))
        await asyncio.sleep(A_MOMENT_S)
        lane.pause(["one"])
        await bus.publish(numbered("one", 1))
        done, _ = await asyncio.wait([waiting], timeout=A_MOMENT_S)
        assert not done
        lane.resume(["one"])
        assert values(await waiting) == [b"0"]


@scenario
async def test_pausing_twice_and_resuming_what_is_not_paused_change_nothing(deployment: Deployment) -> None:
    async with bus_with(deployment, "one", "two", "unread") as bus:
        lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
        await bus.publish([*numbered("one", 3), *numbered("two", 3), *numbered("unread", 3)])
        lane.resume(["one", "unread", "nowhere"])
        lane.pause(["one", "unread", "nowhere"])
        lane.pause(["one"])
        assert {record.topic for record in await receive(lane, 3)} == {"two"}
        lane.resume(["one", "unread", "nowhere"])
        lane.resume(["one"])
        assert values(await receive(lane, 3)) == [b"0", b"1", b"2"]
        assert list(await lane.receive(10, A_MOMENT_S)) == []


@scenario
async def test_commits_go_on_during_a_pause_and_may_move_the_paused_topic(deployment: Deployment) -> None:
    async with bus_with(deployment, "one", "two") as bus:
        lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
        await bus.publish(numbered("one", 6))
        records = await receive(lane, 2, maximum=2)
        lane.pause(["one"])
        await lane.commit(after(records), numbered("two", 1), {b"k": b"v"})
        assert lane.committed["one"] == records[-1].offset + 1
        assert values(await receive(lane, 1)) == [b"0"]
        third = [record.offset async for record in bus.read("one", partition=0)][3]
        await lane.commit({"one": third})
        lane.resume(["one"])
        assert values(await receive(lane, 3)) == [b"3", b"4", b"5"]


@scenario
async def test_the_next_holder_begins_with_nothing_paused_at_what_was_committed(deployment: Deployment) -> None:
    async with bus_with(deployment, "one") as bus, await deployment.open() as other:
        members = await bus.lanes("group", ["one"])
        lane = await lane_of(members, 0)
        await bus.publish(numbered("one", 4))
        records = await receive(lane, 2, maximum=2)
        lane.pause(["one"])
        await lane.commit(after(records[:1]))
        await members.close()
        lane.pause(["one"])
        lane.resume(["one"])
        successor = await lane_of(await other.lanes("group", ["one"]), 0)
        assert values(await receive(successor, 3)) == [b"1", b"2", b"3"]
        try:
            await lane.receive(1, 0)
        except LaneLost:
            return
        raise AssertionError("a lane that was given up received")


@scenario
async def test_topics_added_later_are_received_while_others_pause(deployment: Deployment) -> None:
    async with bus_with(deployment, "one", "late") as bus:
        members = await bus.lanes("group", ["one"])
        lane = await lane_of(members, 0)
        lane.pause(["one"])
        await bus.publish([*numbered("one", 2), *numbered("late", 2)])
        await members.subscribe(["late"])
        assert {record.topic for record in await receive(lane, 2)} == {"late"}
        lane.resume(["one"])
        assert {record.topic for record in await receive(lane, 2)} == {"one"}


@scenario
async def test_a_long_backlog_behind_a_pause_holds_up_nobody_and_comes_whole(deployment: Deployment) -> None:
    count = 5000
    async with bus_with(deployment, "one", "two") as bus, await deployment.open() as other:
        lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
        lane.pause(["one"])
        for publisher in (bus, other):
            for _ in range(5):
                await publisher.publish(numbered("one", count // 10))
            await publisher.publish(numbered("two", 1))
            (record,) = await receive(lane, 1)
            assert record.topic == "two"
        for _ in range(3):
            lane.resume(["one"])
            lane.pause(["one"])
        lane.resume(["one"])
        records = await receive(lane, count, maximum=500)
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))
        assert not await lane.receive(1, 0)
