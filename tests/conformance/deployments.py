"""What the suite runs on: one deployment per adapter, and the few words that tests share."""

import asyncio
import functools
import sqlite3
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import ParamSpec, Protocol

from aiokafka.client import CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from pavane_events.bus import Bus, Lane, Lanes, TopicSpec
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.connecting import connected
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.record import Message, Record
from pavane_tracing.conventions import Naming
from pavane_tracing.measured_bus import measured
from pavane_tracing.messaging_metrics import MessagingMetrics

PARTITIONS = 4
MAX_RECORD_BYTES = 10_000
STATE_BYTES = 500
"""So little that of nearly all state most lies in files."""

SOON_S = 10.0
"""More than anything takes that is going to happen at all."""

A_MOMENT_S = 0.05
"""Time enough for something to happen that must not."""

P = ParamSpec("P")


class Deployment(Protocol):
    """Topics and groups of one adapter, and what may be done to them from outside."""

    async def open(self) -> Bus:
        """Another bus on the same content, as another process opens it: 4 partitions, records of 10,000 bytes."""
        ...

    async def take_away(self, lane: Lane) -> None:
        """Take a lane from its holder without telling it. The lane is granted again to a member of its group."""
        ...


class MemoryDeployment:
    def __init__(self) -> None:
        self._first = MemoryBus(PARTITIONS, MAX_RECORD_BYTES)

    async def open(self) -> Bus:
        return self._first.peer()

    async def take_away(self, lane: Lane) -> None:
        self._first.take_away(lane.group, lane.partition, told=False)


class MeasuredDeployment(MemoryDeployment):
    """What agents work on where somebody collects measurements."""

    async def open(self) -> Bus:
        return measured(await super().open(), MessagingMetrics("pavane", Naming()))


class SqliteDeployment:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> Bus:
        return await SqliteBus.open(self._path, PARTITIONS, max_record_bytes=MAX_RECORD_BYTES)

    async def take_away(self, lane: Lane) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(
                "UPDATE lanes SET member = NULL, token = token + 1 WHERE grp = ? AND partition = ?",
                (lane.group, lane.partition),
            )
            connection.execute("UPDATE bus SET epoch = epoch + 1")


class KafkaDeployment:
    """A deployment of its own on brokers that others use as well: under a prefix that nobody else has."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._options = KafkaOptions(prefix=f"c{uuid.uuid4().hex[:10]}.", session_ms=6_000, heartbeat_ms=300)

    async def open(self) -> Bus:
        return await KafkaBus.open(
            self._servers, PARTITIONS, self._options, max_record_bytes=MAX_RECORD_BYTES, state_bytes=STATE_BYTES
        )

    async def take_away(self, lane: Lane) -> None:
        """Put its holder out of the group, as brokers do with a member that has fallen silent."""
        async with connected(self._servers, self._options) as client:
            group = self._options.physical(lane.group)
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, DescribeGroupsRequest([group]))
            for member_id, *_, assignment in response.groups[0][5]:
                held = ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()
                if any(place.partition == lane.partition for place in held):
                    await client.send(node, LeaveGroupRequest(group, member_id))


def scenario(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A test that is a coroutine, run in an event loop of its own, and not for ever."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(120):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


@asynccontextmanager
async def bus_with(deployment: Deployment, *topics: str) -> AsyncGenerator[Bus, None]:
    """A bus of the deployment on which these topics exist."""
    async with await deployment.open() as bus:
        await bus.create_topics([TopicSpec(topic) for topic in topics])
        yield bus


async def lanes_of(members: Lanes, count: int = PARTITIONS) -> dict[int, Lane]:
    """The next so many lanes granted, by partition."""
    async with asyncio.timeout(SOON_S):
        lanes = [await anext(members) for _ in range(count)]
    return {lane.partition: lane for lane in lanes}


async def shared(*members: Lanes) -> list[dict[int, Lane]]:
    """What each member holds once they have shared all lanes out among them."""
    held: list[dict[int, Lane]] = [{} for _ in members]

    async def take(mine: dict[int, Lane], member: Lanes) -> None:
        async for lane in member:
            mine[lane.partition] = lane

    def are_out() -> bool:
        holders = [partition for mine in held for partition, lane in mine.items() if not lane.lost]
        shares = [sum(not lane.lost for lane in mine.values()) for mine in held]
        return len(holders) == PARTITIONS and max(shares) - min(shares) <= 1

    tasks = [asyncio.create_task(take(mine, member)) for mine, member in zip(held, members, strict=True)]
    await until(are_out)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return [{partition: lane for partition, lane in mine.items() if not lane.lost} for mine in held]


async def lane_of(members: Lanes, partition: int) -> Lane:
    """The lane of a partition, as soon as it is granted."""
    async with asyncio.timeout(SOON_S):
        while True:
            lane = await anext(members)
            if lane.partition == partition and not lane.lost:
                return lane


async def receive(lane: Lane, count: int, maximum: int = 1000) -> list[Record]:
    """The next ``count`` records of a lane."""
    records: list[Record] = []
    while len(records) < count:
        more = await lane.receive(min(maximum, count - len(records)), SOON_S)
        assert more, f"only {len(records)} of {count} records came"
        records += more
    return records


async def content(bus: Bus, topic: str, partition: int | None = None) -> list[Record]:
    """All records of a topic."""
    return [record async for record in bus.read(topic, partition=partition)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or task brings about."""
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)


def numbered(topic: str, count: int, partition: int | None = 0, first: int = 0) -> list[Message]:
    """Messages with values 0, 1, 2..."""
    return [Message(topic, b"%d" % number, partition=partition) for number in range(first, first + count)]


def values(records: Sequence[Record]) -> list[bytes | None]:
    """The values of records."""
    return [record.value for record in records]


def after(records: Sequence[Record]) -> dict[str, int]:
    """What ``done`` is when these records are done."""
    return {record.topic: record.offset + 1 for record in records}
