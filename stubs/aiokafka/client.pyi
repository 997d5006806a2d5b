from asyncio import Future, Task
from collections.abc import Collection
from enum import IntEnum
from ssl import SSLContext

from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.api import Request, RequestStruct, Response

class ConnectionGroup(IntEnum):
    DEFAULT = 0
    COORDINATION = 1

class CoordinationType(IntEnum):
    GROUP = 0
    TRANSACTION = 1

class AIOKafkaClient:
    cluster: ClusterMetadata
    _sync_task: Task[None] | None
    _conns: dict[tuple[int | str, ConnectionGroup], AIOKafkaConnection]
    async def _get_conn(
        self, node_id: int | str, *, group: ConnectionGroup = ..., no_hint: bool = False
    ) -> AIOKafkaConnection | None: ...
    def __init__(
        self,
        *,
        bootstrap_servers: str | list[str] = "localhost",
        client_id: str = ...,
        metadata_max_age_ms: int = 300000,
        request_timeout_ms: int = 40000,
        retry_backoff_ms: int = 100,
        ssl_context: SSLContext | None = None,
        security_protocol: str = "PLAINTEXT",
        connections_max_idle_ms: int | None = 540000,
        sasl_mechanism: str = "PLAIN",
        sasl_plain_username: str | None = None,
        sasl_plain_password: str | None = None,
    ) -> None: ...
    async def _md_synchronizer(self) -> None: ...
    async def close(self) -> None: ...
    def get_random_node(self) -> int | None: ...
    async def ready(self, node_id: int | str, *, group: ConnectionGroup = ...) -> bool: ...
    async def send(self, node_id: int | str, request: Request[RequestStruct], *, group: ConnectionGroup = ...) -> Response: ...
    def force_metadata_update(self) -> Future[bool]: ...
    async def fetch_all_metadata(self) -> ClusterMetadata: ...
    def add_topic(self, topic: str) -> Future[bool]: ...
    def set_topics(self, topics: Collection[str]) -> Future[bool]: ...
    async def coordinator_lookup(self, coordinator_type: int, coordinator_key: str) -> int: ...
