from asyncio import Task
from collections.abc import Collection

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.protocol.api import Request, RequestStruct, Response

class GroupCoordinator:
    group_id: str
    coordinator_id: int | None
    generation: int
    member_id: str
    # what keeps it going; to be cancelled where it cannot be closed in time
    _coordination_task: Task[None]
    _heartbeat_task: Task[None] | None
    _commit_refresh_task: Task[None] | None
    def __init__(
        self,
        client: AIOKafkaClient,
        subscription: SubscriptionState,
        *,
        group_id: str = ...,
        group_instance_id: str | None = None,
        session_timeout_ms: int = 10000,
        heartbeat_interval_ms: int = 3000,
        retry_backoff_ms: int = 100,
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 5000,
        assignors: Collection[AbstractPartitionAssignor | type[AbstractPartitionAssignor]] = ...,
        exclude_internal_topics: bool = True,
        max_poll_interval_ms: int = 300000,
        rebalance_timeout_ms: int = 30000,
    ) -> None: ...
    def check_errors(self) -> None: ...
    def reset_generation(self) -> None: ...
    def request_rejoin(self) -> None: ...
    def coordinator_dead(self) -> None: ...
    async def ensure_coordinator_known(self) -> None: ...
    async def _send_req(self, request: Request[RequestStruct]) -> Response: ...
    async def close(self) -> None: ...
