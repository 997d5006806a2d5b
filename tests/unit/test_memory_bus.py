"""What only the memory bus promises: faults on demand, and the same history for the same seed."""

import asyncio
import contextlib
import math

import pytest

from conformance.deployments import after, content, lane_of, lanes_of, numbered, receive, scenario, values
from pavane_events.bus import Lane, TopicSpec
from pavane_events.buses.memory import Faults, MemoryBus
from pavane_events.buses.memory_lanes import HELD
from pavane_events.errors import LaneLost
from pavane_events.record import Message, Record

COUNT = 40


async def bus_with(faults: Faults | None = None) -> MemoryBus:
    bus = MemoryBus(2, clock=lambda: 1.5, faults=faults)
    await bus.create_topics([TopicSpec(topic) for topic in ("one", "two", "out")])
    return bus


async def copy(lane: Lane, received: list[Record]) -> None:
    """Copy inputs to ``out``, once each, whatever happens; several receives go into one commit."""
    copied = dict(lane.committed)
    with contextlib.suppress(LaneLost):
        while True:
            fresh: list[Record] = []
            for _ in range(3):
                for record in await lane.receive(4, 0):
                    received.append(record)
                    if record.offset >= copied[record.topic]:
                        copied[record.topic] = record.offset + 1
                        fresh.append(record)
            count = int(lane.state.get(b"count") or b"0") + len(fresh)
            copies = [
                Message("out", record.topic.encode() + b":" + (record.value or b""), partition=record.partition)
                for record in fresh
            ]
            await lane.commit(after(fresh), copies, {b"count": b"%d" % count})


async def history_of(faults: Faults) -> tuple[list[str], list[Record], list[Record]]:
    """Copy everything under faults; what was injected, received, and published in the end."""
    bus = await bus_with(faults)
    for topic in ("one", "two"):
        for partition in range(2):
            await bus.publish(numbered(topic, COUNT, partition))
    received: list[Record] = []
    members = [await bus.lanes("copy", ["one", "two"]) for _ in range(2)]

    async def work(number: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for lane in members[number]:
                tasks.create_task(copy(lane, received))

    working = [asyncio.create_task(work(number)) for number in range(2)]
    for _ in range(100_000):
        if len(await content(bus, "out")) >= 4 * COUNT:
            break
        await asyncio.sleep(0)
    for member in members:
        await member.close()
    await asyncio.gather(*working)
    faults.active = False
    for lane in (await lanes_of(await bus.lanes("copy", ["one", "two"]), 2)).values():
        assert lane.state.get(b"count") == b"%d" % (2 * COUNT)
    published = await content(bus, "out")
    await bus.close()
    return faults.history, received, published


def bad_day(seed: int) -> Faults:
    return Faults(seed, crash_before=0.1, crash_after=0.1, lost=0.05, duplicate=0.2, delay=0.3, reorder=0.5)


@pytest.mark.parametrize("seed", range(40))
@scenario
async def test_whatever_happens_every_input_is_copied_once_and_in_order(seed: int) -> None:
    _, _, published = await history_of(bad_day(seed))
    for partition in range(2):
        for topic in (b"one:", b"two:"):
            mine = [
                record.value or b""
                for record in published
                if record.partition == partition and (record.value or b"").startswith(topic)
            ]
            assert mine == [topic + b"%d" % number for number in range(COUNT)]


@scenario
async def test_one_seed_has_one_history_and_another_seed_another() -> None:
    first, again, other = [await history_of(bad_day(seed)) for seed in (7, 7, 8)]
    assert first == again
    assert first != other


@scenario
async def test_every_fault_occurs_and_is_written_down() -> None:
    history = [line for seed in range(5) for line in (await history_of(bad_day(seed)))[0]]
    for words in ("crash before", "crash after", "away, told", "away, untold", "wound back", "held back"):
        assert any(words in line for line in history), words


@scenario
async def test_a_crash_before_the_commit_leaves_nothing_and_one_after_it_everything() -> None:
    for faults, outputs in ((Faults(1, crash_before=1.0), 0), (Faults(1, crash_after=1.0), 1)):
        bus = await bus_with(faults)
        members = await bus.lanes("group", ["one"])
        lane = await lane_of(members, 0)
        with pytest.raises(LaneLost):
            await lane.commit({}, numbered("out", 1), {b"a": b"1"})
        heir = await lane_of(members, 0)
        assert heir.commit_number == outputs
        assert heir.state.get(b"a") == (b"1" if outputs else None)
        assert len(await content(bus, "out")) == outputs


@scenario
async def test_a_duplicate_comes_at_its_own_offset_and_never_from_before_the_commit() -> None:
    bus = await bus_with(Faults(1, duplicate=1.0))
    await bus.publish(numbered("one", 6))
    lane = await lane_of(await bus.lanes("group", ["one"]), 0)
    first = await receive(lane, 3)
    position = lane.positions["one"]
    again = await lane.receive(1, 0)
    assert again[0] in first
    assert lane.positions["one"] == position
    await lane.commit(after(first))
    assert values(await lane.receive(1, 0)) == [b"3"]


@scenario
async def test_order_over_topics_may_change_and_order_within_a_partition_never_does() -> None:
    bus = await bus_with(Faults(3, reorder=1.0, delay=0.5))
    for number in range(30):
        await bus.publish([*numbered("one", 1, first=number), *numbered("two", 1, first=number)])
    lane = await lane_of(await bus.lanes("group", ["one", "two"]), 0)
    records = await receive(lane, 60)
    assert [record.topic for record in records] != ["one", "two"] * 30
    for topic in ("one", "two"):
        assert [record.value for record in records if record.topic == topic] == [b"%d" % number for number in range(30)]


@scenario
async def test_offsets_have_gaps_and_time_is_passed_in() -> None:
    bus = await bus_with()
    for _ in range(3):
        await bus.publish(numbered("one", 2))
    records = await content(bus, "one")
    assert [record.offset for record in records] == [0, 1, 3, 4, 6, 7]
    assert {record.timestamp_ms for record in records} == {1500}


@scenario
async def test_a_lane_taken_away_with_notice_wakes_its_receiver_and_goes_to_another_member() -> None:
    bus = await bus_with()
    first, second = await bus.lanes("group", ["one"]), await bus.lanes("group", ["one"])
    lane = await lane_of(first, 0)
    receiving = asyncio.create_task(lane.receive(1, 30))
    await asyncio.sleep(0)
    bus.take_away("group", 0)
    with pytest.raises(LaneLost):
        await receiving
    assert (await lane_of(second, 0)).partition == 0


@scenario
async def test_who_does_not_know_that_he_lost_his_lane_is_at_work_until_he_is_told_or_has_done_what_he_read() -> None:
    async with MemoryBus(partitions=1) as bus:
        await bus.create_topics([TopicSpec("in")])
        lanes = await bus.lanes("group", ["in"])
        await bus.publish([Message(topic="in", key=b"k", value=b"v")])
        former = await anext(lanes)
        await former.receive(1, 1.0)
        former.take_away(told=False)
        holder = await anext(lanes)
        assert HELD.get() is holder
        await holder.receive(1, 1.0)
        await holder.commit({"in": holder.positions["in"]})
        assert [*bus.unsettled()] == [("group", "in")]
        former.take_away(told=False)
        former.take_away(told=True)
        assert former.lost
        assert not holder.lost
        assert [*bus.unsettled()] == []
        bus.tell()
        assert [*bus.readers()] == [holder]


def test_whoever_waits_can_be_made_to_look_and_gets_nothing() -> None:
    async def scene() -> None:
        bus = await bus_with()
        lane = await lane_of(await bus.lanes("g", ["one"]), 0)
        waiting = asyncio.create_task(lane.receive(1, math.inf))
        await asyncio.sleep(0)
        bus.look()
        assert await waiting == ()
        bus.look()
        await bus.publish(numbered("one", 1, 0))
        assert len(await lane.receive(1, math.inf)) == 1, "nobody waited: nobody was told to look"

    asyncio.run(scene())
