"""Back-pressure: a lane takes in no more while what it holds is much, by number or by size."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pavane.commits import OUTBOX, OUTBOX_BYTES, WINDOW_BYTES, Commits
from pavane.marks import Marks
from pavane.overlay import Overlay
from pavane.progress import Progress
from pavane.units import Done
from pavane.waiting import Index
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.forgetting import Forgetting
from pavane_events.record import Message, Record


@asynccontextmanager
async def a_lane(window: int = 100) -> AsyncGenerator[tuple[Commits, Progress]]:
    """The commits of a lane that nobody makes."""
    async with MemoryBus(1) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out")])
        lane = await anext(await bus.lanes("group", ["in"]))
        state, progress = Overlay(lane.state), Progress()
        marks = Marks(lane, "1", [], 10)
        forgetting = Forgetting(state, {}, None, lambda: 0.0)
        yield Commits(lane, state, Index(state), progress, marks, window, forgetting, list), progress


async def has_room(commits: Commits) -> bool:
    """Whether the lane would take in more."""
    waiting = asyncio.create_task(commits.room())
    await asyncio.sleep(0)
    waiting.cancel()
    return waiting.done()


def an_input(offset: int) -> Record:
    return Record("in", 0, offset, None, b"", (), 0)


def test_many_unfinished_inputs_or_large_ones_leave_no_room() -> None:
    """Until one of them is finished."""

    async def test() -> None:
        for size, count in ((1, 100), (WINDOW_BYTES // 4, 4)):
            async with a_lane() as (commits, progress):
                for offset in range(count):
                    assert await has_room(commits)
                    progress.admit("in", offset, 1, size)
                assert not await has_room(commits)
                waiting = asyncio.create_task(commits.room())
                await asyncio.sleep(0)
                commits.settle(an_input(0), "step", Done())
                await asyncio.wait_for(waiting, 5)

    asyncio.run(test())


def test_many_messages_or_large_ones_leave_no_room() -> None:
    """Until they are committed."""

    async def test() -> None:
        for size, count in ((1, OUTBOX), (OUTBOX_BYTES // 4, 4)):
            async with a_lane(window=2 * OUTBOX) as (commits, progress):
                for offset in range(count):
                    assert await has_room(commits)
                    progress.admit("in", offset, 1)
                    commits.settle(an_input(offset), "step", Done([Message("out", b"." * size)]))
                assert not await has_room(commits)
                waiting = asyncio.create_task(commits.room())
                running = asyncio.create_task(commits.run())
                await asyncio.wait_for(waiting, 5)
                commits.finish()
                await asyncio.wait_for(running, 5)

    asyncio.run(test())
