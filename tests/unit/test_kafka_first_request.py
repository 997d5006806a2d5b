"""What a client has opened is closed, whenever it is given up: while it asks who the brokers are, while it connects to one."""

import asyncio
import gc
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

from pavane_events.buses.kafka import connecting
from pavane_events.buses.kafka.client import client_arguments
from pavane_events.buses.kafka.connecting import Door
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.requests import Client
from pavane_events.errors import BusUnavailable

API_VERSIONS, METADATA = 18, 3
KNOWN = ((API_VERSIONS, 0, 0), (METADATA, 0, 0))
NO_BROKERS_NO_TOPICS = struct.pack(">ii", 0, 0)
ITSELF_NO_TOPICS = struct.pack(">iih9sii", 1, 7, 9, b"127.0.0.1", 1, 0)


@dataclass(slots=True)
class Broker:
    """Says which requests it knows, and answers those for metadata as it is told to, one after the other, or never."""

    port: int = 0
    metadata: list[bytes] = field(default_factory=list[bytes])
    """What is left to be said. The last of it is said again and again."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                api, _, correlation = struct.unpack_from(">hhi", await reader.readexactly(size))
                if api == API_VERSIONS:
                    known = b"".join(struct.pack(">hhh", *each) for each in KNOWN)
                    self._answer(writer, correlation, struct.pack(">hi", 0, len(KNOWN)) + known)
                elif not self.metadata:
                    self.asked.set()
                else:
                    self._answer(writer, correlation, self.metadata[0])
                    del self.metadata[: len(self.metadata) > 1]
        except asyncio.IncompleteReadError:
            self.ended.set()
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, correlation: int, content: bytes) -> None:
        writer.write(struct.pack(">ii", 4 + len(content), correlation) + content)


@asynccontextmanager
async def broker(*metadata: bytes) -> AsyncGenerator[Broker]:
    """A broker that listens on a port of this host."""
    listening = Broker(metadata=[*metadata])
    server = await asyncio.start_server(listening.serve, "127.0.0.1", 0)
    listening.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listening


def test_a_client_that_is_given_up_while_it_asks_for_the_brokers_leaves_no_connection() -> None:
    async def scenario() -> None:
        async with broker() as silent:
            connecting = asyncio.create_task(Door(f"127.0.0.1:{silent.port}", KafkaOptions()).connect("me"))
            await asyncio.wait_for(silent.asked.wait(), 5)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            del connecting
            gc.collect()  # whatever is left open says so here, and the warning is an error
            await silent.ended.wait()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_broker_that_knows_of_none_is_not_there_yet() -> None:
    async def scenario() -> None:
        async with broker(NO_BROKERS_NO_TOPICS) as empty:
            with pytest.raises(BusUnavailable, match="no brokers"):
                await Door(f"127.0.0.1:{empty.port}", KafkaOptions(request_timeout_ms=200)).connect("me")

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_broker_that_has_just_started_and_knows_of_none_yet_is_asked_until_it_knows_itself() -> None:
    async def scenario() -> None:
        async with broker(NO_BROKERS_NO_TOPICS, NO_BROKERS_NO_TOPICS, ITSELF_NO_TOPICS) as starting:
            client = await Door(f"127.0.0.1:{starting.port}", KafkaOptions()).connect("me")
            assert [each.nodeId for each in client.cluster.brokers()] == [7]
            await connecting.close(client)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_broker_that_knows_of_none_yet_does_not_keep_the_next_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with broker(NO_BROKERS_NO_TOPICS) as empty, broker(ITSELF_NO_TOPICS) as next_one:
            monkeypatch.setattr(connecting, "collect_hosts", in_order)
            servers = f"127.0.0.1:{empty.port},127.0.0.1:{next_one.port}"
            client = await Door(servers, KafkaOptions(request_timeout_ms=60_000)).connect("me")
            await connecting.close(client)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_broker_that_is_silent_does_not_keep_the_next_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with broker() as silent, broker(NO_BROKERS_NO_TOPICS) as next_one:
            monkeypatch.setattr(connecting, "collect_hosts", in_order)
            servers = f"127.0.0.1:{silent.port},127.0.0.1:{next_one.port}"
            with pytest.raises(BusUnavailable, match="no brokers"):
                await Door(servers, KafkaOptions(request_timeout_ms=200)).connect("me")
            assert silent.asked.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def in_order(servers: str) -> list[tuple[str, int, int]]:
    """Hosts as aiokafka has them, which shuffles them."""
    return [(host, int(port), 0) for host, port in (each.split(":") for each in servers.split(","))]


class Made:
    """A connection that stays open until it is closed."""

    def __init__(self) -> None:
        self.closed = False

    def connected(self) -> bool:
        return not self.closed

    def close(self, reason: object = None) -> "asyncio.Future[None]":
        self.closed = True
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def test_a_connection_that_is_made_when_its_client_is_closed_already_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        made, begun, go_on = Made(), asyncio.Event(), asyncio.Event()

        async def slowly(self: object, node_id: object, **others: object) -> AIOKafkaConnection:
            begun.set()
            await go_on.wait()
            return cast("AIOKafkaConnection", made)

        monkeypatch.setattr(AIOKafkaClient, "_get_conn", slowly)
        client = Client(**client_arguments("127.0.0.1:1", KafkaOptions()))
        asking = asyncio.create_task(client.ready(1))
        await begun.wait()
        await client.close()
        go_on.set()
        assert not await asking
        assert made.closed

    asyncio.run(scenario())
