"""Lanes are shared among the members of a group: each lane has one holder, and nobody's lane stays without."""

import asyncio
import contextlib

import pytest

from conformance.deployments import (
    A_MOMENT_S,
    PARTITIONS,
    SOON_S,
    Deployment,
    after,
    bus_with,
    content,
    lane_of,
    lanes_of,
    numbered,
    receive,
    scenario,
    shared,
    until,
    values,
)
from pavane_events.bus import Lane, Lanes
from pavane_events.errors import LaneLost
from pavane_events.record import Message


@scenario
async def test_a_single_member_holds_every_lane(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        assert set(await lanes_of(await bus.lanes("group", ["in"]))) == set(range(PARTITIONS))


@scenario
async def test_two_members_share_and_one_inherits_when_the_other_leaves(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        await bus.publish([message for number in range(PARTITIONS) for message in numbered("in", 2, number)])
        first = await bus.lanes("group", ["in"])
        held = await lanes_of(first)
        second = await other.lanes("group", ["in"])
        theirs = await lanes_of(second, 2)
        await until(lambda: sum(lane.lost for lane in held.values()) == 2)
        assert {lane.partition for lane in held.values() if lane.lost} == set(theirs)
        for lane in theirs.values():
            await lane.commit(after(await receive(lane, 1)), (), {b"who": b"second"})
        await second.close()
        assert all(lane.lost for lane in theirs.values())
        inherited = await lanes_of(first, 2)
        assert set(inherited) == set(theirs)
        for lane in inherited.values():
            assert lane.state.get(b"who") == b"second"
            assert values(await receive(lane, 1)) == [b"1"]


@scenario
async def test_two_members_of_one_bus_share_as_well(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        first, second = await bus.lanes("group", ["in"]), await bus.lanes("group", ["in"])
        ones, others = await shared(first, second)
        assert (len(ones), len(others)) == (2, 2)
        assert set(ones) | set(others) == set(range(PARTITIONS))


@scenario
async def test_lanes_that_need_not_move_do_not_move(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        first = await bus.lanes("group", ["in"])
        held = await lanes_of(first)
        second = await other.lanes("group", ["in"])
        await lanes_of(second, 2)
        kept = [lane for lane in held.values() if not lane.lost]
        assert len(kept) == 2
        third = await bus.lanes("group", ["in"])
        await lanes_of(third, 1)
        await third.close()
        await second.close()
        await lanes_of(first, 2)
        for lane in kept:
            if not lane.lost:
                await lane.commit({})
        assert sum(not lane.lost for lane in kept) >= 1


@scenario
async def test_more_members_than_lanes_leaves_some_waiting_until_a_lane_comes_free(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        members = [await bus.lanes("group", ["in"]) for _ in range(PARTITIONS)]
        lanes = await shared(*members)
        spare = await bus.lanes("group", ["in"])
        waiting = asyncio.create_task(anext(spare))
        await asyncio.wait([waiting], timeout=A_MOMENT_S)
        assert not waiting.done()
        await members[2].close()
        assert (await waiting).partition in lanes[2]


@scenario
async def test_groups_do_not_know_of_each_other(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        await bus.publish(numbered("in", 1))
        for group in ("one", "two"):
            lanes = await lanes_of(await bus.lanes(group, ["in"]))
            assert values(await receive(lanes[0], 1)) == [b"0"]


@scenario
async def test_leaving_a_group_loses_the_lanes_wakes_their_receivers_and_ends_the_iteration(
    deployment: Deployment,
) -> None:
    async with bus_with(deployment, "in") as bus:
        members = await bus.lanes("group", ["in"])
        lane = await lane_of(members, 0)
        receiving = asyncio.create_task(lane.receive(1, 30))
        iterating = asyncio.create_task(lanes_of(members, PARTITIONS))
        await asyncio.sleep(0)
        await members.close()
        await members.close()
        with pytest.raises(LaneLost):
            await receiving
        with pytest.raises(StopAsyncIteration):
            await anext(members)
        await asyncio.wait([iterating])
        assert iterating.exception() is not None
        assert lane.lost
        with pytest.raises(LaneLost):
            await lane.commit({})


@scenario
async def test_closing_the_bus_gives_up_its_lanes_at_once(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        waiting = await bus.lanes("group", ["in"])
        await lanes_of(waiting)
        async with await deployment.open() as other:
            lane = next(iter((await lanes_of(await other.lanes("group", ["in"]), 2)).values()))
        assert lane.lost
        assert set(await lanes_of(waiting, 2)) != set()


@scenario
async def test_a_lane_taken_away_is_granted_again_and_only_one_holder_can_commit(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus, await deployment.open() as other:
        first = await bus.lanes("group", ["in"])
        lane = await lane_of(first, 2)
        await deployment.take_away(lane)
        heir = await lane_of(first, 2)
        await heir.commit({}, (), {b"a": b"1"})
        with pytest.raises(LaneLost):
            await lane.commit({}, (), {b"a": b"2"})
        await other.publish(numbered("in", 1, partition=2))
        assert values(await receive(heir, 1)) == [b"0"]
        assert heir.state.get(b"a") == b"1"


async def copy(lane: Lane) -> None:
    """Copy a lane's inputs to ``out`` for as long as it is held."""
    with contextlib.suppress(LaneLost):
        while True:
            records = await lane.receive(7, SOON_S)
            copies = [Message("out", record.value, partition=record.partition) for record in records]
            await lane.commit(after(records), copies)


async def copy_all(members: Lanes) -> None:
    """Copy every lane that is granted, until the member leaves."""
    async with asyncio.TaskGroup() as tasks:
        async for lane in members:
            tasks.create_task(copy(lane))


@scenario
async def test_work_is_done_once_while_members_come_and_go(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus, await deployment.open() as other:
        await bus.publish([message for number in range(PARTITIONS) for message in numbered("in", 300, number)])
        watchers = await lanes_of(await other.lanes("watcher", ["out"]))
        async with asyncio.TaskGroup() as tasks:
            staying = await bus.lanes("group", ["in"])
            tasks.create_task(copy_all(staying))
            for turn in range(6):
                passing = await (other, bus)[turn % 2].lanes("group", ["in"])
                async with asyncio.timeout(SOON_S):
                    lane = await anext(passing)
                copying = tasks.create_task(copy(lane))
                tasks.create_task(copy_all(passing))
                await receive(watchers[lane.partition], 20)
                await passing.close()
                await copying
            for partition, watcher in watchers.items():
                end = await bus.lanes(f"end-{partition}", ["out"])
                assert values(await receive((await lanes_of(end))[partition], 300))[-1] == b"299"
                await end.close()
                assert watcher.partition == partition
            await staying.close()
        for partition in range(PARTITIONS):
            assert values(await content(bus, "out", partition)) == [b"%d" % number for number in range(300)]


@scenario
async def test_members_of_a_rolling_upgrade_may_read_different_topics(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "more") as bus, await deployment.open() as other:
        old, new = await bus.lanes("group", ["in"]), await other.lanes("group", ["in", "more"])
        olds, news = await shared(old, new)
        await bus.publish([message for number in range(PARTITIONS) for message in numbered("in", 2, number)])
        await bus.publish([message for number in range(PARTITIONS) for message in numbered("more", 1, number)])
        for lane in olds.values():
            records = await receive(lane, 2)
            assert {record.topic for record in records} == {"in"}
            await lane.commit({"in": records[0].offset + 1}, (), {b"who": b"old"})
        for lane in news.values():
            records = await receive(lane, 3)
            assert sorted(record.topic for record in records) == ["in", "in", "more"]
            await lane.commit(after(records), (), {b"who": b"new"})
        await old.close()
        for partition, lane in (await lanes_of(new, len(olds))).items():
            assert partition in olds
            assert lane.state.get(b"who") == b"old"
            assert sorted(record.topic for record in await receive(lane, 2)) == ["in", "more"]
        assert not any(lane.lost for lane in news.values())
