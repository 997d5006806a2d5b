"""aiokafka's client, with requests that end in one of its own errors and in nothing else."""

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.api import Request, RequestStruct, Response


class Client(AIOKafkaClient):
    """A client whose requests hold the connection that they were sent on.

    aiokafka looks it up once more when a request times out. Where several time out at once, as after a machine's pause,
    another task has dropped that connection by then, and the request ends in a ``KeyError``, or closes the new one.
    """

    async def send(
        self, node_id: int | str, request: Request[RequestStruct], *, group: ConnectionGroup = ConnectionGroup.DEFAULT
    ) -> Response:
        """The broker's response. Raises :class:`aiokafka.errors.KafkaError`: no connection, broken, timed out."""
        connection = await self._get_conn(node_id, group=group)
        if connection is None:
            raise NodeNotReadyError(f"there is no connection to node {node_id}")
        try:
            return await connection.send(request)
        except TimeoutError as error:
            _ = connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise RequestTimedOutError from error
