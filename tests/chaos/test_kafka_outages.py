"""Brokers that are gone for long, or have no room left: everybody waits, goes on by himself, and nothing is lost."""

import asyncio
import errno
import shlex
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE

import pytest

from chaos.kafka_crew import Worker, a_worker
from chaos.kafka_feed import Feed
from chaos.kafka_order import Order
from chaos.kafka_outputs import Reader, read_all
from chaos.kafka_scale import scaled
from pavane.dev.kafka import KafkaCluster
from pavane_events.bus import TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.errors import PavaneError
from pavane_events.record import Message
from support.kafka import MakeKafka
from support.require import unavailable

EVENTS = 2_000
OUTAGE_S = scaled(15.0, 75.0)
"""Longer than a session and a transaction's timeout; in the long form than a minute, too."""

DISK_MB = 64
NOISE = TopicSpec("noise")
PATIENCE_S = 120.0

pytestmark = pytest.mark.slow

Outage = Callable[[Feed], Awaitable[None]]


async def copy_through(cluster: KafkaCluster, log: Path, outage: Outage) -> None:
    """Two workers copy; in the middle of it the outage comes and goes; they are the same two afterwards."""
    order = Order(cluster.servers, f"out-{uuid.uuid4().hex[:8]}.")
    async with await order.open() as bus:
        await bus.create_topics([TopicSpec(order.source), TopicSpec(order.target)])
    feed, reader = Feed(order, seed=3), Reader(order)
    with reader.reading():
        async with AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(a_worker(order, log / f"{name}.log", name=name)) for name in ("one", "two")
            ]
            await asyncio.to_thread(feed.send, EVENTS // 2)
            await reader.until(EVENTS // 8, PATIENCE_S)
            await outage(feed)
            back = time.monotonic()
            seen = reader.count
            await _alive(workers, lambda: reader.count > seen or seen == feed.count)
            print(f"{time.monotonic() - back:.1f} s after the broker was back the first output came")
            await asyncio.to_thread(feed.flush)
            await asyncio.to_thread(feed.send, EVENTS - feed.count)
            await reader.until(EVENTS, PATIENCE_S)
            await asyncio.gather(*(each.leave() for each in workers))
    assert reader.outputs.by_key == feed.by_key
    again = await asyncio.to_thread(read_all, order)
    assert (again.problems, again.by_key) == ([], feed.by_key)


async def _alive(workers: list[Worker], is_so: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        for each in workers:
            each.check()
        assert time.monotonic() < give_up, "\n".join(each.report() for each in workers)
        await asyncio.sleep(0.02)


def run(scenario: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(360):
            await scenario

    asyncio.run(bounded())


def test_workers_outlive_a_broker_that_is_gone_for_long(make_kafka: MakeKafka, tmp_path: Path) -> None:
    cluster = make_kafka()

    async def outage(feed: Feed) -> None:
        await asyncio.to_thread(cluster.kill)
        feed.send(EVENTS // 4, wait=False)
        await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(cluster.start)

    run(copy_through(cluster, tmp_path, outage))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full: mounted here, else in a name space where everybody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with ExitStack() as stack:
        try:
            yield stack.enter_context(mounted(folder))
        except NoDisk as here:
            try:
                yield stack.enter_context(mounted_elsewhere(folder))
            except NoDisk as elsewhere:
                unavailable("kafka", f"no small file system for its data can be mounted: {here}; {elsewhere}")


class NoDisk(Exception):
    """Why a file system cannot be mounted in this way."""


def mounting(folder: Path) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]


@contextmanager
def mounted(folder: Path) -> Generator[Path]:
    try:
        made = subprocess.run(mounting(folder), capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise NoDisk(str(error)) from None
    if made.returncode != 0:
        raise NoDisk(made.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, timeout=30, check=True)


@contextmanager
def mounted_elsewhere(folder: Path) -> Generator[Path]:
    """In a name space of its own, held by a process of ours, and reached through it."""
    holding = f"{shlex.join(mounting(folder))} && echo mounted && read -r _"
    try:
        holder = subprocess.Popen(["unshare", "-rm", "sh", "-c", holding], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    except FileNotFoundError as error:
        raise NoDisk(str(error)) from None
    with holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            raise NoDisk(holder.stderr.read().strip())
        yield Path(f"/proc/{holder.pid}/root{folder}")  # the holder ends with its input, and the mount with it


def test_a_small_disk_in_a_name_space_is_reached_from_here_and_is_soon_full(tmp_path: Path) -> None:
    try:
        with mounted_elsewhere(tmp_path) as disk:
            fill(disk / "ballast")
            assert DISK_MB * 1_000_000 < (disk / "ballast").stat().st_size <= DISK_MB * 1024 * 1024
            assert list(tmp_path.iterdir()) == []
    except NoDisk as problem:
        pytest.skip(f"no name space of its own to mount in: {problem}")


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(65_536))
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_workers_outlive_a_broker_whose_disk_is_full(make_kafka: MakeKafka, small_disk: Path, tmp_path: Path) -> None:
    cluster = make_kafka(folder=small_disk / "kafka")
    ballast = small_disk / "ballast"
    node = cluster.node(1)

    async def outage(feed: Feed) -> None:
        async with await open_bus(cluster.url, partitions=1) as bus:
            await bus.create_topics([NOISE])
            await asyncio.to_thread(feed.send, EVENTS // 4)
            await asyncio.to_thread(fill, ballast)
            async with asyncio.timeout(PATIENCE_S):
                while node.pid is not None:  # it gives up by itself as soon as it cannot write
                    with suppress(PavaneError):  # what the workers are fed must not be what fails
                        await bus.publish([Message(NOISE.name, bytes(10_000), key=b"noise")])
        assert node.has_vanished
        feed.send(EVENTS // 8, wait=False)
        ballast.unlink()
        await asyncio.to_thread(cluster.start)

    run(copy_through(cluster, tmp_path, outage))
