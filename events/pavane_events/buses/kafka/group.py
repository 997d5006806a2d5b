"""The group: membership through aiokafka's coordinator, offsets that are settled, and who else is alive."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.assignor import LaneAssignor
from pavane_events.buses.kafka.failures import COORDINATOR_MOVED, PASSING, Refused
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.protocol import UNSTABLE_OFFSET_COMMIT, OffsetFetch
from pavane_events.buses.kafka.transactions import Member

log = logging.getLogger("pavane.kafka")

_FOR_EVER_MS = 2**31 - 1
_REJOIN_BACKOFF_MS = 100
_UNSTABLE_S = 0.005
_CHECK_S = 0.25
_CLOSE_S = 3.0


class Group:
    """One membership. ``revoked`` is awaited before the group is joined anew, ``assigned`` called when it has been.

    ``revoked`` gets whether the brokers have put this member out: then others may hold its lanes already.
    The generation that ``assigned`` gets is the one it was assigned under: commits are held against that, never against
    what the coordinator has learnt since.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        name: str,
        partitions: int,
        options: KafkaOptions,
        *,
        held: Callable[[], tuple[int, Collection[int]]],
        revoked: Callable[[bool], Awaitable[None]],
        assigned: Callable[[Member, set[TopicPartition]], None],
    ) -> None:
        self.name = name
        self._client = client
        self._options = options
        self._assignor = LaneAssignor(partitions, held)
        self._listener = _Listener(self, revoked, assigned)
        self._subscription = SubscriptionState()
        self._coordinator: GroupCoordinator | None = None
        self._topics: set[str] = set()

    def join(self, topics: Collection[str]) -> None:
        """Join, or join anew, with these topics."""
        self._topics = set(topics)
        _ = self._client.set_topics(self._topics)
        if self._coordinator is None:
            self._coordinator = self._new_coordinator()
        self._subscription.subscribe(set(self._topics), listener=self._listener)

    def _new_coordinator(self) -> GroupCoordinator:
        options = self._options
        self._subscription.register_fetch_waiters(set())
        return GroupCoordinator(
            self._client,
            self._subscription,
            group_id=self.name,
            group_instance_id=options.instance,
            session_timeout_ms=options.session_ms,
            heartbeat_interval_ms=options.heartbeat_ms,
            retry_backoff_ms=_REJOIN_BACKOFF_MS,
            enable_auto_commit=False,
            assignors=(self._assignor,),
            max_poll_interval_ms=_FOR_EVER_MS,
            rebalance_timeout_ms=options.session_ms,
        )

    @property
    def is_member(self) -> bool:
        """Whether this group was joined and not closed."""
        return self._coordinator is not None

    @property
    def is_expelled(self) -> bool:
        """Whether the coordinator has no place in the group: none yet, or the brokers took it away."""
        return self._coordinator is None or self._coordinator.generation < 0

    @property
    def member(self) -> Member:
        """This member as the coordinator knows it now."""
        assert self._coordinator is not None
        return Member(self._coordinator.generation, self._coordinator.member_id, self._options.instance)

    async def watch(self) -> None:
        """See that the coordinator is at work, for ever; one that died is replaced. Raises what no waiting mends."""
        while True:
            await asyncio.sleep(_CHECK_S)
            assert self._coordinator is not None
            try:
                self._coordinator.check_errors()
            except KafkaError as error:
                if not error.retriable and getattr(error, "errno", -1) in _FORBIDDEN:
                    raise
                log.warning("the membership of %s failed, it joins anew: %r", self.name, error)
                await self._replace()

    async def _replace(self) -> None:
        await self._close_coordinator()
        self._subscription = SubscriptionState()
        self._coordinator = None
        self.join(self._topics)

    def expelled(self) -> None:
        """The brokers do not know this member any more: join as a new one."""
        if self._coordinator is not None:
            self._coordinator.reset_generation()

    def rejoin(self) -> None:
        """The group has moved on: join its next generation."""
        if self._coordinator is not None:
            self._coordinator.request_rejoin()

    async def offsets(self, places: Collection[TopicPartition], *, stable: bool) -> dict[TopicPartition, tuple[int, str]]:
        """Committed offsets with their metadata. ``stable``: waits until no open transaction is about to change them.

        Retries for as long as the coordinator is away. Raises :class:`Refused` for what waiting does not mend.
        """
        topics: dict[str, list[int]] = defaultdict(list)
        for each in places:
            topics[each.topic].append(each.partition)
        request = OffsetFetch(self.name, [(topic, partitions, {}) for topic, partitions in topics.items()], stable=stable)
        while True:
            coordinator = self._coordinator
            assert coordinator is not None
            try:
                await coordinator.ensure_coordinator_known()
                response = await coordinator._send_req(request)  # pyright: ignore[reportPrivateUsage]
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(_REJOIN_BACKOFF_MS / 1000)
                continue
            codes = [response.error_code, *(each[4] for _, partitions, _ in response.topics for each in partitions)]
            code = next((code for code in codes if code), 0)
            if not code:
                return {
                    TopicPartition(topic, partition): (offset, metadata or "")
                    for topic, partitions, _ in response.topics
                    for partition, offset, _, metadata, _, _ in partitions
                    if offset >= 0
                }
            if code not in PASSING:
                raise Refused(code, "OffsetFetch")
            if code in COORDINATOR_MOVED:
                coordinator.coordinator_dead()
            await asyncio.sleep(_UNSTABLE_S if code == UNSTABLE_OFFSET_COMMIT else _REJOIN_BACKOFF_MS / 1000)

    async def members(self) -> dict[str, str]:
        """By the ids of all members, those of their clients. Raises KafkaError where they cannot be asked for now."""
        coordinator = self._coordinator
        assert coordinator is not None
        await coordinator.ensure_coordinator_known()
        response = await coordinator._send_req(  # pyright: ignore[reportPrivateUsage]
            DescribeGroupsRequest([self.name])
        )
        for group in response.groups:
            if group[0]:
                raise for_code(group[0])(self.name)
        return {member[0]: member[1] for group in response.groups for member in group[5]}

    async def close(self) -> None:
        """Leave. Bounded: a broker that does not answer learns of it when the session ends."""
        await self._close_coordinator()

    async def _close_coordinator(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await coordinator.close()
        except (TimeoutError, KafkaError) as error:
            log.info("leaving %s was not confirmed: %r", self.name, error)
            for task in (
                coordinator._coordination_task,  # pyright: ignore[reportPrivateUsage]
                coordinator._heartbeat_task,  # pyright: ignore[reportPrivateUsage]
                coordinator._commit_refresh_task,  # pyright: ignore[reportPrivateUsage]
            ):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)


_FORBIDDEN = frozenset({24, 29, 30, 31, 53, 58})
"""INVALID_GROUP_ID, and everything that is not authorised or authenticated."""


class _Listener(ConsumerRebalanceListener):
    def __init__(
        self,
        group: Group,
        revoked: Callable[[bool], Awaitable[None]],
        assigned: Callable[[Member, set[TopicPartition]], None],
    ) -> None:
        self._group = group
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._revoked(self._group.is_expelled)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        if self._group.is_member:  # else it was closed while it joined
            self._assigned(self._group.member, assigned)
