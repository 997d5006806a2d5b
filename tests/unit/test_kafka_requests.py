"""Requests to a broker end in aiokafka's own errors, also where many time out at once."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.api import Response
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from pavane_events.buses.kafka.client import client_arguments
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.requests import Client

NODE = 1
HERE = (NODE, ConnectionGroup.DEFAULT)
REQUEST = MetadataRequest([])


class Silent:
    """A connection on which nobody answers."""

    def __init__(self) -> None:
        self.closed = False
        self.silence: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def connected(self) -> bool:
        return not self.closed

    async def send(self, request: object, expect_response: bool = True) -> object:
        return await self.silence

    def close(self, reason: object = None) -> None:
        self.closed = True


def test_a_request_that_times_out_after_its_connection_was_dropped_is_a_timeout_and_leaves_the_new_one_alone() -> None:
    async def scenario() -> None:
        client = Client(**client_arguments("127.0.0.1:1", KafkaOptions()))
        old, new = Silent(), Silent()
        client._conns[HERE] = cast("AIOKafkaConnection", old)
        requests = [asyncio.create_task(client.send(NODE, REQUEST)) for _ in range(3)]
        await asyncio.sleep(0)
        del client._conns[HERE]
        old.silence.set_exception(TimeoutError())
        with pytest.raises(RequestTimedOutError):
            await requests[0]
        client._conns[HERE] = cast("AIOKafkaConnection", new)
        for request in requests[1:]:
            with pytest.raises(RequestTimedOutError):
                await request
        assert old.closed
        assert not new.closed

    asyncio.run(scenario())


class Timed:
    """A connection that answers nobody either, and remembers how long each request would have been waited for."""

    def __init__(self) -> None:
        self._request_timeout = 0.0
        self.patience_s: list[float] = []

    def connected(self) -> bool:
        return True

    async def send(self, request: object, expect_response: bool = True) -> object:
        self.patience_s.append(self._request_timeout)
        return await asyncio.Event().wait()


def test_only_joining_a_group_and_what_waits_behind_it_is_waited_for_longer() -> None:
    async def scenario() -> None:
        client = Client(**client_arguments("127.0.0.1:1", KafkaOptions(request_timeout_ms=2_000)), join_ms=9_000)
        connection = Timed()
        client._conns[(NODE, ConnectionGroup.COORDINATION)] = cast("AIOKafkaConnection", connection)
        heartbeat = HeartbeatRequest("group", 1, "member")
        join = JoinGroupRequest("group", 1, 1, "", "", "consumer", [])
        for requests in ([heartbeat], [join, heartbeat], [heartbeat]):
            tasks = [asyncio.create_task(client.send(NODE, each, group=ConnectionGroup.COORDINATION)) for each in requests]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert connection.patience_s == [2.0, 11.0, 11.0, 2.0]

    asyncio.run(scenario())


def test_a_node_that_nobody_knows_is_not_ready() -> None:
    async def scenario() -> None:
        client = Client(**client_arguments("127.0.0.1:1", KafkaOptions()))
        with pytest.raises(NodeNotReadyError, match="node 7"):
            await client.send(7, REQUEST)

    asyncio.run(scenario())


def test_who_left_a_request_unanswered_is_not_asked_for_what_others_know_until_he_answers() -> None:
    async def scenario() -> None:
        client = Client(**client_arguments("127.0.0.1:1", KafkaOptions()))
        assert client.get_random_node() is None
        nodes = (1, 2, 3)
        known = SimpleNamespace(
            brokers=[(each, "127.0.0.1", 1, None) for each in nodes], API_VERSION=1, controller_id=1, topics=[]
        )
        client.cluster.update_metadata(cast("Response", known))

        def asked() -> set[int | None]:
            return {client.get_random_node() for _ in range(200)}

        assert asked() == {1, 2, 3}
        for node in nodes:
            silent = Silent()
            silent.silence.set_exception(TimeoutError())
            client._conns[node, ConnectionGroup.DEFAULT] = cast("AIOKafkaConnection", silent)
            with pytest.raises(RequestTimedOutError):
                await client.send(node, REQUEST)
            assert asked() == {each for each in nodes if each > node} or node == 3
        assert asked() == {1, 2, 3}
        answering = Silent()
        answering.silence.set_result("here")
        client._conns[2, ConnectionGroup.DEFAULT] = cast("AIOKafkaConnection", answering)
        assert str(await client.send(2, REQUEST)) == "here"
        assert asked() == {2}

    asyncio.run(scenario())
