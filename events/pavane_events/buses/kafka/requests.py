"""aiokafka's client, with requests that end in one of its own errors and in nothing else."""

import asyncio
import random
from typing import Unpack

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from pavane_events.buses.kafka.client import ClientArguments


class NoBrokersYet(KafkaConnectionError):
    """A broker that has just started may know of none, not even of itself."""


class Client(AIOKafkaClient):
    """A client whose requests hold the connection that they were sent on, and that asks others before who was silent.

    aiokafka looks it up once more when a request times out. Where several time out at once, as after a machine's pause,
    another task has dropped that connection by then, and the request ends in a ``KeyError``, or closes the new one.

    ``join_ms``: how much longer than others a request may take that waits for other members of a group. Only they are
    waited for so long: a broker that has frozen is noticed by all others, on whatever it is asked, in the ordinary time.
    """

    def __init__(self, *, join_ms: int = 0, **arguments: Unpack[ClientArguments]) -> None:
        super().__init__(**arguments)
        self._ordinary_s = arguments["request_timeout_ms"] / 1000
        self._join_s = join_ms / 1000
        self._joining = 0
        self.missed = 0
        """How often a connection could not be made."""
        self._closed = False
        self._mute: set[int | str] = set()

    def get_random_node(self) -> int | None:
        """A broker to ask what any of them knows; none that left the last request to it unanswered, where there are others."""
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        return random.choice([each for each in nodes if each not in self._mute] or nodes) if nodes else None

    async def begin(self, connection: AIOKafkaConnection) -> None:
        """Read the cluster's metadata over a connection, which stays the caller's, and keep it fresh from now on.

        In place of ``bootstrap``, which forgets its connection where it is cancelled while it waits. Raises
        :class:`aiokafka.errors.KafkaError` and :class:`OSError`: no answer, or :class:`NoBrokersYet`.
        """
        metadata = await connection.send(MetadataRequest([]))
        if not metadata.brokers:
            raise NoBrokersYet("it knows of no brokers yet")
        self.cluster.update_metadata(metadata)
        self._sync_task = asyncio.create_task(self._md_synchronizer())

    async def close(self) -> None:
        """Close all connections, also one that is being made."""
        self._closed = True
        await super().close()

    async def _get_conn(
        self, node_id: int | str, *, group: ConnectionGroup = ConnectionGroup.DEFAULT, no_hint: bool = False
    ) -> AIOKafkaConnection | None:
        connection = await super()._get_conn(node_id, group=group, no_hint=no_hint)
        if connection is not None and self._closed:
            await connection.close(reason=CloseReason.SHUTDOWN)
            return None
        self.missed += connection is None
        return connection

    async def send(
        self, node_id: int | str, request: Request[RequestStruct], *, group: ConnectionGroup = ConnectionGroup.DEFAULT
    ) -> Response:
        """The broker's response. Raises :class:`aiokafka.errors.KafkaError`: no connection, broken, timed out."""
        connection = await self._get_conn(node_id, group=group)
        if connection is None:
            self._mute.add(node_id)
            raise NodeNotReadyError(f"there is no connection to node {node_id}")
        joins = isinstance(request, JoinGroupRequest | SyncGroupRequest)
        self._joining += joins
        if group is ConnectionGroup.COORDINATION:  # what is sent there while somebody joins is answered after that
            connection._request_timeout = self._ordinary_s + (self._join_s if self._joining else 0.0)
        try:
            response = await connection.send(request)
        except TimeoutError as error:
            self._mute.add(node_id)
            _ = connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise RequestTimedOutError from error
        finally:
            self._joining -= joins
        self._mute.discard(node_id)
        return response
