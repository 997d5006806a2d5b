"""A commit is one thing: inputs done, outputs published, state changed; all of it or nothing, and by the holder only."""

import asyncio
from collections.abc import Mapping

import pytest

from conformance.deployments import (
    MAX_RECORD_BYTES,
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
from pavane_events.bus import Lane
from pavane_events.errors import LaneLost, PavaneError, RecordTooLarge, UnknownTopic
from pavane_events.record import Message


def state_of(lane: Lane) -> Mapping[bytes, bytes]:
    return dict(lane.state.scan(b""))


@scenario
async def test_a_commit_marks_inputs_publishes_outputs_and_changes_state(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        await bus.publish(numbered("in", 5))
        members = await bus.lanes("group", ["in"])
        lane = await lane_of(members, 0)
        records = await receive(lane, 3)
        await lane.commit(after(records), numbered("out", 2, partition=3), {b"a": b"1", b"b": b"2"})
        assert lane.committed["in"] == records[-1].offset + 1
        assert values(await content(bus, "out", partition=3)) == [b"0", b"1"]
        assert state_of(lane) == {b"a": b"1", b"b": b"2"}
        await members.close()
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        assert lane.committed["in"] == records[-1].offset + 1
        assert state_of(lane) == {b"a": b"1", b"b": b"2"}
        assert values(await receive(lane, 2)) == [b"3", b"4"]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Message("out", b"x" * (MAX_RECORD_BYTES + 1), partition=0), RecordTooLarge),
        (Message("unknown", b"x"), UnknownTopic),
        (Message("out", b"x", partition=99), UnknownTopic),
    ],
)
@scenario
async def test_a_bad_output_leaves_nothing_done_and_the_lane_usable(
    deployment: Deployment, bad: Message, error: type[PavaneError]
) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        await bus.publish(numbered("in", 1))
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        await lane.commit({}, (), {b"kept": b"before"})
        number, committed = lane.commit_number, dict(lane.committed)
        records = await receive(lane, 1)
        with pytest.raises(error):
            await lane.commit(after(records), [*numbered("out", 1), bad], {b"kept": b"after", b"new": b""})
        assert (lane.commit_number, dict(lane.committed)) == (number, committed)
        assert state_of(lane) == {b"kept": b"before"}
        assert await content(bus, "out") == []
        assert not lane.lost
        await lane.commit(after(records), numbered("out", 1), {b"kept": b"after"})
        assert len(await content(bus, "out")) == 1


@scenario
async def test_done_of_a_topic_that_does_not_exist_is_refused_whole(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        with pytest.raises(UnknownTopic):
            await lane.commit({"inn": 3}, numbered("out", 1))
        assert await content(bus, "out") == []
        assert lane.commit_number == 0


@scenario
async def test_every_commit_raises_the_number_by_one_the_empty_one_too(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        members = await bus.lanes("group", ["in"])
        lane = await lane_of(members, 0)
        numbers = [lane.commit_number]
        for state in (None, {b"a": b"1"}, {}, {b"a": None}):
            await lane.commit({}, (), state)
            numbers.append(lane.commit_number)
        assert numbers == [0, 1, 2, 3, 4]
        await members.close()
        assert (await lane_of(await bus.lanes("group", ["in"]), 0)).commit_number == 4


@scenario
async def test_offsets_stand_still_unless_named_and_never_go_back(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "more") as bus:
        await bus.publish([*numbered("in", 3), *numbered("more", 3)])
        members = await bus.lanes("group", ["in", "more"])
        lane = await lane_of(members, 0)
        records = await receive(lane, 6)
        first, *_, last = [record.offset for record in records if record.topic == "in"]
        await lane.commit({"in": last + 1})
        assert lane.committed == {"in": last + 1, "more": 0}
        await lane.commit({"in": first + 1, "more": 0})
        assert lane.committed == {"in": last + 1, "more": 0}
        await members.close()
        lane = await lane_of(await bus.lanes("group", ["in", "more"]), 0)
        assert lane.committed == {"in": last + 1, "more": 0}
        assert [record.topic for record in await receive(lane, 3)] == ["more"] * 3


@scenario
async def test_a_commit_ahead_of_what_was_received_skips_the_records_between(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "more") as bus:
        await bus.publish([*numbered("in", 6), *numbered("more", 1)])
        offsets = [record.offset for record in await content(bus, "in", partition=0)]
        lane = await lane_of(await bus.lanes("group", ["in", "more"]), 0)
        (first,) = await receive(lane, 1)
        await lane.commit({"in": offsets[4]})
        assert lane.positions["in"] == offsets[4]
        rest = await receive(lane, 3 if first.topic == "in" else 2)
        assert [(record.topic, record.value) for record in rest if record.topic == "in"] == [("in", b"4"), ("in", b"5")]


@scenario
async def test_outputs_to_one_partition_keep_their_order_over_commits(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        for first in range(0, 300, 100):
            await lane.commit({}, numbered("out", 100, partition=2, first=first))
        assert values(await content(bus, "out", partition=2)) == [b"%d" % number for number in range(300)]


@scenario
async def test_outputs_reach_lanes_of_this_bus_and_of_others(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus, await deployment.open() as other:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        here = await lane_of(await bus.lanes("here", ["out"]), 1)
        there = await lane_of(await other.lanes("there", ["out"]), 1)
        for turn in range(3):
            await lane.commit({}, numbered("out", 4, partition=1, first=4 * turn))
            assert values(await receive(here, 4)) == values(await receive(there, 4))


@scenario
async def test_commits_of_several_lanes_and_publishes_at_once_all_happen(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        members = await bus.lanes("group", ["in"])
        held = await lanes_of(members)
        lanes = [held[partition] for partition in range(4)]
        async with asyncio.TaskGroup() as tasks:
            for lane in lanes:
                tasks.create_task(lane.commit({}, numbered("out", 3, lane.partition), {b"p": b"%d" % lane.partition}))
                tasks.create_task(bus.publish(numbered("in", 2, lane.partition)))
        assert [state_of(lane) for lane in lanes] == [{b"p": b"%d" % number} for number in range(4)]
        assert len(await content(bus, "out")) == 12
        assert [len(await receive(lane, 2)) for lane in lanes] == [2] * 4


@scenario
async def test_state_is_a_lane_s_own_and_comes_in_key_order(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        members = await bus.lanes("group", ["in"])
        held = await lanes_of(members)
        lane, neighbour = held[0], held[1]
        pairs = {b"a": b"", b"a\xff": b"1", b"a\xff\xff": b"2", b"b": b"3", b"\xff": b"4", b"\xff\xff": b"5", b"": b"6"}
        await lane.commit({}, (), dict(reversed(pairs.items())))
        assert list(lane.state.scan(b"")) == sorted(pairs.items())
        assert list(lane.state.scan(b"a\xff")) == [(b"a\xff", b"1"), (b"a\xff\xff", b"2")]
        assert list(lane.state.scan(b"\xff")) == [(b"\xff", b"4"), (b"\xff\xff", b"5")]
        assert list(lane.state.scan(b"c")) == []
        assert (lane.state.get(b"a"), lane.state.get(b"c")) == (b"", None)
        assert state_of(neighbour) == {}
        other_group = await lane_of(await bus.lanes("other", ["in"]), 0)
        assert state_of(other_group) == {}


@scenario
async def test_a_scan_shows_the_state_as_of_its_call(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        await lane.commit({}, (), {b"a": b"1", b"b": b"1"})
        scan = lane.state.scan(b"")
        await lane.commit({}, (), {b"a": b"2", b"b": None, b"c": b"2"})
        assert list(scan) == [(b"a", b"1"), (b"b", b"1")]
        assert state_of(lane) == {b"a": b"2", b"c": b"2"}


@scenario
async def test_a_key_that_is_not_there_may_be_deleted(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        lane = await lane_of(await bus.lanes("group", ["in"]), 0)
        await lane.commit({}, (), {b"never": None})
        assert state_of(lane) == {}


@scenario
async def test_a_zombie_s_commit_raises_lane_lost_and_changes_nothing(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        await bus.publish(numbered("in", 2))
        members = await bus.lanes("group", ["in"])
        zombie = await lane_of(members, 0)
        await zombie.commit({}, (), {b"who": b"first"})
        records = await receive(zombie, 2)
        await deployment.take_away(zombie)
        with pytest.raises(LaneLost):
            await zombie.commit(after(records), numbered("out", 1), {b"who": b"zombie"})
        assert zombie.lost
        assert await content(bus, "out") == []
        heir = await lane_of(members, 0)
        assert (heir.commit_number, heir.committed["in"], state_of(heir)) == (1, 0, {b"who": b"first"})
        assert await receive(heir, 2) == records
        await heir.commit(after(records), numbered("out", 1), {b"who": b"heir"})
        with pytest.raises(LaneLost):
            await zombie.commit({})
        with pytest.raises(LaneLost):
            await zombie.receive(1, 0)
        with pytest.raises(LaneLost):
            await zombie.high_watermarks()
        with pytest.raises(LaneLost):
            zombie.state.get(b"who")
        with pytest.raises(LaneLost):
            zombie.state.scan(b"")
        assert state_of(heir) == {b"who": b"heir"}
        assert len(await content(bus, "out")) == 1


@scenario
async def test_a_zombie_s_empty_commit_is_fenced_too_after_the_heir_s_empty_one(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        members = await bus.lanes("group", ["in"])
        zombie = await lane_of(members, 0)
        await deployment.take_away(zombie)
        heir = await lane_of(members, 0)
        await heir.commit({})
        with pytest.raises(LaneLost):
            await zombie.commit({}, (), {b"timer": b"fired"})
        assert state_of(heir) == {}


@scenario
async def test_a_commit_that_is_under_way_when_its_lane_is_given_up_changes_nothing(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        members = await bus.lanes("group", ["in"])
        lane = await lane_of(members, 0)
        committing = asyncio.create_task(lane.commit({}, numbered("out", 1), {b"a": b"1"}))
        await asyncio.sleep(0)
        await members.close()
        with pytest.raises(LaneLost):
            await committing
        heir = await lane_of(await bus.lanes("group", ["in"]), 0)
        assert (heir.commit_number, state_of(heir), await content(bus, "out")) == (0, {}, [])


@scenario
async def test_what_was_not_committed_comes_again_with_state_as_old_as_the_offsets(deployment: Deployment) -> None:
    async with bus_with(deployment, "in") as bus:
        await bus.publish(numbered("in", 20))
        state: list[Mapping[bytes, bytes]] = []
        seen: list[list[bytes | None]] = []
        for _ in range(4):
            members = await bus.lanes("group", ["in"])
            lane = await lane_of(members, 0)
            state.append(state_of(lane))
            records = await receive(lane, 8)
            seen.append(values(records))
            await lane.commit(after(records[:4]), (), {b"last": records[3].value})
            await members.close()
    assert seen == [[b"%d" % number for number in range(4 * turn, 4 * turn + 8)] for turn in range(4)]
    assert state == [{}, {b"last": b"3"}, {b"last": b"7"}, {b"last": b"11"}]


@scenario
async def test_a_cancelled_commit_happens_whole_or_not_and_harms_nobody(deployment: Deployment) -> None:
    async with bus_with(deployment, "in", "out") as bus:
        members = await bus.lanes("group", ["in"])
        held = await lanes_of(members)
        lane, neighbour = held[0], held[1]
        happened = 0
        for turn in range(6):
            task = asyncio.create_task(lane.commit({}, numbered("out", 3), {b"turn": b"%d" % turn}))
            beside = asyncio.create_task(neighbour.commit({}, numbered("out", 1, partition=1)))
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await beside
            outputs = len(await content(bus, "out", partition=0))
            assert outputs in (3 * happened, 3 * (happened + 1))
            if outputs > 3 * happened:
                happened += 1
                assert lane.state.get(b"turn") == b"%d" % turn
            assert lane.commit_number == happened
            await lane.commit({}, (), {b"turn": b"-"})
            happened += 1
            await bus.publish(numbered("out", 3))  # so that there are three outputs per commit that happened
        assert neighbour.commit_number == 6
        assert len(await content(bus, "out", partition=1)) == 6
