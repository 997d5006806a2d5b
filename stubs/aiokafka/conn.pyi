from asyncio import Future
from collections.abc import Iterable
from enum import IntEnum
from ssl import SSLContext

from aiokafka.protocol.api import Request, RequestStruct, Response

class CloseReason(IntEnum):
    CONNECTION_TIMEOUT = 1
    SHUTDOWN = 4

class AIOKafkaConnection:
    _request_timeout: float
    def connected(self) -> bool: ...
    def close(self, reason: int | None = None, exc: BaseException | None = None) -> Future[None]: ...
    def send(self, request: Request[RequestStruct], expect_response: bool = True) -> Future[Response]: ...

async def create_conn(
    host: str,
    port: int,
    *,
    client_id: str = "aiokafka",
    request_timeout_ms: int = 40000,
    ssl_context: SSLContext | None = None,
    security_protocol: str = "PLAINTEXT",
    max_idle_ms: int | None = None,
    sasl_mechanism: str | None = None,
    sasl_plain_username: str | None = None,
    sasl_plain_password: str | None = None,
) -> AIOKafkaConnection: ...
def collect_hosts(hosts: str | Iterable[str], randomize: bool = True) -> list[tuple[str, int, int]]: ...
