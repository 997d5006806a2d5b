"""Processes that the tests of the SQLite bus start, stop and kill: ``python sqlite_children.py <role> <file> ...``.

Each prints a line when it has come to a point that a test waits for.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

from pavane_events.bus import Lane, Lanes
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.errors import BusError, LaneLost
from pavane_events.record import Message


def say(line: str) -> None:
    print(line, flush=True)


async def copy(lane: Lane, maximum: int = 5) -> None:
    """Copy a lane's inputs to ``out`` and count them in its state, until it is lost."""
    with contextlib.suppress(LaneLost):
        while True:
            records = await lane.receive(maximum, 1.0)
            if records:
                count = int(lane.state.get(b"count") or b"0") + len(records)
                copies = [Message("out", record.value, record.key, partition=record.partition) for record in records]
                await lane.commit({"in": records[-1].offset + 1}, copies, {b"count": b"%d" % count})


async def copy_all(members: Lanes) -> None:
    """Copy every lane that is granted, until the member leaves."""
    async with asyncio.TaskGroup() as tasks:
        async for lane in members:
            tasks.create_task(copy(lane))


async def copier(path: str) -> None:
    """Copies until it is killed."""
    bus = await SqliteBus.open(path)
    members = await bus.lanes("copy", ["in"])
    say("joined")
    await copy_all(members)


async def zombie(path: str) -> None:
    """Commits to one lane, stops itself after 20 commits, goes on when it is told to, and says what it then finds."""
    async with await SqliteBus.open(path, lease_s=0.5) as bus:
        members = await bus.lanes("copy", ["in"])
        lane = await anext(members)
        say("joined")
        with contextlib.suppress(LaneLost):
            while True:
                await lane.commit({}, [Message("out", b"zombie", partition=0)], {b"who": b"zombie"})
                if lane.commit_number == 20:
                    os.kill(os.getpid(), signal.SIGSTOP)
        say(f"lost after {lane.commit_number}")


async def producer(path: str, name: str, count: str) -> None:
    """Publishes numbered messages in transactions of various sizes, and copies what lanes it is given."""
    async with await SqliteBus.open(path) as bus:
        members = await bus.lanes("copy", ["in"])
        copying = asyncio.create_task(copy_all(members))
        say("joined")
        first, size = 0, 1
        while first < int(count):
            numbers = range(first, min(first + size, int(count)))
            await bus.publish(
                [Message("in", f"{name}:{number}".encode(), partition=number % bus.partitions) for number in numbers]
            )
            first, size = first + size, size % 7 + 1
        say("published")
        await asyncio.to_thread(sys.stdin.readline)
        await members.close()
        await copying


async def opener(path: str, user: str | None = None) -> None:
    """Opens the file, if so asked as another user, and says how that went."""
    if user is not None:
        os.setuid(int(user))
    try:
        async with await SqliteBus.open(path, busy_timeout_s=5.0) as bus:
            say(f"opened with {bus.partitions}")
    except BusError as error:
        say(f"{type(error).__name__}: {error}")


async def writer_within_a_limit(path: str) -> None:
    """Publishes until the process may not make files any larger, and says how that went."""
    async with await SqliteBus.open(path) as bus:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        published = 0
        try:
            while True:
                await bus.publish([Message("in", b"x" * 9000, partition=0)] * 10)
                published += 10
        except BusError as error:
            say(f"{type(error).__name__}: {error}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await bus.publish([Message("in", b"last", partition=0)])
        say(f"published {published + 1}")


ROLES: dict[str, Callable[..., Coroutine[object, object, None]]] = {
    role.__name__: role for role in (copier, zombie, producer, opener, writer_within_a_limit)
}

if __name__ == "__main__":
    assert Path(sys.argv[2]).is_absolute()
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
